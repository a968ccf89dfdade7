"""What a decision costs: µs to choose by sampling, and to choose with exact propensities, at K = 6, d = 16 and 64.

    python benchmarks/decide.py

Every contestant decides on the same posterior and contexts, interleaved in one process; medians over rounds, and ratios
to the textbook baseline (draw θ from a multivariate normal for each arm, then argmax: no propensities).
"""

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # before numpy reads them
    os.environ.setdefault(_name, "1")

from collections.abc import Callable
from time import perf_counter_ns

import numpy as np

from bandit import propensity
from bandit.belief import sites
from bandit.policies.linear import Linear, LinearPosterior
from bandit.policies.protocol import Arms

ROUNDS, DECISIONS = 15, 200
K = 6


def posterior(d: int, rows: int = 3000) -> LinearPosterior:
    """What `rows` decisions of a random linear world have taught."""
    rng = np.random.default_rng(d)
    x = np.rint(rng.uniform(-1, 1, (rows, d)) * 4096) / 4096
    x[:, 0] = 1.0
    theta = rng.normal(0, 0.1 / np.sqrt(d), (K, d)) + np.eye(d)[0] * 0.3
    arm = rng.integers(0, K, rows)
    reward = (rng.random(rows) < np.einsum("nd,nd->n", x, theta[arm])).astype(float)
    belief = sites(K, x, arm, np.ones(rows), reward, reward)
    return Linear().posterior(belief, Arms(tuple("abcdef"), ("none",) * K, np.ones(K), np.zeros(K)))


def contestants(d: int) -> dict[str, Callable[[np.ndarray], int]]:
    """Name → decide(x)."""
    live, rng = posterior(d), np.random.default_rng(0)
    blocks = live.stacked[: K * d].reshape(K, d, d)
    blocks, means = (blocks + blocks.transpose(0, 2, 1)) / 2, live.stacked[K * d :]
    everyone = np.ones(K, dtype=bool)

    def textbook(x: np.ndarray) -> int:
        draws = [rng.multivariate_normal(means[a], blocks[a], method="cholesky") @ x for a in range(K)]
        return int(np.argmax(draws))

    def marginals(x: np.ndarray) -> int:
        product = live.stacked @ x
        sd = np.sqrt(product[: K * d].reshape(K, d) @ x)
        return int(np.argmax(product[K * d :] + sd * rng.standard_normal(K)))

    def exact(x: np.ndarray) -> int:
        scores = live.choose(x, everyone)
        p = propensity.floored(scores.propensity, 0.01, everyone)
        return propensity.draw(p, rng.random())

    return {"textbook: sample θ": textbook, "choose: sample scores": marginals, "choose + exact propensities": exact}


def main() -> None:
    """Print the table."""
    for d in (16, 64):
        decide = contestants(d)
        rng = np.random.default_rng(1)
        contexts = np.rint(rng.uniform(-1, 1, (DECISIONS, d)) * 4096) / 4096
        spent: dict[str, list[float]] = {name: [] for name in decide}
        for _ in range(ROUNDS):
            for name, function in decide.items():
                start = perf_counter_ns()
                for x in contexts:
                    function(x)
                spent[name].append((perf_counter_ns() - start) / 1000 / DECISIONS)
        base = float(np.median(spent["textbook: sample θ"]))
        print(f"K = {K}, d = {d}: median µs for one decision ({ROUNDS} rounds of {DECISIONS}, interleaved)")
        for name, values in spent.items():
            print(f"  {name:<30} {np.median(values):8.1f}   {np.median(values) / base:6.2f} × the textbook's")


if __name__ == "__main__":
    main()
