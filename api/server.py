"""HTTP server: the app runs under granian in this process. Granian closes slow clients, refuses request smuggling, and
stops on a signal. `api.traffic.connections` bounds how many connections there are.
"""

import asyncio
import errno
import fcntl
import gc
import logging
import random
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import threadpoolctl
import uvloop
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server
from litestar import Litestar

from api import ports, private_files
from api.metrics import Metrics
from api.traffic import connections
from api.traffic.client_addresses import TrustedProxies
from api.traffic.connections import ConnectionBounds, ConnectionReaper
from bandit.errors import RemoteError

log = logging.getLogger("journey_bandit.server")

_HEADER_MS = 5_000  # a client that sends its headers slower is closed
_UNASSIGNED = range(20_000, 32_768)  # ports below those that Linux (32768) and others (49152) give to connections
_GRACE_SECONDS = 10  # open requests may finish for so long: more than headers and a body may take
_LET_GO_SECONDS = 5  # for granian to let go of connections that were ended then
_GRANIAN_LOGS = {"handlers": {}, "formatters": {}, "loggers": {"_granian": {"propagate": True}}}  # into our own log
_YOUNG, _MIDDLE, _OLD = 20_000, 20, 50  # thresholds of the garbage collector's three generations


def free_port(host: str) -> int:
    """TCP port of this host that nobody listens on now. It is none that systems give to connections or to servers that
    ask for any port, so only a process that names the same port can take it before the caller does.

    Raises RemoteError if the host is not this machine's.
    """
    for port in random.sample(_UNASSIGNED, min(100, len(_UNASSIGNED))):
        try:
            with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
                return port
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise RemoteError(
                    f"{host} cannot be served: {error}; give --host an address of this machine"
                ) from error
    raise RemoteError(f"{host} has no free port: 100 of {_UNASSIGNED[0]} to {_UNASSIGNED[-1]} were tried; name one")


@contextmanager
def claimed(host: str, port: int) -> Iterator[tuple[str, int]]:
    """Context with the address to bind and the port (a free one for 0), locked against other services of ours while it
    lasts. `journey-bandit serve` enters it before it opens the ledger.

    Raises RemoteError if the host is not this machine's, or somebody listens there: two servers on one port would share
    its requests without noticing. The listening socket cannot show it (it is shared by design), so a lock file does.
    """
    try:
        family, _, _, _, (address, *_) = socket.getaddrinfo(host, port or None, type=socket.SOCK_STREAM)[0]
        port = port or free_port(str(address))
        with socket.create_server((address, port), family=family):
            lock = private_files.lock_file(private_files.of_this_user() / f"port-{port}.lock")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise RemoteError(f"{host}:{port} cannot be served: {ports.taken(host, port)}") from error
        fix = "give --host an address of this machine, and --port one that is free (0 takes any)"
        raise RemoteError(f"{host}:{port} cannot be served: {error}; {fix}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RemoteError(f"{host}:{port} cannot be served: {ports.taken(host, port)}") from error
        yield str(address), port


@contextmanager
def hangups() -> Iterator[list[int]]:
    """Context that catches SIGHUP while a service starts, in a list that is not empty then: the service has nothing to
    reload yet, and must not end. Afterwards, when it stops, the signal is handled as before the context.
    """
    early = list[int]()
    before = signal.signal(signal.SIGHUP, lambda number, _: early.append(number))
    try:
        yield early
    finally:
        signal.signal(signal.SIGHUP, before)


@contextmanager
def lean() -> Iterator[None]:
    """Context in which a service runs without stalls of its own making: one BLAS thread, because its matrices are small
    and a pool of threads costs more than it saves; and a garbage collector that does not visit what the service was
    built of, because a full collection of that stops all threads for tens of milliseconds. Both are undone at the end.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
    try:
        with threadpoolctl.threadpool_limits(1):
            yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


class _BoundedServer(Server):
    """Granian on a listening socket of ours, whose options its connections inherit. Granian's own shares the port with
    other processes, and sets none.
    """

    def _init_shared_socket(self) -> None:
        own, holder = connections.listening(self.bind_addr, self.bind_port), cast(Any, SocketHolder)
        given = (own.detach(), False, *([self.backlog] if sys.platform == "linux" else []))
        self._ssp, self._shd = None, holder(*given)


def _bounded(app: Litestar, host: str, port: int, bounds: ConnectionBounds) -> _BoundedServer:
    """Granian around an application. When it stops, it gives up after the reaper has ended all connections."""
    server = _BoundedServer(
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=_HEADER_MS, max_buffer_size=64 * 1024),
        websockets=False,
        backlog=connections.backlog(),
        backpressure=2 * bounds.in_all,  # the reaper keeps fewer; above this, granian accepts no more for a while
        log_level=LogLevels.warning,
        log_dictconfig=_GRANIAN_LOGS,
    )
    server.workers_kill_timeout = _GRACE_SECONDS + _LET_GO_SECONDS
    return server


class ServiceEnd(NamedTuple):
    """End of a service after a signal: `leave` ends at once what takes long, and says that the service is not ready any
    more; it serves on for `seconds`, in which proxies notice. A second signal ends that.
    """

    leave: Callable[[], None]
    seconds: float

    def handler(self, loop: asyncio.AbstractEventLoop, halt: Callable[[], object]) -> Callable[[], None]:
        """Handler of the signals, which calls `halt` at last."""
        waiting = list[asyncio.TimerHandle]()

        def stop() -> None:
            if waiting:
                halt()
                return
            self.leave()
            if not self.seconds:
                halt()
                return
            waiting.append(loop.call_later(self.seconds, halt))

        return stop


AT_ONCE = ServiceEnd(lambda: None, 0.0)
"""End that nobody waits for."""


def serve(
    app: Litestar,
    host: str,
    port: int,
    reload: Callable[[], Coroutine[Any, Any, None]],
    early: list[int],
    end: ServiceEnd = AT_ONCE,
    *,
    bounds: ConnectionBounds = connections.DEFAULT,
    metrics: Metrics | None = None,
    proxies: TrustedProxies | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then as `end` says, then finish open requests (for ten seconds at most), commit
    what is queued and return. Called by the main thread of `journey-bandit serve`; it runs the event loop.

    `reload` is called for each SIGHUP, and once at the start if there was one `early`, as `hangups` caught it.
    `bounds` are kept as far as this process may open files, that of one address not for `proxies`; `metrics` counts
    connections.
    """
    bounds = connections.affordable(bounds)
    server = _bounded(app, host, port, bounds)
    reaper = ConnectionReaper(port, bounds, metrics or Metrics(), proxies)

    def halt() -> None:
        reaper.finish(_GRACE_SECONDS)
        cast(Callable[[], None], server.stop)()

    async def run() -> None:
        loop, reloading = asyncio.get_running_loop(), set[asyncio.Task[None]]()

        def hang_up() -> None:
            task = loop.create_task(reload())
            reloading.add(task)
            task.add_done_callback(reloading.discard)

        loop.add_signal_handler(signal.SIGHUP, hang_up)
        if early:
            hang_up()

        stop = end.handler(loop, halt)
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stop)
        try:
            await server.serve()
        except TimeoutError:
            log.warning("cut the requests that were not finished %d s after the signal", server.workers_kill_timeout)

    with lean(), reaper.running(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
