"""`export`: a ledger's stage as a folder of parts, which gives what the ledger gives."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from api.ledger import audit
from api.stores import open_store
from bandit.records import Settlement
from experiments.data import files
from journey_bandit.main import group
from tests.journey_bandit.evaluation.ledgers import TRAVEL, decided

N = 700
ASKED = ("--policy", "fixed:reminder", "--policy", "uniform", "--against", "none", "--json")
Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    return lambda *arguments: CliRunner().invoke(group, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """700 decisions of about 470 people, the last five of which are open."""
    file, rng = tmp_path_factory.mktemp("ledger") / "l.db", np.random.default_rng(8)
    decisions = [decided(seq, rng) for seq in range(1, N + 1)]
    told: dict[str, Any] = {"stage": "cart", "at": 1, "why": "reward", "learned": True, "tau": 1.0, "nu": 0.0}
    done = [Settlement(decision_seq=s, arm=d.arm, reward=float(rng.random() < 0.3), **told)
            for s, d in enumerate(decisions[:-5], 1)]  # fmt: skip
    store = open_store(f"sqlite:///{file}")
    audit.claim(store, TRAVEL, "salt")
    store.record(decisions, [], 0, store.specs())
    store.settle(done)
    store.close()
    return file


def numbers(body: dict[str, Any]) -> Any:
    names = ("n", "units", "rows", "holdout", "estimates", "contrasts", "diagnostics", "support", "refused", "segments")
    return {name: body.get(name) for name in names}


def close(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(close(left[name], right[name]) for name in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(close, left, right))
    return bool(left == pytest.approx(right, rel=1e-12, abs=1e-12)) if isinstance(left, float) else bool(left == right)


@pytest.mark.parametrize("measure", ["net", "reward"])
def test_an_export_gives_what_its_ledger_gives(run: Run, ledger: Path, tmp_path: Path, measure: str) -> None:
    """To rounding; also where an eligible arm had no chance, and with open decisions at the end."""
    done = run("export", "--ledger", ledger, "--stage", "cart", "--segment", "device", tmp_path / "log")
    assert done.exit_code == 0, done.output
    assert f"{N:,} decisions of travel/cart in 1 parts" in done.output
    asked = (*ASKED, "--measure", measure, "--force", "--slope")
    mine = run("evaluate", "--ledger", ledger, "--stage", "cart", "--segment", "device", *asked)
    theirs = run("evaluate", "--rounds", tmp_path / "log", *asked)
    assert (mine.exit_code, theirs.exit_code) == (0, 0), mine.output + theirs.output
    left, right = json.loads(mine.stdout), json.loads(theirs.stdout)
    contrasts = left["contrasts"].keys() & right["contrasts"].keys()
    for body in (left, right):  # on a ledger no nudge is always contrasted with, in whatever order
        body["contrasts"] = {name: body["contrasts"][name] for name in sorted(contrasts)}
    assert contrasts == {"logged", "none"}
    assert left["estimates"]["dr"]["value"] != 0.0
    assert close(numbers(left), numbers(right))
    assert files.open_log(tmp_path / "log").columns[0] == "user"


def test_the_digest_is_the_same_in_any_number_of_parts(run: Run, ledger: Path, tmp_path: Path) -> None:
    digests = []
    for rows, parts in ((1000, 1), (300, 3), (100, 7)):
        done = run("export", "--ledger", ledger, "--stage", "cart", "--partition-rows", rows, tmp_path / f"{rows}")
        assert f"in {parts} parts" in done.output
        assert len(list((tmp_path / f"{rows}").glob("part-*.parquet"))) == parts
        digests.append(json.loads(run("evaluate", "--rounds", tmp_path / f"{rows}", *ASKED).stdout)["digest"])
    assert len(digests[0]) == 64
    assert digests == digests[:1] * 3
    level = json.loads(run("evaluate", "--rounds", tmp_path / "100", *ASKED, "--level", 0.9).stdout)
    assert level["digest"] != digests[0]


def test_nothing_is_exported_of_a_stage_without_decisions(run: Run, ledger: Path, tmp_path: Path) -> None:
    other = next(name for name in TRAVEL.stages if name != "cart")
    done = run("export", "--ledger", ledger, "--stage", other, tmp_path / "log")
    assert str(done.exception) == f"stage: '{other}' has no decisions that count → wait for some"
    assert list(tmp_path.iterdir()) == []
