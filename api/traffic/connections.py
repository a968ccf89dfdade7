"""Bounds on connections: how many an address may hold, how many there are in all, and when one that reads nothing ends.

Granian accepts connections up to a number and serves them; it knows neither their addresses nor whether an answer is
read. So the kernel ends a connection whose answer makes no progress (TCP_USER_TIMEOUT of the listening socket, which
accepted ones inherit), and a thread looks at the sockets of this process twice a second: where an address, or all of
them together, hold more than they may, it closes those that have said nothing for longest. Somebody who connects and
asks at once is served meanwhile, whoever else holds connections. When the service stops, the thread ends those of which
it would wait in vain.
"""

import errno
import fcntl
import ipaddress
import logging
import os
import resource
import socket
import stat
import struct
import sys
import termios
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from api.metrics import Metrics
from api.traffic.client_addresses import TrustedProxies

log = logging.getLogger("journey_bandit.connections")

IN_ALL, PER_ADDRESS = 4096, 1024
"""Connections that are held at once in all, and of one address, where the settings say nothing else."""
WRITE_SECONDS = 20
"""An answer of which the client's system takes nothing for so long ends its connection."""

_SEND_BYTES = 65_536  # of each connection's answer that wait in the kernel; Linux takes twice as much memory for it
_BACKLOG = 4096  # connections that wait to be accepted
_SECONDS = 0.5  # between two looks at the sockets
_SPARE = 256  # files that are not connections: the ledger, logs, webhooks
_STALLED_SECONDS = 2.0  # without progress of an answer, while the service stops
_WAITING = struct.Struct("i")  # TIOCOUTQ: bytes that the client's system has not acknowledged
_SAID = struct.Struct("52xI")  # tcp_info: milliseconds since data came last
_ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: what the client has not read is thrown away
_FILES = Path("/proc/self/fd")
_QUIET_LOG = 100  # closed connections between two lines in the log
_PROXY = "(trusted proxy)"  # stands for the address of one: what it holds belongs to many clients


class ConnectionBounds(NamedTuple):
    """Bounds on connections held at once: in all, and of one address (of IPv6, one /64 network)."""

    in_all: int
    per_address: int


DEFAULT = ConnectionBounds(IN_ALL, PER_ADDRESS)


def listening(host: str, port: int) -> socket.socket:
    """Listening socket of the service, bound and not yet listening. What is set here, accepted connections inherit."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
        if sys.platform == "linux":
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, WRITE_SECONDS * 1000)
        made.bind((host, port))
    except BaseException:
        made.close()
        raise
    return made


def backlog() -> int:
    """Connections that may wait to be accepted; the system may allow fewer."""
    return _BACKLOG


def affordable(bounds: ConnectionBounds) -> ConnectionBounds:
    """Bounds as far as this process may open files, whose soft limit is raised for them; a line in the log says where
    that is fewer than was asked for. Twice as many are needed: those above a bound are closed only when they are seen.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * bounds.in_all + _SPARE
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return bounds
    fewer = max(1, (soft - _SPARE) // 2)
    log.warning("connections: %d instead of %d, because this process may open %d files (ulimit -n)",
                fewer, bounds.in_all, soft)  # fmt: skip
    return ConnectionBounds(fewer, min(fewer, bounds.per_address))


class HeldConnection(NamedTuple):
    """Connection that this process holds: its file descriptor, the number of its socket (by which a descriptor that was
    used again is noticed), and its client's address.
    """

    file: int
    inode: int
    address: str


class ConnectionReaper:
    """Thread that closes connections above the bounds: of an address first, then of all; those first that have said
    nothing for longest. It counts what it sees and does in the metrics, and says it in the log. `proxies` hold
    connections for many clients, so only the bound of all is theirs.

    `finish` makes it end also, while the service stops, the connections that would hold it up.

    It works where the system lists open files in /proc (Linux). Elsewhere `running` says so in the log, and granian's
    own bound in all remains.
    """

    def __init__(
        self,
        port: int,
        bounds: ConnectionBounds,
        metrics: Metrics,
        proxies: TrustedProxies | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._port, self._bounds, self._metrics, self._clock = port, bounds, metrics, clock
        self._proxies = proxies or TrustedProxies()
        self._last: float | None = None  # when all that are left end, by the clock; None: the service goes on
        self._stalled: dict[HeldConnection, tuple[int, float]] = {}
        self._cut = set[HeldConnection]()
        self._known: dict[tuple[int, int], str] = {}
        self._ended = threading.Event()
        self._closed = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Context in which the thread runs."""
        if not _FILES.is_dir():
            log.warning("connections of one address are not bounded: this system does not list them in %s", _FILES)
            yield
            return
        thread = threading.Thread(target=self._run, name="connections", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def finish(self, seconds: float) -> None:
        """From now on, as the service stops, end also connections of whose answer the client takes nothing for two
        seconds, and in so many seconds all: granian waits for each of them until the process is killed. What the
        system has of an answer it still delivers.
        """
        self._last = self._clock() + seconds

    def _run(self) -> None:
        while not self._ended.wait(_SECONDS):
            self.sweep()

    def sweep(self) -> int:
        """Close what is above the bounds now, and return how many connections that were."""
        held = self._held()
        by_address = defaultdict[str, list[HeldConnection]](list)
        for one in held:
            by_address[one.address].append(one)
        closed = set[HeldConnection]()
        for address, its in by_address.items():
            above = len(its) - self._bounds.per_address
            if above > 0 and address != _PROXY:
                closed |= self._close(its, above, "address", f"{address} held {len(its)}", self._bounds.per_address)
        left = [one for one in held if one not in closed]
        above = len(left) - self._bounds.in_all
        if above > 0:
            closed |= self._close(left, above, "all", f"{len(left)} were held in all", self._bounds.in_all)
        if self._last is not None:
            closed |= self._finish([one for one in held if one not in closed | self._cut], self._last)
        self._metrics.connections.set(len(held) - len(closed))
        return len(closed)

    def _finish(self, held: Sequence[HeldConnection], last: float) -> set[HeldConnection]:
        """End those that hold up a service that stops."""
        now = self._clock()
        stalled = self._stalled_since(held, now)
        if now >= last:
            ended = set(held)
            if ended:
                log.warning("cut %d connections that were not finished when the service had to stop", len(ended))
        else:
            ended = {one for one, since in stalled.items() if now >= since + _STALLED_SECONDS}
            if ended:
                log.info("cut %d connections whose clients take nothing, as the service stops", len(ended))
        for one in ended:
            with _same(one.file, one.inode) as connection:
                if connection is not None:
                    _shut(connection)
        self._cut |= ended
        return ended

    def _stalled_since(self, held: Iterable[HeldConnection], now: float) -> dict[HeldConnection, float]:
        """When a client was first seen to have taken as much of an answer as now, for those that have not all of it."""
        before, self._stalled = self._stalled, {}
        for one in held:
            waiting = _waiting(one)
            if waiting:
                many, since = before.get(one, (waiting, now))
                self._stalled[one] = waiting, since if many == waiting else now
        return {one: since for one, (_, since) in self._stalled.items()}

    def _held(self) -> list[HeldConnection]:
        """Connections to our port that this process holds."""
        held, known = list[HeldConnection](), dict[tuple[int, int], str]()
        for name in os.listdir(_FILES):
            file = int(name)
            try:
                status = os.fstat(file)
            except OSError:
                continue  # closed meanwhile
            if not stat.S_ISSOCK(status.st_mode):
                continue
            key = (file, status.st_ino)
            address = self._known.get(key)
            if address is None:
                address = self._address(*key)
            known[key] = address
            if address:
                held.append(HeldConnection(file, status.st_ino, address))
        self._known = known
        return held

    def _address(self, file: int, inode: int) -> str:
        """Address of the client of a socket; "" for what is no connection to our port."""
        with _same(file, inode) as found:
            if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
                return ""
            try:
                if found.getsockname()[1] != self._port:
                    return ""
                address = found.getpeername()[0]
                return _PROXY if address in self._proxies else network(address)
            except OSError as error:
                if error.errno not in (errno.ENOTCONN, errno.EINVAL):  # it listens, or has ended
                    raise
                return ""

    def _close(
        self, held: Iterable[HeldConnection], many: int, bound: str, found: str, allowed: int
    ) -> set[HeldConnection]:
        """Close so many of those connections, the quietest first."""
        chosen = sorted(held, key=_quiet, reverse=True)[:many]
        for one in chosen:
            with _same(one.file, one.inode) as connection:
                if connection is not None:
                    _abort(connection)
        self._metrics.connections_closed.labels(bound).inc(len(chosen))
        if self._closed % _QUIET_LOG == 0 or len(chosen) >= _QUIET_LOG:
            log.warning("closed %d connections: %s, and %d are allowed", len(chosen), found, allowed)
        self._closed += len(chosen)
        return set(chosen)


def network(address: str) -> str:
    """What one client is counted by: an IPv4 address, also where it is written as IPv6; of IPv6 the /64 network, all of
    whose addresses one client has.
    """
    if ":" not in address:
        return address
    found = ipaddress.IPv6Address(address.partition("%")[0])
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((found, 64), strict=False))


@contextmanager
def _same(file: int, inode: int) -> Iterator[socket.socket | None]:
    """Context with a copy of a socket of ours, if the file descriptor still is that socket: granian closes its own in
    other threads, and a copy cannot become somebody else's.
    """
    try:
        copy = os.dup(file)
    except OSError:
        yield None
        return
    if os.fstat(copy).st_ino != inode:
        os.close(copy)
        yield None
        return
    with socket.socket(fileno=copy) as found:
        yield found


def _quiet(one: HeldConnection) -> int:
    """Milliseconds for which a connection's client has sent nothing; 0 if it has ended."""
    with _same(one.file, one.inode) as found:
        if found is None:
            return 0
        info = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SAID.size)
        return int(_SAID.unpack(info)[0])


def _waiting(one: HeldConnection) -> int:
    """Bytes of a connection's answers that its client's system has not taken; 0 if it has ended."""
    with _same(one.file, one.inode) as found:
        if found is None:
            return 0
        return int(_WAITING.unpack(fcntl.ioctl(found, termios.TIOCOUTQ, bytes(_WAITING.size)))[0])


def _abort(connection: socket.socket) -> None:
    """End a connection now, and throw away what its client has not read. Granian sees its end and lets go of it."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    except OSError as error:
        if error.errno not in (errno.ENOTCONN, errno.EINVAL):  # its client ended it first
            raise
    _shut(connection)


def _shut(connection: socket.socket) -> None:
    """End a connection. Granian sees its end and lets go of it; the system delivers what it has."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        if error.errno not in (errno.ENOTCONN, errno.EINVAL):  # its client ended it first
            raise
