"""The wheel: what somebody has who installed it, without a checkout."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.waiting import COMMAND_PATIENCE, eventually

ROOT = Path(__file__).parents[2]
PACKAGES = ("bandit", "api", "experiments", "simulations", "journey_bandit")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


class Installed(NamedTuple):
    """A wheel, and the folder in which it is installed; what it depends on is that of this environment."""

    wheel: Path
    site: Path
    work: Path

    def command(self, *arguments: str) -> tuple[list[str], dict[str, str]]:
        return [sys.executable, "-m", "journey_bandit", *arguments], {**os.environ, "PYTHONPATH": str(self.site)}

    def run(self, *arguments: str) -> str:
        command, environ = self.command(*arguments)
        done = subprocess.run(
            command, cwd=self.work, env=environ, capture_output=True, text=True, check=False, timeout=COMMAND_PATIENCE
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([*PIP, "wheel", "--no-deps", "--wheel-dir", folder, ROOT], check=True, timeout=COMMAND_PATIENCE)
    (wheel,) = folder.glob("*.whl")
    site, work = folder / "site", folder / "work"
    subprocess.run([*PIP, "install", "--no-deps", "--target", site, wheel], check=True, timeout=COMMAND_PATIENCE)
    work.mkdir()
    return Installed(wheel, site, work)


@pytest.fixture
def served(installed: Installed, free_port: int) -> Iterator[str]:
    """Address of a service of the wheel."""
    where = ("--app", "travel", "--dev", "--store", "sqlite:///travel.db", "--salt", "s", "--window-scale", "1e-7")
    command, environ = installed.command("serve", *where, "--port", str(free_port))
    url = f"http://127.0.0.1:{free_port}"
    with subprocess.Popen(command, cwd=installed.work, env=environ, stderr=subprocess.DEVNULL) as server:
        try:
            assert eventually(lambda: server.poll() is not None or answers(url))
            assert server.poll() is None
            yield url
        finally:
            server.terminate()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def test_every_file_of_the_packages_is_in_the_wheel(installed: Installed) -> None:
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    files = set(listed.stdout.split())
    with zipfile.ZipFile(installed.wheel) as archive:
        there = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert there == files
    assert {f"{package}/py.typed" for package in PACKAGES} <= there


def test_it_serves_exports_and_evaluates(installed: Installed, served: str) -> None:
    with httpx.Client(base_url=served, timeout=60) as client:
        for page in ("/console", "/docs", "/v1/browser/journey.js"):
            assert client.get(page).status_code == 200, page
        asked = [{"stage": "cart", "user_id": f"u{n}"} for n in range(300)]
        made = client.post("/v1/decisions/batch", json={"decisions": asked}).raise_for_status().json()["decisions"]
        assert len({one["decision"]["decision_id"] for one in made}) == 300
        assert client.get("/v1/policies", params={"wait": True}).status_code == 200
        assert eventually(lambda: client.get("/metrics").text.count("journey_bandit_settlements_total{"))
        installed.run("export", "--ledger", "travel.db", "--stage", "cart", "log")
    said = installed.run("evaluate", "--rounds", "log", "--policy", "uniform", "--force", "--json")
    assert json.loads(said)["policy"] == "uniform"
    command, environ = installed.command()
    code = "import journey_bandit, bandit; print(journey_bandit.__file__, bandit.__file__)"
    told = subprocess.run(
        [command[0], "-c", code], cwd=installed.work, env=environ, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == [str(installed.site / name / "__init__.py") for name in ("journey_bandit", "bandit")]
