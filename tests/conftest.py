"""Which tests run in one process, when several processes share the suite (`pytest -n`)."""

import pytest

_FIRST = ("registry", "e2e", "clients", "cli")  # the longest: what begins last should be short


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A module stays in one process, so that its fixtures are made once; tests/registry, with its servers, too."""
    for item in items:
        room = item.path.parent.name
        if not any(item.iter_markers("xdist_group")):
            item.add_marker(pytest.mark.xdist_group(room if room == "registry" else item.path.as_posix()))
    order = {room: place for place, room in enumerate(_FIRST)}
    items.sort(key=lambda item: order.get(item.path.parent.name, len(order)))
