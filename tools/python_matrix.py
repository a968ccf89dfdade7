"""Try the wheel on every Python that this machine has: a clean environment each, then `serve`, `export`, `evaluate` and
`simulate` of what is installed.

    python -m tools.python_matrix

Looked for are python3.11 to python3.14 on PATH, and the versions that pyenv has. Versions that are not there are named.
Of each version it says what was done, and how long that took: nearly all of it is pip, which installs MLflow.
Exit status 0: all that are there work; 1: one does not; 2: none was found. It needs the internet for what is installed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from tests.waiting import COMMAND_PATIENCE
from tools import wheel
from tools.wheel import PIP, ROOT, WheelInstall

VERSIONS = ("3.11", "3.12", "3.13", "3.14")


def main() -> int:
    """What the command does: its exit status."""
    found = pythons(os.environ)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        built = wheel.build(folder / "wheel")
        failed = [version for version, python in found.items() if not tried(version, python, built, folder / version)]
    print(f"not on this machine: {', '.join(sorted(set(VERSIONS) - found.keys())) or 'none'}")
    return 1 if failed else 0 if found else 2


def pythons(environ: Mapping[str, str]) -> dict[str, Path]:
    """Interpreters by version, as far as they are there and start: a shim of pyenv may name one that does not."""
    root = Path(environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = dict[str, Path]()
    for version in VERSIONS:
        there = shutil.which(f"python{version}", path=environ.get("PATH", ""))
        candidates = [Path(there)] if there else []
        candidates += sorted(root.glob(f"{version}.*/bin/python{version}"))
        working = (one for one in candidates if _is(one, version))
        if (python := next(working, None)) is not None:
            found[version] = python
    return found


def tried(version: str, python: Path, built: Path, folder: Path) -> bool:
    """Whether the wheel works with a Python, in an environment made in a folder; says so, with the seconds."""
    work, start = folder / "work", time.monotonic()
    work.mkdir(parents=True)
    try:
        inside = _environment(python, built, folder)
        ready = time.monotonic()
        wheel.exercise(WheelInstall(inside, None, work))
    except (OSError, RuntimeError, subprocess.SubprocessError, httpx.HTTPError) as error:
        print(f"{version}: failed after {time.monotonic() - start:.0f} s: {type(error).__name__}: {error}", flush=True)
        return False
    done = f"serves, exports, evaluates and simulates in {time.monotonic() - ready:.0f} s"
    print(f"{version}: installs in {ready - start:.0f} s; {done} ({python})", flush=True)
    return True


def _environment(python: Path, built: Path, folder: Path) -> Path:
    """Interpreter of a clean environment that has the wheel with its experiments, in the pinned versions."""
    environment = folder / "environment"
    subprocess.run([python, "-m", "venv", environment], check=True, timeout=COMMAND_PATIENCE)
    inside = environment / "bin" / "python"
    install = [str(inside), *PIP, "install", "-c", str(ROOT / "constraints.txt"), f"{built}[experiments]"]
    subprocess.run(install, check=True, timeout=COMMAND_PATIENCE, cwd=folder)
    return inside


def _is(python: Path, version: str) -> bool:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    except OSError:
        return False
    return done.returncode == 0 and done.stdout.strip() == version


if __name__ == "__main__":
    sys.exit(main())
