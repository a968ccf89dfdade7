"""The library surface: what it exports, that it costs nothing to import, and that its documentation is true."""

import ast
import doctest
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import journey_bandit
from bandit import errors
from bandit.errors import JourneyBanditError
from journey_bandit import own_packages
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[2]
NAMED = """decide rank choose choose_many prepare recompute settle parse Snapshot pack unpack Decision Outcome
Settlement Event DecisionQuery RankQuery Catalogue Stage Policy Posterior Scores Belief"""
EXPORTED: dict[str, Any] = {name: getattr(journey_bandit, name) for name in journey_bandit.__all__}


def python(code: str, *path: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A program of its own in `cwd`, which finds packages in `path`."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    words = [sys.executable, *(["-c", code] if " " in code else ["-m", code, "--version"])]
    return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False, env=env, cwd=cwd)


def test_it_exports_what_it_promises_and_every_error() -> None:
    ours = {n for n, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, JourneyBanditError)}
    assert EXPORTED.keys() >= {*NAMED.split(), *ours}
    assert set(dir(journey_bandit)) >= EXPORTED.keys()
    with pytest.raises(AttributeError, match="has no attribute 'decidee'"):
        _ = journey_bandit.decidee


def test_importing_it_imports_no_numpy_and_the_first_use_does(tmp_path: Path) -> None:
    code = (
        "import sys, journey_bandit as jb; before = set(sys.modules); jb.decide; "
        "print([{'numpy', 'bandit', 'msgspec'} & before, 'numpy' in sys.modules])"
    )
    assert python(code, ROOT, cwd=tmp_path).stdout == "[set(), True]\n"


def test_the_types_that_a_checker_reads_are_the_names_that_a_program_gets() -> None:
    tree = ast.parse((ROOT / "journey_bandit" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    found = {a.name: str(node.module) for node in block.body if isinstance(node, ast.ImportFrom) for a in node.names}
    assert found.keys() == EXPORTED.keys()
    for name, module in found.items():
        assert getattr(sys.modules[module], name) is EXPORTED[name], name


def test_the_example_of_the_docstring_runs() -> None:
    failed, attempted = doctest.testmod(journey_bandit)
    assert (failed, attempted >= 7) == (0, True)


# -- docstrings --------------------------------------------------------------------------------------------------------

SHAPE = re.compile(r"\((?:n|k|d)(?:, ?\w+)*,?\)")
ERROR = re.compile(r"Raises nothing|\b(?:" + "|".join(n for n in vars(errors) if n[0].isupper()) + r")\b")


def missing(thing: Any) -> list[str]:
    """What the documentation of an exported name lacks: words, shapes of arrays, units of times, errors."""
    text, source = " ".join((thing.__doc__ or "").split()), inspect.getsource(thing)
    code, said = (source, source) if inspect.isclass(thing) else (source[: source.index('"""')], text)
    lacks = [] if len(text.split()) >= 20 else [f"{len(text.split())} words"]
    if re.search(r"\b(?:Array|Mask|Scores)\b", code) and not SHAPE.search(said):  # fields document themselves
        lacks.append("shapes")
    if not inspect.isclass(thing) and not ERROR.search(text):
        lacks.append("errors")
    if re.search(r"\b(?:now|at|received): int\b", code) and "µs" not in text:
        lacks.append("units")
    return lacks


@pytest.mark.parametrize("name", EXPORTED)
def test_every_exported_name_says_what_it_is_with_shapes_units_and_errors(name: str) -> None:
    assert missing(EXPORTED[name]) == []


# -- other packages of these names -------------------------------------------------------------------------------------

USE = "import journey_bandit; journey_bandit.decide"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder with another package called `bandit`, as PyCQA's linter is."""
    (tmp_path / "first" / "bandit").mkdir(parents=True)
    (tmp_path / "first" / "bandit" / "__init__.py").write_text('raise SystemExit("it ran")\n', encoding="utf-8")
    return tmp_path / "first"


@pytest.mark.parametrize("how", ["journey_bandit", "journey_bandit.main", USE])
def test_a_package_that_hides_ours_is_named_in_one_line_and_never_run(how: str, foreign: Path, tmp_path: Path) -> None:
    done = python(how, foreign, ROOT, cwd=tmp_path)
    *_, line = done.stderr.splitlines()
    assert done.returncode == 1
    assert "it ran" not in done.stderr
    assert f"another package `bandit` at {foreign}/bandit/__init__.py hides the one of Journey Bandit at {ROOT}" in line
    assert line.endswith("uninstall the other distribution")
    if how != USE:
        assert len(done.stderr.splitlines()) == 1
        assert line.startswith("error: ")


def test_a_package_that_overwrote_ours_is_named_too(tmp_path: Path) -> None:
    """Two distributions in one site-packages: pip lets the second write over the first."""
    shutil.copytree(ROOT / "journey_bandit", tmp_path / "site" / "journey_bandit")
    for name in own_packages.NAMES:
        (tmp_path / "site" / name).mkdir()
        mark = "" if name == "bandit" else f"{own_packages.MARK}\n"
        (tmp_path / "site" / name / "__init__.py").write_text(mark, encoding="utf-8")
    (line,) = python("journey_bandit", tmp_path / "site", cwd=tmp_path).stderr.splitlines()
    assert f"`bandit` at {tmp_path}/site/bandit was overwritten by another distribution" in line


def test_a_foreign_package_that_is_imported_already_is_named(foreign: Path, tmp_path: Path) -> None:
    (foreign / "bandit" / "__init__.py").write_text("", encoding="utf-8")
    done = python(
        f"import bandit, sys; sys.path.pop(1); sys.path.insert(1, {str(ROOT)!r}); {USE}", foreign, cwd=tmp_path
    )
    assert done.stderr.splitlines()[-1].endswith("or import journey_bandit before it")


def test_from_a_source_checkout_ours_win_even_if_another_is_installed(foreign: Path) -> None:
    for how in ("journey_bandit", USE):
        done = python(how, foreign, cwd=ROOT)
        assert (done.returncode, done.stderr) == (0, ""), how


def test_all_packages_are_ours_here() -> None:
    assert own_packages.problem() is None
    assert json.loads(json.dumps(own_packages.NAMES)) == ["bandit", "api", "experiments", "simulations"]
