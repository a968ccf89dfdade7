"""Clients that connect and say nothing, or ask and never read: others are served, and the bounds that were declared
hold.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from api.server import free_port
from journey_bandit import processes
from tests.waiting import PATIENCE, eventually

HOST = "127.0.0.1"
PER_ADDRESS, IN_ALL = 20, 30
SCRIPT = b"GET /docs-assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"


class Bounded:
    """Service with small bounds."""

    def __init__(self, port: int, pid: int):
        self.port, self.pid, self.url = port, pid, f"http://{HOST}:{port}"

    def connect(self, closing: ExitStack, source: str, request: bytes = b"") -> socket.socket:
        made = closing.enter_context(socket.socket())
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.settimeout(PATIENCE)
        made.bind((source, 0))
        made.connect((HOST, self.port))
        made.sendall(request)
        return made

    def connections(self) -> int:
        """Sockets that the service holds, as the system counts them."""
        return sum("socket:" in os.readlink(one) for one in Path(f"/proc/{self.pid}/fd").iterdir() if one.exists())


def open_still(connections: list[socket.socket]) -> int:
    """How many the service has not ended. What it sent before is taken from them."""
    found = 0
    for one in connections:
        one.setblocking(False)
        try:
            while part := one.recv(65536):
                assert part
        except BlockingIOError:
            found += 1
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bounded]:
    folder, port = tmp_path_factory.mktemp("edge"), free_port(HOST)
    where = ("--app", "travel", "--store", "memory://", "--port", str(port), "--dev", "--connections", str(IN_ALL))
    bound = ("--connections-per-address", str(PER_ADDRESS))
    with processes.stopping(process := processes.serve(*where, *bound, log=folder / "log")):
        processes.wait(process, f"http://{HOST}:{port}/health/ready", folder / "log")
        yield Bounded(port, process.pid)


def served(service: Bounded) -> None:
    for _ in range(20):
        reply = httpx.post(f"{service.url}/v1/decisions", json={"stage": "cart", "user_id": "u"}, timeout=PATIENCE)
        assert reply.status_code == 200


def test_silent_connections_of_one_address_end_at_its_bound_and_keep_nobody_waiting(service: Bounded) -> None:
    with ExitStack() as closing:
        silent = [service.connect(closing, "127.0.0.2") for _ in range(3 * PER_ADDRESS)]
        served(service)
        assert eventually(lambda: open_still(silent) <= PER_ADDRESS)
        served(service)


def test_silent_connections_of_many_addresses_end_at_the_bound_in_all(service: Bounded) -> None:
    with ExitStack() as closing:
        silent = [service.connect(closing, f"127.0.1.{n}") for n in range(1, 2 * IN_ALL)]
        served(service)
        assert eventually(lambda: open_still(silent) <= IN_ALL)
        served(service)
        metrics = httpx.get(f"{service.url}/metrics").text
        assert 'journey_bandit_connections_closed_total{bound="all"}' in metrics


def test_clients_that_ask_for_a_large_file_and_never_read_keep_nobody_waiting(service: Bounded) -> None:
    with ExitStack() as closing:
        for _ in range(3 * PER_ADDRESS):
            service.connect(closing, "127.0.0.3", SCRIPT)
        served(service)
        assert eventually(lambda: service.connections() < 3 * PER_ADDRESS)
        served(service)


@pytest.mark.parametrize("headers", [b"X-Long: " + b"a" * 200_000 + b"\r\n", b"X-Many: a\r\n" * 300])
def test_headers_are_bounded(service: Bounded, headers: bytes) -> None:
    with ExitStack() as closing:
        connection = service.connect(closing, "127.0.0.5")
        with suppress(OSError):  # it answers before it has read all
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 431 ")


def test_a_slow_reader_gets_the_whole_file(service: Bounded) -> None:
    with ExitStack() as closing:
        connection = service.connect(
            closing, "127.0.0.4", SCRIPT.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        )
        said = b""
        while part := connection.recv(1_000_000):
            said += part
    head, _, body = said.partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head.lower()
    assert len(body) > 1_000_000
