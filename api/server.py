"""Run the app with granian in this process: it closes slow clients, refuses smuggling, and stops on a signal."""

import asyncio
import logging
import signal
import socket

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
from litestar import Litestar

from bandit.errors import RemoteError

log = logging.getLogger("journey_bandit.server")

_HEADER_MS = 5_000  # a client that sends its headers slower is closed
_GRACE_SECONDS = 10  # open requests may finish for so long: more than headers and a body may take


def free_port(host: str) -> int:
    """A port nobody listens on now."""
    with socket.create_server((host, 0)) as probe:
        return int(probe.getsockname()[1])


def claim_port(host: str, port: int) -> int:
    """The port itself, or a free one for 0. RemoteError if somebody listens there: two servers would share its requests
    without noticing.
    """
    if port == 0:
        return free_port(host)
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise RemoteError(
            f"{host}:{port} cannot be served: {error}; stop who listens there, or give --port 0"
        ) from error
    return port


def serve(app: Litestar, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT, then finish open requests, commit what is queued and return."""
    server = Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=_HEADER_MS, max_buffer_size=64 * 1024),
        websockets=False,
        backlog=1024,
        log_enabled=False,
    )
    server.workers_kill_timeout = _GRACE_SECONDS

    async def run() -> None:
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, server.stop)
        try:
            await server.serve()
        except TimeoutError:
            log.warning("cut the requests that were not finished %d s after the signal", _GRACE_SECONDS)

    asyncio.run(run())
