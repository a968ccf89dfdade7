"""The distribution journey-bandit-client, as somebody has it who installed it: what is in it, its types, its guide."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.server import free_port
from tests.faults.service_process import ServiceProcess
from tests.waiting import COMMAND_PATIENCE

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "clients" / "python"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
GUIDE = (ROOT / "docs" / "guides" / "clients.md").read_text(encoding="utf-8")
EXAMPLE, OFFLINE = re.findall(r"^```python\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which the wheel, built from a copy, is installed; what it depends on is that of this environment."""
    folder = tmp_path_factory.mktemp("client")
    shutil.copytree(FOLDER, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(
        [*PIP, "wheel", "--no-deps", "--wheel-dir", folder, folder / "source"], check=True, timeout=COMMAND_PATIENCE
    )
    (wheel,) = folder.glob("*.whl")
    listed = subprocess.run(
        ["git", "ls-files", "journey_bandit_client"], cwd=FOLDER, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name for name in names if ".dist-info/" not in name} == set(listed.stdout.split())
    assert "journey_bandit_client/py.typed" in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    site = folder / "site"
    subprocess.run([*PIP, "install", "--no-deps", "--target", site, wheel], check=True, timeout=COMMAND_PATIENCE)
    return site


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    process = ServiceProcess(tmp_path, free_port("127.0.0.1"), ["--app", "travel", "--salt", "docs"])
    try:
        process.start()
        yield process.url
    finally:
        process.end()


def run(site: Path, work: Path, *arguments: str) -> str:
    environ = {**os.environ, "PYTHONPATH": str(site), "MYPYPATH": ""}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=work,
        env=environ,
        capture_output=True,
        text=True,
        timeout=COMMAND_PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_strict_types_hold_where_the_wheel_is_used(site: Path, tmp_path: Path) -> None:
    """A program that uses it wrongly is told so: the types are those of the wheel, not Any."""
    (tmp_path / "example.py").write_text(EXAMPLE, encoding="utf-8")
    (tmp_path / "offline.py").write_text(OFFLINE, encoding="utf-8")
    asking = (
        "import asyncio\nfrom journey_bandit_client import AsyncJourneyClient\n\n"
        'async def ask() -> str:\n    async with AsyncJourneyClient("http://nudges.test") as client:\n'
        '        return (await client.decide("u-1")).nudge.id\n\nasyncio.run(ask())\n'
    )
    (tmp_path / "asking.py").write_text(asking, encoding="utf-8")
    strict = ("-m", "mypy", "--strict", "--no-incremental", "--config-file", os.devnull)
    run(site, tmp_path, *strict, "example.py", "offline.py", "asking.py")
    (tmp_path / "wrong.py").write_text(EXAMPLE.replace("decision.nudge.id", "decision.nudge_id"), encoding="utf-8")
    with pytest.raises(AssertionError, match='"NudgeDecision" has no attribute "nudge_id"'):
        run(site, tmp_path, *strict, "wrong.py")


def test_the_examples_of_the_guide_print_what_they_should(site: Path, tmp_path: Path, url: str) -> None:
    told = run(site, tmp_path, "-c", EXAMPLE.replace("http://localhost:8080", url)).splitlines()
    assert re.fullmatch(r"show \w+ decided", told[0])
    assert told[1:] == ["reward recorded: True"]
    assert run(site, tmp_path, "-c", OFFLINE) == "none True\n"
    mistaken = EXAMPLE.replace("http://localhost:8080", url).replace('{"price": 120.0}, d', '{"prce": 120.0}, d')
    with pytest.raises(AssertionError, match=r"context\.prce: did you mean `price`"):
        run(site, tmp_path, "-c", mistaken)


def test_it_has_the_version_and_the_licence_of_the_service() -> None:
    mine = tomllib.loads((FOLDER / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    theirs = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name in ("version", "license", "requires-python"):
        assert mine[name] == theirs[name], name
    assert set(mine["dependencies"]) <= set(theirs["dependencies"])
    assert (FOLDER / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
