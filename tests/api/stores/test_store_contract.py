"""One contract, every store: `journey_bandit.testing.stores`, on SQLite, PostgreSQL and memory."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.stores.protocol import Store
from journey_bandit.testing.stores import StoreContract
from tests.api.conftest import opened


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each store in turn."""
    with opened(request.param, request, tmp_path) as made:
        yield made


class TestEveryStore(StoreContract):
    pass
