"""`evaluate` and `monitor`: what they print, when they refuse, and which decisions of a ledger count."""

import json
import re
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet

from api.stores.memory.store import MemoryStore
from bandit.belief import empty
from bandit.catalogue.limits import BadEvent
from bandit.catalogue.loading import parse, read_shipped
from bandit.catalogue.model import Stage
from bandit.errors import InvalidRequest, JourneyBanditError, NotFound
from bandit.features import schema
from bandit.records import NOT_NOW, Decision, Outcome, Settlement
from bandit.snapshot import Snapshot, pack, to_zip
from bandit.tables.decision_log import LogMetadata, LogReward
from experiments.data.rounds import LoggedRounds
from experiments.ope import evaluate as core
from experiments.ope.accumulate import EvaluationConfig
from experiments.ope.evaluation_policies import EvaluationPolicy, FixedArm, LoggedProbabilities
from experiments.promotion import lift_monitor
from journey_bandit.evaluation import log_sources, policy_names
from journey_bandit.main import group
from journey_bandit.workflows import verdicts
from journey_bandit.workflows.ledger_log import LedgerLog
from simulations import scenario
from simulations.offline import parquet_log, runner
from simulations.offline.runner import SimulationCell, StepDecisions

STAGE = parse(read_shipped("travel")).stage("cart")
D = len(schema(STAGE.features).columns)
Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """run(*arguments): the command in this process; our own errors end up in `exception`."""
    return lambda *arguments: CliRunner().invoke(group, [str(a) for a in arguments])


def write(path: Path, n: int = 4000, *, floor: float = 0.2) -> Path:
    """A log of two arms whose rates are 0.2 and 0.4; π always takes the second, which p draws with `floor`."""
    rng = np.random.default_rng(3)
    action = (rng.random(n) < floor).astype(int)
    reward = (rng.random(n) < 0.2 + 0.2 * action).astype(int)
    pscore = np.where(action == 1, floor, 1.0 - floor)
    rows = [f"{a},{r},{p},0,1,0.3,0.3" for a, r, p in zip(action, reward, pscore, strict=True)]
    path.write_text("\n".join(["action,reward,pscore,pi_e_0,pi_e_1,q_hat_0,q_hat_1", *rows]) + "\n", encoding="utf-8")
    return path


# -- files -----------------------------------------------------------------------------------------------------


def test_json_has_every_estimate_and_the_diagnostics(run: Run, tmp_path: Path) -> None:
    done = run("evaluate", "--rounds", write(tmp_path / "log.csv"), "--json")
    assert done.exit_code == 0
    body = json.loads(done.stdout)
    assert (body["n"], body["refused"]) == (4000, [])
    assert {"dr", "snips", "ips", "dm", "sndr", "switch_dr", "dros", "clipped"} <= set(body["estimates"])
    for name, estimate in body["estimates"].items():
        low, high = estimate["interval"]
        assert low <= estimate["value"] <= high, name
    low, high = body["estimates"]["dr"]["sequence"]
    assert low < 0.4 < high
    assert {"ess", "max_weight", "mean_weight", "matured"} <= set(body["diagnostics"])


def test_each_arm_has_its_support_in_text_and_json(run: Run, tmp_path: Path) -> None:
    """π takes the second arm, which 4,000 rounds show about 80 times at a floor of 2 %, and 40 times at 1 %; a log that
    never shows it cannot say anything of it.
    """
    arms = {}
    for floor, word in ((0.2, "answers"), (0.02, "thin"), (0.01, "cannot say")):
        file = write(tmp_path / "log.csv", floor=floor)
        none, arms[floor] = json.loads(run("evaluate", "--rounds", file, "--json", "--force").stdout)["support"]
        assert (none["answer"], arms[floor]["answer"], arms[floor]["share"]) == ("not asked", word, 1.0)
        assert arms[floor]["ess"] == pytest.approx(arms[floor]["rounds"])  # of equal weight
        assert arms[floor]["least"] == floor
    assert arms[0.02]["rounds"] < 200
    shown = run("evaluate", "--rounds", tmp_path / "log.csv").stdout
    assert "Support of the log" in shown
    said = "The log cannot say what the policy's choices bring for arm 1 (100.0% of its choices), on which its estimate"
    assert said in " ".join(shown.split())
    never = run("evaluate", "--rounds", write(tmp_path / "log.csv", floor=0.0), "--json")
    assert json.loads(never.stdout)["support"][1]["why"] == "the log never shows it where the policy would"


def test_names_of_arms_are_policies_and_are_said_in_text_and_json(run: Run, tmp_path: Path) -> None:
    """Columns under other names, arms by name, rewards in words: the figures are those of the same log in numbers."""
    plain, theirs = write(tmp_path / "log.csv"), tmp_path / "theirs.csv"
    rows = [line.split(",")[:3] for line in plain.read_text().splitlines()[1:]]
    words = [f"{('control', 'discount')[int(a)]}\t{('no', 'yes')[int(r)]}\t{p}\t0.8\t0.2" for a, r, p in rows]
    theirs.write_text("\n".join(["variation\tbought\tpscore\tp_control\tp_discount", *words]), encoding="utf-16")
    mapped = ("--map", "action=variation", "--map", "reward=bought")
    found = json.loads(run("evaluate", "--rounds", theirs, *mapped, "--policy", "fixed:discount", "--json").stdout)
    numbers = tmp_path / "numbers.csv"
    numbers.write_text(
        "\n".join(["action,reward,pscore,p_0,p_1", *(",".join([*row, "0.8", "0.2"]) for row in rows)]), encoding="utf-8"
    )
    same = json.loads(run("evaluate", "--rounds", numbers, "--policy", "fixed:1", "--json").stdout)
    assert found["estimates"] == same["estimates"]
    note = "arms by name: 0 control, 1 discount"
    assert note in found["notes"]
    assert note in run("evaluate", "--rounds", theirs, *mapped, "--policy", "fixed:discount").stdout


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--map", "action"), "say OURS=THEIRS"),
        (("--map", "action=a", "--map", "action=b"), "each column once"),
        (("--map", "action=a", "--map", "reward=a"), "each column once"),
    ],
)
def test_a_map_that_says_nothing_is_refused(run: Run, tmp_path: Path, given: tuple[str, ...], said: str) -> None:
    done = run("evaluate", "--rounds", write(tmp_path / "log.csv", 100), *given)
    assert done.exit_code == 2
    assert said in done.output


def test_columns_are_context_under_their_own_names(run: Run, tmp_path: Path) -> None:
    """A word that says the reward: the fitted model knows it, and dr is far surer than ips."""
    rng = np.random.default_rng(4)
    rows = []
    for _ in range(3000):
        action, mood = int(rng.random() < 0.5), int(rng.random() < 0.5)
        rows.append(f"{action},{int(rng.random() < 0.1 + 0.8 * mood)},0.5,.5,.5,{('low', 'high')[mood]}")
    file = tmp_path / "log.csv"
    file.write_text("\n".join(["action,reward,pscore,p_0,p_1,mood", *rows]), encoding="utf-8")
    body = json.loads(run("evaluate", "--rounds", file, "--context", "mood", "--policy", "fixed:1", "--json").stdout)
    widths = {name: np.diff(body["estimates"][name]["interval"])[0] for name in ("dr", "ips")}
    assert widths["dr"] < 0.75 * widths["ips"]
    assert "context: x_0 mood=high, x_1 mood=low" in body["notes"]
    wrong = run("evaluate", "--ledger", tmp_path / "none.db", "--stage", "cart", "--context", "mood")
    assert "--context goes with --rounds" in wrong.output


def test_several_policies_and_contrasts_in_one_pass(run: Run, tmp_path: Path) -> None:
    options = ("--policy", "fixed:1", "--policy", "uniform", "--against", "none", "--slope", "--level", 0.9)
    done = run("evaluate", "--rounds", write(tmp_path / "log.csv"), "--json", *options)
    body = json.loads(done.stdout)
    assert [body["policy"], body["others"][0]["policy"]] == ["fixed:1", "uniform"]
    assert set(body["contrasts"]) == {"logged", "none"}
    low, high = body["contrasts"]["none"]["interval"]
    assert low < 0.2 < high
    assert body["settings"]["level"] == 0.9
    assert "dros_slope" in body["estimates"]


def test_a_refusal_leaves_with_3_and_prints_no_numbers_unless_forced(run: Run, tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", 200, floor=0.02)
    refused = run("evaluate", "--rounds", log, "--json")
    assert refused.exit_code == 3
    body = json.loads(refused.stdout)
    assert body["estimates"] == body["contrasts"] == {}
    assert body["refused"]
    assert all(refusal.keys() == {"reason", "detail", "needed"} for refusal in body["refused"])
    forced = run("evaluate", "--rounds", log, "--json", "--force")
    assert forced.exit_code == 0
    assert json.loads(forced.stdout)["forced"] is True
    assert json.loads(forced.stdout)["estimates"]["dr"]["value"]


def test_a_person_reads_the_same(run: Run, tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", 200, floor=0.02)
    refused, forced = run("evaluate", "--rounds", log), run("evaluate", "--rounds", log, "--force")
    assert (refused.exit_code, forced.exit_code) == (3, 0)
    assert "refused: ess" in refused.stdout
    assert "snips" not in refused.stdout
    assert "FORCED" in forced.stdout
    assert "snips" in forced.stdout


def test_without_the_extra_the_command_says_what_to_install() -> None:
    hidden = "import sys; sys.modules['pyarrow'] = None; from journey_bandit.main import main; main()"
    command = [sys.executable, "-c", hidden]
    done = subprocess.run([*command, "evaluate", "--rounds", "a.csv"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "pyarrow is not installed: pip install 'journey-bandit[experiments]'" in done.stderr
    assert "Traceback" not in done.stderr
    listed = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False)
    assert listed.returncode == 0
    assert "serve" in listed.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give --rounds FILE or --ledger FILE"),
        (("--rounds", "a.csv", "--ledger", "b.db"), "give --rounds FILE or --ledger FILE"),
        (("--ledger", "b.db"), "--ledger needs --stage"),
        (("--rounds", "a.csv", "--stage", "cart"), "--stage goes with --ledger, or with --app"),
        (("--rounds", "a.csv", "--app", "travel"), "--stage goes with --ledger, or with --app"),
        (("--ledger", "a.db", "--stage", "cart", "--app", "travel"), "--app goes with --rounds"),
    ],
)
def test_options_that_do_not_go_together_are_named(run: Run, arguments: tuple[str, ...], said: str) -> None:
    done = run("evaluate", *arguments)
    assert done.exit_code == 2
    assert said in done.stderr


def test_policies_that_are_not_known_are_named(run: Run, tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv")
    for name, said in (("best", "'best' is not known"), ("fixed:red", "no arm 'red'"), ("fixed:7", "no arm 7")):
        done = run("evaluate", "--rounds", log, "--policy", name)
        assert isinstance(done.exception, InvalidRequest)
        assert said in str(done.exception)
    bare = tmp_path / "bare.csv"
    bare.write_text("action,reward,pscore\n0,1,0.5\n", encoding="utf-8")
    done = run("evaluate", "--rounds", bare)
    assert isinstance(done.exception, InvalidRequest)
    assert "does not describe a policy" in str(done.exception)
    for arguments in (("--ledger", tmp_path / "no.db", "--stage", "cart"), ("--rounds", tmp_path / "no.csv")):
        assert isinstance(run("evaluate", *arguments).exception, JourneyBanditError)


class Kept:
    """Writes the cart decisions of a simulated run as a log."""

    def __init__(self, writer: parquet_log.LogWriter):
        self._writer = writer

    def write(self, rows: StepDecisions) -> None:
        if rows.stage != "cart":
            return
        each = np.arange(len(rows.arm)), rows.arm
        version = np.full(len(rows.arm), rows.version, dtype=np.int64)
        shown = (rows.user, rows.at, version, rows.arm, rows.reward, rows.propensities[each], rows.holdout)
        self._writer.write(parquet_log.LogRows(*shown, rows.x, rows.propensities, rows.mean, rows.truth, rows.regret))


def test_a_simulated_log_is_read_and_its_truth_is_in_the_interval(run: Run, tmp_path: Path) -> None:
    """The reward rate without a nudge is its true net value over the value of a reward. At 1 − 1e-6; an error as
    large as the rate is found. Two parts on two processes give what one gives.
    """
    reward = LogReward("binary", 0.0, 1.0, STAGE.reward.value)
    facts = LogMetadata(
        app="travel",
        stage="cart",
        arms=STAGE.arms,
        policy="linear",
        scenario="travel",
        seed=5,
        currency="EUR",
        reward=reward,
        floor=STAGE.common_floor,
    )
    cell = SimulationCell(scenario=scenario.load("travel"), policy="uniform", users=1500, days=20, seed=5, holdout=0.1)
    path = tmp_path / "log.parquet"
    with parquet_log.LogWriter(path, facts, D, rows=2000) as writer:
        runner.run(cell, Kept(writer))
    rows = list(parquet_log.read(path))
    held, truth = (np.concatenate([getattr(r, name) for r in rows]) for name in ("holdout", "truth"))
    options = ("--policy", "none", "--policy", "fixed:reminder", "--level", 0.999999, "--json")
    bodies = [json.loads(run("evaluate", "--rounds", path, *options, "--workers", w).stdout) for w in (1, 2)]
    rate = float(truth[~held, 0].mean()) / STAGE.reward.value
    low, high = bodies[0]["estimates"]["dr"]["interval"]
    assert low < rate < high
    assert high - low < rate
    assert bodies[0]["n"] == np.count_nonzero(~held)
    assert bodies[0]["others"][0]["policy"] == "fixed:reminder"
    assert bodies[1]["estimates"]["dr"]["interval"] == pytest.approx(bodies[0]["estimates"]["dr"]["interval"])


# -- ledgers ---------------------------------------------------------------------------------------------------


def decided(seq: int, arm: str, **changes: Any) -> Decision:
    stage: Stage = changes.pop("stage", STAGE)
    k = len(stage.arms)
    values: dict[str, Any] = {
        "id": uuid.UUID(int=seq),
        "at": 1000 * seq,
        "expires": 1000 * seq + 1,
        "stage": "cart",
        "stage_digest": stage.digest(),
        "settlement_version": seq,
        "user": seq.to_bytes(16, "little"),
        "request": b"",
        "x": np.eye(D)[0],
        "propensity": np.full(k, 1.0 / k),
        "mean": np.full(k, 0.2),
        "sd": np.full(k, 0.1),
        "u": 0.5,
        "arm": arm,
        "holdout": False,
        "excluded": {},
        "evidence": {},
        "notes": (),
    }
    return Decision(**{**values, **changes})


def settled(seq: int, arm: str, reward: float = 0.0, **changes: Any) -> Settlement:
    values = {"stage": "cart", "at": 1, "why": "reward", "learned": True, "tau": 1.0, "nu": 0.0}
    return Settlement(decision_seq=seq, arm=arm, reward=reward, **{**values, **changes})


def ledger(*decisions: Decision, settlements: tuple[Settlement, ...] = (), stages: tuple[Stage, ...] = ()) -> LedgerLog:
    store = MemoryStore()
    for stage in (*stages, STAGE):
        store.register({"cart": stage})
    store.record(decisions, [], 0, store.specs())
    store.settle(settlements)
    arms = dict.fromkeys(arm for stage in (STAGE, *stages) for arm in stage.arms)
    return LedgerLog(store, "travel", "cart", STAGE, tuple(arms))


def read(log: LedgerLog) -> LoggedRounds:
    chunks = list(log.source()())
    assert len(chunks) == 1
    return chunks[0]


def test_a_decision_at_no_moment_is_not_in_the_log_whose_end_it_would_be() -> None:
    """It is never settled: the rewards that follow would not count any more."""
    never = decided(2, "none", moment=NOT_NOW)
    made = ledger(
        decided(1, "none"), never, decided(3, "reminder"), settlements=(settled(1, "none"), settled(3, "reminder", 1.0))
    )
    assert read(made).reward.tolist() == [0.0, 1.0]


def test_the_first_decisions_are_those_outside_the_control_group_as_they_were_made() -> None:
    """Also one that turns out not to have been shown: it leaves the log, and nobody takes its place."""
    made = ledger(
        decided(1, "none", holdout=True),
        decided(2, "reminder"),
        decided(3, "none"),
        decided(4, "reminder"),
        settlements=(
            settled(1, "none"),
            settled(2, "reminder", why="not activated", learned=False),
            settled(3, "none", 1.0),
            settled(4, "reminder"),
        ),
    )
    assert read(made._replace(first=2)).reward.tolist() == [1.0]
    assert read(made._replace(first=2)).candidate is None


def test_a_decision_that_is_not_settled_has_no_reward() -> None:
    rounds = read(ledger(decided(1, "none"), decided(2, "reminder"), settlements=(settled(1, "none", 1.0),)))
    assert rounds.reward[0] == 1.0
    assert np.isnan(rounds.reward[1])
    assert rounds.action.tolist() == [0, 1]
    assert rounds.pscore.tolist() == [0.2, 0.2]


def test_what_was_not_activated_or_is_of_another_schema_does_not_count() -> None:
    other = msgspec.structs.replace(STAGE, schema=STAGE.schema + 1)
    decisions = (decided(1, "none"), decided(2, "reminder"), decided(3, "none", stage=other), decided(4, "none"))
    skipped = settled(2, "reminder", why="not activated", learned=False)
    log = ledger(*decisions, settlements=(settled(1, "none"), skipped, settled(4, "none")), stages=(other,))
    rounds = read(log)
    assert rounds.at is not None
    assert rounds.at.tolist() == [1000, 4000]


def test_arms_of_an_older_declaration_keep_their_columns() -> None:
    nudges = {"retired": STAGE.nudges["reminder"], "discount_5": STAGE.nudges["discount_5"]}
    older = msgspec.structs.replace(STAGE, nudges=nudges)
    first = decided(
        1, "retired", stage=older, propensity=np.array([0.5, 0.3, 0.2]), excluded={"discount_5": "no stock"}
    )
    rounds = read(ledger(first, decided(2, "none"), stages=(older,)))
    assert rounds.propensities is not None
    assert rounds.eligible is not None
    names = [*STAGE.arms, "retired"]
    assert dict(zip(names, rounds.propensities[0], strict=True)) == {
        **dict.fromkeys(names, 0.0),
        "none": 0.5,
        "retired": 0.3,
        "discount_5": 0.2,
    }
    assert [name for name, may in zip(names, rounds.eligible[0], strict=True) if may] == ["none", "retired"]
    assert [name for name, may in zip(names, rounds.eligible[1], strict=True) if may] == list(STAGE.arms)
    assert rounds.action.tolist() == [5, 0]


def test_a_snapshot_counts_only_decisions_after_all_that_it_saw() -> None:
    """Settlement order is not decision order: decision 4 was settled before 2, which a version of 2 has not learned."""
    rows = [decided(i, "none") for i in range(1, 7)]
    log = ledger(*rows, settlements=tuple(settled(i, "none") for i in (1, 4, 2, 3, 5, 6)))
    assert [log.learned_through(version) for version in (0, 1, 2, 3)] == [0, 1, 4, 4]
    with pytest.raises(InvalidRequest, match="beyond this ledger's last settlement, 6"):
        log.learned_through(7)
    belief = empty(len(STAGE.belief_rows(STAGE.arms)), D)
    snapshot = Snapshot("travel", "cart", STAGE, 1, belief)
    assert log_sources._taught(log, snapshot) == 1
    looked = msgspec.structs.replace(
        snapshot, pending=belief, pending_basis=snapshot.pending_basis._replace(decisions=3)
    )
    assert log_sources._taught(log, looked) == 3
    with pytest.raises(InvalidRequest, match="travel/checkout"):
        log_sources._taught(log, msgspec.structs.replace(snapshot, stage="checkout"))


def test_snapshots_are_read_from_archives_and_folders(tmp_path: Path) -> None:
    snapshot = Snapshot("travel", "cart", STAGE, 0, empty(len(STAGE.belief_rows(STAGE.arms)), D))
    (tmp_path / "a.zip").write_bytes(to_zip(snapshot))
    (tmp_path / "b").mkdir()
    for name, data in pack(snapshot).items():
        (tmp_path / "b" / name).write_bytes(data)
    for name in ("a.zip", "b"):
        target, found = policy_names.target(str(tmp_path / name), STAGE.arms)
        assert target.name == "travel/cart version 0"
        assert found is not None
        assert pack(found) == pack(snapshot)


def test_two_candidates_of_one_version_are_told_apart_by_their_files(run: Run, tmp_path: Path) -> None:
    one = Snapshot("travel", "cart", STAGE, 0, empty(len(STAGE.belief_rows(STAGE.arms)), D))
    other = Snapshot("travel", "cart", msgspec.structs.replace(STAGE, floor=0.2), 0, one.belief)
    names = [str(tmp_path / name) for name in ("a.zip", "b.zip", "again.zip")]
    for name, snapshot in zip(names, (one, other, one), strict=True):
        Path(name).write_bytes(to_zip(snapshot))
    a, b, again = names
    named, others = policy_names.targets([a, b], ["none", a], STAGE.arms)
    title = "travel/cart version 0"
    assert [policy.name for policy, _ in named] == [f"{title} ({a})", f"{title} ({b})"]
    assert [policy.name for policy, _ in others] == ["none", f"{title} ({a})"]
    assert [policy.name for policy, _ in policy_names.targets([a], [again], STAGE.arms)[1]] == [title]
    against = policy_names.targets([a], [b], STAGE.arms)
    assert [[policy.name for policy, _ in found] for found in against] == [[f"{title} ({a})"], [f"{title} ({b})"]]
    with pytest.raises(InvalidRequest, match="two policies are called 'travel/cart version 0'"):
        policy_names.targets([a, again], [], STAGE.arms)


def test_of_a_file_a_snapshot_counts_only_decisions_of_its_version_and_later(run: Run, tmp_path: Path) -> None:
    snapshot = Snapshot("travel", "cart", STAGE, 30, empty(len(STAGE.belief_rows(STAGE.arms)), D))
    (tmp_path / "a.zip").write_bytes(to_zip(snapshot))
    rng, k = np.random.default_rng(4), len(STAGE.arms)
    names = ["action", "reward", "pscore", "version", *(f"x_{i}" for i in range(D)), *(f"p_{a}" for a in range(k))]
    rows = [
        [int(rng.integers(k)), int(rng.random() < 0.3), 1 / k, version, *np.eye(D)[0], *[1 / k] * k]
        for version in range(60)
        for _ in range(20)
    ]
    log = tmp_path / "log.csv"
    log.write_text("\n".join(",".join(map(str, row)) for row in [names, *rows]) + "\n", encoding="utf-8")
    counted = {}
    for options in ((), ("--learned-elsewhere",)):
        done = run("evaluate", "--rounds", log, "--policy", tmp_path / "a.zip", "--json", *options)
        counted[options] = json.loads(done.stdout)["n"]
    assert counted == {(): 600, ("--learned-elsewhere",): 1200}


def many(n: int, seed: int = 1, holdout: float = 0.2, *, misrouted: bool = False) -> LedgerLog:
    """Uniform draws, reward rate 0.1, with any nudge 0.3; `misrouted`: half of the reminders are shown as none."""
    rng = np.random.default_rng(seed)
    held, drawn = rng.random(n) < holdout, rng.integers(0, len(STAGE.arms), n)
    stage = msgspec.structs.replace(STAGE, holdout=holdout)
    decisions, settlements = [], []
    for i in range(n):
        arm = "none" if held[i] else STAGE.arms[drawn[i]]
        if misrouted and arm == "reminder" and rng.random() < 0.5:
            arm = "none"
        changes: dict[str, Any] = {"holdout": bool(held[i]), "stage": stage, "settlement_version": 1}
        if held[i]:
            changes["propensity"] = np.eye(len(STAGE.arms))[0]
        decisions.append(decided(i + 1, arm, **changes))
        settlements.append(settled(i + 1, arm, float(rng.random() < (0.1 if arm == "none" else 0.3))))
    return ledger(*decisions, settlements=tuple(settlements), stages=(stage,))._replace(spec=stage)


def test_monitor_compares_with_the_holdout() -> None:
    """Lift 0.8 · 0.2 = 0.16, at 1 − 1e-6: false alarm ≤ 4e-6; a lift that is wrong by 0.15 is found."""
    log = many(3000)
    found = lift_monitor.monitor(log.source(), log.rewards, level=0.999999)
    lift, over = found.lift.contrasts["holdout"], found.over_none.contrasts["none"]
    for estimate in (lift, over):
        assert estimate.interval[0] < 0.16 < estimate.interval[1]
        assert estimate.interval[0] > 0.0
        assert estimate.sequence is not None
        assert estimate.sequence[0] <= estimate.interval[0]
    assert (found.alarms, found.recurring) == ([], False)


def test_monitor_without_a_holdout_says_so() -> None:
    log = many(300, holdout=0.0)
    found = lift_monitor.monitor(log.source(), log.rewards)
    assert [refusal.reason for refusal in found.lift.refused] == ["deterministic"]


def test_monitor_raises_an_alarm_for_nudges_that_are_not_shown() -> None:
    log = many(3000, misrouted=True)
    found = lift_monitor.monitor(log.source(), log.rewards)
    assert found.alarms == [1]
    assert log.arms[found.versions[1].suspect] == "reminder"


def test_users_who_come_back_leave_no_sequence() -> None:
    log = many(600)
    rounds = read(log)
    assert rounds.user is not None
    again = rounds._replace(user=rounds.user // 2)
    found = lift_monitor.monitor(lambda: iter([again]), log.rewards)
    assert found.recurring
    assert found.lift.contrasts["holdout"].sequence is None


def test_the_verdict_weighs_lift_and_guardrails() -> None:
    """Always a reminder for a uniform policy: 0.04 more rewards. Its cost rises by 0.3 less the mean of all: −4.4."""
    log = many(3000, holdout=0.0)
    ask = EvaluationConfig(
        (EvaluationPolicy("fixed:reminder", FixedArm(1)), EvaluationPolicy("none", FixedArm(0))),
        (EvaluationPolicy("logged", LoggedProbabilities()),),
    )
    found = core.evaluate([log.source()], ask)
    rule = msgspec.convert({"min_n": 100, "guardrails": {"cost": 5.0, "refunds": 0.05}}, type(STAGE.promotion))
    judged = verdicts.judged(log._replace(spec=msgspec.structs.replace(log.spec, promotion=rule)), ask, found, 0.95)
    assert [j.champion for j in judged] == ["logged", "logged"]
    assert judged[1].verdict.decision == "reject"
    unmeasured = msgspec.structs.replace(rule, guardrails={"complaints": 0.0})
    held = verdicts.judged(log._replace(spec=msgspec.structs.replace(log.spec, promotion=unmeasured)), ask, found, 0.95)
    assert held[0].verdict.decision == "hold"
    assert "complaints was not measured" in held[0].verdict.reasons[0]


def test_bad_outcomes_are_counted_by_their_kind() -> None:
    log = ledger(decided(1, "none"), decided(2, "none"), decided(3, "none"))
    kinds: dict[int, BadEvent] = {2: "retraction", 3: "opt_out"}
    for n, kind in kinds.items():
        report = Outcome(decision=uuid.UUID(int=n), id="r", kind=kind, value=None, occurred=2000, received=2000)
        log.store.record([], [report], 2000, log.store.specs())
    log.store.settle([settled(1, "none", 1.0), settled(2, "none"), settled(3, "none")])
    assert read(log._replace(bad="retraction")).reward.tolist() == [0.0, 1.0, 0.0]
    assert read(log._replace(bad="opt_out")).reward.tolist() == [0.0, 0.0, 1.0]


def test_the_guardrail_of_opt_outs_is_measured() -> None:
    """A tenth of those who get a reminder opt out, and nobody else: always a reminder has 0.1 more than no nudge, and
    less than 0.25 more (error below 1e-6).
    """
    log = many(3000, holdout=0.0)
    shown = [f.decision.id for f in log.records() if f.decision.arm == "reminder"]
    gone = [
        Outcome(decision=one, id="o", kind="opt_out", value=None, occurred=2000, received=2000) for one in shown[::10]
    ]
    log.store.record([], gone, 2000, log.store.specs())
    ask = EvaluationConfig((EvaluationPolicy("fixed:reminder", FixedArm(1)),), (EvaluationPolicy("none", FixedArm(0)),))
    (rise,) = verdicts._increases(log, ask, "opt_outs", 0.999999, log.source()).values()
    assert 0.0 < rise.low < 0.1 < rise.high < 0.25
    assert verdicts._increases(log, ask, "refunds", 0.95, log.source())["fixed:reminder"].value == 0.0


def test_what_wins_conversions_and_loses_money_is_refused_in_words_whatever_is_measured() -> None:
    """A reminder of 6 EUR brings 20 points more conversions, worth 18 EUR each: each decision loses 2.40 EUR. It is
    better than the live version, whose nudge costs 12 EUR, and is refused all the same, in money and in words.
    """
    log = many(3000)
    priced = {name: msgspec.structs.replace(nudge, cost=6.0) for name, nudge in log.spec.nudges.items()}
    priced["discount_5"] = msgspec.structs.replace(priced["discount_5"], cost=12.0, cost_when_rewarded=0.0)
    reward = msgspec.structs.replace(log.spec.reward, value=18.0)
    log = log._replace(spec=msgspec.structs.replace(log.spec, nudges=priced, reward=reward))
    mine, live = EvaluationPolicy("mine", FixedArm(1)), EvaluationPolicy("v3", FixedArm(STAGE.arms.index("discount_5")))
    for worth in (log.worth, None):
        ask = EvaluationConfig((mine,), (live,), rewards=log.rewards, worth=worth, prefix=True, follow=False)
        found = core.evaluate([log.source()], ask)
        (judged,) = verdicts.judged(log, ask, found, 0.95)
        gain = verdicts.net_gains([log.source()], ask, found, log.worth, "EUR", 0.95).by_policy["mine"]
        assert gain.over.high < 0.0
        assert gain.p_loss is not None
        assert gain.p_loss > 0.999
        assert found[0].contrasts["v3"].interval[0] > 0.0 or worth is None, "in money it beats what is live"
        assert judged.verdict.decision == "reject"
        first, last = judged.verdict.reasons[0], judged.verdict.reasons[-1]
        assert first.startswith("net value over no nudge, -2.")
        assert first.endswith("is below 0: showing nothing earns more")
        said = r"more people convert \(\+18.* points \[.*\), and each decision loses 2\.7 net of costs \["
        assert re.match(said, last), last


def test_segments_are_values_of_a_declared_feature() -> None:
    columns = schema(STAGE.features).columns
    rows = []
    for i, (device, returning, price) in enumerate((("tablet", 1.0, -0.5), ("mobile", 0.0, 0.5)), 1):
        x = np.zeros(D)
        x[[columns.index(f"device={device}"), columns.index("returning"), columns.index("price")]] = 1, returning, price
        rows.append(decided(i, "none", x=x))
    log = ledger(*rows)
    wanted = {"device": ["device=tablet", "device=mobile"], "returning": ["returning=true", "returning=false"]}
    for name, labels in {**wanted, "price": ["price ≤ 73.6", "price > 73.6"]}.items():
        segment = read(log._replace(segment=name)).segment
        assert segment is not None
        assert segment.tolist() == labels
    with pytest.raises(InvalidRequest, match="no feature 'colour'"):
        read(log._replace(segment="colour"))


def test_a_stage_that_the_ledger_does_not_have_is_named(tmp_path: Path, run: Run) -> None:
    done = run("monitor", "--ledger", tmp_path / "no.db", "--stage", "cart")
    assert isinstance(done.exception, JourneyBanditError)
    assert not isinstance(done.exception, NotFound)
    assert "does not exist" in str(done.exception)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One log of the simulator as Parquet, and the same columns as CSV."""
    folder = tmp_path_factory.mktemp("both")
    words = ("--app", "travel", "--policy", "uniform", "--users", "400", "--days", "12", "--seeds", "1", "--log")
    done = CliRunner().invoke(group, ["simulate", *words, "--backend", "serial", "--out", str(folder), "--json"])
    assert done.exception is None, done.exception
    packed = Path(json.loads(done.stdout)["logs"]["uniform, seed 100, cart"])
    table = parquet.read_table(packed)
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    lines = [",".join(map(str, table.column_names)), *(",".join(_text(cell) for cell in row) for row in rows)]
    (folder / "log.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return packed, folder / "log.csv"


def _text(cell: object) -> str:
    return str(int(cell)) if isinstance(cell, bool) else repr(cell)


@pytest.mark.parametrize("measure", ["net", "reward", None])
def test_a_log_gives_the_same_result_to_the_bit_as_parquet_and_as_csv(
    run: Run, both: tuple[Path, Path], measure: str | None
) -> None:
    told = ("--measure", measure) if measure else ()
    asked = (
        "--policy",
        "uniform",
        "--policy",
        "fixed:reminder",
        "--against",
        "none",
        "--app",
        "travel",
        "--stage",
        "cart",
    )
    packed, text = (run("evaluate", "--rounds", file, *asked, *told, "--json") for file in both)
    assert (packed.exit_code, text.exit_code) == (0, 0), packed.output + text.output
    assert packed.stdout.replace(str(both[0]), "LOG") == text.stdout.replace(str(both[1]), "LOG")
    estimates = json.loads(packed.stdout)
    assert estimates


def test_a_log_of_the_simulator_knows_its_costs(run: Run, both: tuple[Path, Path]) -> None:
    """Its own metadata give what the catalogue gives; five per cent off for everybody is worth less money than rewards
    times their value.
    """
    asked = ("evaluate", "--rounds", both[0], "--policy", "fixed:discount_5", "--json")
    own, told = run(*asked), run(*asked, "--app", "travel", "--stage", "cart", "--measure", "net")
    assert own.exit_code == 0, own.output
    assert own.stdout == told.stdout
    net = json.loads(own.stdout)["estimates"]["dr"]["value"]
    reward = json.loads(run(*asked, "--measure", "reward").stdout)["estimates"]["dr"]["value"]
    value = parse(read_shipped("travel")).stage("cart").reward.value
    assert net < 0.98 * reward * value
    none = ("evaluate", "--rounds", both[0], "--policy", "none", "--json")
    money, count = (
        json.loads(run(*none, "--measure", m).stdout)["estimates"]["ips"]["value"] for m in ("net", "reward")
    )
    assert money == pytest.approx(count * value), "no nudge costs nothing"


def test_a_file_that_does_not_say_what_nudges_cost_says_what_would(run: Run, both: tuple[Path, Path]) -> None:
    done = run("evaluate", "--rounds", both[1], "--policy", "uniform", "--measure", "net")
    assert "does not say what nudges cost → give --app with the catalogue and --stage" in str(done.exception)
