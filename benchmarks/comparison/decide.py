"""Decision time, ours and other libraries': µs for one decision, and µs for one settled row learned.

    python -m benchmarks.comparison.decide [--quick]        from the repository's root; the peers are the extra `bench`

A decision of ours is everything between a context and an arm: scores, exact propensities, the floor, the draw. A peer's
is its own `predict` from the same array, with whatever the library needs to be handed a context (decision_peers.py);
the probabilities that some of them give are part of that. A row learned is amortised over batches of 100: ours is the
rows' sites, the sums of the belief, and the posterior made ready once; a peer that learns in batches gets the batch.

Where numba is installed, rows "compiled" are ours by compiled code, the same bits.

All contestants learned the same log of a linear-logistic world, and all run interleaved in one process: medians over
rounds, and the median over rounds of the ratio to Vowpal Wabbit's `predict` of the same round. The clock is the
process's own processor time, so that what else the machine does counts little; one thread of BLAS. A peer that is not
installed is named and left out. Growth is of ours alone: by arms, by features, and by rows learned.
"""

import argparse
import importlib.util
import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before numpy reads them
    os.environ.setdefault(_name, "1")

import warnings
from collections.abc import Callable, Mapping, Sequence
from time import process_time_ns
from typing import TypeVar

import numpy as np
from scipy import special

from bandit.arrays import Array
from bandit.belief import Belief, add, empty
from bandit.numerics import compiled
from bandit.numerics.compiled import CompiledKernels
from bandit.policies import AnyPolicy, Beta, Centred, Fixed, Hierarchical, Linear, Logistic, Uniform, compilation
from bandit.policies.protocol import ArmEconomics, Policy, Posterior
from bandit.propensity.draw import draw
from bandit.propensity.floor import apportioned
from benchmarks.comparison.decision_peers import VOWPAL, Contestant, TrainingRows, peers

K, D, FLOOR, ROWS, BATCH = 6, 16, 0.01, 2000, 100
Item = TypeVar("Item")
COMPILED = ("centred", "hierarchical")  # policies that compiled kernels serve
POLICIES: dict[str, AnyPolicy] = {
    "centred": Centred(),
    "linear": Linear(),
    "logistic": Logistic(),
    "hierarchical": Hierarchical(),
    "beta": Beta(),
    "uniform": Uniform(),
    "fixed": Fixed("a1"),
}


def world(k: int, d: int) -> Callable[[int, int], tuple[TrainingRows, Array]]:
    """Linear-logistic world of k arms and d features, as a function: (rows, seed) → a log of that many settled rows,
    and their true logits (rows, k).
    """
    rng = np.random.default_rng([k, d])
    theta = rng.normal(0, 0.8 / np.sqrt(d), (k, d))
    theta[:, 0] = rng.normal(-1.5, 0.3, k)

    def rows(n: int, seed: int) -> tuple[TrainingRows, Array]:
        rng = np.random.default_rng(seed)
        x = np.rint(rng.uniform(-1, 1, (n, d)) * 4096) / 4096
        x[:, 0] = 1.0
        arm = rng.integers(0, k, n)
        z = np.einsum("nd,nd->n", x, theta[arm])
        return TrainingRows(k, x, arm, (rng.random(n) < special.expit(z)).astype(float)), z

    return rows


def facts(k: int) -> ArmEconomics:
    """Economics of k arms for the policies: no nudge, then nudges of two types; each reward is worth the same, and
    nothing costs anything.
    """
    kinds = ("none", *("odd" if a % 2 else "even" for a in range(1, k)))
    return ArmEconomics(tuple(f"a{a}" for a in range(k)), kinds, np.ones(k), np.zeros(k))


def learn(policy: Policy, belief: Belief, log: TrainingRows) -> Belief:
    """Belief with the log's rows added, as the service's learner does it: the policy's sites, then their exact sum."""
    x = policy.design(log.x, log.arm, np.full((len(log.arm), log.k), 1.0 / log.k))
    tau, nu = policy.sites(belief, facts(log.k), x, log.arm, log.reward)
    return add(belief, policy.sums(log.k, x, log.arm, tau, nu, log.reward))


def switched(one: Contestant, kernels: CompiledKernels | None) -> Contestant:
    """The contestant with these compiled kernels in use; None: with none."""
    return Contestant(using(kernels, one.decide), using(kernels, one.update))


def using(kernels: CompiledKernels | None, task: Callable[[Item], object]) -> Callable[[Item], object]:
    """The task with these compiled kernels in use; None: with none."""

    def run(item: Item) -> object:
        compiled.use(kernels)
        return task(item)

    return run


def untaught(policy: Policy, k: int, d: int) -> Belief:
    """Belief of the policy over k arms and d features that has learned nothing."""
    return empty(len(policy.rows(facts(k).names)), d)


def decision(posterior: Posterior, k: int) -> Callable[[Array], int]:
    """Decision function of a posterior over k arms, all eligible: context x (d,) → arm index, as the engine does it,
    floor and draw included.
    """
    rng, everyone, floor = np.random.default_rng(0), np.ones(k, dtype=bool), min(FLOOR, 0.2 / k)

    def decide(x: Array) -> int:
        p = apportioned(posterior.choose(x, everyone).propensity, floor, everyone)
        return draw(p, rng.random())

    return decide


def own(policy: AnyPolicy, log: TrainingRows) -> Contestant:
    """Contestant made of a policy of ours that has learned the log: its decision, and the update by further rows."""
    belief = learn(policy, untaught(policy, log.k, log.x.shape[1]), log)
    posterior = policy.posterior(belief, facts(log.k))
    return Contestant(
        decision(posterior, log.k), lambda rows: policy.posterior(learn(policy, belief, rows), facts(log.k))
    )


def measured(tasks: Mapping[str, Callable[[Item], object]], items: Sequence[Item], rounds: int) -> dict[str, Array]:
    """Processor time in µs for one item in every round, (rounds,) by contestant, the contestants in turn; a few items
    come before the clock starts.
    """
    spent: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            for item in items[:4]:
                task(item)
            start = process_time_ns()
            for item in items:
                task(item)
            spent[name].append((process_time_ns() - start) / 1000 / len(items))
    return {name: np.array(values) for name, values in spent.items()}


def contest(d: int, rounds: int) -> None:
    """Print the table of one number of features `d`: µs of every contestant and the ratio to Vowpal Wabbit, over that
    many rounds.
    """
    rows = world(K, d)
    log, contexts, fresh = rows(ROWS, 1)[0], list(rows(20, 2)[0].x), rows(BATCH, 3)[0]
    field: dict[str, Contestant] = {name: own(policy, log) for name, policy in POLICIES.items()}
    skipped, kernels = list[str](), compiled_kernels()
    if kernels is None:
        skipped += [f"{name}, compiled" for name in COMPILED]
    else:
        fast = {f"{name}, compiled": switched(field[name], kernels) for name in COMPILED}
        field = {name: switched(one, None) for name, one in field.items()} | fast
    for name, peer in peers(log):
        if peer is None:
            skipped.append(name)
        else:
            field[name] = peer
    decide = measured({name: c.decide for name, c in field.items()}, contexts, rounds)
    update = measured({name: c.update for name, c in field.items()}, [fresh], max(rounds // 20, 3))
    update = {name: spent / BATCH for name, spent in update.items()}
    print(f"\nK = {K}, d = {d}, {ROWS} rows learned: median µs ({rounds} rounds, interleaved)")
    print(f"  {'':<30}{'decision':>10}{'× VW predict':>14}{'row learned':>13}{'× VW learn':>12}")
    for name in field:
        print(f"  {name:<30}{np.median(decide[name]):>10.1f}{against(decide, name):>14}", end="")
        print(f"{np.median(update[name]):>13.1f}{against(update, name):>12}")
    for name in skipped:
        print(f"  {name:<30} skipped: not installed")


def compiled_kernels() -> CompiledKernels | None:
    """Compiled kernels, not in use yet; None without numba. Raises RuntimeError if they give other numbers."""
    if importlib.util.find_spec("numba") is None:
        return None
    tried = compilation.start()
    if tried.unused:
        raise RuntimeError(f"{tried.compiler} is not used: {tried.unused}")
    found = compiled.kernels()
    compiled.use(None)
    return found


def against(spent: dict[str, Array], name: str) -> str:
    """Median over rounds of the ratio of a contestant's time to Vowpal Wabbit's in the same round, as text."""
    return f"{np.median(spent[name] / spent[VOWPAL]):.2f}" if VOWPAL in spent else "–"


def grown(policy: AnyPolicy, k: int, d: int, n: int) -> Callable[[Array], int]:
    """Decision function of a policy that learned n rows, for k arms and d features; a logistic one learns them at their
    true logits, because filtering a million rows takes minutes.
    """
    rows, belief = world(k, d), untaught(policy, k, d)
    for part in range(0, n, 50_000):
        log, z = rows(min(50_000, n - part), part)
        tau, nu = np.ones(len(z)), log.reward
        if policy.link == "logit":
            p = special.expit(z)
            tau, nu = p * (1.0 - p), np.clip(p * (1.0 - p) * z + log.reward - p, -1.0, 1.0)
        x = policy.design(log.x, log.arm, np.full((len(z), k), 1.0 / k))
        belief = add(belief, policy.sums(k, x, log.arm, tau, nu, log.reward))
    return decision(policy.posterior(belief, facts(k)), k)


def growth(what: str, sizes: Sequence[tuple[str, int, int, int]], rounds: int) -> None:
    """Print µs of a decision of each of our policies at each size (label, k arms, d features, rows learned), medians
    over rounds.
    """
    names, kernels = ("centred", "linear", "logistic", "hierarchical"), compiled_kernels()
    fast = () if kernels is None else COMPILED
    spent: dict[str, list[float]] = {name: [] for name in (*names, *(f"{name}, compiled" for name in fast))}
    print(f"\n{what}: median µs of one decision\n  {'':<24}" + "".join(f"{label:>10}" for label, *_ in sizes))
    for _, k, d, n in sizes:
        contexts = list(world(k, d)(10, 2)[0].x)
        compiled.use(None)
        ours = {name: grown(POLICIES[name], k, d, n) for name in names}
        tasks = {name: using(None, task) for name, task in ours.items()}
        tasks |= {f"{name}, compiled": using(kernels, ours[name]) for name in fast}
        for name, values in measured(tasks, contexts, rounds).items():
            spent[name].append(float(np.median(values)))
    for name, medians in spent.items():
        print(f"  {name:<24}" + "".join(f"{median:>10.1f}" for median in medians))


def main() -> None:
    """Parse the arguments, print the tables of the contest and of growth to standard output."""
    parser = argparse.ArgumentParser(description="What a decision costs, ours and other libraries'.")
    parser.add_argument("--quick", action="store_true", help="a fifth of the rounds, and no more than 10⁵ rows")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore")  # other people's
    for d in (16, 64):
        contest(d, 30 if quick else 150)
    rounds = 10 if quick else 40
    growth(f"By arms, d = {D}, {ROWS} rows", [(f"K={k}", k, D, ROWS) for k in (2, 5, 10, 20, 50)], rounds)
    growth(f"By features, K = {K}, {ROWS} rows", [(f"d={d}", K, d, ROWS) for d in (4, 16, 32, 64, 128)], rounds)
    exponents = (3, 4, 5) if quick else (3, 4, 5, 6)
    growth(f"By rows learned, K = {K}, d = {D}", [(f"10^{e}", K, D, 10**e) for e in exponents], rounds)


if __name__ == "__main__":
    main()
