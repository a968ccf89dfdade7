"""Examples that hypothesis draws, identifiers and salts that tests get without giving any, a browser, and the order in
which the tests run: two processes share them by files (`make test`).
"""

import gc
import itertools
import logging
import os
import random
import secrets
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uuid_utils.compat
from hypothesis import settings

from api.stores.sqlite import file

settings.register_profile("same", derandomize=True, deadline=None, database=None)  # the same examples on every run
settings.register_profile("explore", deadline=None, max_examples=500)  # `make chaos`: others each time
settings.load_profile(os.environ.get("JOURNEY_BANDIT_EXAMPLES", "same"))

os.environ.setdefault("JOURNEY_BANDIT_COMPILED", "false")  # of hundreds of services each would read what was compiled
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "compiled"))
os.environ.pop("COLUMNS", None)  # pytest-xdist sets it in its workers; what a command prints to a pipe is 110 wide
os.unsetenv("COLUMNS")  # GNU readline, which pytest imports, sets it for children without telling os.environ

_TESTS = Path(__file__).parent
_FIRST = ("registry", "e2e", "clients", "journey_bandit")  # with the longest files: what begins last should be short


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Longest first."""
    order = {folder: place for place, folder in enumerate(_FIRST)}
    items.sort(key=lambda item: order.get(item.path.relative_to(_TESTS).parts[0], len(order)))


def pytest_collection_finish() -> None:
    """The garbage collector visits what tests make, not the imported modules: that cost a tenth of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _made_once() -> None:
    """What a process makes once takes names for its savepoints: before the first test, whose draws it would change."""
    file._new_ledger()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, started for the tests of one file: while it runs, this thread has an event loop."""
    named = os.environ.get("JOURNEY_BANDIT_CHROMIUM")
    program = named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    missing = "no playwright: tests in a browser are skipped; pip install playwright"
    sync_api = pytest.importorskip("playwright.sync_api", reason=missing)
    if program is None:
        pytest.skip("no Chromium: tests in a browser are skipped; install chromium, or set JOURNEY_BANDIT_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(autouse=True)
def _same_draws(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same identifiers and salts on every run of a test: an arm is drawn by the hash of both, so that a test would
    see a rare arm now and then. Servers of their own process draw as they do for users.
    """
    chance = random.Random(request.node.nodeid)

    moments = itertools.count(0x0190_0000_0000)

    def ordered() -> uuid.UUID:
        return uuid.UUID(int=next(moments) << 80 | 0x7 << 76 | 0b10 << 62 | chance.getrandbits(62))

    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=chance.getrandbits(128), version=4))
    monkeypatch.setattr(uuid_utils.compat, "uuid7", ordered)
    monkeypatch.setattr(secrets, "token_hex", lambda size=32: chance.randbytes(size).hex())


@pytest.fixture(autouse=True)
def _same_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Logging as it was before a test: a command that ran in this process has configured it for good."""
    handlers, level = logging.root.handlers[:], logging.root.level
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    yield
    logging.captureWarnings(capture=False)
    logging.root.setLevel(level)
    for handler in logging.root.handlers[:]:
        if handler not in handlers:
            logging.root.removeHandler(handler)
