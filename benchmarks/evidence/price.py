"""Does the learned price of a nudge hold the true one? Logs of a targeting policy in 20 worlds, fatigue from none to
strong, and two estimates from each: `bandit.learning.nudge_price`, and the naive regression.

    python -m benchmarks.evidence.price --quick       half a minute: does it run?
    python -m benchmarks.evidence.price               20 worlds of 4,000 people: five minutes of the processor

The worlds are the five apps, each with no fatigue, a third, two thirds and all of strong fatigue: up to 0.1 logits a
recent nudge, opt-outs from −5 to −3.5 logits, of whom 10 to 30 % leave. Coupon habits and demand that is brought
forward are harms of another kind, and left out. The policy is `centred` without a loss account: it learns as it goes
and aims its nudges, so who saw many of them is no accident.

The true price is computed from what the simulator does, in closed form:

    w̄ K (−β) + h ℓ V     w̄ = E w, w = p(1 − p) of these people; β = E w ∂z/∂F / E w (tires, and dulls of what is shown);
                         K = r/(1 − r), r = E 0.85^gap; h = E σ(opt_out + F) at nudges; ℓ = leaves; V = E p a month

The naive regression takes recent nudges F as they are where the price takes them less what the propensities expected
(F_c): whatever else tells apart people who saw many nudges is then taken for fatigue. All else is the same. Prices are
in % of what a reward is worth, `tired` in logits; intervals are of 95 %.
"""

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # before numpy reads them
    os.environ.setdefault(_name, "1")

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from scipy import special, stats

from bandit.arrays import Array, Ints, Mask
from bandit.learning import nudge_price
from bandit.learning.nudge_price import NudgePrice, NudgeSums, RecentNudges, SettledNudges
from benchmarks.evidence.harm import clopper_pearson
from experiments.inference.wording import bounds
from simulations import scenario
from simulations.offline import parallel
from simulations.offline.learner import SimulatedLearner, VisitHistory
from simulations.offline.runner import DAY, EPOCH, CellRun, SimulationCell, StepDecisions
from simulations.scenario import Scenario
from simulations.visits import VisitSituation
from simulations.worlds import LEAVES, OPT_OUT, TIRES, no_fatigue

STRENGTHS = (0.0, 1 / 3, 2 / 3, 1.0)
USERS, DAYS, BASE = 4000, 30, 2000
QUICK = {"users": 200, "days": 10}

Row = dict[str, Any]


class Truth(NamedTuple):
    """True price of a nudge in a log, in units of a reward, and what a recent nudge takes in logits."""

    price: float
    tired: float


class Collected:
    """A decision sink that keeps everything."""

    def __init__(self) -> None:
        self.rows = list[StepDecisions]()

    def write(self, rows: StepDecisions) -> None:
        """Keep one stage's decisions of one step."""
        self.rows.append(rows)


class FatigueLog(NamedTuple):
    """Log of one world: settled decisions, what they found of their persons' past, and the truth."""

    settled: SettledNudges
    found: RecentNudges
    truth: Truth


def world(app: str, strength: float) -> Scenario:
    """Scenario of an app with so much of strong fatigue, and no other harm that past nudges do."""
    declared = scenario.load(app)
    replace = msgspec.structs.replace
    alone = replace(
        declared,
        coupons=replace(declared.coupons, depth=0.0, learns=0.0),
        visits=replace(declared.visits, pull_forward=0.0),
    )
    if strength == 0.0:
        return no_fatigue(alone)
    tired = replace(
        declared.fatigue,
        tires=TIRES * strength,
        opt_out=-5.0 + (OPT_OUT + 5.0) * strength,
        leaves=0.1 + (LEAVES - 0.1) * strength,
    )
    return replace(alone, fatigue=tired)


def log(cell: SimulationCell) -> FatigueLog:
    """Log of a cell, played without a loss account, with its truth."""
    run = CellRun(cell, kept := Collected())
    stages = {people.name: msgspec.structs.replace(people.stage, loss="none") for people in run.populations}
    run.brain = SimulatedLearner(cell.scenario.app, stages)
    out = []
    for day in range(cell.days):
        before, many = run.crowd.opted_out.copy(), len(kept.rows)
        run.step(day)
        out += [(run.crowd.opted_out & ~before)[rows.user] for rows in kept.rows[many:]]
    history, pasts = VisitHistory(), []
    for rows, opted_out in zip(kept.rows, out, strict=True):
        pasts.append(history.found(rows.user, rows.at, opted_out))
        history.put(rows.user, rows.at, rows.arm > 0, 1.0 - rows.propensities[:, 0], opted_out)
    found = RecentNudges._make(map(np.concatenate, zip(*pasts, strict=True)))
    each = [np.arange(len(rows.arm)) for rows in kept.rows]
    settled = SettledNudges(
        nudge=np.concatenate([rows.arm > 0 for rows in kept.rows]),
        reward=np.concatenate([(rows.reward > 0.0).astype(np.float64) for rows in kept.rows]),
        expected=np.concatenate([rows.mean[i, rows.arm] for i, rows in zip(each, kept.rows, strict=True)]),
    )
    return FatigueLog(settled, found, _truth(run, kept.rows, settled.nudge, found.nudges))


def _truth(run: CellRun, steps: Sequence[StepDecisions], nudge: Mask, fatigue: Array) -> Truth:
    people, given = run.populations[0], run.cell.scenario
    chances, slopes, start = [], [], 0
    for rows in steps:
        n, day = len(rows.arm), float((rows.at[0] - EPOCH) // DAY)
        tired = fatigue[start : start + n]
        chance, slope = _derivative(run, rows.user, rows.arm, rows.position, day, tired)
        chances.append(chance)
        slopes.append(slope)
        start += n
    chance, slope = np.concatenate(chances), np.concatenate(slopes)
    weight = chance * (1.0 - chance)
    beta = float((weight * slope).sum() / weight.sum())
    ratio, gap = _gaps(given)
    hazard = float(special.expit(given.fatigue.opt_out + fatigue[nudge]).mean()) if nudge.any() else 0.0
    gone = hazard * given.fatigue.leaves * float(chance.mean()) * 30.0 / gap
    within = float(people.within.mean())
    return Truth(within * (float(weight.mean()) * ratio / (1.0 - ratio) * -beta + gone), -beta)


def _derivative(run: CellRun, user: Ints, arm: Ints, position: Array, day: float, tired: Array) -> tuple[Array, Array]:
    """P(reward) of what was shown to each person (n,), and the slope of its logit in F."""
    people, born, rules = run.populations[0], run.crowd.traits, run.cell.scenario.fatigue
    persona, nothing, each = born.persona[user], np.zeros(len(user)), np.arange(len(user))
    found = VisitSituation(day, tired, nothing, nothing)
    chance = people.chance(persona, born.effect[user], position, found)[each, arm]
    score = people.score(persona, position, found)
    own = (score - score[:, :1])[each, arm]  # of what was shown, as dulled as it is
    return chance, -rules.tires - rules.dulls * own


def _gaps(given: Scenario) -> tuple[float, float]:
    """E 0.85^gap and E gap of whole days between visits."""
    normal = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    gap = np.floor(np.maximum(given.visits.gap_days * np.exp(given.visits.gap_sd * normal), 1.0))
    return float((given.fatigue.keeps**gap).mean()), float(gap.mean())


def naive(made: FatigueLog) -> RecentNudges:
    """What the naive regression takes: recent nudges as they are, less their weighted mean."""
    weight = made.settled.expected * (1.0 - made.settled.expected)
    plain = made.found.nudges
    return made.found._replace(centred=plain - (weight * plain).sum() / weight.sum())


def play(cell: SimulationCell) -> Row:
    """Figures of one world: the truth, and both estimates."""
    made = log(cell)
    prior = float(made.settled.reward.mean())
    row: Row = {"app": cell.scenario.app, "tires": cell.scenario.fatigue.tires, "truth": made.truth._asdict()}
    for name, found in (("price", made.found), ("naive", naive(made))):
        row[name] = _figures(nudge_price.learned(NudgeSums().plus(made.settled, found), prior), made.truth)
    return row


def _figures(found: NudgePrice, truth: Truth) -> Row:
    figures = msgspec.to_builtins(found)
    sd = found.sd or np.inf
    figures["holds"] = bool(found.low <= truth.price <= found.high)
    figures["holds_tired"] = bool(abs((found.tired or 0.0) - truth.tired) <= 1.96 * sd)
    figures["evidence"] = found.evidence
    return dict(figures)


def tables(rows: Sequence[Row]) -> Iterator[str]:
    """Lines of the table, a world each, and the coverage of both estimates."""
    yield f"{'app':<14}{'tires':>6}{'true price':>12}  {'learned':<26}{'naive':<26}{'true':>6}  {'tired':<18}naive"
    for row in rows:
        cells = "".join(f"{_cell(row[name]):<26}" for name in ("price", "naive"))
        logits = "".join(f"{_logits(row[name]):<18}" for name in ("price", "naive"))
        truth = row["truth"]
        yield (
            f"{row['app']:<14}{row['tires']:>6.3f}{100 * truth['price']:>10.2f} %  {cells}"
            f"{truth['tired']:>6.3f}  {logits}"
        ).rstrip()
    for name, said in (("price", "learned"), ("naive", "naive regression")):
        for key, what in (("holds", "the true price"), ("holds_tired", "what a recent nudge takes")):
            inside = sum(row[name][key] for row in rows)
            low, high = clopper_pearson(inside, len(rows))
            yield f"{said}: {what} is in {inside} of {len(rows)} intervals {bounds(low, high, '.2f')}"
        errors = [(row[name]["tired"] or 0.0) - row["truth"]["tired"] for row in rows]
        square = np.sqrt(np.mean(np.square(errors)))
        yield f"{said}: mean error {np.mean(errors):+.3f} logits, root mean square {square:.3f}"


def _cell(one: Row) -> str:
    text = f"{100 * one['price']:.2f} {bounds(100 * one['low'], 100 * one['high'], '.2f')}"
    return text + ("" if one["holds"] else " !")


def _logits(one: Row) -> str:
    return f"{one['tired'] or 0.0:.3f} ± {one['sd'] or np.inf:.3f}" + ("" if one["holds_tired"] else " !")


def main() -> None:
    """Parse the arguments, play the worlds, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, help=f"people of each world (default: {USERS})")
    parser.add_argument("--days", type=int, help=f"days of each log (default: {DAYS})")
    parser.add_argument("--apps", nargs="+", choices=scenario.names(), default=scenario.names())
    parser.add_argument("--policy", default="centred", help="who aims the nudges (default: centred)")
    parser.add_argument("--base", type=int, default=BASE, help=f"the first seed (default: {BASE})")
    parser.add_argument("--workers", type=int, help="runs at a time (default: processors)")
    parser.add_argument("--json", action="store_true", help="every figure, for programs")
    parser.add_argument("--quick", action="store_true", help="few people and days: does it run?")
    given = parser.parse_args()
    small = QUICK if given.quick else {"users": USERS, "days": DAYS}
    users, days = given.users or small["users"], given.days or small["days"]
    strengths = STRENGTHS[::3] if given.quick else STRENGTHS
    pairs = [(strength, app) for strength in strengths for app in given.apps]
    cells = [
        SimulationCell(scenario=world(app, strength), policy=given.policy, users=users, days=days, seed=given.base + i)
        for i, (strength, app) in enumerate(pairs)
    ]
    backend: parallel.Backend = "serial" if given.workers == 1 else "processes"
    done = dict(parallel.run(play, cells, backend=backend, workers=given.workers))
    rows = [done[i] for i in range(len(cells))]
    if given.json:
        print(json.dumps({"users": users, "days": days, "rows": rows}))
        return
    print(f"{len(rows)} worlds of {users:,} people, {days} days, policy {given.policy}")
    for line in tables(rows):
        print(line)


if __name__ == "__main__":
    main()
