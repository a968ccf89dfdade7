"""Do estimates and intervals keep their promises? The scorecard, on logs whose truth is known
(`benchmarks.evidence.worlds`).

    python -m benchmarks.evidence.scorecard                         every world, 1,000 logs each
    python -m benchmarks.evidence.scorecard --worlds rare tie --reps 200
    python -m benchmarks.evidence.scorecard --out evidence.json

For each world, policy and n: bias and RMSE of dr, ips, snips and dm; coverage and mean width of GHU, of Student's
interval and of the percentile bootstrap of dr and ips. For the confidence sequence: how often the truth stays inside at
every one of 10,000 steps, and its width over Student's. The bootstrap is the plain one: quantiles of 1,000 resampled
means, the resamples shared by all logs. In `recurring`, GHU counts by user, the others by decision, as is usual.
"""

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # before numpy reads them
    os.environ.setdefault(_name, "1")

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bandit.arrays import Array
from benchmarks.evidence.worlds import BATCH, FLOORS, MOST, RATES, K, LogBatch, logs
from experiments.inference.intervals import Interval, Moments, UserSums, interval, model_moments
from experiments.inference.sequences import BettingCapital, Sequence, SequenceDraws, levels

SIZES = (100, 300, 1000, 3000, 10_000)
POLICIES = ("uniform", "arm", "lift", "plan")
RESAMPLES, BLOCK = 1000, 250
PEEK_FROM = 200
Bounds = tuple[float, float]


class LoggedValues(NamedTuple):
    """Values of one policy on R logs: per-round terms of every estimator and the truth, each (R, n)."""

    dr: Array
    ips: Array
    dm: Array
    weight: Array
    against: Array  # weight of no nudge, 0 unless a lift is estimated
    won: Array  # reward
    vm: Array
    k3m: Array
    truth: Array  # mean value of the policy at that time


class FollowedSequence(NamedTuple):
    """Confidence sequence of R logs, followed step by step: whether it has missed the truth at any step
    so far, (R,).
    """

    sequence: Sequence
    missed: NDArray[np.bool_]  # (R,)
    sum_truth: Array  # (R,)


class SequencePoint(NamedTuple):
    """Confidence sequence at one n: its ends for R logs, and whether it has missed by then, (R,)."""

    ends: Array  # (2, R)
    missed: NDArray[np.bool_]  # (R,) at some step up to n


class ScoreCell(NamedTuple):
    """Cell of the scorecard, one policy at one n: `errors`, what each of R logs estimates, less the truth; `ends` of
    its intervals; `missed` and `peeked` of the sequence.
    """

    policy: str
    n: int
    errors: dict[str, Array]  # of estimators, (R,)
    ends: dict[str, Array]  # of intervals, (2, R)
    missed: NDArray[np.bool_]  # (R,) the sequence, at some step
    peeked: NDArray[np.bool_]  # (R,) Student's interval, at some step


Row = dict[str, Any]


def choices(policy: str, batch: LogBatch) -> tuple[Array, Array | None]:
    """Probabilities π (R, b, k) of an evaluation policy on a batch, and those it is compared with, or None. `plan`
    shows each context its best arm, by the truth at the start.
    """
    fixed = {"uniform": np.full(K, 1.0 / K), "arm": np.eye(K)[K - 1], "lift": np.eye(K)[K - 1]}
    if policy == "plan":
        best = batch.truth.argmax(axis=2)
        return np.eye(K)[np.take_along_axis(best, batch.context, 1)], None
    pi = np.broadcast_to(fixed[policy], batch.propensity.shape)
    return pi, np.broadcast_to(np.eye(K)[0], pi.shape) if policy == "lift" else None


def scores(policy: str, batch: LogBatch) -> LoggedValues:
    """Values of every estimator for one batch, each (R, b)."""
    pi, against = choices(policy, batch)
    other = np.zeros_like(batch.propensity) if against is None else against
    action = batch.action[..., None]
    gap = pi - other
    w, w0 = (np.take_along_axis(part / batch.propensity, action, 2)[..., 0] for part in (pi, other))
    q = np.take_along_axis(batch.q_hat, action, 2)[..., 0]
    count, b, _ = pi.shape
    vm, k3m, dm = model_moments(gap.reshape(-1, K), batch.propensity.reshape(-1, K), batch.q_hat.reshape(-1, K))
    direct = dm.reshape(count, b)
    return LoggedValues(
        dr=direct + (w - w0) * (batch.reward - q),
        ips=(w - w0) * batch.reward,
        dm=direct,
        weight=w,
        against=w0,
        won=batch.reward,
        vm=vm.reshape(count, b),
        k3m=k3m.reshape(count, b),
        truth=np.broadcast_to(_value(policy, batch.truth)[:, None], (count, b)),
    )


def _value(policy: str, truth: Array) -> Array:
    """(R,) contexts being equally frequent."""
    mean = truth.mean(axis=1)
    values = {"uniform": mean.mean(axis=1), "arm": mean[:, -1], "lift": mean[:, -1] - mean[:, 0]}
    return np.asarray(values[policy] if policy in values else truth.max(axis=2).mean(axis=1), dtype=np.float64)


def followed(policy: str, count: int) -> FollowedSequence:
    """Confidence sequences of `count` logs before the first decision."""
    heaviest = {"uniform": 1.0 / K / FLOORS.min()}.get(policy, 1.0 / FLOORS.min())
    if policy == "lift":
        start = Sequence.of_lift(levels(heaviest), levels(1.0 / FLOORS[0]), (count,))
    else:
        start = Sequence.of_value(levels(heaviest), (count,))
    return FollowedSequence(start, np.zeros(count, dtype=np.bool_), np.zeros(count))


def follow(state: FollowedSequence, policy: str, batch: LogBatch) -> FollowedSequence:
    """Confidence sequences after one more batch, checked against the truth at every decision of it."""
    pi, against = choices(policy, batch)
    sequence, b = state.sequence, batch.reward.shape[1]
    draws = SequenceDraws(batch.action, batch.reward, batch.propensity, batch.q_hat)
    lower, upper = sequence.series(draws, pi, *(() if against is None else (against,)))
    now = np.broadcast_to(_value(policy, batch.truth)[:, None], (len(pi), b))
    mean = (state.sum_truth[:, None] + np.cumsum(now, axis=1)) / (sequence.lower.n + np.arange(1, b + 1))
    missed = state.missed.copy()
    for bets, x, means in ((sequence.lower, lower, mean + sequence.offset), (sequence.upper, upper, 1.0 - mean)):
        missed |= (bets.steps(x, means) >= -np.log(0.025)).any(axis=1)
    grown: tuple[BettingCapital, BettingCapital] = (sequence.lower.fed(lower), sequence.upper.fed(upper))
    return FollowedSequence(Sequence(sequence.levels, *grown), missed, state.sum_truth + now.sum(axis=1))


def block(world: str, count: int, seed: int, sizes: tuple[int, ...], resamples: int) -> Iterator[ScoreCell]:
    """Cells of every policy and n on `count` logs of one world; `resamples` of the bootstrap. Blocks are independent by
    seed.
    """
    parts: dict[str, list[LoggedValues]] = {policy: [] for policy in POLICIES}
    states = {policy: followed(policy, count) for policy in POLICIES}
    users, seen = [], dict[tuple[str, int], SequencePoint]()
    for i, batch in enumerate(logs(world, count, max(sizes), seed), 1):
        users.append(batch.user)
        for policy in POLICIES:
            parts[policy].append(scores(policy, batch))
            states[policy] = follow(states[policy], policy, batch)
            if i * BATCH in sizes:
                ends = np.array(states[policy].sequence.bounds())
                seen[policy, i * BATCH] = SequencePoint(ends, states[policy].missed)
    user = np.concatenate(users, axis=1) if world == "recurring" else None
    rng = np.random.default_rng(seed)
    resampled = {n: _resamples(rng, resamples, n) for n in sizes}
    for policy in POLICIES:
        whole = LoggedValues(*(np.concatenate(column, axis=1) for column in zip(*parts.pop(policy), strict=True)))
        for n in sizes:
            first = LoggedValues(*(column[:, :n] for column in whole))
            by_user = None if user is None else user[:, :n]
            yield _cell(policy, first, by_user, resampled[n], seen[policy, n])


def _resamples(rng: np.random.Generator, count: int, n: int) -> Array:
    """(B, n) how often each row is drawn."""
    return np.array([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(count)], dtype=np.float64)


def _cell(
    policy: str, log: LoggedValues, user: NDArray[np.int64] | None, resampled: Array, seen: SequencePoint
) -> ScoreCell:
    truth, n = log.truth.mean(axis=1), log.dr.shape[1]
    bounds = (-1.0, 1.0) if policy == "lift" else (0.0, 1.0)
    guarded = [_guarded(log, r, user, bounds) for r in range(len(truth))]
    snips = (log.weight * log.won).sum(axis=1) / np.maximum(log.weight.sum(axis=1), 1e-12)
    snips -= (log.against * log.won).sum(axis=1) / np.maximum(log.against.sum(axis=1), 1e-12)
    ends = {
        "dr ghu": np.array([(found.low, found.high) for found in guarded]).T,
        "dr student": _student(log.dr),
        "dr bootstrap": np.quantile(resampled @ log.dr.T / n, (0.025, 0.975), axis=0),
        "ips bootstrap": np.quantile(resampled @ log.ips.T / n, (0.025, 0.975), axis=0),
        "dr sequence": seen.ends,
    }
    values = {"dr": log.dr.mean(axis=1), "ips": log.ips.mean(axis=1), "snips": snips, "dm": log.dm.mean(axis=1)}
    return ScoreCell(
        policy=policy,
        n=n,
        errors={name: value - truth for name, value in values.items()},
        ends={name: pair - truth for name, pair in ends.items()},
        missed=seen.missed,
        peeked=_peeked(log),
    )


def _guarded(log: LoggedValues, r: int, user: NDArray[np.int64] | None, bounds: Bounds) -> Interval:
    columns = (log.dr[r], log.vm[r], log.k3m[r], log.dm[r])
    moments = Moments.of(*columns) if user is None else UserSums.of(user[r], *columns).moments()
    return interval(moments, bounds=bounds)


def _student(phi: Array) -> Array:
    n = phi.shape[1]
    half = special.stdtrit(n - 1, 0.975) * phi.std(axis=1, ddof=1) / np.sqrt(n)
    return np.array([phi.mean(axis=1) - half, phi.mean(axis=1) + half])


def _peeked(log: LoggedValues) -> NDArray[np.bool_]:
    """Whether Student's interval, looked at after every decision from the 200th on, ever misses the truth."""
    n = np.arange(1, log.dr.shape[1] + 1)
    mean, square = np.cumsum(log.dr, axis=1) / n, np.cumsum(log.dr**2, axis=1) / n
    error = np.sqrt(np.maximum(square - mean**2, 0.0) / np.maximum(n - 1, 1))
    outside = np.abs(mean - np.cumsum(log.truth, axis=1) / n) > 1.96 * error
    return np.asarray(outside[:, PEEK_FROM:].any(axis=1), dtype=np.bool_)


def scorecard(
    world: str, reps: int, seed: int, sizes: tuple[int, ...] = SIZES, resamples: int = RESAMPLES
) -> list[Row]:
    """Rows of the scorecard for one world, one for each policy and n, over `reps` logs."""
    found: dict[tuple[str, int], list[ScoreCell]] = {}
    for i, start in enumerate(range(0, reps, BLOCK)):
        for cell in block(world, min(BLOCK, reps - start), seed + i, sizes, resamples):
            found.setdefault((cell.policy, cell.n), []).append(cell)
    return [{"world": world, "policy": p, "n": n, "reps": reps} | summary(cells) for (p, n), cells in found.items()]


def summary(cells: list[ScoreCell]) -> Row:
    """Row of the scorecard from its cells: bias, RMSE, coverage and mean width over logs."""
    errors = {name: np.concatenate([cell.errors[name] for cell in cells]) for name in cells[0].errors}
    ends = {name: np.concatenate([cell.ends[name] for cell in cells], axis=1) for name in cells[0].ends}
    return {
        "bias": {name: float(e.mean()) for name, e in errors.items()},
        "rmse": {name: float(np.sqrt((e**2).mean())) for name, e in errors.items()},
        "coverage": {name: float(((low <= 0.0) & (high >= 0.0)).mean()) for name, (low, high) in ends.items()},
        "width": {name: float((high - low).mean()) for name, (low, high) in ends.items()},
        "stayed": 1.0 - float(np.concatenate([cell.missed for cell in cells]).mean()),
        "student_peeking": 1.0 - float(np.concatenate([cell.peeked for cell in cells]).mean()),
    }


def show(rows: list[Row]) -> None:
    """Print the scorecard's rows, one for each policy and n, as a table for people, to standard output."""
    names = ("dr ghu", "dr student", "dr bootstrap", "ips bootstrap", "dr sequence")
    print(f"{'world':10}{'policy':9}{'n':>6}  " + "".join(f"{name:>20}" for name in names) + f"{'all steps':>11}")
    for row in rows:
        cover, width = row["coverage"], row["width"]
        cells = "".join(f"{100 * cover[name]:11.1f} [{width[name]:.4f}]" for name in names)
        print(f"{row['world']:10}{row['policy']:9}{row['n']:6}  {cells}{100 * row['stayed']:11.1f}")


def main() -> None:
    """Parse the arguments, run the worlds they name, print the scorecard and write it to --out if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", nargs="+", choices=list(RATES), default=list(RATES))
    parser.add_argument("--reps", type=int, default=1000, help="logs of each world")
    parser.add_argument("--most", type=int, choices=SIZES, default=MOST, help="decisions of each log")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="a JSON file with every figure")
    given = parser.parse_args()
    rows: list[Row] = []
    for world in given.worlds:
        rows += scorecard(world, given.reps, given.seed, tuple(n for n in SIZES if n <= given.most))
        print(f"{world}: done", file=sys.stderr, flush=True)
        if given.out:
            content = {"reps": given.reps, "seed": given.seed, "steps": given.most, "rows": rows}
            given.out.write_text(json.dumps(content, indent=1), "utf-8")
    show(rows)


if __name__ == "__main__":
    main()
