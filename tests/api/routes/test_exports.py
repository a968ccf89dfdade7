"""`/v1/export`: what may be asked for, what is refused before any work, and what becomes of clients that are slow."""

import asyncio
import io
import logging
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from api.app import create_service
from api.clocks import Clock
from api.exports.log_exports import ExportOrder, LogExports
from api.http.asgi import ProtocolApp
from api.http.keys import create
from api.routes import exports as route
from api.routes.exports import TIMES, ExportAnswer, SendingTimes
from api.settings import Settings
from api.stores import Store
from api.stores.decision_log import DecisionFilter, DecisionRecord
from api.stores.memory.store import MemoryStore
from api.traffic.paced_answers import LargeAnswers, PacedAnswer
from api.traffic.refusals import LimitReached
from bandit.errors import RemoteError
from tests.api.conftest import Caller

ROWS = bytes(range(256)) * 5_000
SCOPE: Any = {"type": "http", "path": "/v1/export", "method": "GET", "headers": []}


class Written:
    """Exporter that writes some rows, and knows what it was asked for; or fails."""

    def __init__(self, problem: str = "") -> None:
        self.asked, self.problem = list[ExportOrder](), problem

    async def __call__(self, order: ExportOrder, folder: Path) -> None:
        self.asked.append(order)
        folder.mkdir()
        (folder / "part-00000.parquet").write_bytes(ROWS)
        if self.problem:
            raise RemoteError(self.problem)


class Looked(MemoryStore):
    """Ledger that calls `look` with the bounds of each search of decisions."""

    def __init__(self, look: Callable[[int, int], None]):
        super().__init__()
        self._look = look

    def decisions_found(self, wanted: DecisionFilter, above: int, before: int, most: int) -> list[DecisionRecord]:
        self._look(above, before)
        return super().decisions_found(wanted, above, before, most)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@contextmanager
def exporting(
    clock: Clock, catalogue: Path, written: Written | None, ledger: Store | None = None, **more: Any
) -> Iterator[Caller]:
    """A service with a decision at `basket`, and none at other stages."""
    settings = Settings(**{"app": str(catalogue), "store": "sqlite:///x.db", "salt": "salt", "dev": True, **more})
    made = create_service(settings, clock=clock, store=ledger or MemoryStore(), exporter=written)
    with Caller(made.app, raise_server_exceptions=False) as client:
        client.ask("basket", "u")
        yield client


def files(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as opened:
        return {one.name: opened.extractfile(one).read() for one in opened if one.isfile()}  # type: ignore[union-attr]


def test_the_answer_is_a_tar_of_what_was_ordered(
    clock: Clock, catalogue_file: Path, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written = Written()
    with caplog.at_level(logging.INFO), exporting(clock, catalogue_file, written) as client:
        query = {
            "stage": "basket,basket",
            "since": "1970-01-01",
            "until": "2100-01-01T02:00:00+02:00",
            "with": "events",
        }
        reply = client.get("/v1/export", params=query)
        assert reply.status_code == 200, reply.text
        assert files(reply.content) == {"basket/part-00000.parquet": ROWS}
        assert reply.headers["content-type"] == "application/x-tar"
        assert reply.headers["content-disposition"] == 'attachment; filename="basket.tar"'
        assert reply.headers["content-length"] == str(len(reply.content))
        assert reply.headers["cache-control"] == "no-store"
        assert client.get("/v1/export?stage=basket&with=events&with=outcomes").status_code == 200
        head = client.head("/v1/export?stage=basket")
        assert (head.status_code, head.content, head.headers["content-type"]) == (200, b"", "application/x-tar")
        assert head.headers["content-disposition"] == reply.headers["content-disposition"]
        assert client.head("/v1/export?stage=signup").status_code == 404
    until = 4_102_444_800_000_000
    assert written.asked == [
        ExportOrder("basket", 0, until, ["events"]),
        ExportOrder("basket", None, None, ["events", "outcomes"]),
    ]  # none for HEAD
    assert f"an export was sent: {len(reply.content)} bytes" in caplog.text
    assert list(home.rglob("export-*")) == []


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("", 400, "stage"),
        ("stage=", 404, "stage"),
        ("stage=baskett", 404, "stage"),
        ("stage=basket,signupp", 404, "stage"),
        ("stage=basket&since=yesterday", 400, "since"),
        ("stage=basket&since=2026-02-30", 400, "since"),
        ("stage=basket&since=", 400, "since"),
        ("stage=basket&until=", 400, "until"),
        ("stage=basket&since=2026-01-01T00:00:00+01:00", 400, "since"),
        ("stage=basket&since=2026-01-01&since=2026-01-02", 400, "since"),
        ("stage=basket&until=2026-01-01&since=2026-01-01", 400, "until"),
        ("stage=basket&until=1970-01-01", 404, "stage"),
        ("stage=basket&with=outcomes,people", 400, "with"),
        ("stage=basket&with=", 400, "with"),
        ("stage=basket&sinse=2026-01-01", 400, "sinse"),
        ("stage=signup", 404, "stage"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_anything_is_begun(
    clock: Clock, catalogue_file: Path, refused: Any, query: str, status: int, field: str
) -> None:
    written = Written()
    with exporting(clock, catalogue_file, written) as client:
        refused(client.get(f"/v1/export?{query}"), status, field)
    assert written.asked == []


def test_a_plus_that_became_a_space_is_named(clock: Clock, catalogue_file: Path, refused: Any) -> None:
    written = Written()
    with exporting(clock, catalogue_file, written) as client:
        asked = "/v1/export?stage=basket&since=1970-01-01T00:00:00{}01:00"
        assert "%2B" in refused(client.get(asked.format("+")), 400, "since")["fix"]
        assert client.get(asked.format("%2B")).status_code == 200
        other = refused(client.get("/v1/export?stage=basket&since=2026-02-30 00:00"), 400, "since")
        assert "%2B" not in other["fix"]
    assert [one.since for one in written.asked] == [-3_600_000_000]


def test_decisions_are_looked_for_in_short_reads_within_the_time(
    clock: Clock, catalogue_file: Path, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = list[tuple[int, int]]()
    monkeypatch.setattr(route, "SPAN", 3)
    with exporting(clock, catalogue_file, Written(), Looked(lambda *bounds: looked.append(bounds))) as client:
        for _ in range(7):  # the eight decisions are numbered 1 to 8
            client.ask("signup", "u")
        looked.clear()
        assert client.get("/v1/export?stage=basket").status_code == 200
        assert looked == [(5, 9), (2, 6), (0, 3)]
        looked.clear()
        refused(client.get("/v1/export?stage=basket&until=1970-01-01"), 404, "stage")
        refused(client.get("/v1/export?stage=basket&since=2100-01-01"), 404, "stage")
        assert looked == []


def test_an_export_is_sent_beside_as_many_large_answers_as_may_be(clock: Clock, catalogue_file: Path) -> None:
    with exporting(clock, catalogue_file, Written()) as client:
        app: Any = client.app
        app.large.most = 0
        reply = client.get("/v1/export?stage=basket")
        assert files(reply.content) == {"basket/part-00000.parquet": ROWS}


def test_a_ledger_in_memory_and_another_server_have_none_and_say_why(
    clock: Clock, catalogue_file: Path, refused: Any
) -> None:
    with exporting(clock, catalogue_file, None, store="memory://") as client:
        problem = refused(client.get("/v1/export?stage=basket"), 404, "store")
        assert "memory://" in problem["problem"]
        assert "--store sqlite:///FILE" in problem["fix"]
    with exporting(clock, catalogue_file, None) as client:
        assert "journey-bandit serve" in refused(client.get("/v1/export?stage=basket"), 404, "(service)")["problem"]


def test_why_an_export_fails_is_the_answer(clock: Clock, catalogue_file: Path, home: Path) -> None:
    missing = "export: pyarrow is not installed: pip install 'journey-bandit[experiments]'"
    with exporting(clock, catalogue_file, Written(missing)) as client:
        for _ in range(2):
            reply = client.get("/v1/export?stage=basket")
            assert (reply.status_code, reply.headers["content-type"]) == (500, "application/problem+json")
            problem = reply.json()
            assert problem.pop("request_id") == reply.headers["x-request-id"]
            assert problem == {
                "type": "urn:journey-bandit:problem:export-failed",
                "title": "The export failed",
                "status": 500,
                "detail": missing,
                "errors": [],
            }
    assert list(home.rglob("export-*")) == []


@pytest.mark.parametrize("body", [b"", b"some"])
def test_an_export_holds_no_turn_while_it_is_checked_and_made(
    clock: Clock, catalogue_file: Path, tmp_path: Path, body: bytes
) -> None:
    class Looking(Written):
        async def __call__(self, order: ExportOrder, folder: Path) -> None:
            await asyncio.sleep(0)
            free.append(limits.turns._free)
            await super().__call__(order, folder)

    free = list[int]()
    store = Looked(lambda *_: free.append(limits.turns._free))
    key = {"X-API-Key": create(tmp_path / "keys.toml", "a", ["read", "decide"])}
    settings = Settings(app=str(catalogue_file), store="sqlite:///x.db", salt="salt", keys=str(tmp_path / "keys.toml"))
    app = create_service(settings, clock=clock, store=store, exporter=Looking()).app
    assert isinstance(app, ProtocolApp)
    assert app.limits is not None
    limits = app.limits
    with Caller(app) as client:
        client.headers.update(key)
        client.ask("basket", "u")
        assert client.request("GET", "/v1/export?stage=basket", content=body).status_code == 200
    assert free == [limits.turns.running] * 2


class Reader:
    """Client at the other side of ASGI that takes messages as it is told to, and goes when it is told to."""

    def __init__(self) -> None:
        self.taken = list[Any]()
        self.going, self.gone, self.some = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.going.set()

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.taken.append(message)
        if message.get("body"):
            self.some.set()
        await self.going.wait()

    def body(self) -> bytes:
        return b"".join(one.get("body", b"") for one in self.taken)


async def nothing_wrong() -> None:
    pass


def answering(exports: LogExports, reader: Reader, times: SendingTimes = TIMES) -> asyncio.Task[None]:
    app = ExportAnswer(exports, [ExportOrder("basket", None, None, ())], nothing_wrong, times).to_asgi_response()
    paced = PacedAnswer(LargeAnswers(lambda _: pytest.fail("refused"), seconds=0.01), SCOPE, reader.send)
    return asyncio.ensure_future(app(SCOPE, reader.receive, paced.send))


def test_a_slow_client_gets_all_of_it_a_piece_at_a_time(home: Path) -> None:
    """Each piece has its own time, though the whole takes longer than a large answer may."""

    async def run() -> None:
        reader, exports = Reader(), LogExports(Written())
        reader.going.clear()
        task = answering(exports, reader)
        while not task.done():
            held = len(reader.taken)
            await asyncio.sleep(0.001)
            assert len(reader.taken) <= held + 1
            reader.going.set()
            await asyncio.sleep(0)
            reader.going.clear()
        assert files(reader.body()) == {"basket/part-00000.parquet": ROWS}
        assert all(len(one.get("body", b"")) <= 16_384 for one in reader.taken)
        assert [one["more_body"] for one in reader.taken[1:]] == [True] * (len(reader.taken) - 2) + [False]

    asyncio.run(run())
    assert list(home.rglob("export-*")) == []


def test_a_client_that_takes_nothing_is_cut_and_one_that_goes_ends_it(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        stuck, left, exports = Reader(), Reader(), LogExports(Written())
        for reader in (stuck, left):
            reader.going.clear()
        task = answering(exports, left)
        await started(left, home)
        left.gone.set()
        await task
        assert list(home.rglob("export-*")) == []
        task = answering(exports, stuck, TIMES._replace(piece=0.01))
        await started(stuck, home)
        await task
        assert len(stuck.body()) < len(ROWS)
        assert stuck.taken[-1]["more_body"]
        assert list(home.rglob("export-*")) == []

    async def started(reader: Reader, home: Path) -> None:
        while not reader.taken:
            await asyncio.sleep(0.001)
        assert len(list(home.rglob("export-*"))) == 1
        reader.going.set()
        await asyncio.sleep(0)
        reader.going.clear()
        await reader.some.wait()

    asyncio.run(run())
    assert "cut an export, of which its client took nothing" in caplog.text
    assert "was sent" not in caplog.text


def test_a_client_has_a_time_for_all_of_it_however_steadily_it_reads(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Patient(Reader):
        async def send(self, message: Any) -> None:
            await super().send(message)
            if len(self.taken) > 2:
                await asyncio.sleep(3600)  # less than the time of a piece

    async def run() -> None:
        reader, exports = Patient(), LogExports(Written())
        with caplog.at_level(logging.INFO):
            await answering(exports, reader, SendingTimes(piece=7200.0, base=0.01, rate=1e12))
        assert 0 < len(reader.body()) < len(ROWS)

    asyncio.run(run())
    assert TIMES.whole(1_000_000_000) == 600 + 10_000
    assert "cut an export that its client did not take within" in caplog.text
    assert "was sent" not in caplog.text
    assert list(home.rglob("export-*")) == []


def test_the_end_of_a_service_is_answered_before_the_head_and_cuts_what_is_sent(home: Path) -> None:
    async def run() -> None:
        reader, exports = Reader(), LogExports(Written())
        reader.going.clear()
        task = answering(exports, reader)
        while not reader.taken:
            await asyncio.sleep(0.001)
        exports.end()
        await task
        assert [one["type"] for one in reader.taken] == ["http.response.start"]
        assert list(home.rglob("export-*")) == []
        exports = LogExports(forever)
        task = answering(exports, Reader())
        while not list(home.rglob("export-*")):
            await asyncio.sleep(0.001)
        exports.end()
        refused = await asyncio.gather(task, answering(exports, Reader()), return_exceptions=True)
        for error in refused:
            assert isinstance(error, LimitReached)
            assert (error.status_code, error.headers) == (503, {"Retry-After": "30"})

    async def forever(order: ExportOrder, folder: Path) -> None:
        await asyncio.Event().wait()

    asyncio.run(run())
    assert list(home.rglob("export-*")) == []


def test_a_file_that_cannot_be_read_cuts_the_answer(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Emptied(Reader):
        async def send(self, message: Any) -> None:
            for path in home.rglob("part-*"):
                path.write_bytes(b"")
            await super().send(message)

    async def run() -> None:
        reader = Emptied()
        await answering(LogExports(Written()), reader)
        assert reader.taken[-1]["more_body"]

    asyncio.run(run())
    assert "cut an export: part-00000.parquet became shorter" in caplog.text


def test_a_second_export_is_refused_while_the_first_is_sent(clock: Clock, catalogue_file: Path, refused: Any) -> None:
    class Asking(Written):
        async def __call__(self, order: ExportOrder, folder: Path) -> None:
            for stage in ("basket", "none"):  # before anything is looked for
                replies.append(await asyncio.to_thread(client.get, f"/v1/export?stage={stage}"))
            await super().__call__(order, folder)

    replies = list[Any]()
    with exporting(clock, catalogue_file, Asking()) as client:
        assert client.get("/v1/export?stage=basket").status_code == 200
        for reply in replies:
            refused(reply, 503, "(request)")
            assert reply.headers["Retry-After"] == "30"
        assert len(replies) == 2
