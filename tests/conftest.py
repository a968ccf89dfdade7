"""Examples that hypothesis draws, and the order in which the tests run: two processes share them by files (`make
test`).
"""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None, database=None)  # the same examples on every run
settings.register_profile("explore", deadline=None, max_examples=500)  # `make chaos`: others each time
settings.load_profile(os.environ.get("JOURNEY_BANDIT_EXAMPLES", "same"))

_TESTS = Path(__file__).parent
_FIRST = ("registry", "e2e", "clients", "journey_bandit")  # with the longest files: what begins last should be short


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Longest first."""
    order = {folder: place for place, folder in enumerate(_FIRST)}
    items.sort(key=lambda item: order.get(item.path.relative_to(_TESTS).parts[0], len(order)))
