"""Owners of TCP ports: who listens at a port of this machine, as far as Linux's /proc tells, and which one is free."""

import contextlib
import pwd
import socket
from collections.abc import Iterator
from pathlib import Path

_LISTEN, _MOST = "0A", 120  # state of a socket in /proc/net/tcp; characters of a command that are shown


def taken(host: str, port: int) -> str:
    """Sentence for somebody whose port is taken: who listens there, as far as this machine tells, and another port to
    use.
    """
    free = next_free(host, port)
    fix = f"--port {free} is free" if free else "--port 0 takes any free one"
    return f"{owner(port) or 'another process'} holds that port; {fix}"


def owner(port: int) -> str:
    """Process that listens at a TCP port of this machine, "process 4711 (python -m http.server)"; its user where it is
    somebody else's; "" where nothing is known, as on a system without /proc.
    """
    sockets = list(_listening(port))
    for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        with contextlib.suppress(OSError):  # it has ended, or is not ours to look at
            held = set(_files(process))
            if any(f"socket:[{inode}]" in held for inode, _ in sockets):
                return f"process {process.name} ({_command(process)})"
    with contextlib.suppress(KeyError):  # a user without a name
        return next((f"a process of {pwd.getpwuid(user).pw_name}" for _, user in sockets), "")
    return f"a process of user {sockets[0][1]}"


def _listening(port: int) -> Iterator[tuple[str, int]]:
    """(inode, user id) of each socket that listens at the port."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text("ascii").splitlines()[1:]:
                _, local, _, state, *rest = line.split()
                if state == _LISTEN and int(local.rpartition(":")[2], 16) == port:
                    yield rest[5], int(rest[3])


def _files(process: Path) -> Iterator[str]:
    """Names of what a process has open; what it closes meanwhile is left out."""
    for link in (process / "fd").iterdir():
        with contextlib.suppress(OSError):
            yield str(link.readlink())


def _command(process: Path) -> str:
    """Command line of a process, its program without folders, cut where it is long."""
    program, *words = (process / "cmdline").read_text(errors="replace").rstrip("\0").split("\0")
    said = " ".join([Path(program).name, *words])
    return said if len(said) <= _MOST else f"{said[:_MOST]}…"


def next_free(host: str, port: int) -> int | None:
    """First free port of this host after `port`, among the next hundred; None if there is none."""
    for other in range(port + 1, min(port + 101, 65536)):
        with contextlib.suppress(OSError):
            family, _, _, _, (address, *_) = socket.getaddrinfo(host, other, type=socket.SOCK_STREAM)[0]
            socket.create_server((address, other), family=family).close()
            return other
    return None
