"""Do intervals cover, and are they no wider than they must be, whatever the kind of reward? Coverage and width.

    python -m benchmarks.evidence.reward_kinds         the grid: a table of docs/explanation/inference.md
    python -m benchmarks.evidence.reward_kinds --kinds narrow rare --reps 2000 --sizes 1000

Each log is evaluated as `journey-bandit evaluate` would: no q̂, so that a model is fitted; arms drawn with .5, .3 and
.2; the value of the rarest arm, of all arms alike, and the lift of the rarest over the commonest. The width is compared
with the oracle's: the estimate ± 1.96 times its true standard deviation, over all the logs of a cell, which no log can
know. Sums over rounds are made for many logs at once (`benchmarks.evidence.many_logs`); the intervals are those of
`experiments.inference.intervals`. Whether a log is answered at all is asked of `evaluate` itself, for `ASKED` logs.

    binary          10, 20, 30 %
    rare            0.5, 1, 2 %
    narrow          50, 51, 52, ± 1, in a range of 0 to 100
    zero-inflated   5, 7, 9 % buy, for lognormal amounts (sd of the logarithm 0.7), at most 500
    lognormal       sd of the logarithm 1, at most 500
    pareto          Lomax with tail index 2.5, 2.4, 2.3, at most 1,000

    declared   the range of rewards is given     undeclared   it is not, and rewards leave [0, 1]
    users      about four rounds each, with habits of their own     blank   the same, but half of the rounds name nobody
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from bandit.arrays import Array
from benchmarks.evidence.many_logs import POLICIES, LogMoments, moments
from experiments.data.rounds import LoggedRounds, RewardRange, chunked, rounds_of
from experiments.inference.intervals import interval
from experiments.ope import evaluate as core
from experiments.ope.accumulate import EvaluationConfig
from experiments.ope.evaluate import Evaluation
from experiments.ope.evaluation_policies import EvaluationPolicy, FixedArm, UniformChoice

DRAWN = np.array([0.5, 0.3, 0.2])
SIZES = (1000, 3000)
VARIANTS = ("declared", "undeclared", "users", "blank")
RANGES = {
    "binary": (0.0, 1.0),
    "rare": (0.0, 1.0),
    "narrow": (0.0, 100.0),
    "zero-inflated": (0.0, 500.0),
    "lognormal": (0.0, 500.0),
    "pareto": (0.0, 1000.0),
}
KINDS = tuple(RANGES)
ASKED = 50  # logs of a cell
_RATES = {"binary": (0.1, 0.2, 0.3), "rare": (0.005, 0.01, 0.02), "zero-inflated": (0.05, 0.07, 0.09)}
_MANY = 2_000_000  # draws for the truth
_HABIT = 0.5  # sd of what users have of their own, in logits or logarithms
_BACK = 4  # rounds of a user
_ROUNDS = 300_000  # at once


class CoverageCell(NamedTuple):
    """Cell of the grid: one policy on R logs, with estimates and intervals (R,), the truth, and the share of logs that
    were answered at all.
    """

    value: Array
    low: Array
    high: Array
    truth: float
    answered: float  # share of logs that need no force

    @property
    def coverage(self) -> float:
        """Coverage: the share of the R logs whose interval holds the truth."""
        return float(((self.low <= self.truth) & (self.truth <= self.high)).mean())

    @property
    def width(self) -> float:
        """Mean width of the intervals over the oracle's, ± 1.96 true standard deviations; 1 is as narrow as can be."""
        return float((self.high - self.low).mean() / (2.0 * 1.96 * self.value.std(ddof=1)))


def rewards(kind: str, action: Array, habit: Array, rng: np.random.Generator) -> Array:
    """Rewards (n,) of n rounds of arms 0 to 2 (`action`), by people with these habits (n,), for one kind of reward."""
    n = len(action)
    buys = np.ones(n, dtype=np.bool_)
    if kind in _RATES:
        buys = rng.random(n) < special.expit(special.logit(np.array(_RATES[kind]))[action] + habit)
    if kind in ("binary", "rare"):
        return buys.astype(np.float64)
    if kind == "narrow":
        return np.clip(50.0 + action + habit + rng.normal(0.0, 1.0, n), *RANGES[kind])
    if kind == "pareto":
        amount = 5.0 * np.exp(habit) * rng.pareto(2.5 - 0.1 * action)
    else:
        amount = rng.lognormal(2.0 + 0.1 * action + habit, 0.7 if kind == "zero-inflated" else 1.0)
    return np.where(buys, np.minimum(amount, RANGES[kind][1]), 0.0)


def logs(kind: str, variant: str, n: int, many: int, rng: np.random.Generator) -> LogMoments:
    """Logs of one kind and variant, `many` of n rounds each, drawn with the caller's generator."""
    shape = many, n
    action = (DRAWN.cumsum() < rng.random((*shape, 1))).sum(axis=2).clip(max=2)
    habit, user = np.zeros(shape), None
    if variant in ("users", "blank"):
        known = n // _BACK
        user = rng.integers(0, known, shape)
        habit = np.take_along_axis(rng.normal(0.0, _HABIT, (many, known)), user, 1)
    if user is not None and variant == "blank":
        nobody = rng.random(shape) < 0.5
        habit = np.where(nobody, rng.normal(0.0, _HABIT, shape), habit)
        user = np.where(nobody, n // _BACK + np.arange(n), user)  # somebody who is never there again
    reward = rewards(kind, action.ravel(), habit.ravel(), rng).reshape(shape)
    return LogMoments(action, reward, user, RANGES[kind] if variant != "undeclared" else None)


def rounds(found: LogMoments, i: int = 0) -> LoggedRounds:
    """One of the logs, number i, as logged rounds, as a file would hold them."""
    n = found.action.shape[1]
    columns: dict[str, Any] = {"action": found.action[i], "pscore": DRAWN[found.action[i]], "reward": found.reward[i]}
    columns |= {f"p_{a}": np.full(n, p) for a, p in enumerate(DRAWN)}
    if found.user is not None:
        names = np.char.add("u", found.user[i].astype(np.str_))
        columns["user"] = np.where(found.user[i] < n // _BACK, names, "")
    return rounds_of(columns)


def evaluated(found: LogMoments, i: int = 0) -> tuple[Evaluation, Evaluation]:
    """Evaluations of the rarest arm, and of all arms alike, on one of the logs, forced: leaving out refused logs would
    select among them.
    """
    targets = EvaluationPolicy("arm", FixedArm(2)), EvaluationPolicy("uniform", UniformChoice())
    ask = EvaluationConfig(targets, (EvaluationPolicy("first", FixedArm(0)),), follow=False, force=True)
    if found.span:
        ask = ask._replace(rewards=RewardRange(*found.span))
    arm, uniform = core.evaluate([chunked(rounds(found, i))], ask)
    return arm, uniform


def truth(kind: str, variant: str) -> dict[str, float]:
    """True value of each policy, from two million draws for each arm."""
    rng = np.random.default_rng(1)
    own = _HABIT if variant in ("users", "blank") else 0.0
    each = [rewards(kind, np.full(_MANY, a), rng.normal(0.0, own, _MANY), rng).mean() for a in range(3)]
    return {"arm": each[2], "uniform": float(np.mean(each)), "lift": each[2] - each[0]}


def cells(kind: str, variant: str, n: int, reps: int, seed: int = 0, asked: int = ASKED) -> dict[str, CoverageCell]:
    """Cells of every policy on `reps` logs of n rounds; the first `asked` of them are also put to `evaluate` itself,
    which may refuse.
    """
    rng = np.random.default_rng([seed, n, KINDS.index(kind), VARIANTS.index(variant)])
    found: dict[str, list[tuple[float, float, float]]] = {policy: [] for policy in POLICIES}
    while (done := len(found["arm"])) < reps:
        some = logs(kind, variant, n, min(max(1, _ROUNDS // n), reps - done), rng)
        for policy, each in moments(some, DRAWN).items():
            bounds = bounds_of(some, policy)
            found[policy] += [interval(m, bounds=bounds)[:3] for m in each]
    some = logs(kind, variant, n, asked, rng)
    answered = float(np.mean([not evaluated(some, i)[0].refused for i in range(asked)])) if asked else float("nan")
    values, true = {p: np.array(rows).T for p, rows in found.items()}, truth(kind, variant)
    return {p: CoverageCell(values[p][0], values[p][1], values[p][2], true[p], answered) for p in POLICIES}


def bounds_of(some: LogMoments, policy: str) -> tuple[float, float] | None:
    """Bounds that the policy's value cannot leave, from the declared range; None if no range is declared."""
    if some.span is None:
        return None
    low, high = some.span
    return (low - high, high - low) if policy == "lift" else (low, high)


def main() -> None:
    """Parse the arguments, compute the grid they name, and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--reps", type=int, default=10_000, help="logs of each cell")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file with every figure")
    given = parser.parse_args()
    found: list[dict[str, Any]] = []
    head = " | ".join(POLICIES)
    print(f"| reward | log | n | {head} | answered |\n|---|---|---|{'---|' * (len(POLICIES) + 1)}")
    for kind in given.kinds:
        for variant in given.variants:
            if variant == "undeclared" and RANGES[kind] == (0.0, 1.0):
                continue  # rewards of yes or no need no declaration
            for n in given.sizes:
                done = cells(kind, variant, n, given.reps, given.seed)
                shown = " | ".join(f"{100 * c.coverage:.1f} [{c.width:.2f}]" for c in done.values())
                print(f"| {kind} | {variant} | {n:,} | {shown} | {100 * done['arm'].answered:.0f} % |", flush=True)
                about = {"kind": kind, "variant": variant, "n": n}
                found += [{**about, "policy": p, "coverage": c.coverage, "width": c.width} for p, c in done.items()]
    print(summary(found, given.reps))
    if given.out:
        given.out.write_text(json.dumps({"reps": given.reps, "seed": given.seed, "rows": found}, indent=1), "utf-8")


def summary(found: list[dict[str, Any]], reps: int) -> str:
    """Summary of the grid in words: the worst cells, and how exact a coverage from so many logs is."""
    least, widest = min(found, key=lambda row: row["coverage"]), max(found, key=lambda row: row["width"])
    below = sum(row["coverage"] < 0.935 for row in found)
    return (
        f"{len(found)} cells of {reps:,} logs: {below} cover less than 93.5 %; the least is "
        f"{_cell(least)} with {100 * least['coverage']:.2f} %, the widest {_cell(widest)} with {widest['width']:.3f} "
        f"oracles; standard error of a coverage of 95 % {100 * np.sqrt(0.95 * 0.05 / reps):.2f} %"
    )


def _cell(row: dict[str, Any]) -> str:
    return f"{row['kind']}, {row['variant']}, {row['policy']}, n = {row['n']:,}"


if __name__ == "__main__":
    main()
