"""A run: the same for the same cell, on the same people for every policy, with the service's own learning."""

import uuid
from typing import Any

import msgspec
import numpy as np
import pytest

from bandit.belief import add, empty
from bandit.catalogue.loading import parse, read_shipped
from bandit.errors import InvalidRequest
from bandit.learning import delay, drift, pending, settlement
from bandit.learning.nudge_price import MOST_EARLIER, EarlierDecisions, recent
from bandit.policies import Linear
from bandit.records import Decision, MaturedDecision, Outcome
from bandit.snapshot import Snapshot
from simulations import scenario
from simulations.offline import runner
from simulations.offline.learner import LearningRows, SimulatedLearner, VisitHistory
from simulations.offline.policy_specs import policy_spec
from simulations.offline.runner import DAY, EPOCH, CellRun, SimulationCell, StepDecisions, run

APPS = scenario.names()
POLICIES = ("default", "linear", "uniform", "fixed:none", "oracle")


def cell(app: str = "travel", policy: str = "linear", **changes: Any) -> SimulationCell:
    given = {"users": 400, "days": 12, "seed": 3, **changes}
    return SimulationCell(scenario=given.pop("scenario", scenario.load(app)), policy=policy, **given)


class Kept:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.rows: list[StepDecisions] = []

    def write(self, rows: StepDecisions) -> None:
        self.rows.append(rows)

    def all(self, name: str) -> np.ndarray:
        return np.concatenate([getattr(rows, name) for rows in self.rows])


def kept(given: SimulationCell) -> Kept:
    sink = Kept()
    runner.run(given, sink)
    return sink


@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("journey", [False, True], ids=["one stage", "journey"])
def test_every_scenario_runs_with_every_kind_of_policy(app: str, journey: bool) -> None:
    for policy in POLICIES:
        done = runner.run(cell(app, policy, journey=journey, users=250, days=8))
        for tally in done.stages.values():
            assert len(tally.decisions) == len(tally.by_day) == 8
            assert min(tally.regret) >= 0.0
            if policy == "oracle":
                assert sum(tally.regret) == 0.0
        assert sum(sum(t.decisions) for t in done.stages.values()) >= 250


def test_a_cell_gives_one_digest_and_any_change_another() -> None:
    first, again = runner.run(cell()), runner.run(cell())
    assert first == again
    others = (cell(seed=4), cell(policy="linear:alpha=0.3"), cell(users=401), cell(days=13))
    assert len({first.digest, *(runner.run(other).digest for other in others)}) == 5
    assert len({cell().digest(), *(other.digest() for other in others)}) == 5


def test_every_policy_meets_the_same_people_who_would_do_the_same() -> None:
    """On day one nothing a policy did can matter; later, visits of the same user and day have the same features."""
    left, right = kept(cell(policy="uniform")), kept(cell(policy="fixed:none"))
    assert np.array_equal(left.rows[0].x, right.rows[0].x)
    assert np.array_equal(left.rows[0].truth, right.rows[0].truth)
    sides = []
    for sink in (left, right):
        day = np.concatenate([np.full(len(rows.user), rows.at[0]) for rows in sink.rows])
        sides.append({(u, d): x for u, d, x in zip(sink.all("user"), day, sink.all("x"), strict=True)})
    both = sides[0].keys() & sides[1].keys()
    assert len(both) > 1000
    assert all(np.array_equal(sides[0][key], sides[1][key]) for key in both)


@pytest.mark.parametrize("app", APPS)
def test_what_happens_is_what_was_expected(app: str) -> None:
    """Σ (realised − exact expected net value) over its standard deviation: |z| ≤ 5.1, false alarm 4e-7.

    25,000 decisions, each of a standard deviation of half a reward's worth at most: an error of 3.2 % of that worth is
    found with probability > 1 − 1e-6.
    """
    done = runner.run(cell(app, "uniform", users=6000, days=25))
    (tally,) = done.stages.values()
    assert sum(tally.decisions) > 25_000
    assert abs(tally.realised) < 5.1 * np.sqrt(tally.variance)


def test_logged_propensities_are_the_frequencies_of_draws() -> None:
    """Each arm's count against Σp as a martingale, |z| ≤ 5.2 for 5 arms: false alarm ≤ 1e-6; detects 0.03."""
    sink = kept(cell(users=2500, days=20))
    p, arm = sink.all("propensities"), sink.all("arm")
    z = ((arm[:, None] == np.arange(p.shape[1])) - p).sum(axis=0) / np.sqrt((p * (1 - p)).sum(axis=0))
    assert len(arm) > 8000
    assert np.abs(z).max() < 5.2
    assert p.sum(axis=1) == pytest.approx(1.0, abs=1e-12)


def test_who_opted_out_or_is_held_out_gets_no_nudge_and_the_holdout_is_not_learned_from() -> None:
    given = CellRun(cell(policy="uniform", users=3000, days=20, holdout=0.3), sink := Kept())
    for step in range(20):
        before = given.crowd.opted_out.copy()
        seen = len(sink.rows)
        given.step(step)
        for rows in sink.rows[seen:]:
            out = before[rows.user] | rows.holdout
            assert (rows.arm[out] == 0).all()
            assert (rows.propensities[out][:, 0] == 1.0).all()
    assert before.any()
    assert sink.all("holdout").mean() == pytest.approx(0.3, abs=0.05)
    learned = given.brain.prepared["cart"].snapshot.belief.n.sum()
    due = (sink.all("at") + round(72 * 3600e6) <= EPOCH + 19 * DAY) & ~sink.all("holdout")
    assert learned == due.sum()


def test_the_guard_keeps_coupons_apart() -> None:
    travel = scenario.load("travel")
    capped = msgspec.structs.replace(travel, coupons=msgspec.structs.replace(travel.coupons, cap_days=10.0))
    apart = {}
    for name, made in (("without", travel), ("with", capped)):
        sink = kept(cell(policy="fixed:discount_10", scenario=made, days=25))
        coupon = sink.all("arm") == 4
        order = np.lexsort((sink.all("at")[coupon], sink.all("user")[coupon]))
        user, day = sink.all("user")[coupon][order], (sink.all("at")[coupon][order] - EPOCH) // DAY
        apart[name] = np.diff(day)[np.diff(user) == 0].min()
    assert apart["without"] < 10 <= apart["with"]


def test_regret_is_what_the_best_eligible_arm_would_have_brought_given_what_can_be_seen() -> None:
    given = CellRun(cell(policy="uniform"), sink := Kept())
    given.step(0)
    (rows,) = sink.rows
    people, found = given.populations[0], given.crowd.situation(np.zeros(0, dtype=np.intp), 0.0)
    first = type(found)(0.0, *(np.zeros(len(rows.user)) for _ in range(3)))
    value = people.utility(people.rate(rows.position, first))
    may = rows.propensities > 0.0
    best = np.where(may, value, -np.inf).max(axis=1)
    assert rows.regret == pytest.approx(best - value[np.arange(len(best)), rows.arm], abs=1e-12)
    assert (~may).any()


@pytest.mark.parametrize("policy", ["linear", "hierarchical", "centred"])
def test_it_learns_what_the_services_learner_learns(policy: str) -> None:
    """The sums of 300 rows, one batch after another, are those of `learner.settle` and `contribution`: bit for bit."""
    made = kept(cell(policy=policy, users=300, days=6))
    stage = policy_spec(policy, set()).stage(parse(read_shipped("travel")).stage("cart"), 0.0)
    parts = zip(*made.rows, strict=True)
    rows = StepDecisions._make(np.concatenate(p) if isinstance(p[0], np.ndarray) else p[0] for p in parts)
    brain, each = SimulatedLearner("travel", {"cart": stage}), np.arange(len(rows.arm))
    belief, window = empty(len(stage.belief_rows(stage.arms)), rows.x.shape[1]), round(stage.reward.seconds * 1e6)
    for number, part in enumerate(np.array_split(each, 3)):
        batch = LearningRows(
            x=rows.x[part],
            arm=rows.arm[part],
            reward=rows.reward[part],
            mean=rows.mean[part, rows.arm[part]],
            sd=np.full(len(part), 9.0),
            version=np.zeros(len(part), dtype=np.int64),
            at=rows.at[part],
            expires=rows.at[part] + window,
            answered=np.where(rows.reward[part] > 0, rows.at[part] + 1, 0),
            propensity=rows.propensities[part],
            baseline=rows.mean[part, 0],
            eligible=rows.propensities[part] > 0,
            user=rows.user[part],
            opted_out=np.zeros(len(part), dtype=bool),
        )
        brain.put("cart", batch)
        brain.tick(EPOCH + (30 + number) * DAY)
        live = Snapshot("travel", "cart", stage, 0, drift.weighed(stage.drift, [belief]))
        matured = [MaturedDecision(int(i), decision(stage.arms, rows, i), outcomes(rows, i)) for i in part]
        done = settlement.settle(stage, matured, 0, live=live)
        design = stage.learner.design(rows.x[part], rows.arm[part], rows.propensities[part])
        belief = add(belief, settlement.contribution(stage, done, design))
    assert brain.prepared["cart"].snapshot.belief.digest() == belief.digest()


def test_what_visits_find_is_what_a_ledger_would_say() -> None:
    """The history of a run against `recent` over each person's earlier decisions, bit for bit, beyond its memory."""
    rng, history = np.random.default_rng(1), VisitHistory()
    past: dict[int, list[tuple[int, bool, float, bool]]] = {}
    for step in range(MOST_EARLIER + 20):
        user = np.flatnonzero(rng.random(12) < 0.9)
        at, p = np.full(len(user), EPOCH + step * DAY) + user, rng.random(len(user))
        nudge, out = rng.random(len(user)) < p, rng.random(len(user)) < 0.02
        found = history.found(user, at, out)
        for i, who in enumerate(user.tolist()):
            mine = past.setdefault(who, [])[-MOST_EARLIER:][::-1]
            columns = [np.array([row[k] for row in mine]).reshape(1, len(mine)) for k in range(4)]
            kinds = (np.int64, bool, float, bool)
            earlier = EarlierDecisions._make(
                [*(c.astype(kind) for c, kind in zip(columns, kinds, strict=True)), np.ones((1, len(mine)), dtype=bool)]
            )
            one = slice(i, i + 1)
            alone = recent(at[one], earlier, out[one], np.ones(1, dtype=bool), np.full(1, float(DAY)))
            for left, right in zip(found.only(np.array([i])), alone, strict=True):
                assert np.array_equal(left, right)
            past[who].append((int(at[i]), bool(nudge[i]), float(p[i]), bool(out[i])))
        history.put(user, at, nudge, p, out)


def test_a_run_learns_a_price_and_counts_who_was_left_alone() -> None:
    played = run(cell(policy="centred", users=300, days=8, holdout=0.3))
    (price,) = played.prices.values()
    assert 0.0 <= price.low <= price.price <= price.high
    assert price.decisions > 0
    assert played.holdout.people > 30
    assert played.nudged.people > 100
    assert not run(cell(policy="linear", users=50, days=3)).prices


def decision(arms: tuple[str, ...], rows: StepDecisions, i: int) -> Decision:
    p = rows.propensities[i]
    return Decision(
        id=uuid.UUID(int=int(i)),
        at=int(rows.at[i]),
        expires=int(rows.at[i]) + 1,
        stage="cart",
        stage_digest="",
        settlement_version=0,
        user=b"",
        request=b"",
        x=rows.x[i],
        propensity=p,
        mean=rows.mean[i],
        sd=p,
        u=0.5,
        arm=arms[int(rows.arm[i])],
        holdout=False,
        excluded={},
        evidence={},
        notes=(),
    )


def outcomes(rows: StepDecisions, i: int, at: int = 0) -> tuple[Outcome, ...]:
    if rows.reward[i] == 0.0:
        return ()
    return (Outcome(decision=uuid.UUID(int=int(i)), id="r", kind="reward", value=1.0, occurred=at, received=at),)


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Travel's cart as if it declared how long answers take."""
    text = read_shipped("travel")
    assert text.count('window = "72h", value = 50.0') == 1
    told = text.replace('window = "72h", value = 50.0', 'window = "72h", delay = "24h", value = 50.0')
    monkeypatch.setattr(runner, "read_shipped", lambda app: told if app == "travel" else read_shipped(app))


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize("policy", ["hierarchical", "centred"])
def test_what_is_open_amounts_to_what_the_service_makes_of_it(policy: str) -> None:
    """After three days nothing is settled; rewards that came by then count as rewards, silence by its age."""
    given, sink = cell(policy=policy, users=2000, days=3), Kept()
    run = CellRun(given, sink)
    for step in range(3):
        run.step(step)
    now, stage = EPOCH + 3 * DAY - 1, run.populations[0].stage
    run.brain.tick(now)
    window, known = (
        round(stage.reward.seconds * 1e6),
        pending.OpenDecisionTable(stage, sink.rows[0].x.shape[1]),
    )
    parts = zip(*sink.rows, strict=True)
    rows = StepDecisions._make(np.concatenate(p) if isinstance(p[0], np.ndarray) else p[0] for p in parts)
    came = 0
    for i in range(len(rows.arm)):
        made = msgspec.structs.replace(decision(stage.arms, rows, i), expires=int(rows.at[i]) + window)
        at = int(rows.at[i]) + int(np.nan_to_num(rows.delay[i]) * 1e6)
        heard = outcomes(rows, i, at) if rows.reward[i] > 0 and at <= now else ()
        came += len(heard)
        known.put([pending.KnownDecision(i, made, heard)], {made.stage_digest: stage})
    nothing = Snapshot("travel", "cart", stage, 0, empty(len(stage.belief_rows(stage.arms)), rows.x.shape[1]))
    counts = np.zeros((len(stage.arms), delay.BUCKETS))
    wanted, found = pending.amounts_to(nothing, known.rows(), counts, now), run.brain.prepared["cart"].snapshot.pending
    assert wanted is not None
    assert found is not None
    assert came > 10
    for left, right in zip(found, wanted, strict=True):
        assert left == pytest.approx(right, abs=1e-9)


def test_open_decisions_wait_where_the_stage_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    text = read_shipped("travel")
    told = text.replace('window = "72h", value = 50.0', 'window = "72h", delay = "window", value = 50.0')
    monkeypatch.setattr(runner, "read_shipped", lambda _: told)
    given = CellRun(cell(policy="hierarchical", users=400, days=3))
    for step in range(3):
        given.step(step)
    assert given.brain.prepared["cart"].snapshot.pending is None


def test_open_decisions_count_where_nobody_says_how_long_answers_take() -> None:
    """After three days nothing has settled."""
    given = CellRun(cell(policy="hierarchical", users=400, days=3))
    for step in range(3):
        given.step(step)
    live = given.brain.prepared["cart"].snapshot
    assert live.belief.n.sum() == 0.0
    assert live.pending is not None
    assert live.pending.n.sum() > 50.0


@pytest.mark.usefixtures("declared")
def test_open_decisions_are_counted_before_their_window_ends() -> None:
    given = CellRun(cell(policy="hierarchical", users=2000, days=3))
    for step in range(3):
        given.step(step)
    live = given.brain.prepared["cart"].snapshot
    assert live.version == 0
    assert live.pending is not None
    assert live.pending.n.sum() > 100


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("linnear", "did you mean `linear`"),
        ("fixed:discount_11", "did you mean `discount_10`"),
        ("linear:alpa=0.3", "did you mean `alpha`"),
        ("linear:alpha", "NAME=NUMBER"),
        ("linear:alpha=much", "is no number"),
        ("oracle:alpha=1", "known: price"),
        ("default:price=-1", "a price below 0"),
        ("default:loss=much", "no percentage"),
        ("default:loss_rule=bold", "kept or expected"),
    ],
)
def test_a_policy_that_cannot_play_is_named(text: str, found: str) -> None:
    with pytest.raises(InvalidRequest, match=found):
        policy_spec(text, {"none", "discount_5", "discount_10"})


def test_a_specification_may_declare_another_loss_and_words() -> None:
    declared = parse(read_shipped("travel")).stage("cart")
    stage = policy_spec("default:loss=1%,loss_rule=expected", set()).stage(declared, 0.0)
    assert (stage.loss, stage.loss_rule, stage.policy) == ("1%", "expected", declared.policy)
    assert policy_spec("default", set()).stage(declared, declared.holdout) == declared
    learning = policy_spec("linear:scales=learned,alpha=0.3", set()).stage(declared, 0.0).policy
    assert isinstance(learning, Linear)
    assert (learning.scales, learning.alpha) == ("learned", 0.3)


def test_a_setting_out_of_range_is_refused_before_the_run() -> None:
    with pytest.raises(InvalidRequest, match="alpha"):
        CellRun(cell(policy="linear:alpha=7"))
    with pytest.raises(InvalidRequest, match="scales"):
        CellRun(cell(policy="hierarchical:scales=wide"))


def test_the_price_makes_the_oracle_nudge_less() -> None:
    """By more than half where the price is a tenth of a reward."""
    nudged = [sum(runner.run(cell(policy=p)).stages["cart"].nudged) for p in ("oracle", "oracle:price=5")]
    assert nudged[1] < 0.5 * nudged[0]
