"""`journey-bandit serve` as a process: starts, keeps what it acknowledged, stops when told, outlasts bad clients."""

import json
import re
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.waiting import PATIENCE, eventually

HOST = "127.0.0.1"
WINDOWS = "1e-4"  # attribution windows of hours in less than a second, so that it learns all the while


class Server:
    """One process on one file. `port` is the one it says it listens on."""

    def __init__(self, folder: Path, *options: str):
        self.file = folder / "ledger.db"
        self.log = folder / "serve.log"
        command = [
            sys.executable,
            "-m",
            "journey_bandit",
            "serve",
            "--app",
            "fintech",
            "--store",
            f"sqlite:///{self.file}",
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--port", "0", "--window-scale", WINDOWS, *options], stdout=log, stderr=log
            )
        self.port = int(self._printed(r"serves fintech at http://127\.0\.0\.1:(\d+)\n"))
        self.http = httpx.Client(base_url=f"http://{HOST}:{self.port}", timeout=PATIENCE)

    def _printed(self, pattern: str) -> str:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            found = re.search(pattern, self.log.read_text())
            if found:
                return found[1]
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def ready(self) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                if self.http.get("/health/ready").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def decide(self, user: str) -> Any:
        return self.http.post("/v1/decisions", json={"stage": "onboarding", "user_id": user})

    def rows(self, query: str) -> list[Any]:
        with closing(sqlite3.connect(self.file)) as connection:
            return connection.execute(query).fetchall()


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Server]:
    server = Server(folder, *options)
    try:
        with server.http:
            server.ready()
            yield server
    finally:
        server.process.kill()
        server.process.wait(PATIENCE)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests that leave it running."""
    with serving(tmp_path_factory.mktemp("shared"), "--dev") as server:
        yield server


def connect(server: Server, content: bytes = b"") -> socket.socket:
    connection = socket.create_connection((HOST, server.port), timeout=PATIENCE)
    connection.sendall(content)
    return connection


def answered(connection: socket.socket, seconds: float = 3.0) -> bytes:
    """What comes back until the other side closes, or until that time is over."""
    end, said = time.monotonic() + seconds, b""
    with connection:
        while (left := end - time.monotonic()) > 0 and select.select([connection], [], [], left)[0]:
            try:
                part = connection.recv(65536)
            except ConnectionResetError:
                break
            if not part:
                break
            said += part
    return said


# -- start, answer, stop ---------------------------------------------------------------------------------------


def test_it_says_where_it_listens_where_the_ledger_is_and_that_anybody_may_call(shared: Server) -> None:
    said = shared.log.read_text()
    assert f"http://{HOST}:{shared.port}/docs" in said
    assert f"sqlite:///{shared.file}" in said
    assert "not for production" in said
    assert shared.http.get("/docs").status_code == 200
    assert shared.http.get("/health/ready").json()["store"]["synchronous"] == "FULL"
    reply = shared.decide("u").json()
    assert shared.http.get(f"/v1/decisions/{reply['decision_id']}").json()["nudge"] == reply["nudge"]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_under_load_it_ends_well_and_keeps_all_it_acknowledged(tmp_path: Path, signum: int) -> None:
    acknowledged: set[str] = set()
    rewarded: set[str] = set()
    strange: list[int] = []

    def call(number: int) -> None:
        with httpx.Client(base_url=f"http://{HOST}:{server.port}", timeout=PATIENCE) as http:
            for n in range(100_000):
                try:
                    reply = http.post("/v1/decisions", json={"stage": "onboarding", "user_id": f"{number}/{n}"})
                    if reply.status_code == 200:
                        acknowledged.add(one := reply.json()["decision_id"])
                        done = http.post("/v1/outcomes", json={"decision_id": one, "kind": "reward"})
                        rewarded.update([one] if done.status_code == 200 else [])
                    elif reply.status_code != 503:
                        strange.append(reply.status_code)
                except httpx.TransportError:
                    return

    with serving(tmp_path, "--dev") as server:
        callers = [threading.Thread(target=call, args=(n,)) for n in range(4)]
        for caller in callers:
            caller.start()
        assert eventually(lambda: len(acknowledged) >= 200)
        server.process.send_signal(signum)
        assert server.process.wait(PATIENCE) == 0
        for caller in callers:
            caller.join(PATIENCE)
        assert "everything acknowledged is in the ledger" in server.log.read_text()
        assert "Traceback" not in server.log.read_text()
    assert len(acknowledged) >= 200
    assert strange == []
    assert acknowledged <= {str(uuid.UUID(bytes=row[0])) for row in server.rows("SELECT id FROM decisions")}
    assert rewarded <= {str(uuid.UUID(bytes=row[0])) for row in server.rows("SELECT decision FROM outcomes")}
    assert server.rows("PRAGMA integrity_check") == [("ok",)]
    verify = [sys.executable, "-m", "journey_bandit", "rebuild", "--verify", "--store", f"sqlite:///{server.file}"]
    assert subprocess.run(verify, capture_output=True, timeout=PATIENCE, check=False).returncode == 0


def test_receipts_recompute_without_a_compiler_what_compiled_code_decided(tmp_path: Path) -> None:
    pytest.importorskip("numba", reason="no numba: decisions by compiled code are not tested")
    with serving(tmp_path, "--dev", "--compiled") as server:
        assert re.search(r"decisions are computed by code that numba [\d.]+ compiled\n", server.log.read_text())
        for n in range(40):
            made = server.http.post("/v1/decisions", json={"stage": "onboarding", "user_id": f"u{n}"}).json()
            server.http.post("/v1/outcomes", json={"decision_id": made["decision_id"], "kind": "reward"})
        assert eventually(lambda: server.rows("SELECT count(*) FROM settlements")[0][0] >= 40)
        for n in range(40):
            assert server.decide(f"v{n}").status_code == 200
        server.process.terminate()
        assert server.process.wait(PATIENCE) == 0
    command = [sys.executable, "-m", "journey_bandit", "rebuild", "--verify", "--store", f"sqlite:///{server.file}"]
    done = subprocess.run(
        [*command, "--receipts", "100"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "receipts: 0 of 80 differ" in done.stdout, done.stdout


def test_a_restart_goes_on_with_the_same_ledger(tmp_path: Path) -> None:
    with serving(tmp_path, "--dev") as server:
        first = server.decide("u").json()
        server.process.terminate()
        assert server.process.wait(PATIENCE) == 0
    with serving(tmp_path, "--dev") as server:
        assert server.http.get(f"/v1/decisions/{first['decision_id']}").json()["seq"] == 1
        assert server.http.get(f"/v1/decisions/{server.decide('u').json()['decision_id']}").json()["seq"] == 2


def test_a_second_server_of_the_same_file_is_refused(shared: Server) -> None:
    command = [sys.executable, "-m", "journey_bandit", "serve", "--app", "fintech", "--dev", "--port", "0"]
    done = subprocess.run(
        [*command, "--store", f"sqlite:///{shared.file}"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 1
    assert "in use by another process" in done.stderr
    assert "Traceback" not in done.stderr
    assert shared.decide("u").status_code == 200


def test_without_keys_it_says_so_and_lets_nobody_in(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    made = [
        sys.executable,
        "-m",
        "journey_bandit",
        "keys",
        "new",
        "shop",
        "--file",
        str(keys),
        "--scope",
        "decide",
    ]
    key = subprocess.run(made, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout.strip()
    with serving(tmp_path) as server:
        assert "nobody gets in" in server.log.read_text()
        assert server.decide("u").status_code == 401
        server.process.terminate()
        server.process.wait(PATIENCE)
    with serving(tmp_path, "--keys", str(keys)) as server:
        server.http.headers["X-API-Key"] = key
        assert server.decide("u").status_code == 200
        assert server.http.get("/v1/stages").status_code == 403
        assert key.partition(".")[2] not in server.log.read_text()


# -- bad clients -----------------------------------------------------------------------------------------------


def test_clients_that_never_finish_are_closed_and_keep_nobody_waiting(shared: Server) -> None:
    """Half a header, a header that drips, and half a body, all at once, while others are served."""
    post = b"POST /v1/decisions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    half = b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Slow: "
    slow = {f"headers {n}": connect(shared, half) for n in range(10)}
    dripping = {f"dripping {n}": connect(shared, half) for n in range(3)}
    bodies = {f"body {n}": connect(shared, post + b'Content-Length: 60\r\n\r\n{"stage"') for n in range(3)}
    chunked = {"chunked": connect(shared, post + b'Transfer-Encoding: chunked\r\n\r\n8\r\n{"stage"\r\n')}
    said = dict[str, bytes]()
    waiting = {**slow, **dripping, **bodies, **chunked}
    end = time.monotonic() + PATIENCE
    while waiting and time.monotonic() < end:
        assert shared.decide("u").status_code == 200  # although they hang
        for name, connection in list(waiting.items()):
            try:
                if name in dripping:
                    connection.sendall(b"a")
                if select.select([connection], [], [], 0)[0]:
                    part = connection.recv(4096)
                    said[name] = said.get(name, b"") + part
                    if part:
                        continue
                else:
                    continue
            except OSError:
                said.setdefault(name, b"")  # reset by the server: closed all the same
            waiting.pop(name).close()
        time.sleep(0.2)
    for connection in waiting.values():
        connection.close()
    assert {name for name in waiting if name.startswith(("headers", "dripping"))} == set()
    for name in (*bodies, *chunked):
        assert b" 408 " in said[name].partition(b"\r\n")[0]


def test_it_stops_although_clients_hold_connections_open(tmp_path: Path) -> None:
    with serving(tmp_path, "--dev") as server:
        post = b"POST /v1/decisions HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\n\r\n{"
        acknowledged = server.decide("u").json()["decision_id"]
        with closing(connect(server)), closing(connect(server, b"GET / HT")), closing(connect(server, post)):
            server.process.terminate()
            assert server.process.wait(PATIENCE) == 0
        assert "everything acknowledged is in the ledger" in server.log.read_text()
    assert server.rows("SELECT id FROM decisions") == [(uuid.UUID(acknowledged).bytes,)]


def request_of(decision: uuid.UUID) -> bytes:
    body = json.dumps({"stage": "onboarding", "user_id": "u", "decision_id": str(decision)}).encode()
    return b"POST /v1/decisions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: %(all)d\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: %(all)d\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding : chunked\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: identity, chunked\r\n",
        b"Content-Length: 5\r\nContent-Length: %(all)d\r\n",
        b"Content-Length: 5, %(all)d\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 0x5\r\n",
        b"Content-Length: -1\r\n",
        b"X: y\r\n Content-Length: 5\r\n",
    ],
    ids=repr,
)
def test_a_request_hidden_in_another_is_not_processed(shared: Server, headers: bytes) -> None:
    """Two readers of the same bytes must not see different requests: what is ambiguous gets one refusal at most."""
    hidden = uuid.uuid4()
    rest = b"0\r\n\r\n" + request_of(hidden)
    lengths = headers.replace(b"%(all)d", b"%d" % len(rest))
    said = answered(connect(shared, b"POST /health/live HTTP/1.1\r\nHost: x\r\n" + lengths + b"\r\n" + rest), 2.0)
    statuses = re.findall(rb"HTTP/1\.1 (\d+)", said)
    assert shared.http.get(f"/v1/decisions/{hidden}").status_code == 404
    assert len(statuses) <= 1
    assert all(status.startswith(b"4") for status in statuses)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20, id="TLS"),
        pytest.param(b"\0" * 500 + b"\r\n\r\n", id="NUL bytes"),
        pytest.param(b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", id="another version"),
        pytest.param(b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 200_000), id="a long path"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n" % (b"a" * 200_000), id="a long header"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n%s\r\n" % (b"X: y\r\n" * 5_000), id="5,000 headers"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", id="NUL in a header"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", id="no colon"),
        pytest.param(b"POST /v1/decisions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", id="huge body"),
    ],
)
def test_abuse_is_refused_or_closed_and_the_service_lives_on(shared: Server, content: bytes) -> None:
    connection = connect(shared)
    with suppress(OSError):  # it may close before it has read all
        connection.sendall(content)
    statuses = re.findall(rb"HTTP/1\.1 (\d+)", answered(connection, 2.0))
    assert all(status.startswith(b"4") for status in statuses)
    assert shared.decide("u").status_code == 200
