"""MLflow server, local, with light settings: one worker, no job runner, no telemetry, SQLite in WAL."""

import contextlib
import errno
import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

from api import ports
from bandit.errors import RemoteError

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def refuse_taken(host: str, port: int) -> None:
    """Raise RemoteError if nobody may listen at this port of this host now: it names who does, and another port."""
    try:
        family, _, _, _, (address, *_) = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server((address, port), family=family).close()
    except OSError as error:
        fix = f"{error}; give --host an address of this machine, and --port one that is free (0 takes any)"
        why = ports.taken(host, port) if error.errno == errno.EADDRINUSE else fix
        raise RemoteError(f"MLflow cannot be served at {host}:{port}: {why}") from error


def start(folder: Path, host: str, port: int) -> subprocess.Popen[bytes]:
    """Start an MLflow server on the runs in `folder` (made if needed); it may take some seconds before it answers, see
    `processes.wait`. The caller stops it.

    Raises RemoteError if the port is taken or the host is not this machine's: whoever listens there would answer with
    data of its own, and nobody would notice.
    """
    refuse_taken(host, port)
    folder = folder.resolve()
    (folder / "artifacts").mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", host, "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    environment = {**os.environ, **QUIET, "PATH": path}
    with (folder / "server.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment)
