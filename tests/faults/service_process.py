"""One service in a process of its own, which can be killed and started again."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from tests.waiting import PATIENCE


class ServiceProcess:
    """One service on one ledger, `store` or a file in the folder, killed and started again on the same port. `options`:
    what `serve` is given beside store and port. Its log is `serve.log` in the folder.
    """

    def __init__(self, folder: Path, port: int, options: Sequence[str], store: str = ""):
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "serve.log"
        store = store or f"sqlite:///{folder / 'ledger.db'}"
        given = ["--store", store, "--port", str(port), "--dev", *options]
        self._command = [sys.executable, "-m", "journey_bandit", "serve", *given]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Number of the process. It must run: a test fails if it has ended by itself."""
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        return self.process.pid

    def spawn(self) -> None:
        """Start it, and do not wait until it is ready."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def start(self) -> None:
        """Start it; it is ready when this returns."""
        self.spawn()
        self.ready()

    def ready(self) -> None:
        """Wait until it is."""
        deadline = time.monotonic() + PATIENCE
        with httpx.Client(timeout=2) as client:
            while time.monotonic() < deadline:
                assert self.pid
                with contextlib.suppress(httpx.TransportError):
                    if client.get(f"{self.url}/health/ready").status_code == 200:
                        return
                time.sleep(0.05)
        raise AssertionError(f"did not start: {self.log.read_text()}")

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE)

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def end(self) -> None:
        """Kill it if it still runs, at the end of a test."""
        if self.process and self.process.poll() is None:
            self.kill()
