"""Processes: servers that a command starts for itself as children, waits for until they answer over HTTP, and always
stops at its end.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from bandit.errors import RemoteError

_START_SECONDS, _PAUSE_SECONDS = 120.0, 0.05


def serve(*options: str, log: Path) -> subprocess.Popen[bytes]:
    """Start `journey-bandit serve` with these options, as a child process; its output goes to the file `log`. The
    caller stops it, see `stopping`.
    """
    with log.open("ab") as file:
        return subprocess.Popen([sys.executable, "-m", "journey_bandit", "serve", *options], stdout=file, stderr=file)


def wait(server: subprocess.Popen[bytes], url: str, log: Path, seconds: float = _START_SECONDS) -> None:
    """Return when `url` answers 200. Raises RemoteError if the server ended (with the end of its log)
    or took longer than `seconds`.
    """
    deadline = time.monotonic() + seconds
    with httpx.Client(timeout=2.0) as client:  # one: each reads the certificates of the machine, 30 ms
        while time.monotonic() < deadline:
            if server.poll() is not None:
                said = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
                raise RemoteError(f"the server for {url} ended with status {server.returncode}:\n{said}")
            with contextlib.suppress(httpx.TransportError):
                if client.get(url).status_code == 200:
                    return
            time.sleep(_PAUSE_SECONDS)
    raise RemoteError(f"{url} did not answer within {seconds:.0f} s: see {log}")


@contextlib.contextmanager
def stopping(server: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Context manager that stops the server at the end of its block, whatever happens in it: terminated, and killed if
    it is still there after 15 seconds.
    """
    try:
        yield server
    finally:
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
