"""The wheel: what somebody has who installed it, without a checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.waiting import COMMAND_PATIENCE
from tools import wheel
from tools.wheel import PIP, WheelInstall


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel.build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(built: Path) -> WheelInstall:
    """The wheel in a folder of its own; what it depends on is that of this environment."""
    site, work = built.parent / "site", built.parent / "work"
    command = [sys.executable, *PIP, "install", "--no-deps", "--target", str(site), str(built)]
    subprocess.run(command, check=True, timeout=COMMAND_PATIENCE)
    work.mkdir()
    return WheelInstall(Path(sys.executable), site, work)


def test_every_file_of_the_packages_is_in_the_wheel(built: Path) -> None:
    assert wheel.wrong_files(built) == []


def test_what_is_missing_or_too_much_in_a_wheel_is_named(built: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.whl"
    with zipfile.ZipFile(built) as archive, zipfile.ZipFile(other, "w") as changed:
        for name in archive.namelist():
            if not name.endswith(("api/py.typed", "licenses/LICENSE")):
                changed.writestr(name, archive.read(name))
        changed.writestr("api/stray.py", "")
    assert wheel.wrong_files(other) == [
        "api/py.typed is missing",
        "api/stray.py should not be there",
        "api does not say that it has types",
        "the licence LICENSE is missing",
    ]


def test_it_serves_exports_evaluates_and_simulates(installed: WheelInstall) -> None:
    wheel.exercise(installed)
    command, environ = installed.command()
    code = (
        "import journey_bandit, bandit; from journey_bandit.assistants import documents; "
        "print(journey_bandit.__file__, bandit.__file__, documents.pages()['guides/assistants'])"
    )
    told = subprocess.run(
        [command[0], "-c", code], cwd=installed.work, env=environ, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == [
        *(str(installed.site) + f"/{name}/__init__.py" for name in ("journey_bandit", "bandit")),
        str(installed.site) + "/journey_bandit/assistants/documentation/guides/assistants.md",
    ]
