"""How many judged decisions does the gate need to tell a candidate that is 2 % better from one that is level, at 80 %
power? Before and after, on the people of every shipped app.

    python -m benchmarks.evidence.gate --quick            ten seconds: does it run?
    python -m benchmarks.evidence.gate                    every app, four seeds each: a minute and a half on one core
    python -m benchmarks.evidence.gate --pairs linear/logistic --seeds 8 --json

For each app and seed a policy learns from 1,000 people for 14 days and is live; the candidate has learned from other
people of the same app, by the same policy or another (`--pairs live/candidate`). Every situation that people bring on
the last days is judged under both, exactly as the service would: propensities of each policy and of the mixture of
both, and the live policy's predictions. The true rates are moved along (π − live) / p until the candidate
is better by exactly 2 % of what the live policy earns, net of costs.

    live, sequence          before: logs of the live policy alone, its confidence sequence
    a/b halves, fixed n     for comparison: half of the decisions by each policy, the difference of their means
    mixture, sequence       every decision drawn from ½ live + ½ candidate
    mixture, fixed n        the ordinary interval at 95 %, at a number of decisions that was declared beforehand
    …, predictions          the same with the logged predictions (doubly robust) in place of a constant one

Decisions at a fixed n follow from the variance of one round, which is computed over all situations, arms and rewards,
without sampling. The sequence is followed on paths of its wealth at 0: log wealth of every bet is a sum over rounds, so
from some thousand rounds on it is normal, with mean and covariance computed in the same way; 1,000 paths, the looks 4 %
apart. Given are geometric means over seeds with Student's 95 % interval of the logarithm. Rounds are taken as
independent; where a person's are not, the gate's interval counts people.
"""

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # before numpy reads them
    os.environ.setdefault(_name, "1")

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from time import process_time
from typing import Any, NamedTuple

import numpy as np
from scipy import special, stats

from bandit import engine
from bandit.arrays import Array
from bandit.catalogue.loading import parse, read_shipped
from bandit.catalogue.net_value import ArmWorth
from bandit.propensity.mixture import HEAVIEST, half_and_half
from experiments.inference import sequences
from experiments.inference.intervals import mean
from experiments.inference.sequences import SequenceDraws, levels
from simulations import scenario
from simulations.offline.runner import CellRun, SimulationCell, StepDecisions

LIFT, LEVEL, POWER = 0.02, 0.95, 0.8
USERS, DAYS, JUDGED_DAYS = 1000, 14, 5
SEEDS, BASE, ELSEWHERE = 4, 100, 1000
PATHS, STEP, ROUNDS = 1000, 1.04, 3000
PAIRS = ("hierarchical/hierarchical", "hierarchical/linear")
QUICK: dict[str, Any] = {"apps": ["travel"], "pairs": ["hierarchical/linear"], "seeds": 2, "users": 300}
WAYS = (
    "live, sequence",
    "live, fixed n",
    "a/b halves, fixed n",
    "mixture, sequence",
    "mixture, fixed n",
    "mixture, fixed n, predictions",
)

Row = dict[str, Any]


class JudgedSituations(NamedTuple):
    """Situations in which a candidate is judged, n of them over k arms: both policies' propensities and those of the
    mixture, the live policy's predictions and the true rates, both as shares of the reward's one amount; (n, k) each.
    `worth`: of the amount. `floor`: of the live policy.
    """

    live: Array
    candidate: Array
    mixture: Array
    predicted: Array
    rate: Array
    worth: ArmWorth
    floor: float

    @property
    def earns(self) -> float:
        """Net value of one decision of the live policy, in currency."""
        return float((self.live * self.worth.net(self.rate)).sum(axis=1).mean())

    @property
    def lift(self) -> float:
        """True lift of the candidate over the live policy, in currency."""
        return float(((self.candidate - self.live) * self.worth.net(self.rate)).sum(axis=1).mean())


class _Kept:
    """Sink that keeps the newest steps of one stage."""

    def __init__(self) -> None:
        self.steps: list[StepDecisions] = []

    def write(self, rows: StepDecisions) -> None:
        """As `DecisionSink.write`."""
        self.steps.append(rows)


@cache
def _played(app: str, policy: str, seed: int, users: int) -> tuple[CellRun, list[StepDecisions]]:
    """A run of one policy to its end, and its last days."""
    sink = _Kept()
    run = CellRun(SimulationCell(scenario=scenario.load(app), policy=policy, users=users, days=DAYS, seed=seed), sink)
    for day in range(DAYS):
        run.step(day)
    return run, sink.steps[-JUDGED_DAYS:]


def situations(app: str, deciding: str, candidate: str, seed: int, users: int) -> JudgedSituations:
    """Situations of the last days of one run of an app, with the policies that were learned by then."""
    run, steps = _played(app, deciding, seed, users)
    elsewhere, _ = _played(app, candidate, seed + ELSEWHERE, users)
    people = run.populations[0]
    live, other = (played.brain.prepared[people.name] for played in (run, elsewhere))
    x, may = (np.concatenate([getattr(rows, name) for rows in steps])[:ROUNDS] for name in ("x", "propensities"))
    truth = np.concatenate([rows.truth for rows in steps])[:ROUNDS]
    may = may > 0.0
    scores = engine.choose_many(live, x, may)
    own, mine = scores.propensity, engine.choose_many(other, x, may).propensity
    stage = people.stage
    worth = ArmWorth(people.worth.gain * people.amount, people.worth.cost)
    rate = np.clip((truth + worth.cost) / worth.gain, 0.0, 1.0)
    span = stage.reward.max - stage.reward.min
    predicted = (stage.reward.min + span * scores.mean) / people.amount
    return JudgedSituations(own, mine, half_and_half(own, mine), predicted, rate, worth, stage.common_floor)


def tilted(found: JudgedSituations, lift: float) -> JudgedSituations:
    """The same situations with rates moved along (π − live) / p so that the candidate's true lift is `lift`, in
    currency. Rates stay in [0, 1].
    """
    drawn = found.mixture > 0.0
    tilt = np.where(drawn, found.candidate - found.live, 0.0) / np.where(drawn, found.mixture, 1.0)
    for _ in range(50):
        slope = float(((found.candidate - found.live) * tilt * found.worth.gain).sum(axis=1).mean())
        found = found._replace(rate=np.clip(found.rate + tilt * (lift - found.lift) / slope, 0.0, 1.0))
        if abs(found.lift - lift) <= 1e-9 * abs(lift):
            break
    return found


def variance(found: JudgedSituations, drawn: Array, predicted: Array | float) -> float:
    """Variance of the lift's φ of one round, over situations, arms drawn from `drawn` (n, k) and rewards; `predicted`
    (n, k) net value, or one number for all.
    """
    delta, p = found.candidate - found.live, np.where(drawn > 0.0, drawn, 1.0)
    net = np.broadcast_to(np.asarray(predicted, dtype=np.float64), delta.shape)
    direct, weight = (delta * net).sum(axis=1, keepdims=True), delta / p
    total = np.zeros(len(delta))
    for reward, chance in ((0.0, 1.0 - found.rate), (1.0, found.rate)):
        phi = direct + weight * (found.worth.net(np.full_like(delta, reward)) - net)
        total += (drawn * chance * phi**2).sum(axis=1)
    return float(total.mean()) - found.lift**2


def halves(found: JudgedSituations) -> float:
    """Variance of one round, as `variance` counts it, if each policy decides half of the decisions alone and the means
    of what they earn are compared.
    """
    total = 0.0
    for p in (found.live, found.candidate):
        first, second = 0.0, 0.0
        for reward, chance in ((0.0, 1.0 - found.rate), (1.0, found.rate)):
            net = found.worth.net(np.full_like(p, reward))
            first += float((p * chance * net).sum(axis=1).mean())
            second += float((p * chance * net**2).sum(axis=1).mean())
        total += 2.0 * (second - first**2)
    return total


def at_fixed_n(spread: float, lift: float) -> float:
    """Decisions at which an interval at 95 % is above 0 with a probability of 80 %."""
    z = float(stats.norm.ppf(0.5 + LEVEL / 2) + stats.norm.ppf(POWER))
    return z * z * spread / lift**2


def by_sequence(found: JudgedSituations, drawn: Array, heaviest: float, seed: int) -> float:
    """Decisions after which the confidence sequence of the lift has been above 0 on 80 % of paths."""
    growth, spread, prior = _growth(found, drawn, heaviest)
    values, vectors = np.linalg.eigh(spread)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    rng = np.random.default_rng(seed)
    wealth, crossed = np.zeros((PATHS, len(growth))), np.zeros(PATHS, dtype=np.bool_)
    n, before, share = 0.0, 0.0, 0.0
    step = 100.0
    while share < POWER:
        wealth += step * growth + np.sqrt(step) * rng.standard_normal((PATHS, len(growth))) @ root.T
        crossed |= special.logsumexp(wealth + prior, axis=1) >= np.log(2.0 / (1.0 - LEVEL))
        n, before, share = n + step, share, float(crossed.mean())
        last, step = step, max(100.0, n * (STEP - 1.0))
    return n - last * (share - POWER) / max(share - before, 1e-9)


def _growth(found: JudgedSituations, drawn: Array, heaviest: float) -> tuple[Array, Array, Array]:
    """Mean (B,) and covariance (B, B) of what one round adds to the log wealth at a lift of 0 of every bet of the lower
    bound, and the bets' log prior (B,).
    """
    n, k = drawn.shape
    ends = np.array([found.worth.net(np.full(k, reward)) for reward in (0.0, 1.0)])
    low, span = float(ends.min()), float(ends.max() - ends.min())
    net = (found.worth.net(found.predicted) - low) / span
    sequence = sequences.Sequence.of_lift(levels(heaviest), levels(heaviest))
    terms, weights = [], []
    for arm in range(k):
        for reward, chance in ((0, 1.0 - found.rate[:, arm]), (1, found.rate[:, arm])):
            value = np.full(n, (ends[reward, arm] - low) / span)
            draws = SequenceDraws(np.full(n, arm), value, drawn, net)
            terms.append(sequence.series(draws, found.candidate, found.live)[0])
            weights.append(drawn[:, arm] * chance / n)
    x, weight = np.concatenate(terms, axis=1), np.concatenate(weights)  # (J, m), (m,)
    rate, centre = sequence.lower.rate, (x * weight).sum(axis=1)[:, None]
    each = np.log1p(rate[:, :, None] * (x - centre)[:, None, :]) + (rate * (centre - sequence.offset))[:, :, None]
    flat = each.reshape(-1, x.shape[1])
    growth = flat @ weight
    centred = flat - growth[:, None]
    return growth, (centred * weight) @ centred.T, sequence.lower.log_prior.ravel()


def needed(found: JudgedSituations, seed: int) -> dict[str, float]:
    """Decisions that each way needs, and what predictions save, for one app and seed."""
    lift = LIFT * found.earns
    better = tilted(found, lift)
    if abs(better.lift - lift) > 1e-6 * lift:
        raise ArithmeticError("the candidate is too close to the live policy to be better by so much")
    predicted = better.worth.net(better.predicted)
    constant = float((better.mixture * better.worth.net(better.rate)).sum(axis=1).mean())
    plain, adjusted = (variance(better, better.mixture, p) for p in (constant, predicted))
    heaviest = 1.0 / found.floor if found.floor else 100.0
    return {
        "live, sequence": by_sequence(better, better.live, heaviest, seed),
        "live, fixed n": at_fixed_n(variance(better, better.live, predicted), lift),
        "a/b halves, fixed n": at_fixed_n(halves(better), lift),
        "mixture, sequence": by_sequence(better, better.mixture, HEAVIEST, seed),
        "mixture, fixed n": at_fixed_n(plain, lift),
        "mixture, fixed n, predictions": at_fixed_n(adjusted, lift),
        "saved": 1.0 - adjusted / plain,
        "saved, live logs": 1.0 - variance(better, better.live, predicted) / variance(better, better.live, constant),
        "distance": float(np.abs(found.candidate - found.live).sum(axis=1).mean() / 2.0),
    }


def rows(apps: Sequence[str], pairs: Sequence[str], seeds: Sequence[int], users: int) -> Iterator[Row]:
    """Rows of the benchmark, one for each pair of policies and app: decisions by way with their intervals over
    seeds.
    """
    for pair in pairs:
        live, _, candidate = pair.partition("/")
        for app in apps:
            each = [needed(situations(app, live, candidate, seed, users), seed) for seed in seeds]
            fewer = [one[WAYS[0]] / one[WAYS[-1]] for one in each]
            yield {
                "app": app,
                "live": live,
                "candidate": candidate,
                "seeds": list(seeds),
                "needed": {way: _geometric([one[way] for one in each]) for way in WAYS},
                "fewer": _geometric(fewer),
                "saved": _plain([one["saved"] for one in each]),
                "saved_live_logs": _plain([one["saved, live logs"] for one in each]),
                "distance": float(np.mean([one["distance"] for one in each])),
            }


def _geometric(values: Sequence[float]) -> Row:
    found = mean(np.log(np.array(values)))
    ends = [float(np.exp(found.low)), float(np.exp(found.high))] if len(values) > 1 else None
    return {"mean": float(np.exp(found.value)), "interval": ends}


def _plain(values: Sequence[float]) -> Row:
    found = mean(np.array(values))
    return {"mean": float(found.value), "interval": [float(found.low), float(found.high)] if len(values) > 1 else None}


def lines(row: Row) -> Iterator[str]:
    """Lines of the table of one app and candidate."""
    currency = parse(read_shipped(row["app"])).currency
    yield ""
    yield (
        f"{row['app']} ({currency}), {row['live']} is live, candidate {row['candidate']}: "
        f"{row['distance']:.0%} of probability elsewhere"
    )
    for way in WAYS:
        yield f"  {way:<30} {_shown(row['needed'][way])}"
    yield f"  {'before / after':<30} {_shown(row['fewer'], '.1f')} ×"
    logs = f"in live logs {row['saved_live_logs']['mean']:.1%}"
    yield f"  {'saved by predictions':<30} {_shown(row['saved'], '.1%')}, {logs}"


def _shown(found: Row, digits: str = ",.0f") -> str:
    ends = f" [{found['interval'][0]:{digits}}, {found['interval'][1]:{digits}}]" if found["interval"] else ""
    return f"{found['mean']:{digits}}{ends}"


def main() -> None:
    """Parse the arguments, measure, print the tables and the load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apps", nargs="+", choices=scenario.names())
    parser.add_argument("--pairs", nargs="+", help=f"policies, live/candidate (default: {' '.join(PAIRS)})")
    parser.add_argument("--seeds", type=int, help=f"how many (default: {SEEDS})")
    parser.add_argument("--base", type=int, default=BASE, help=f"the first seed (default: {BASE})")
    parser.add_argument("--users", type=int, help=f"people of each run (default: {USERS})")
    parser.add_argument("--json", action="store_true", help="every figure, for programs")
    parser.add_argument("--quick", action="store_true", help="one app, few people: does it run?")
    given = parser.parse_args()
    small, start = QUICK if given.quick else {}, process_time()
    apps = given.apps or small.get("apps", scenario.names())
    pairs = given.pairs or small.get("pairs", PAIRS)
    count, users = given.seeds or small.get("seeds", SEEDS), given.users or small.get("users", USERS)
    if count < 1 or users < 1 or given.base < 0 or not all("/" in pair for pair in pairs):
        sys.exit("give one seed or more from 0 on, users, and pairs as live/candidate")
    done = []
    for row in rows(apps, pairs, range(given.base, given.base + count), users):
        done.append(row)
        if not given.json:
            print("\n".join(lines(row)), flush=True)
    if given.json:
        told = {"lift": LIFT, "level": LEVEL, "power": POWER, "rows": done, "processor_seconds": process_time() - start}
        print(json.dumps(told))
        return
    print(f"\nload: {process_time() - start:.0f} seconds of processor")


if __name__ == "__main__":
    main()
