"""Bounds on connections: who is closed where an address, or all together, hold too many, and what the kernel ends."""

import os
import resource
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from prometheus_client import CollectorRegistry

from api.metrics import Metrics
from api.server import free_port
from api.traffic.client_addresses import TrustedProxies, networks
from api.traffic.connections import ConnectionBounds, ConnectionReaper, affordable, listening, network
from tests.waiting import PATIENCE

HOST = "127.0.0.1"


class Accepting:
    """Server side of connections, in this process: what granian holds."""

    def __init__(self, closing: ExitStack, host: str = HOST):
        self.port = free_port(host)
        self.host, self._closing = host, closing
        self.listener = closing.enter_context(listening(host, self.port))
        self.listener.listen()

    def connect(self, source: str = HOST) -> tuple[socket.socket, socket.socket]:
        """Connection from an address: the client's end and the server's."""
        client = self._closing.enter_context(
            socket.create_connection((self.host, self.port), source_address=(source, 0))
        )
        return client, self._closing.enter_context(self.listener.accept()[0])


@pytest.fixture
def accepting() -> Iterator[Accepting]:
    with ExitStack() as closing:
        yield Accepting(closing)


def ended(connection: socket.socket) -> bool:
    """Whether the server has ended it."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def counted(metrics: Metrics) -> dict[str, float]:
    registry: CollectorRegistry = metrics.registry
    return {
        bound: registry.get_sample_value("journey_bandit_connections_closed_total", {"bound": bound}) or 0.0
        for bound in ("address", "all")
    }


def test_the_quietest_connections_of_an_address_are_closed_and_nobody_elses(accepting: Accepting) -> None:
    metrics = Metrics()
    reaper = ConnectionReaper(accepting.port, ConnectionBounds(100, 3), metrics)
    silent = [accepting.connect() for _ in range(5)]
    speaking, kept = accepting.connect()
    others = [accepting.connect("127.0.0.2") for _ in range(3)]
    assert not any(ended(client) for client, _ in silent)
    time.sleep(0.05)  # so that those who speak now are the last who spoke, by the kernel's clock
    speaking.sendall(b"GET")
    silent[0][0].sendall(b"GET")
    assert kept.recv(3) == b"GET"
    assert reaper.sweep() == 3
    assert [ended(server) for _, server in silent].count(True) == 3
    assert not ended(silent[0][1]), "one who spoke was closed before those who did not"
    assert not ended(kept)
    assert not any(ended(server) for _, server in others)
    assert counted(metrics) == {"address": 3.0, "all": 0.0}
    assert metrics.registry.get_sample_value("journey_bandit_connections") == 6.0


def test_all_together_are_bounded_too_and_a_closed_connection_counts_no_more(accepting: Accepting) -> None:
    metrics = Metrics()
    reaper = ConnectionReaper(accepting.port, ConnectionBounds(4, 100), metrics)
    made = [accepting.connect(f"127.0.0.{n}") for n in range(2, 9)]
    assert reaper.sweep() == 3
    for _, server in made:
        if ended(server):
            server.close()
    assert reaper.sweep() == 0
    assert counted(metrics) == {"address": 0.0, "all": 3.0}
    time.sleep(0.05)  # the kernel's clock ticks in milliseconds
    fresh, server = accepting.connect()
    fresh.sendall(b"GET")
    assert server.recv(3) == b"GET"
    assert reaper.sweep() == 1
    assert not ended(server)


def test_a_trusted_proxy_holds_as_many_as_all_may(accepting: Accepting) -> None:
    proxies = TrustedProxies(networks("127.0.0.2"))
    made = [accepting.connect("127.0.0.2") for _ in range(5)] + [accepting.connect() for _ in range(2)]
    reaper = ConnectionReaper(accepting.port, ConnectionBounds(5, 1), Metrics(), proxies)
    assert reaper.sweep() == 2
    assert [ended(server) for _, server in made].count(True) == 2, "one of the other's, then one of all"
    assert ended(made[5][1]) != ended(made[6][1])


def test_what_is_no_connection_to_the_port_is_left_alone(accepting: Accepting) -> None:
    """The listening socket, another server's connections, and those that this process opened."""
    with ExitStack() as closing:
        other = Accepting(closing)
        elsewhere = [other.connect() for _ in range(5)]
        ours = [accepting.connect() for _ in range(2)]
        assert ConnectionReaper(accepting.port, ConnectionBounds(1, 1), Metrics()).sweep() == 1
        assert not any(ended(end) for pair in elsewhere for end in pair)
        assert [ended(server) for _, server in ours].count(True) == 1
        assert accepting.connect()


def test_a_file_descriptor_that_was_used_again_is_another_connection(accepting: Accepting) -> None:
    reaper = ConnectionReaper(accepting.port, ConnectionBounds(1, 1), Metrics())
    client, server = accepting.connect()
    assert reaper.sweep() == 0
    number = server.fileno()
    with socket.socket() as strange:
        server.close()
        os.dup2(strange.fileno(), number)  # no connection now
        try:
            assert accepting.connect()
            assert reaper.sweep() == 0
        finally:
            os.close(number)
    client.close()


def test_connections_inherit_a_time_for_answers_that_nobody_takes_and_a_small_buffer(accepting: Accepting) -> None:
    _, server = accepting.connect()
    assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
    assert server.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * 65_536
    assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


@pytest.mark.parametrize(
    ("address", "counted_by"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_a_client_is_an_address_and_under_ipv6_a_network(address: str, counted_by: str) -> None:
    assert network(address) == counted_by


def test_connections_over_ipv6_are_counted_by_their_network() -> None:
    with ExitStack() as closing:
        accepting = Accepting(closing, "::1")
        made = [accepting.connect("::1") for _ in range(3)]
        assert ConnectionReaper(accepting.port, ConnectionBounds(9, 2), Metrics()).sweep() == 1
        assert [ended(server) for _, server in made].count(True) == 1


def test_bounds_are_what_the_process_may_open_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limits, asked = [(1024, 4096)], list[tuple[int, int]]()
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[0])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: asked.append(pair))
    assert affordable(ConnectionBounds(1000, 500)) == ConnectionBounds(1000, 500)
    assert asked == [(2256, 4096)]  # the soft limit is raised as far as is needed
    assert affordable(ConnectionBounds(4096, 3000)) == ConnectionBounds(1920, 1920)
    assert asked[1:] == [(4096, 4096)]
    assert "1920 instead of 4096" in caplog.text
    limits[0] = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert affordable(ConnectionBounds(4096, 3000)) == ConnectionBounds(4096, 3000)
    assert len(asked) == 2


def filled(server: socket.socket) -> int:
    """Bytes that a server sends until neither its system nor the client's takes more."""
    server.setblocking(False)
    sent = 0
    while True:
        try:
            sent += server.send(bytes(10_000))
        except BlockingIOError:
            return sent


def received(client: socket.socket) -> int:
    """Bytes that a client reads until the server's end of the connection."""
    client.setblocking(True)
    client.settimeout(PATIENCE)
    return sum(len(part) for part in iter(lambda: client.recv(65_536), b""))


def test_a_service_that_stops_waits_for_no_client_that_takes_nothing(accepting: Accepting) -> None:
    now = [0.0]
    reaper = ConnectionReaper(accepting.port, ConnectionBounds(100, 100), Metrics(), clock=lambda: now[0])
    (stalled, full), (slow, read), (_, idle) = (accepting.connect() for _ in range(3))
    sent = filled(full)
    filled(read)
    for now[0] in (0.0, 10.0):
        assert reaper.sweep() == 0, "a service that goes on waits as long as the kernel does"
    reaper.finish(20.0)
    assert reaper.sweep() == 0
    now[0] = 11.9
    assert reaper.sweep() == 0
    while not select.select([], [read], [], 0)[1]:  # its client takes some, and the server sends more
        slow.recv(65_536)
    filled(read)
    now[0] = 12.0
    assert reaper.sweep() == 1
    assert [ended(server) for server in (full, read, idle)] == [True, False, False]
    assert received(stalled) == sent, "what the system had was not delivered"


def test_a_service_that_stops_ends_all_connections_at_last(accepting: Accepting) -> None:
    now = [0.0]
    reaper = ConnectionReaper(accepting.port, ConnectionBounds(100, 100), Metrics(), clock=lambda: now[0])
    client, server = accepting.connect()
    reaper.finish(10.0)
    now[0] = 9.9
    assert reaper.sweep() == 0
    now[0] = 10.0
    assert reaper.sweep() == 1
    assert ended(server)
    assert received(client) == 0
    assert reaper.sweep() == 0, "its socket is still open, and was ended before"
