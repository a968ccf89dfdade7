"""Write requirements.lock: what the service and its experiments install, with versions and SHA-256 digests.

    python -m tools.lock

Versions are those of constraints.txt, digests those of the files that pip chooses for this Python and this platform; an
index is not named. `pip install --require-hashes -r requirements.lock` then takes nothing else.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOCK, CONSTRAINTS = ROOT / "requirements.lock", ROOT / "constraints.txt"
WHAT = ".[experiments]"
HEAD = "# Files that `make lock` chose for CPython {python} on {platform}; pip install --require-hashes -r"


def main() -> None:
    """Write the file anew."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    done = subprocess.run([*command, "-c", str(CONSTRAINTS), WHAT], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    LOCK.write_text(text(json.loads(done.stdout)), encoding="utf-8")


def text(report: dict[str, Any]) -> str:
    """The file's text, from what pip reports that it would install. What has no digest is this project itself: pip is
    given that with --no-deps. Pip is there already.
    """
    there = report["environment"]
    head = HEAD.format(python=there["python_version"], platform=f"{there['sys_platform']} {there['platform_machine']}")
    lines = []
    for one in report["install"]:
        if "dir_info" in one["download_info"] or one["metadata"]["name"] == "pip":
            continue
        digest = one["download_info"]["archive_info"]["hashes"]["sha256"]
        lines.append(f"{_normal(one['metadata']['name'])}=={one['metadata']['version']} --hash=sha256:{digest}")
    return "\n".join([head, *sorted(lines)]) + "\n"


def locked(lines: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Version and digest of each package of a lock. Raises ValueError for a line that has another form."""
    found = {}
    for line in lines:
        if line.startswith("#"):
            continue
        pinned, digest = line.split(" --hash=sha256:")
        name, version = pinned.split("==")
        found[name] = (version, digest)
    return found


def pinned(lines: Sequence[str]) -> dict[str, str]:
    """Version of each package of the constraints."""
    parts = [line.split(";")[0].strip().split("==") for line in lines if "==" in line]
    return {_normal(name): version for name, version in parts}


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


if __name__ == "__main__":
    main()
