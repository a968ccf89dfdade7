"""`GET /v1/export` of a service on a file: what its tar holds is what the command writes, and no folder is left."""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pyarrow import parquet

from api.ledger import audit
from api.server import free_port
from api.stores import open_store
from bandit.records import Settlement
from journey_bandit import processes
from tests.journey_bandit.evaluation.ledgers import TRAVEL, decided
from tests.waiting import COMMAND_PATIENCE, PATIENCE, eventually

N = 3_000
OPEN = 5  # decisions that the service settles when it starts


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3,000 decisions, the last five of which are open."""
    file, rng = tmp_path_factory.mktemp("ledger") / "travel.db", np.random.default_rng(8)
    decisions = [decided(seq, rng) for seq in range(1, N + 1)]
    told: dict[str, Any] = {"stage": "cart", "at": 1, "why": "reward", "learned": True, "tau": 1.0, "nu": 0.0}
    done = [Settlement(decision_seq=s, arm=d.arm, reward=float(rng.random() < 0.3), **told)
            for s, d in enumerate(decisions[:-OPEN], 1)]  # fmt: skip
    store = open_store(f"sqlite:///{file}")
    audit.claim(store, TRAVEL, "salt")
    store.record(decisions, [], 0, store.specs())
    store.settle(done)
    store.close()
    return file


class Service:
    """A service on a copy of the ledger, whose temporary files are in `home`; it is killed at the end."""

    def __init__(self, ledger: Path, folder: Path):
        self.home, self.file, self.log = folder / "tmp", folder / "travel.db", folder / "serve.log"
        if not self.file.exists():
            shutil.copy(ledger, self.file)
            self.home.mkdir()
        self.port = free_port("127.0.0.1")
        self.url = f"http://127.0.0.1:{self.port}"
        options = ("--app", "travel", "--store", f"sqlite:///{self.file}", "--salt", "salt", "--dev")
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "journey_bandit", "serve", *options, "--port", str(self.port)],
                stdout=file,
                stderr=file,
                env={**os.environ, "TMPDIR": str(self.home)},
            )

    def wait_until_ready(self) -> None:
        processes.wait(self.process, f"{self.url}/health/ready", self.log, PATIENCE)
        httpx.get(f"{self.url}/v1/policies?wait=true", timeout=PATIENCE).raise_for_status()

    def folders(self) -> list[Path]:
        return list(self.home.rglob("export-*"))

    def export(self, query: str) -> httpx.Response:
        return httpx.get(f"{self.url}/v1/export?{query}", timeout=COMMAND_PATIENCE)

    @contextmanager
    def asked(self) -> Iterator[httpx.Response]:
        """The head of an answer of which nothing else is read yet."""
        with httpx.stream("GET", f"{self.url}/v1/export?stage=cart", timeout=COMMAND_PATIENCE) as reply:
            yield reply

    def begun(self, room: int = 0) -> socket.socket:
        """A connection that asked for an export and has no answer yet; its folder is there. `room`: bytes that its
        system takes of an answer that it does not read, 0 for as many as it likes.
        """
        connection = socket.socket()
        if room:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        connection.settimeout(PATIENCE)
        connection.connect(("127.0.0.1", self.port))
        connection.sendall(b"GET /v1/export?stage=cart HTTP/1.1\r\nHost: x\r\n\r\n")
        assert eventually(self.folders)
        return connection


@contextmanager
def serving(ledger: Path, folder: Path) -> Iterator[Service]:
    service = Service(ledger, folder)
    try:
        service.wait_until_ready()
        yield service
    finally:
        service.process.kill()
        service.process.wait(PATIENCE)


@pytest.fixture(scope="module")
def shared(ledger: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(ledger, tmp_path_factory.mktemp("shared")) as service:
        yield service


def command(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "journey_bandit", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=COMMAND_PATIENCE,
        check=False,
    )
    assert done.returncode in (0, 3), done.stderr  # 3: evaluate refuses a policy that the log cannot speak about
    return done.stdout


def test_the_tar_holds_what_the_command_writes_and_evaluate_agrees(shared: Service, tmp_path: Path) -> None:
    reply = shared.export("stage=cart&with=settlements&until=1970-01-01T00:45:00Z")
    assert reply.status_code == 200, reply.text
    assert int(reply.headers["content-length"]) == len(reply.content)
    with tarfile.open(fileobj=io.BytesIO(reply.content), mode="r:") as opened:
        opened.extractall(tmp_path / "remote", filter="data")
    remote, local = tmp_path / "remote" / "cart", tmp_path / "local"
    bounds = ("--with", "settlements", "--until", "1970-01-01T00:45:00Z")
    command("export", "--ledger", shared.file, "--stage", "cart", *bounds, local)
    for name in ("", "_settlements"):
        said = [json.loads((folder / name / "_manifest.json").read_text("utf-8")) for folder in (remote, local)]
        assert said[0]["digest"] == said[1]["digest"]
        assert said[0] == said[1]
        rows = [parquet.read_table(folder / name / "part-00000.parquet") for folder in (remote, local)]
        assert rows[0].equals(rows[1])
        assert rows[0].num_rows > 2_000
    asked = ("--policy", "uniform", "--policy", "fixed:reminder", "--against", "none", "--json", "--force")
    figures = [json.loads(command("evaluate", "--rounds", folder, *asked)) for folder in (remote, local)]
    assert figures[0] == figures[1]
    assert figures[0]["manifest"] == json.loads((local / "_manifest.json").read_text("utf-8"))["digest"]
    assert figures[0]["estimates"]
    assert eventually(lambda: not shared.folders())


def test_a_slow_client_gets_all_and_another_one_waits(shared: Service) -> None:
    with shared.asked() as reply:
        busy = shared.export("stage=cart")
        assert (busy.status_code, busy.headers["Retry-After"]) == (503, "30")
        assert len(shared.folders()) == 1
        content = b""
        for part in reply.iter_raw(64_000):
            content += part
            time.sleep(0.02)
    assert len(content) == int(reply.headers["content-length"]) > 300_000
    assert eventually(lambda: not shared.folders())
    assert shared.export("stage=cart").status_code == 200


def test_a_client_that_goes_ends_the_export(shared: Service) -> None:
    assert eventually(lambda: not shared.folders())
    shared.begun().close()
    assert eventually(lambda: not shared.folders())
    assert eventually(lambda: "was given up" in shared.log.read_text("utf-8"))
    assert shared.export("stage=cart").status_code == 200


def test_the_end_of_a_service_leaves_nothing_and_what_a_killed_one_left_is_removed(
    ledger: Path, tmp_path: Path
) -> None:
    with serving(ledger, tmp_path) as service, service.begun():
        service.process.send_signal(signal.SIGKILL)
        service.process.wait(PATIENCE)
        assert len(service.folders()) == 1
    with serving(ledger, tmp_path) as service:
        assert service.folders() == []
        with service.begun() as connection:
            service.process.send_signal(signal.SIGTERM)
            head, _, body = b"".join(iter(lambda: connection.recv(4096), b"")).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 30" in head.lower()
            assert json.loads(body)["detail"].startswith("the service stops")
            assert service.process.wait(PATIENCE) == 0
            assert service.folders() == []
        assert "was given up" in service.log.read_text("utf-8")
        no_errors(service)


def test_the_end_of_a_service_cuts_what_a_slow_client_has_not_taken(ledger: Path, tmp_path: Path) -> None:
    with serving(ledger, tmp_path) as service, service.begun(room=4_096) as connection:
        assert b"200 OK" in connection.recv(1_000)
        time.sleep(2.0)  # so that the answer waits for a client that takes nothing any more
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(PATIENCE) == 0
        assert service.folders() == []
        assert "was given up while it was sent" in service.log.read_text("utf-8")
        no_errors(service)


def no_errors(service: Service) -> None:
    said = service.log.read_text("utf-8")
    assert [word for word in ("ERROR", "Traceback", "cut the requests", "an export was sent") if word in said] == []
