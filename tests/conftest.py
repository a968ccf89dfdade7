"""In which order the tests run, so that two processes that share them by files end together (`make test`)."""

import pytest

_FIRST = ("registry", "e2e", "clients", "cli")  # with the longest files: what begins last should be short


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Longest first."""
    order = {folder: place for place, folder in enumerate(_FIRST)}
    items.sort(key=lambda item: order.get(item.path.parent.name, len(order)))
