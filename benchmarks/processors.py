"""Sites on other processors: how often what a logistic policy learns depends on the kernels of BLAS, vector
instructions and threads.

    python -m benchmarks.processors [--users 1600] [--days 40] [--seeds 1 2]
    python -m benchmarks.processors --unrounded         sites as they are before they are rounded to the grid
    python -m benchmarks.processors --quick             some seconds: does it run?

Plays the travel app in a process for each kind of processor, and compares with the first: sites, beliefs after each
day, and decisions. `flips`, expected of a million rows: numbers of sites that differ once they are rounded to the grid
of the sums, and numbers of beliefs of `centred` that differ if sites are not: what differs in units of the grid, with
`--unrounded`. Kernels that this processor cannot run are left out.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array
from bandit.belief import GRID, Belief
from bandit.policies import assumed_density
from bandit.policies.centred import Centred
from bandit.policies.hierarchical import AssumedDensityPolicy
from bandit.policies.protocol import ArmEconomics, Sites
from simulations import scenario
from simulations.offline import runner
from simulations.offline.runner import SimulationCell, StepDecisions

POLICIES = ("default", "logistic", "hierarchical")
_NEEDS = {"Haswell": {"X86_V3", "AVX2"}, "Prescott": set[str](), "SkylakeX": {"X86_V4", "AVX512_SKX"}}
_OURS = ("OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "NPY_DISABLE_CPU_FEATURES")


class RunLog:
    """Log of one run: sites, digests of beliefs before each batch and of decisions, and `_weights` of sites."""

    def __init__(self) -> None:
        self.tau, self.nu, self.weight = list[Array](), list[Array](), list[Array]()
        self.digests = list[str]()

    def watching(self, sites: Callable[..., Sites]) -> Callable[..., Sites]:
        """`sites` of a policy, whose results are kept."""

        def kept(
            policy: Any, belief: Belief, arms: ArmEconomics, x: Array, arm: NDArray[np.intp], reward: Array
        ) -> Sites:
            found = sites(policy, belief, arms, x, arm, reward)
            self.weight.append(
                _weights(len(arms.names), x, arm) if isinstance(policy, Centred) else np.zeros((len(x), 2))
            )
            self.tau.append(found[0])
            self.nu.append(found[1])
            self.digests.append(belief.digest())
            return found

        return kept

    def write(self, rows: StepDecisions) -> None:
        """Take one stage's decisions of one step."""
        self.digests.append(hashlib.sha256(rows.propensities.tobytes() + rows.arm.tobytes()).hexdigest())


def _weights(k: int, design: Array, arm: NDArray[np.intp]) -> Array:
    """Sums of |factor| (n, 2) over all contributions that a row's τ and ν make to a belief of `centred`, each of which
    is rounded by itself; design (n, k·d).
    """
    d = design.shape[1] // k
    x, c = np.abs(design[:, :d]), design[:, ::d].copy()
    p = -c[:, 1:]
    p[np.flatnonzero(arm), arm[arm > 0] - 1] += 1.0
    c = np.abs(c)
    pairs, squares = (0.5 * (v.sum(axis=1) ** 2 + (v * v).sum(axis=1)) for v in (c, x))
    return np.column_stack([(pairs + np.abs(p).sum(axis=1)) * squares, c.sum(axis=1) * x.sum(axis=1)])


def play(options: argparse.Namespace) -> None:
    """Play all runs in this process, and write what they learned to the file `options.into`."""
    if options.unrounded:
        setattr(assumed_density, "grid", lambda values: values)  # noqa: B010 - it is no part of what the module offers
    plain, found = (Centred.sites, AssumedDensityPolicy.sites), dict[str, Array]()
    for policy in POLICIES:
        for seed in options.seeds:
            log = RunLog()
            Centred.sites, AssumedDensityPolicy.sites = (log.watching(one) for one in plain)  # type: ignore[method-assign]
            cell = SimulationCell(
                scenario=scenario.load("travel"), policy=policy, users=options.users, days=options.days, seed=seed
            )
            runner.run(cell, log)
            parts = {"tau": log.tau, "nu": log.nu, "weight": log.weight}
            found.update({f"{policy} {seed} {part}": np.concatenate(rows) for part, rows in parts.items()})
            found[f"{policy} {seed} digests"] = np.array(log.digests)
    np.savez(options.into, **found)  # type: ignore[arg-type]


def processors() -> dict[str, dict[str, str]]:
    """Environment of a process by the kind of processor that it stands for."""
    config = np.show_config(mode="dicts")
    features = list(config["SIMD Extensions"].get("found", [])) if config else []
    kernels = [name for name, needs in _NEEDS.items() if not needs or needs & set(features)]
    return {
        **{name: {"OPENBLAS_CORETYPE": name, "OPENBLAS_NUM_THREADS": "1"} for name in kernels},
        "no vectors": {"NPY_DISABLE_CPU_FEATURES": ",".join(features), "OPENBLAS_NUM_THREADS": "1"},
        "two threads": {"OPENBLAS_NUM_THREADS": "2"},
    }


def compared(one: dict[str, Array], other: dict[str, Array]) -> dict[str, float]:
    """Figures of what differs between two processors, over all runs."""
    runs = sorted({name.rsplit(" ", 1)[0] for name in one})
    changes = {run: [np.abs(one[f"{run} {part}"] - other[f"{run} {part}"]) for part in ("tau", "nu")] for run in runs}
    both = np.concatenate([np.stack(pair, axis=1) for pair in changes.values()])
    weights = {run: one[f"{run} weight"] for run in runs if run.startswith("default")}
    flips = [float((np.stack(changes[run], axis=1) * weight).sum()) / len(weight) for run, weight in weights.items()]
    return {
        "sites": len(both),
        "differ, %": 100.0 * float((both > 0.0).any(axis=1).mean()),
        "largest": float(both.max()),
        "beliefs, decisions": sum(int((one[f"{r} digests"] != other[f"{r} digests"]).sum()) for r in runs),
        "flips, rounded": 1e6 * GRID * float(both.sum()) / len(both),
        "flips, not rounded": 1e6 * GRID * sum(flips) / len(flips),
    }


def main() -> None:
    """Parse the arguments, play, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1600)
    parser.add_argument("--days", type=int, default=40)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--unrounded", action="store_true", help="leave out the rounding of sites")
    parser.add_argument("--quick", action="store_true", help="few people and days, one seed: does it run?")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.into:
        play(options)
        return
    found = dict[str, dict[str, Array]]()
    users, days, seeds = (60, 16, [1]) if options.quick else (options.users, options.days, options.seeds)
    told = ["--users", str(users), "--days", str(days), "--seeds", *map(str, seeds)]
    told += ["--unrounded"] if options.unrounded else []
    with tempfile.TemporaryDirectory() as folder:
        for name, settings in processors().items():
            file = Path(folder, f"{name}.npz")
            plain = {key: value for key, value in os.environ.items() if key not in _OURS}
            command = [sys.executable, "-m", "benchmarks.processors", *told, "--into", str(file)]
            subprocess.run(command, env=plain | settings, check=True)
            found[name] = dict(np.load(file))
    first, *others = found
    print(f"against {first}:")
    for name in others:
        figures = compared(found[first], found[name])
        print(f"{name:<12} " + ", ".join(f"{what}: {value:.3g}" for what, value in figures.items()))


if __name__ == "__main__":
    main()
