"""What a release needs is checked: versions that agree, a changelog, licences; and which Pythons are tried."""

import re
import sys
from pathlib import Path

import pytest

from tools import python_matrix
from tools.release_check import LICENCES, failed, licences, versions
from tools.wheel import ROOT

NAMING = {
    "CITATION.cff": "version: 1.2.0\n",
    "clients/python/pyproject.toml": '[project]\nversion = "1.2.0"\n',
    "clients/typescript/package.json": '{"version": "1.2.0"}',
    "benchmarks/released.json": '{"version": "1.2.0"}',
    "docs/reference/openapi.json": '{"info": {"version": "1.2.0"}}',
}
PYPROJECT = '[project]\nversion = "1.2.0"\nlicense-files = ["LICENSE"]\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    for path, text in NAMING.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.0 - 2026-01-31\n\n- Something.\n")
    return tmp_path


def test_this_checkout_has_what_it_needs() -> None:
    assert [*versions(ROOT), *licences(ROOT)] == []


@pytest.mark.parametrize("path", NAMING)
def test_versions_that_differ_are_named(root: Path, path: str) -> None:
    assert list(versions(root)) == []
    (root / path).write_text(NAMING[path].replace("1.2.0", "1.1.0"))
    assert list(versions(root)) == [f"{path} says version 1.1.0, pyproject.toml says 1.2.0"]


@pytest.mark.parametrize(
    ("changes", "enough"),
    [
        ("## Unreleased\n\n### Added\n- This.\n", True),
        ("## Unreleased\n\n## 1.1.0 - 2025-01-31\n\n- That.\n", False),  # nothing is under it
        ("## 1.2.0\n\n- No date.\n", False),
        ("## 1x2.0 - 2026-01-31\n\n- Another version.\n", False),
        ("## [1.2.0] - 2026-01-31\n\n- This.\n", True),
    ],
)
def test_the_changelog_has_a_dated_section_or_something_unreleased(root: Path, changes: str, enough: bool) -> None:
    (root / "CHANGELOG.md").write_text(f"# Changelog\n\n{changes}")
    assert (list(versions(root)) == []) is enough


def test_licences_that_are_missing_or_not_named_are_told(root: Path) -> None:
    assert len(LICENCES) > 1
    for folder, name in LICENCES.items():
        (root / folder).mkdir(parents=True)
        (root / folder / name).write_text("MIT")
    assert list(licences(root)) == [
        "LICENSE is missing or empty",
        *(f"{folder}/{name} is not among license-files in pyproject.toml" for folder, name in LICENCES.items()),
    ]


def test_a_command_that_fails_or_is_not_there_is_a_problem() -> None:
    assert list(failed("no", [sys.executable, "-c", ""])) == []
    assert list(failed("no", [sys.executable, "-c", "raise SystemExit('broken')"])) == ["no: broken"]
    (told,) = failed("no", ["no-such-command-at-all"])
    assert "no-such-command-at-all" in told


def test_a_python_that_does_not_start_is_none(tmp_path: Path) -> None:
    folder, root = tmp_path / "bin", tmp_path / "pyenv" / "versions" / "3.12.9" / "bin"
    for place in (folder, root):
        place.mkdir(parents=True)
    (folder / "python3.11").symlink_to(sys.executable)
    for name in ("python3.12", "python3.13"):  # as shims of versions that are not chosen
        (folder / name).write_text("#!/bin/sh\nexit 127\n")
        (folder / name).chmod(0o755)
    (root / "python3.12").write_text("#!/bin/sh\necho 3.12\n")
    (root / "python3.12").chmod(0o755)
    found = python_matrix.pythons({"PATH": str(folder), "PYENV_ROOT": str(tmp_path / "pyenv")})
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert found == ({"3.11": folder / "python3.11"} if own == "3.11" else {}) | {"3.12": root / "python3.12"}


def test_a_python_that_the_wheel_does_not_work_with_is_told_with_its_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python3.12"
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    assert not python_matrix.tried("3.12", python, tmp_path / "no.whl", tmp_path / "3.12")
    told = capsys.readouterr().out
    assert re.match(r"3\.12: failed after \d+ s: CalledProcessError: .*venv.* non-zero exit status 3\.$", told)
