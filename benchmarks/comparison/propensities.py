"""Propensities of correlated scores: time and fidelity of the present arithmetic and of the one before.

    python -m benchmarks.comparison.propensities [--quick]        from the repository's root

Laws are those of posteriors of the linear-logistic world of `benchmarks.comparison.decide` (16 features), at 20
contexts: `centred` after 300 and 3,000 rows, and `hierarchical` after 2,000, whose nudges are of two types that share
an effect. Times: median over laws of the least of several rounds, µs of processor, for one law alone and for one of a
batch of 200. Fidelity: the largest total variation from an integral over 8,192 points, up to 12 arms.
"""

import argparse
import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before numpy reads them
    os.environ.setdefault(_name, "1")

from collections.abc import Callable, Iterator
from time import process_time_ns
from typing import NamedTuple

import numpy as np
from scipy import special

from bandit.arrays import Array
from bandit.belief import add
from bandit.numerics import versions
from bandit.policies import AnyPolicy, Centred, Hierarchical
from bandit.policies.centred import CentredPosterior
from bandit.policies.hierarchical import LogitPosterior
from bandit.policies.protocol import ArmEconomics
from bandit.propensity.correlated import correlated, correlated_many, finely
from benchmarks.comparison.decide import D, facts, untaught, world

CONTEXTS = 20


class Laws(NamedTuple):
    """Laws of scores: what they are of, means (n, k) and covariances (n, k, k)."""

    label: str
    mean: Array
    covariance: Array


def laws(label: str, policy: AnyPolicy, arms: ArmEconomics, n: int) -> Laws:
    """Laws of a policy's scores over these arms after n rows, at contexts that none of them had."""
    k = len(arms.names)
    log, z = world(k, D)(n, 1)
    p = special.expit(z)
    tau, nu = p * (1.0 - p), np.clip(p * (1.0 - p) * z + log.reward - p, -1.0, 1.0)
    x = policy.design(log.x, log.arm, np.full((n, k), 1.0 / k))
    belief = add(untaught(policy, k, D), policy.sums(k, x, log.arm, tau, nu, log.reward))
    posterior = policy.posterior(belief, arms)
    assert isinstance(posterior, CentredPosterior | LogitPosterior)  # noqa: S101 - policies whose scores are correlated
    assert posterior.pair is not None  # noqa: S101 - as above
    found = [posterior.forms.one(row) for row in world(k, D)(CONTEXTS, 7)[0].x]
    square = posterior.alpha * posterior.alpha
    return Laws(label, np.array([m for m, _ in found]), np.array([square * s[posterior.pair] for _, s in found]))


def every(counts: tuple[int, ...]) -> Iterator[Laws]:
    """Laws of every row of the table."""
    for k in counts:
        alike = facts(k)._replace(kinds=("none", *["discount"] * (k - 1)))
        for n in (300, 3000):
            yield laws(f"centred, {k} arms, {n:,} rows", Centred(), alike, n)
        yield laws(f"hierarchical, {k} arms, 2,000 rows", Hierarchical(), facts(k), 2000)


def least(task: Callable[[], object], rounds: int) -> float:
    """Least µs of processor of the task."""
    times = []
    for _ in range(rounds):
        start = process_time_ns()
        task()
        times.append((process_time_ns() - start) / 1000)
    return min(times)


def measured(given: Laws, number: int, rounds: int) -> tuple[float, float, Array]:
    """µs of one law alone and of one of a batch, and the propensities (n, k), in arithmetic `number`."""
    with versions.recorded_in(number):
        each = list(zip(given.mean, given.covariance, strict=True))
        alone = float(np.median([least(lambda law=law: correlated(*law), rounds) for law in each]))  # type: ignore[misc]
        mean, covariance = np.repeat(given.mean, 10, axis=0), np.repeat(given.covariance, 10, axis=0)
        everyone = np.ones(mean.shape, dtype=bool)
        batch = least(lambda: correlated_many(mean, covariance, everyone), max(rounds // 5, 1)) / len(mean)
        return alone, batch, np.array([correlated(*law) for law in each])


def main() -> None:
    """Parse the arguments, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="six arms, one round")
    quick = parser.parse_args().quick
    rounds = 1 if quick else 10
    numbers = (versions.OPEN_EVERYWHERE, versions.ARITHMETIC)
    print(f"load {os.getloadavg()[0]:.1f}\n{'':<36}{'alone: before, now µs':>24}{'batch':>18}{'off by':>22}")
    for given in every((6,) if quick else (6, 12, 20, 50)):
        found = [measured(given, number, rounds) for number in numbers]
        off = ""
        if given.mean.shape[1] <= 12:
            truth = np.array([finely(m, c) for m, c in zip(given.mean, given.covariance, strict=True)])
            worst = [float((0.5 * np.abs(p - truth).sum(axis=1)).max()) for *_, p in found]
            off = f"{worst[0]:>11.1e}{worst[1]:>11.1e}"
        times = "".join(f"{found[0][i]:>{w}.0f}{found[1][i]:>9.0f}" for i, w in ((0, 15), (1, 9)))
        print(f"  {given.label:<34}{times}{off}", flush=True)


if __name__ == "__main__":
    main()
