"""Batch decisions: what a decision costs in a batch and alone, µs from a context to an arm, for every policy.

    python -m benchmarks.load.batch [--quick]        from the repository's root

A decision is scores, exact propensities, the floor and the draw: `choose_many`, `floored_many`, `draw_many` against
`choose`, `floored`, `draw` for the same contexts of one linear-logistic world, after as many rows learned as each table
says. Everything runs interleaved in one process with one thread of BLAS; figures are medians over rounds of the
process's own processor time. By arms, by rows of the batch, by rows learned, because an arm that has lost is left out
of the integral; and the tables of Φ and Φ⁻¹ against scipy's.
"""

import argparse
import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before numpy reads them
    os.environ.setdefault(_name, "1")

from collections.abc import Callable, Sequence
from time import process_time_ns

import numpy as np
from scipy import special

from bandit.arrays import Array
from bandit.belief import empty
from bandit.policies import Beta, EpsilonGreedy, Fixed, Greedy, Hierarchical, Linear, LinUCB, Logistic, Uniform
from bandit.policies.protocol import Policy, Posterior
from bandit.propensity import normal_tables
from bandit.propensity.draw import draw_many
from bandit.propensity.floor import floored_many
from benchmarks.comparison.decide import FLOOR, D, decision, facts, learn, world

ALONE = 64  # contexts chosen for one by one
POLICIES: dict[str, Policy] = {
    "linear": Linear(),
    "logistic": Logistic(),
    "hierarchical": Hierarchical(),
    "hierarchical, continuous": Hierarchical().gaussian(),
    "beta": Beta(),
    "greedy": Greedy(),
    "epsilon-greedy": EpsilonGreedy(),
    "linucb": LinUCB(),
    "uniform": Uniform(),
    "fixed": Fixed("a1"),
}


def batch(posterior: Posterior, x: Array, k: int) -> Callable[[], object]:
    """Task that decides all contexts x (n, d) at once, over k arms: scores, floor and draw."""
    rng, everyone, floor = np.random.default_rng(0), np.ones((len(x), k), dtype=bool), min(FLOOR, 0.2 / k)

    def decide() -> object:
        p = floored_many(posterior.choose_many(x, everyone).propensity, floor, everyone)
        return draw_many(p, rng.random(len(x)))

    return decide


def alone(posterior: Posterior, x: Array, k: int) -> Callable[[], object]:
    """Task that decides the first contexts of x (n, d) one by one, over k arms: scores, floor and draw."""
    decide = decision(posterior, k)
    return lambda: [decide(row) for row in x[:ALONE]]


def medians(tasks: Sequence[tuple[Callable[[], object], int]], rounds: int) -> list[float]:
    """Median µs of processor time for one item of each task, given as (task, items), the tasks in turn."""
    spent: list[list[float]] = [[] for _ in tasks]
    for _ in range(rounds):
        for values, (task, items) in zip(spent, tasks, strict=True):
            start = process_time_ns()
            task()
            values.append((process_time_ns() - start) / 1000 / items)
    return [float(np.median(values[1:])) for values in spent]


def table(what: str, heads: Sequence[str], cases: Sequence[tuple[int, int, int]], rounds: int) -> None:
    """Print batched and alone µs of every policy at each case (k, rows learned, rows of a batch)."""
    print(f"\n{what}, d = {D}: median µs of one decision, in a batch / alone")
    print(f"  {'':<25}" + "".join(f"{head:>16}" for head in heads))
    for name, policy in POLICIES.items():
        tasks: list[tuple[Callable[[], object], int]] = []
        for k, rows, n in cases:
            draw = world(k, D)
            posterior = policy.posterior(learn(policy, empty(k, D), draw(rows, 1)[0]), facts(k))
            x = draw(n, 2)[0].x
            tasks += [(batch(posterior, x, k), n), (alone(posterior, x, k), min(ALONE, n))]
        values = medians(tasks, rounds)
        pairs = [f"{many:.1f} / {one:.0f}" for many, one in zip(values[::2], values[1::2], strict=True)]
        print(f"  {name:<25}" + "".join(f"{pair:>16}" for pair in pairs))


def functions(rounds: int) -> None:
    """Print the time in ns of Φ and of Φ⁻¹ for one number, by our tables and by scipy, medians over rounds."""
    x, n = np.random.default_rng(0).normal(size=(64, 256)), 64 * 256
    p, out, room = special.ndtr(x), np.empty_like(x), normal_tables.scratch(x.shape)
    tasks = [
        (lambda: normal_tables.below(x, out, room), n),
        (lambda: special.ndtr(x, out=out), n),
        (lambda: normal_tables.quantile(p, out, room), n),
        (lambda: special.ndtri(p, out=out), n),
    ]
    ours, theirs, inverse, their_inverse = (1000 * value for value in medians(tasks, 10 * rounds))
    print(f"\nns of one number, by table / scipy: Φ {ours:.1f} / {theirs:.1f}, Φ⁻¹ {inverse:.1f} / {their_inverse:.1f}")


def main() -> None:
    """Parse the arguments and print the tables."""
    parser = argparse.ArgumentParser(description="What a decision costs in a batch and alone.")
    parser.add_argument("--quick", action="store_true", help="a quarter of the rounds, up to 10 arms")
    quick = parser.parse_args().quick
    rounds = 5 if quick else 20
    arms = (2, 5, 6, 10) if quick else (2, 3, 5, 6, 8, 12, 20)
    table(
        "By arms, 1024 in a batch, 2000 rows learned", [f"K={k}" for k in arms], [(k, 2000, 1024) for k in arms], rounds
    )
    sizes = (1, 16, 256, 1024, 4096)
    table(
        "By decisions in a batch, K = 5, 2000 rows learned",
        [f"n={n}" for n in sizes],
        [(5, 2000, n) for n in sizes],
        rounds,
    )
    known = (0, 200, 2000, 20_000)
    table("By rows learned, K = 6, 1024 in a batch", [f"{n}" for n in known], [(6, n, 1024) for n in known], rounds)
    functions(rounds)


if __name__ == "__main__":
    main()
