"""Who holds a port, as the kernel and the list of processes say it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from api import ports

HOST = "127.0.0.1"

pytestmark = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="no /proc: owners of ports are not known")


def test_the_owner_of_a_port_is_named_by_process_and_command() -> None:
    listen = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", listen], stdout=subprocess.PIPE, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        said = ports.owner(port)
        process.communicate(b"\n")
    assert said.startswith(f"process {process.pid} ({Path(sys.executable).name} -c import socket; ")
    assert ports.owner(port) == ""


def test_a_connection_from_a_port_does_not_own_it() -> None:
    with socket.create_server((HOST, 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert ports.owner(client.getsockname()[1]) == ""
        assert f"process {os.getpid()} " in ports.owner(server.getsockname()[1])


def test_somebody_elses_process_is_named_by_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells everybody which user holds a port, and only that user which process it is."""
    with socket.create_server((HOST, 0)) as server:
        monkeypatch.setattr(Path, "iterdir", lambda _: (_ for _ in ()).throw(PermissionError))
        assert ports.owner(server.getsockname()[1]).startswith("a process of ")


def test_the_port_that_is_offered_is_free() -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        offered = ports.next_free(HOST, port)
        assert offered is not None
        assert offered > port
        socket.create_server((HOST, offered)).close()
        assert f"holds that port; --port {offered} is free" in ports.taken(HOST, port)
    assert ports.next_free(HOST, 65535) is None
