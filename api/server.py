"""Run the app with granian in this process: it closes slow clients, refuses smuggled requests, and stops on a signal."""

import asyncio
import logging
import signal
import socket

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
from litestar import Litestar

log = logging.getLogger("journey_bandit.server")

_HEADER_MS = 5_000  # a client that sends its headers slower is closed
_GRACE_SECONDS = 10  # open requests may finish for so long


def free_port(host: str) -> int:
    """A port nobody listens on now."""
    with socket.create_server((host, 0)) as probe:
        return int(probe.getsockname()[1])


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
        await server.serve()

    asyncio.run(run())
