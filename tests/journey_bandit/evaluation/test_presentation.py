"""What evaluations say in text and in JSON: the same, with the same exit status, and nothing not to be relied on."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from api.stores.memory.store import MemoryStore
from bandit.catalogue.net_value import ArmWorth
from bandit.features import schema
from bandit.learning.holdout_audit import HoldoutAudit
from experiments.data import obd
from experiments.data.rounds import LoggedRounds, RewardRange, Source, chunked
from experiments.ope import evaluate as core
from experiments.ope.accumulate import EvaluationConfig
from experiments.ope.evaluation_policies import EvaluationPolicy, FixedArm
from experiments.promotion.lift_monitor import monitor as watch
from journey_bandit.evaluation import public_data
from journey_bandit.main import group
from journey_bandit.workflows import ledger_log
from journey_bandit.workflows.ledger_log import Contamination

Run = Callable[..., Result]
BIASED = {"dm", "clipped", "clipped_dr", "switch_dr", "dros"}


@pytest.fixture
def run() -> Run:
    """run(*arguments): the command in this process."""
    return lambda *arguments: CliRunner().invoke(group, [str(a) for a in arguments])


def write(path: Path, *, first: int = 2000, second: int = 2000, pscore: tuple[float, float] = (0.5, 0.5)) -> Path:
    """Two arms that came so often, half of whose rounds have a reward of 1."""
    action = np.random.default_rng(2).permutation(np.repeat([0, 1], [first, second]))
    rows = [f"{a},{i % 2},{pscore[a]},{pscore[0]},{pscore[1]},u{i}" for i, a in enumerate(action.tolist())]
    path.write_text("\n".join(["action,reward,pscore,p_0,p_1,user", *rows]) + "\n", encoding="utf-8")
    return path


def words(done: Result) -> str:
    return " ".join(done.stdout.split())


def test_unequal_assignment_is_said_in_text_and_json(run: Run, tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", first=300, second=420)
    text = run("evaluate", "--rounds", log, "--policy", "fixed:1", "--no-sequence")
    assert text.exit_code == 0
    assert "note: arms came in shares of 41.67, 58.33 %, declared are 50.00, 50.00 %: by chance p = 0.0000077" in words(
        text
    )
    body = json.loads(run("evaluate", "--rounds", log, "--policy", "fixed:1", "--no-sequence", "--json").stdout)
    assert body["assignment"]["p"] == pytest.approx(7.74e-6, rel=0.01)
    assert body["assignment"]["noted"] is True
    assert any("arms came in shares" in note for note in body["notes"])


def test_observed_shares_as_propensities_are_said(run: Run, tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", first=300, second=420, pscore=(300 / 720, 420 / 720))
    text = run("evaluate", "--rounds", log, "--policy", "fixed:1", "--no-sequence")
    assert "the propensities are the shares that were observed" in words(text)


def test_biased_estimators_are_apart_and_their_intervals_hold_those_of_dr(run: Run, tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv")
    body = json.loads(run("evaluate", "--rounds", log, "--policy", "fixed:1", "--slope", "--json").stdout)
    marked = {name for name, e in body["estimates"].items() if e.get("biased")}
    assert marked == BIASED | {f"{name}_slope" for name in BIASED - {"dm"}}
    low, high = body["estimates"]["dr"]["interval"]
    for name in marked:
        assert body["estimates"][name]["interval"][0] <= low < high <= body["estimates"][name]["interval"][1]
    text = run("evaluate", "--rounds", log, "--policy", "fixed:1").stdout
    first, apart = text.split("Biased by design: the interval includes the bias")
    assert "dros" not in first
    assert "dros" in apart
    assert "2,000" not in first
    assert "4,000 rounds in " in first
    assert " groups of users" in first


def test_a_biased_estimator_covers_as_dr_does() -> None:
    """A model that is wrong on purpose, 200 logs: `dm` alone would never hold the truth, with its bias it always does
    where dr does; dr falls below 174 of 200 with chance < 1e-6.
    """
    hits = dict.fromkeys((*BIASED, "dr"), 0)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        action, p = rng.choice(2, 1000, p=[0.95, 0.05]), np.tile([0.95, 0.05], (1000, 1))
        reward = (rng.random(1000) < np.where(action == 1, 0.6, 0.2)).astype(np.float64)
        rounds = LoggedRounds(action, reward, p[np.arange(1000), action], propensities=p, q_hat=np.full((1000, 2), 0.2))
        (found,) = core.evaluate(
            [chunked(rounds)], EvaluationConfig((EvaluationPolicy("arm", FixedArm(1)),), follow=False, force=True)
        )
        for name in hits:
            low, high = found.estimates[name].interval
            hits[name] += low <= 0.6 <= high
    assert hits["dr"] >= 174
    assert all(count >= hits["dr"] for count in hits.values())


@pytest.mark.parametrize("declared", [(), ("--range", "0", "10")])
@pytest.mark.parametrize("columns", ["p_0,p_1", "pi_e"])
def test_a_policy_less_itself_is_exactly_nothing(
    run: Run, tmp_path: Path, declared: tuple[str, ...], columns: str
) -> None:
    rng = np.random.default_rng(1)
    rows = [f"{a},{r:.3f},0.5,{'0.5,0.5' if columns != 'pi_e' else '0.5'}" for a, r in zip(
        rng.integers(0, 2, 400), rng.uniform(1.0, 9.0, 400), strict=True)]  # fmt: skip
    log = tmp_path / "log.csv"
    log.write_text("\n".join([f"action,reward,pscore,{columns}", *rows]) + "\n", encoding="utf-8")
    policy = ("--policy", "fixed:1", "--against", "fixed:1") if columns != "pi_e" else ()
    body = json.loads(run("evaluate", "--rounds", log, "--json", *policy, *declared).stdout)
    itself = body["contrasts"]["fixed:1" if policy else "logged"]
    assert (itself["value"], itself["interval"]) == (0.0, [0.0, 0.0])
    if declared:
        assert itself["sequence"] == [0.0, 0.0]
    if policy:
        low, high = body["contrasts"]["logged"]["interval"]
        assert low < high


def few() -> LoggedRounds:
    """Thirty customers: too few to say anything."""
    thirds = np.full((30, 3), 1 / 3)
    reward = np.zeros(30)
    reward[:3] = 1.0
    x = np.zeros((30, 9))
    return LoggedRounds(np.arange(30) % 3, reward, thirds[:, 0], x=x, propensities=thirds)


def test_hillstrom_leaves_alike_in_text_and_json(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusable(stage: Any) -> LoggedRounds:
        columns = len(schema(stage.features).columns)
        return few()._replace(x=np.zeros((30, columns)))

    monkeypatch.setattr(public_data, "customers", refusable)
    text, as_json, forced = (run("evaluate", "hillstrom", *more) for more in ((), ("--json",), ("--json", "--force")))
    assert (text.exit_code, as_json.exit_code, forced.exit_code) == (3, 3, 0)
    assert json.loads(as_json.stdout)["refused"]
    assert "the log cannot say" in text.stdout


def monitored(n: int = 2000) -> LoggedRounds:
    """Declared: a tenth held out, nudges half and half. What came: 15 % held out, and 60 to 40 nudges."""
    rng = np.random.default_rng(3)
    held, half = rng.random(n) < 0.15, np.full((n, 2), 0.5)
    return LoggedRounds(
        (rng.random(n) < 0.4).astype(np.intp), (rng.random(n) < 0.3).astype(np.float64), half[:, 0], propensities=half,
        q_hat=np.full((n, 2), 0.3),
        holdout=held, holdout_share=np.full(n, 0.1), at=np.arange(n), user=np.arange(n), version=np.ones(n, np.int64),
    )  # fmt: skip


def test_the_holdout_of_a_monitored_stage_is_checked_too() -> None:
    found = watch(chunked(monitored()), RewardRange(0.0, 1.0))
    assert any("declared are 90.00, 10.00 %" in note for note in found.lift.notes)
    fair = monitored()._replace(action=np.random.default_rng(4).integers(0, 2, 2000))
    nudges = watch(chunked(fair), RewardRange(0.0, 1.0)).over_none.shares
    assert nudges is not None
    assert nudges.note(1.0) is None


def test_monitor_says_unequal_shares_of_holdout_and_nudges_in_text_and_json(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ledger:
        app, arms, rewards, currency = "shop", ("none", "hint"), RewardRange(0.0, 1.0), "EUR"
        worth = ArmWorth(np.full(2, 20.0), np.array([0.0, 1.0]))
        store, stage = MemoryStore(), "cart"  # from which nobody was erased
        spec = SimpleNamespace(common_floor=0.05)

        def source(self) -> Source:
            return chunked(monitored())

        def contamination(self) -> Contamination:
            return Contamination(0, 0)

        def people(self) -> HoldoutAudit:
            return HoldoutAudit(
                with_nudges=2.0, people=900, without=0.5, holdout=1100, difference=1.5, low=1.25, high=1.75
            )

    monkeypatch.setattr(ledger_log, "open_log", lambda *_: Ledger())
    text, as_json = (run("monitor", "--ledger", "shop.db", "--stage", "cart", *more) for more in ((), ("--json",)))
    body = json.loads(as_json.stdout)
    assert body["measure"] == "net"
    people = "a person brought 1.5 EUR more in all with nudges than one in the holdout (95 %, one look: +1.25 to +1.75,"
    assert f"{people} above 0 is more; 900 people with, 1,100 without)" in words(text)
    assert (body["people"]["difference"], body["people"]["holdout"]) == (1.5, 1100)
    for said in (words(text), " ".join(body["notes"])):
        assert "declared are 90.00, 10.00 %" in said
        assert "nudges: arms came in shares of " in said
        assert "declared are 50.00, 50.00 %" in said
    for part in ("holdout", "nudges"):
        assert body["assignment"][part]["noted"] is True
        assert body["assignment"][part]["p"] < 0.01


def test_open_bandit_shows_both_directions_and_leaves_alike(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Logs that cannot answer: exit status 3 from text and JSON, after both directions were shown."""
    log = few()._replace(propensities=None, position=np.zeros(30, dtype=np.int64))
    monkeypatch.setattr(obd, "read", lambda *_: log)
    monkeypatch.setattr(obd, "bts", lambda *_: obd.uniform(3, 1))
    text, as_json, forced = (run("evaluate", "obd", tmp_path, *more) for more in ((), ("--json",), ("--force",)))
    assert (text.exit_code, as_json.exit_code, forced.exit_code) == (3, 3, 0), text.exception
    assert text.stdout.count("on its own log") == 2
    assert len(json.loads(as_json.stdout)["directions"]) == 2
