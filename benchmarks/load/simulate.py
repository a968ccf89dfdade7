"""Simulator throughput: user-decisions per second, against a plain loop, by size, and with the log on disk.

    python -m benchmarks.load.simulate                      ratio to a loop, growth, memory: about two minutes
    python -m benchmarks.load.simulate --ten-million [--policy linear]   10⁷ decisions on two processes, log on disk,
                                                                         read back
    python -m benchmarks.load.simulate --json

The plain loop asks the same engine one person at a time: `World` for the people, `engine.choose`, `propensity.draw`.
Everything else a run does (truth, regret, learning, fatigue, tally) is in the vectorised figure and not in the loop's.
Seconds are of the processor, of one core, but for --ten-million, where they are of the clock.
"""

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # before numpy reads them
    os.environ.setdefault(_name, "1")

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import msgspec
import numpy as np

from bandit import engine, features
from bandit.belief import empty
from bandit.catalogue.loading import parse, read_shipped
from bandit.catalogue.model import Feature
from bandit.propensity.draw import draw, draw_many
from bandit.snapshot import Snapshot
from experiments.data.files import open_log
from simulations import scenario
from simulations.offline import parallel, parquet_log, runner, study
from simulations.offline.log_files import path
from simulations.offline.policy_specs import policy_spec
from simulations.offline.runner import SimulationCell
from simulations.population import Population
from simulations.visits import VisitSituation

_REPEATS = 3


def cell(users: int, days: int, policy: str = "linear", app: str = "travel", seed: int = 1) -> SimulationCell:
    """Simulation cell: people of one app who return to its rich stage over so many days, one policy, one seed."""
    return SimulationCell(scenario=scenario.load(app), policy=policy, users=users, days=days, seed=seed)


def vectorised(given: SimulationCell) -> tuple[int, float]:
    """Decisions and seconds of a whole run of a cell."""
    start = process_time()
    done = runner.run(given)
    return sum(sum(tally.decisions) for tally in done.stages.values()), process_time() - start


def loop(policy: str, n: int) -> float:
    """Seconds for n decisions of a plain loop, one person after another: draw, encode, choose, draw the arm, draw what
    happens.
    """
    found = scenario.load("travel")
    stage = policy_spec(policy, set()).stage(parse(read_shipped("travel")).stage("cart"), 0.0)
    people, schema = Population(found, stage), features.schema(stage.features)
    live = engine.prepare(Snapshot("travel", "cart", stage, 0, empty(len(stage.arms), len(schema.columns))))
    first, may = VisitSituation.first(1), np.ones(len(stage.arms), dtype=bool)
    start = process_time()
    for i in range(n):
        rng = np.random.default_rng([1, i])
        persona = rng.choice(len(people.weights), size=1, p=people.weights)
        position = people.positions(persona, rng.standard_normal((1, people.normals)), rng.random((1, people.uniforms)))
        x = features.encode(schema, people.contexts(position)[0]).x
        scores = engine.choose(live, x, may)
        arm = draw(scores.propensity, rng.random())
        own = people.chance(persona, rng.standard_normal(1), position, first)
        _ = rng.random() < own[0, arm]
    return process_time() - start


def ratio(policy: str, users: int, days: int, looped: int) -> dict[str, float]:
    """Decisions per second of the vectorised run and of the plain loop, and their ratio: medians of interleaved
    repeats.
    """
    fast, slow = list[float](), list[float]()
    for seed in range(_REPEATS):
        decisions, seconds = vectorised(cell(users, days, policy, seed=seed))
        fast.append(decisions / seconds)
        slow.append(looped / loop(policy, looped))
    quick, plain = float(np.median(fast)), float(np.median(slow))
    return {"vectorised": quick, "loop": plain, "ratio": quick / plain}


def by_users(sizes: tuple[int, ...]) -> dict[str, float]:
    """Decisions per second by number of users, over 20 days."""
    found = {}
    for users in sizes:
        decisions, seconds = vectorised(cell(users, 20))
        found[f"{users:,}"] = decisions / seconds
    return found


def deciding(arms: int, more: int, n: int = 20_000) -> float:
    """Decisions per second of a batch alone, n of them: x, choose and draw, for so many arms and further features."""
    declared = parse(read_shipped("travel")).stage("cart")
    extra = {f"more_{i}": Feature(type="number", min=0, max=1, default=0.5) for i in range(more)}
    nudge = next(iter(declared.nudges.values()))
    stage = msgspec.structs.replace(
        policy_spec("linear", set()).stage(declared, 0.0),
        features={**declared.features, **extra},
        nudges={f"nudge_{a}": nudge for a in range(1, arms)},
        floor=0.005,
    )
    d = len(features.schema(stage.features).columns)
    live = engine.prepare(Snapshot("travel", "cart", stage, 0, empty(arms, d)))
    rng = np.random.default_rng(1)
    x = np.rint(rng.uniform(-1, 1, (n, d)) * 4096) / 4096
    x[:, 0] = 1.0
    times = []
    for _ in range(_REPEATS):
        start = process_time()
        scores = engine.choose_many(live, x, np.ones((n, arms), dtype=bool))
        draw_many(scores.propensity, rng.random(n))
        times.append(process_time() - start)
    return n / float(np.median(times))


def memory(days: int, users: int = 20_000) -> tuple[int, float]:
    """Decisions and peak memory (MB) of a process of its own that runs so many days with the log on disk."""
    code = (
        "import resource, tempfile; from pathlib import Path\n"
        "from benchmarks.load.simulate import cell; from simulations.offline import study\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        f"    done = study.play(cell({users}, {days}), Path(folder))\n"
        "n = sum(done.done.stages['cart'].decisions)\n"
        "print(n, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    words = [sys.executable, "-c", code]
    ran = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    n, kilobytes = map(int, ran.stdout.split())
    return n, kilobytes / 1024.0


def _played(given: SimulationCell, folder: Path) -> tuple[int, float]:
    """(decisions, peak MB of the process) of a cell whose log goes to the folder."""
    found = study.play(given, folder).done
    return sum(found.stages["cart"].decisions), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def ten_million(folder: Path, policy: str, users: int = 300_000, days: int = 120) -> dict[str, Any]:
    """Figures of two cells on two processes, logs on disk in `folder`, then read back by the evaluation code; seconds
    of the clock.
    """
    todo = [cell(users, days, policy, seed=seed) for seed in (1, 2)]
    start = perf_counter()
    done = parallel.collect(parallel.run(partial(_played, folder=folder), todo, backend="processes", workers=2))
    ran = perf_counter() - start
    decisions = sum(n for n, _ in done)
    files = [path(one, "cart", folder) for one in todo]
    start, rows, total = perf_counter(), 0, 0.0
    for file in files:
        for rounds in open_log(file).source()():
            rows += len(rounds.reward)
            total += float(rounds.reward.sum())
    return {
        "decisions": decisions,
        "seconds": ran,
        "a_second": decisions / ran,
        "bytes_a_decision": sum(file.stat().st_size for file in files) / decisions,
        "read_back": rows,
        "seconds_to_read": perf_counter() - start,
        "conversion": total / rows,
        "peak_mb_of_a_process": max(peak for _, peak in done),
        "digest": parquet_log.digest(files[0])[:16],
    }


def main() -> None:
    """Parse the arguments, run what they name, print tables or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ten-million", action="store_true")
    parser.add_argument("--policy", default="linear", help="of --ten-million")
    parser.add_argument("--quick", action="store_true", help="seconds: does it run?")
    parser.add_argument("--json", action="store_true", dest="as_json")
    given = parser.parse_args()
    found: dict[str, Any]
    if given.ten_million:
        with tempfile.TemporaryDirectory(prefix="journey-bandit-") as folder:
            size = (2000, 10) if given.quick else (300_000, 120)
            found = ten_million(Path(folder), given.policy, *size)
    else:
        users, days, looped = (1000, 5, 200) if given.quick else (50_000, 20, 3000)
        sizes, lengths = ((1000,), (5, 10)) if given.quick else ((1000, 10_000, 100_000), (15, 60, 120))
        found = {
            **{
                f"ratio, {policy}": ratio(policy, users, days, looped)
                for policy in ("uniform", "linear", "hierarchical")
            },
            "by users": by_users(sizes),
            "deciding, by arms": {str(k): deciding(k, 0) for k in (2, 5, 10, 20)},
            "deciding, by further features": {str(m): deciding(5, m) for m in (0, 20, 50)},
            "memory, by days": {str(days): memory(days, users // 5) for days in lengths},
        }
    print(json.dumps(found) if given.as_json else _words(found))


def _words(found: dict[str, Any], indent: str = "") -> str:
    lines = []
    for name, value in found.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", _words(value, indent + "    ")]
        elif isinstance(value, tuple):
            lines.append(f"{indent}{name:<28}{value[0]:>14,} decisions {value[1]:>10,.0f} MB")
        else:
            lines.append(
                f"{indent}{name:<28}{value:>14,.1f}" if isinstance(value, float) else f"{indent}{name:<28}{value:>14}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
