"""The wheel: how it is built, what it must contain, and whether what is installed from it works. For tests and for what
is done before a release.
"""

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from api.server import free_port
from tests.waiting import COMMAND_PATIENCE, PATIENCE, eventually

ROOT = Path(__file__).parents[1]
PACKAGES = ("bandit", "api", "experiments", "simulations", "journey_bandit")
PAGES = "journey_bandit/assistants/documentation"
PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")


def build(folder: Path, python: str = sys.executable) -> Path:
    """Wheel of this checkout, built into a folder by a Python that has pip."""
    command = [python, *PIP, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, timeout=COMMAND_PATIENCE)
    (wheel,) = folder.glob("*.whl")
    return wheel


def wrong_files(wheel: Path) -> list[str]:
    """What is wrong with a wheel's files: those of the packages that git knows, and pages of the documentation, must be
    in it with their types and licences, and no others.
    """
    files = {*_known(*PACKAGES), *(f"{PAGES}{name.removeprefix('docs')}" for name in _known(*_pages()))}
    with zipfile.ZipFile(wheel) as archive:
        every = archive.namelist()
    there = {name for name in every if ".dist-info/" not in name}
    licences = {name.partition(".dist-info/licenses/")[2] for name in every}
    wanted = {"LICENSE", "api/routes/swagger_ui/LICENSE", "simulations/datasets/data/LICENSE-hillstrom.md"}
    return [
        *(f"{name} is missing" for name in sorted(files - there)),
        *(f"{name} should not be there" for name in sorted(there - files)),
        *(f"{package} does not say that it has types" for package in PACKAGES if f"{package}/py.typed" not in there),
        *(f"the licence {name} is missing" for name in sorted(wanted - licences)),
    ]


def _known(*paths: str) -> list[str]:
    """Files below these paths that git knows."""
    listed = subprocess.run(["git", "ls-files", *paths], cwd=ROOT, capture_output=True, text=True, check=True)
    return listed.stdout.split()


def _pages() -> list[str]:
    """Files and folders of docs/ that the wheel has, as pyproject.toml declares."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    return list(declared["targets"]["wheel"]["force-include"])


class WheelInstall(NamedTuple):
    """Installation of a wheel: the Python that has it, a folder of packages besides that Python's own (None: it is
    installed there), and a working folder.
    """

    python: Path
    site: Path | None
    work: Path

    def command(self, *arguments: str) -> tuple[list[str], dict[str, str]]:
        """Command line and environment of `journey-bandit` with these arguments."""
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        if self.site is not None:
            environ["PYTHONPATH"] = str(self.site)
        return [str(self.python), "-m", "journey_bandit", *arguments], environ

    def run(self, *arguments: str) -> str:
        """Standard output of a command. Raises RuntimeError with what it said if it fails."""
        command, environ = self.command(*arguments)
        done = subprocess.run(
            command, cwd=self.work, env=environ, capture_output=True, text=True, check=False, timeout=COMMAND_PATIENCE
        )
        if done.returncode:
            raise RuntimeError(f"journey-bandit {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
        return done.stdout

    @contextmanager
    def served(self) -> Iterator[str]:
        """Address of a service of the wheel, with the ledger travel.db in the working folder. Raises RuntimeError if it
        does not start.
        """
        port = free_port("127.0.0.1")
        where = ("--app", "travel", "--dev", "--store", "sqlite:///travel.db", "--salt", "s", "--window-scale", "1e-7")
        command, environ = self.command("serve", *where, "--port", str(port))
        url, log = f"http://127.0.0.1:{port}", self.work / "serve.log"
        with (
            log.open("wb") as file,
            subprocess.Popen(command, cwd=self.work, env=environ, stdout=file, stderr=file) as server,
        ):
            try:
                if not eventually(lambda: server.poll() is not None or _ready(url), 0.05) or server.poll() is not None:
                    raise RuntimeError(f"the service did not start:\n{log.read_text(errors='replace')}")
                yield url
            finally:
                server.terminate()


def exercise(installed: WheelInstall) -> None:
    """Serve, decide, export, evaluate and simulate with what is installed. Raises RuntimeError, or an error of httpx,
    for what does not work.
    """
    with installed.served() as url, httpx.Client(base_url=url, timeout=PATIENCE) as client:
        for page in ("/console", "/docs", "/v1/browser/journey.js"):
            client.get(page).raise_for_status()
        asked = [{"stage": "cart", "user_id": f"u{n}"} for n in range(300)]
        made = client.post("/v1/decisions/batch", json={"decisions": asked}).raise_for_status().json()["decisions"]
        _demand(len({one["decision"]["decision_id"] for one in made}) == 300, "300 people did not get 300 decisions")
        client.get("/v1/policies", params={"wait": True}).raise_for_status()
        settled = eventually(lambda: "journey_bandit_settlements_total{" in client.get("/metrics").text, 0.05)
        _demand(settled, "no decision settled")
        installed.run("export", "--ledger", "travel.db", "--stage", "cart", "log")
    said = installed.run("evaluate", "--rounds", "log", "--policy", "uniform", "--force", "--json")
    _demand(json.loads(said)["policy"] == "uniform", "evaluate did not evaluate the policy that it was given")
    runs = ("--users", "200", "--seeds", "2", "--days", "3", "--backend", "serial", "--out", "runs")
    _demand("travel" in installed.run("simulate", "--app", "travel", *runs), "simulate did not name its app")


def _demand(holds: bool, problem: str) -> None:
    if not holds:
        raise RuntimeError(problem)


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready").status_code == 200
    except httpx.TransportError:
        return False
