"""Exports of a service: one at a time, and whatever happens nothing of one is left."""

import asyncio
import logging
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from api.exports.log_exports import ExportOrder, LogExports
from api.traffic.refusals import LimitReached
from bandit.errors import RemoteError

ORDERS = [ExportOrder("cart", None, None, ()), ExportOrder("signup", 1, 2, ("events",))]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def left(home: Path) -> list[Path]:
    return list(home.rglob("export-*"))


async def write(order: ExportOrder, folder: Path) -> None:
    folder.mkdir()
    (folder / "part").write_text(f"{order.stage} {order.since} {order.until}", encoding="utf-8")


async def forever(order: ExportOrder, folder: Path) -> None:
    await write(order, folder)
    await asyncio.Event().wait()


async def begun(home: Path) -> None:
    while not list(home.rglob("part")):
        await asyncio.sleep(0)


def test_each_order_is_in_a_folder_of_its_own_until_the_end(home: Path) -> None:
    async def run() -> None:
        exports = LogExports(write)
        for _ in range(2):
            async with exports.made(ORDERS) as folder:
                said = {path.parent.name: path.read_text(encoding="utf-8") for path in folder.rglob("part")}
                assert said == {"cart": "cart None None", "signup": "signup 1 2"}
            assert left(home) == []

    asyncio.run(run())


def test_another_one_is_refused_until_the_first_is_removed(home: Path) -> None:
    async def run() -> None:
        exports = LogExports(write)
        async with exports.made(ORDERS):
            with pytest.raises(LimitReached) as refused:
                async with exports.made(ORDERS):
                    raise AssertionError
            assert len(left(home)) == 1
        assert (refused.value.status_code, refused.value.headers) == (503, {"Retry-After": "30"})
        async with exports.made(ORDERS):
            pass

    asyncio.run(run())


def test_one_that_fails_leaves_nothing_and_is_logged(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(order: ExportOrder, folder: Path) -> None:
        await write(order, folder)
        if order.stage == "signup":
            raise RemoteError("no room")

    async def run() -> None:
        exports = LogExports(fail)
        for _ in range(2):
            with pytest.raises(RemoteError, match="no room"):
                async with exports.made(ORDERS):
                    raise AssertionError

    asyncio.run(run())
    assert left(home) == []
    assert "the export of cart, signup failed: no room" in caplog.text


def test_one_that_is_cancelled_while_it_is_made_or_removed_leaves_nothing(home: Path) -> None:
    async def export(exports: LogExports) -> None:
        async with exports.made(ORDERS):
            pass

    async def run() -> None:
        task = asyncio.create_task(export(LogExports(forever)))
        await begun(home)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert left(home) == []
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        busy = loop.run_in_executor(None, held.wait)  # so that the removal has to wait for the only thread
        task = asyncio.create_task(export(LogExports(write)))
        await begun(home)
        for _ in range(5):
            await asyncio.sleep(0)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        held.set()
        await asyncio.gather(task, busy, return_exceptions=True)
        assert task.cancelled()

    held = threading.Event()
    asyncio.run(run())
    assert left(home) == []


def test_the_end_of_a_service_is_the_end_of_an_export_and_its_start_removes_what_one_left(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        exports = LogExports(forever)

        async def export() -> None:
            async with exports.made(ORDERS):
                raise AssertionError

        async with exports.running():
            task = asyncio.create_task(export())
            await begun(home)
        assert task.cancelled()
        assert left(home) == []
        (home / next(home.iterdir()).name / "export-dead").mkdir()
        async with LogExports(None).running():
            assert len(left(home)) == 1  # a service without exports leaves them to others
        async with exports.running():
            assert left(home) == []

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    assert "an export of cart, signup has begun" in caplog.text
    assert "was given up" in caplog.text


def test_a_service_without_a_private_folder_starts_all_the_same(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        exports = LogExports(write)
        async with exports.running():
            with pytest.raises(RemoteError, match="TMPDIR"):
                async with exports.made(ORDERS):
                    raise AssertionError

    monkeypatch.setattr(tempfile, "tempdir", str(home / "none"))
    asyncio.run(run())
    assert "were not looked for" in caplog.text
