"""Evidence for twins: does a scenario that was fitted to a log say what policies would bring in the world behind it?

    python -m benchmarks.evidence.twin [--draws 20] [--sizes 5000 50000] [--apps fashion …] [--workers 2] [--keep FILE]

`--keep FILE` writes a line of JSON for each world as soon as it is done, and a second run with the same file does only
the worlds that are not in it.

A world is one of the five scenarios with every parameter changed by chance, which the fit does not know. A log of it is
made by uniform choice among what may be shown, with a tenth of the people held out. From the log a twin is fitted.
Then:

    coverage   is the world's true net value of no nudge, of the default policy and of the oracle (which knows the
               scenario, be it the world's or a draw's) within the twin's 90 % interval? True values are means over
               20,000 fresh people, others in each world. The interval is mean ± t·sd of the twin's draws: a draw's
               value is that of the central scenario on as many people, plus the difference between the two on 800.
               The default policy learns on 400 people, and both its values are those of no nudge plus its mean
               difference on the same people, in the world and in the central scenario.
    choice     of every two of no nudge and one nudge for everybody, which brings more? By the twin's central scenario,
               and by the off-policy estimate (doubly robust, one decision at a time) on the same log.

Both are counted over all worlds. A twin of the right form would cover 90 %; at 100 worlds, counts from 85 to 95 are
within one and two thirds standard errors of that.
"""

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from scipy import stats

from bandit.arrays import Array
from bandit.catalogue.loading import parse, read_shipped
from bandit.catalogue.model import Stage
from bandit.catalogue.net_value import arm_worth
from experiments.data.rounds import LoggedRounds, RewardRange, chunked
from experiments.ope import evaluate
from experiments.ope.accumulate import EvaluationConfig
from experiments.ope.evaluation_policies import EvaluationPolicy, FixedArm
from simulations import scenario
from simulations.offline.runner import SimulationCell, StepDecisions, run
from simulations.scenario import Fatigue, Persona, Scenario
from simulations.twin import fit
from simulations.twin.app_log import AppLog

DAYS = 14  # of a log, and of what is predicted
LEARNING, DRAWN, PAIRS, FRESH = 400, 800, 4_000, 20_000  # people: of the default policy, a draw, a choice, a value
SEEDS, TWIN_DRAWS = 3, 10
HOLDOUT = 0.1
BASELINE = "fixed:none"
POLICIES = (BASELINE, "default", "oracle")


class TwinTrial(NamedTuple):
    """What one world gave at one size of log. `truth`, `low`, `high` by policy, in currency a decision; `right`: of
    `pairs` choices, how many were right by the twin and by the off-policy estimate; `lost`: mean net value a decision
    that the wrong ones gave away, by each; `refused`: off-policy estimates that were refused.
    """

    app: str
    draw: int
    size: int
    truth: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]
    pairs: int
    right: dict[str, int]
    lost: dict[str, float]
    refused: int


class _KeptDecisions:
    """A sink that keeps every decision."""

    def __init__(self) -> None:
        self.parts: list[StepDecisions] = []

    def write(self, rows: StepDecisions) -> None:
        self.parts.append(rows)

    def column(self, name: str) -> Any:
        return np.concatenate([getattr(part, name) for part in self.parts])


def changed(declared: Scenario, rng: np.random.Generator) -> Scenario:
    """World: a scenario of one stage with every parameter changed by chance, in the range of what apps are like."""

    def logits(value: float, sd: float) -> float:
        return value + sd * float(rng.standard_normal())

    personas = {
        name: Persona(
            weight=persona.weight,
            intent=logits(persona.intent, 0.2),
            effects={nudge: logits(effect, 0.12) for nudge, effect in persona.effects.items()},
            features=persona.features,
            harvests=persona.harvests * float(rng.random()),
        )
        for name, persona in declared.personas.items()
    }
    weights = rng.dirichlet([20.0 * persona.weight for persona in personas.values()])
    weights = weights / weights.sum()
    personas = {
        name: msgspec.structs.replace(persona, weight=float(weight))
        for (name, persona), weight in zip(personas.items(), weights, strict=True)
    }
    odds = np.log(declared.base / (1.0 - declared.base)) + 0.3 * rng.standard_normal()
    slopes = {nudge: scenario.times(own, float(2.0 * rng.random())) for nudge, own in declared.slopes.items()}
    return msgspec.structs.replace(
        declared,
        base=float(1.0 / (1.0 + np.exp(-odds))),
        personas=personas,
        slopes=slopes,
        user_sd=float(rng.uniform(0.2, 0.8)),
        season=float(rng.uniform(0.0, 0.25)),
        delay_hours={arm: hours * float(np.exp(0.3 * rng.standard_normal()))
                     for arm, hours in declared.delay_hours.items()},
        fatigue=Fatigue(
            keeps=float(rng.uniform(0.7, 0.95)),
            tires=float(rng.uniform(0.0, 0.05)),
            dulls=float(rng.uniform(0.0, 0.5)),
            opt_out=float(rng.uniform(-6.0, -4.0)),
            leaves=declared.fatigue.leaves,
        ),
        coupons=msgspec.structs.replace(declared.coupons, depth=declared.coupons.depth * float(rng.random())),
        drift=msgspec.structs.replace(declared.drift, number=int(rng.integers(1, 10**6))),
        journey={},
    )  # fmt: skip


def logged(world: Scenario, stage: Stage, users: int, seed: int) -> tuple[AppLog, LoggedRounds]:
    """Log of so many users, as a twin and as an off-policy evaluation read it."""
    kept = _KeptDecisions()
    run(SimulationCell(scenario=world, policy="uniform", users=users, days=DAYS, seed=seed, holdout=HOLDOUT), kept)
    p, holdout, delay = kept.column("propensities"), kept.column("holdout"), kept.column("delay")
    eligible = p > 0.0
    arm, reward = kept.column("arm"), kept.column("reward")
    log = AppLog(
        user=kept.column("user"),
        at=kept.column("at"),
        arm=arm,
        reward=reward,
        delay=np.where(delay <= stage.reward.seconds, delay, np.nan),
        x=kept.column("x"),
        eligible=eligible,
        holdout=holdout,
        out=~holdout & (eligible.sum(axis=1) == 1),
    )
    rounds = LoggedRounds(
        action=arm,
        reward=reward,
        pscore=p[np.arange(len(arm)), arm],
        x=log.x,
        propensities=p,
        eligible=eligible,
        user=log.user,
        at=log.at,
        holdout=holdout,
    )
    return log, rounds


class PolicyValue(NamedTuple):
    """Expected net value a decision, in currency, and decisions a user."""

    net: float
    visits: float


def value(world: Scenario, policy: str, people: int, seed: int) -> PolicyValue:
    """Value of a policy on so many people."""
    done = run(SimulationCell(scenario=world, policy=policy, users=people, days=DAYS, seed=seed))
    summary = done.stages[world.stage]
    decisions = sum(summary.decisions)
    return PolicyValue(sum(summary.value) / decisions, decisions / people)


def values(world: Scenario, seed: int) -> dict[str, float]:
    """Net value a decision of each of `POLICIES`."""
    none = value(world, BASELINE, FRESH, seed).net
    gains = [
        value(world, "default", LEARNING, s).net - value(world, BASELINE, LEARNING, s).net
        for s in range(seed, seed + SEEDS)
    ]
    return {BASELINE: none, "default": none + float(np.mean(gains)), "oracle": value(world, "oracle", FRESH, seed).net}


def world_results(app: str, draw: int, sizes: Sequence[int]) -> list[TwinTrial]:
    """Results of one world at every size."""
    declared = scenario.load(app)
    world = changed(declared, np.random.default_rng([draw, *app.encode()]))
    stage = parse(read_shipped(app)).stage(world.stage)
    truth = values(world, 60_000 + 10 * draw)
    users = 1.0 / value(world, BASELINE, PAIRS, 60_000).visits  # for a decision
    fixed = np.array([value(world, f"fixed:{arm}", PAIRS, 60_000 + 10 * draw).net for arm in stage.arms])
    return [_at_size(app, draw, size, round(size * users), world, stage, truth, fixed) for size in sizes]


def intervals(twin: fit.Twin, seed: int) -> tuple[dict[str, float], dict[str, float]]:
    """Lower and upper end of the twin's 90 % interval for each of `POLICIES`."""
    central, low, high = values(twin.scenario, seed), dict[str, float](), dict[str, float]()
    apart = {
        policy: np.array([value(one, policy, DRAWN, seed).net for one in twin.draws])
        - value(twin.scenario, policy, DRAWN, seed).net
        for policy in (BASELINE, "oracle")
    }
    for policy in POLICIES:
        seen = central[policy] + apart["oracle" if policy == "oracle" else BASELINE]
        half = float(stats.t.ppf(0.95, len(seen) - 1) * seen.std(ddof=1))
        low[policy], high[policy] = float(seen.mean()) - half, float(seen.mean()) + half
    return low, high


def _at_size(
    app: str, draw: int, size: int, users: int, world: Scenario, stage: Stage, truth: dict[str, float], fixed: Array
) -> TwinTrial:
    log, rounds = logged(world, stage, users, 10_000 + draw)
    twin = fit.fit(app, world.stage, stage, log, draws=TWIN_DRAWS, seed=draw)
    low, high = intervals(twin, 70_000 + 10 * draw)
    by_twin = np.array([value(twin.scenario, f"fixed:{arm}", PAIRS, 80_000 + 10 * draw).net for arm in stage.arms])
    by_log, refused = off_policy(stage, rounds)
    chosen = {"twin": by_twin, "off-policy": by_log}
    pairs = list(combinations(range(len(fixed)), 2))
    right = {name: sum(bool((v[a] > v[b]) == (fixed[a] > fixed[b])) for a, b in pairs) for name, v in chosen.items()}
    lost = {
        name: float(np.mean([max(fixed[a], fixed[b]) - fixed[a if v[a] > v[b] else b] for a, b in pairs]))
        for name, v in chosen.items()
    }
    return TwinTrial(app, draw, size, truth, low, high, len(pairs), right, lost, refused)


def off_policy(stage: Stage, rounds: LoggedRounds) -> tuple[Array, int]:
    """Doubly robust net value a decision of each arm for everybody (k,), and how many of them were refused."""
    live = rounds.only(~rounds.holdout if rounds.holdout is not None else slice(None))
    ask = EvaluationConfig(
        tuple(EvaluationPolicy(arm, FixedArm(a)) for a, arm in enumerate(stage.arms)),
        rewards=RewardRange(stage.reward.min, stage.reward.max),
        worth=arm_worth(stage.reward.value, stage.nudges.values()),
        follow=False,
        force=True,
    )
    found = evaluate.evaluate([chunked(live)], ask)
    return np.array([next(iter(one.estimates.values())).value for one in found]), sum(bool(e.refused) for e in found)


def main() -> None:
    """Run, and print the two tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_000, 50_000])
    parser.add_argument("--apps", nargs="+", default=scenario.names())
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    wanted = [(app, draw, asked.sizes) for draw in range(asked.draws) for app in asked.apps]
    kept: list[list[TwinTrial]] = []
    if asked.keep and asked.keep.exists():
        kept = [msgspec.json.decode(line, type=list[TwinTrial]) for line in asked.keep.read_bytes().splitlines()]
    done = {(one.app, one.draw): world for world in kept for one in world}
    tasks = [task for task in wanted if task[:2] not in done]
    with ProcessPoolExecutor(asked.workers, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(world_results, *task) for task in tasks]):
            results = future.result()
            done[results[0].app, results[0].draw] = results
            if asked.keep:
                with asked.keep.open("ab") as file:
                    file.write(msgspec.json.encode(results) + b"\n")
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    found = [one for app, draw, _ in wanted for one in done[app, draw] if one.size in asked.sizes]
    for line in lines(found):
        print(line)


def lines(found: Sequence[TwinTrial]) -> list[str]:
    """Both tables as text."""
    told = ["decisions  policy        covered of worlds   90 % interval, ± % of the true value"]
    sizes = sorted({one.size for one in found})
    for size in sizes:
        mine = [one for one in found if one.size == size]
        for policy in POLICIES:
            inside = sum(one.low[policy] <= one.truth[policy] <= one.high[policy] for one in mine)
            width = np.median([50.0 * (one.high[policy] - one.low[policy]) / abs(one.truth[policy]) for one in mine])
            told.append(f"{size:>9,}  {policy:<12}  {inside:>7} of {len(mine):<6}   ± {width:.1f} %")
    told += ["", "decisions  which of two is better   right of pairs        given away a decision, mean"]
    for size in sizes:
        mine = [one for one in found if one.size == size]
        pairs = sum(one.pairs for one in mine)
        for name in ("twin", "off-policy"):
            right = sum(one.right[name] for one in mine)
            lost = np.mean([one.lost[name] / max(abs(one.truth["fixed:none"]), 1e-9) for one in mine])
            told.append(f"{size:>9,}  {name:<22} {right:>7,} of {pairs:,} ({right / pairs:.1%})  {100 * lost:.2f} %")
    return told


if __name__ == "__main__":
    main()
