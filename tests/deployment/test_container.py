"""The service as its container runs it, without a container engine: the command of compose.yaml, as the user of the
image without any capability, as process 1, in a file system where only the ledger's folder and /tmp can be written.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from api.http.keys import create
from api.server import free_port
from bandit.catalogue.loading import read_shipped
from tests.waiting import PATIENCE, eventually
from tools.wheel import ROOT

FOLDER = ROOT / "docs" / "guides" / "deployment"
REPLICA: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))["services"]["one"]
USER = int(re.findall(r"^USER (\d+)$", (FOLDER / "Dockerfile").read_text("utf-8"), re.MULTILINE)[0])
SHOWN = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/null", "/dev/urandom")
PRIVATE = ("unshare", "--mount", "--pid", "--fork", "--propagation", "private")
ROOT_OF_ITS_OWN = """
root=$1 ledger=$2 files=$3 user=$4; shift 4
mount -t tmpfs -o mode=755 tmpfs "$root"
mkdir "$root/tmp" "$root/proc" "$root/ledger" "$root/etc" "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount --bind "$ledger" "$root/ledger"
while [ "$1" != -- ]; do
  case "$1" in /etc/shop.toml|/etc/keys.toml) source="$files${1#/etc}" ;; *) source="$1" ;; esac
  if [ -d "$source" ]; then mkdir -p "$root$1"; else mkdir -p "$(dirname "$root$1")"; : > "$root$1"; fi
  mount --bind "$source" "$root$1"
  mount -o remount,ro,bind "$root$1"
  shift
done
shift
mount -o remount,ro "$root"
if touch "$root/here" 2> /dev/null; then echo "the root can be written"; exit 1; fi
cd "$root/ledger"
exec chroot "$root" setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs --bounding-set=-all \\
  --inh-caps=-all -- sh -c 'cd /ledger && exec "$@"' sh "$@"
"""


def possible() -> bool:
    programs = ("unshare", "setpriv", "chroot", "mount")
    if os.geteuid() != 0 or not all(map(shutil.which, programs)):
        return False
    code = 'mount -t tmpfs tmpfs "$1" && umount "$1"'
    done = subprocess.run([*PRIVATE, "sh", "-c", code, "sh", str(FOLDER)], capture_output=True, check=False)
    return done.returncode == 0


pytestmark = pytest.mark.skipif(not possible(), reason="needs root, and file systems of its own: unshare, setpriv")


class Container:
    """Service in a file system of its own, answering at `url`. `work`: a folder for its files. The ledger is a file in
    the folder `ledger` of it, which is the one that the service may write.
    """

    def __init__(self, work: Path):
        self._work, port = work, free_port("127.0.0.1")
        self.url, self.log = f"http://127.0.0.1:{port}", work / "log"
        self._check = [part.replace("8080", str(port)) for part in REPLICA["healthcheck"]["test"][1:]]
        options = ["--port", str(port), "--store", "sqlite:////ledger/ledger.db", "--drain", "600"]
        self._command = [*shlex.split(REPLICA["command"]), *options]
        files = work / "files"
        for folder in (work / "root", work / "ledger", files):
            folder.mkdir()
        os.chown(work / "ledger", USER, USER)
        (files / "shop.toml").write_text(read_shipped("travel"), encoding="utf-8")
        self.key = create(files / "keys.toml", "shop", ["decide"])
        os.chown(files / "keys.toml", USER, USER)

    @contextmanager
    def running(self) -> Iterator[int]:
        """Process id of the service, which is killed at the end if it still runs."""
        shown = {path for path in (*SHOWN, sys.base_prefix, sys.prefix, str(ROOT)) if Path(path).exists()}
        shown |= {volume.split(":")[1] for volume in REPLICA["volumes"]}
        places = [str(self._work / name) for name in ("root", "ledger", "files")]
        command = [*PRIVATE, "--kill-child", "sh", "-euc", ROOT_OF_ITS_OWN, "sh", *places, str(USER), *sorted(shown)]
        environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        environ |= {name: value for name, value in REPLICA["environment"].items() if "LOG" in name}
        inside = [sys.executable, "-m", "journey_bandit", *self._command]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen([*command, "--", *inside], env=environ, stdout=log, stderr=log)
        try:
            yield self._inner()
        finally:
            self._process.kill()
            self._process.wait(PATIENCE)

    def _inner(self) -> int:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        found = eventually(lambda: self._process.poll() is not None or children.read_text().split())
        assert isinstance(found, list), self.log.read_text()
        return int(found[0])

    def healthy(self) -> bool:
        """Whether the health check of compose.yaml passes."""
        command = [sys.executable, *self._check[1:]]
        return subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE).returncode == 0

    def ended(self) -> int:
        """Exit status at the end."""
        return self._process.wait(PATIENCE)

    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None


def status(pid: int) -> dict[str, str]:
    """What the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_the_container_serves_from_a_root_that_is_read_only_and_a_signal_ends_it(tmp_path: Path) -> None:
    container = Container(tmp_path)
    with container.running() as pid:
        assert eventually(lambda: not container.alive() or container.healthy(), 0.1), container.log.read_text()
        assert container.alive(), container.log.read_text()
        found = status(pid)
        assert found["NSpid"].split()[-1] == "1"
        assert found["Uid"].split() == found["Gid"].split() == [str(USER)] * 4
        assert (found["CapEff"], found["CapBnd"], found["NoNewPrivs"]) == ("0" * 16, "0" * 16, "1")
        asked = {"stage": "cart", "user_id": "u-1"}
        answer = httpx.post(
            f"{container.url}/v1/decisions", json=asked, headers={"X-API-Key": container.key}, timeout=PATIENCE
        )
        assert answer.status_code == 200, answer.text
        assert httpx.post(f"{container.url}/v1/decisions", json=asked, timeout=PATIENCE).status_code == 401
        os.kill(pid, 15)
        assert eventually(lambda: not container.healthy(), 0.1)
        assert container.alive(), "with --drain it serves on"
        os.kill(pid, 15)
        assert container.ended() == 0, container.log.read_text()
    assert (tmp_path / "ledger" / "ledger.db").stat().st_uid == USER
