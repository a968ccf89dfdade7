"""Fixtures of the end-to-end tests: real processes, real files, real ports."""

import pytest

from api.server import free_port as find_free_port


@pytest.fixture
def free_port() -> int:
    return find_free_port("127.0.0.1")
