"""Regret comparison: our policies and others', on the same streams of people with the same seeds.

    python -m benchmarks.comparison.regret --env env5           held-out seeds 1000–1019, tables, regret.json and a plot
    python -m benchmarks.comparison.regret --env journey --seeds 1000:1005 --only ours
    python -m benchmarks.comparison.regret --quick                 seconds, and without any package but our own

Peers run at their defaults and over a grid; the grid's best at the last checkpoint, *on these very seeds*, is reported
as tuned in hindsight, a favour that ours do not get. Hyperparameters of ours were chosen on seeds 0–9.
"""

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # before numpy reads them
    os.environ.setdefault(_name, "1")

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from bandit.arrays import Array
from benchmarks.comparison import environments, our_policies, regret_peers, uci
from benchmarks.comparison.environments import Stream
from benchmarks.comparison.harness import BATCH, Make, run

HELD_OUT = range(1000, 1020)
CHECKPOINTS = {
    "env5": (1000, 2000, 5000, 10_000),
    "delay": (1000, 2000, 5000, 10_000),
    "undelayed": (1000, 2000, 5000, 10_000),
    "drift": (10_000, 11_000, 12_000, 15_000, 20_000),
    "launch": (100, 500, 1000, 1800),
    "journey": (500, 1000, 2000, 4000),
    "mushroom": (500, 1000, 2000),
    "statlog": (500, 1000, 2000, 10_000),
}
ONE_APP = ("env5", "delay", "undelayed", "drift", "launch")  # all stages belong to it: types can be pooled
EACH = ("mushroom", "statlog")  # learned one by one at first, then whenever the log has grown by 1 %
AFTER = {"drift": 10_000}  # what is lost later is counted from here
STAGE = {"launch": 4}  # only this stage's decisions are counted
QUICK = 600
OURS = "ours: hierarchical"  # and over all stages of an app where they share one

ENVIRONMENTS = environments.ENVIRONMENTS | {"mushroom": uci.mushroom, "statlog": uci.statlog}
GROUPS = {"all": tuple(CHECKPOINTS), "uci": EACH}

Table = dict[str, list[list[float]]]  # contestant → seed → regret at each checkpoint


def contestants(env: str, only: list[str], *, tuned: bool) -> dict[str, Make]:
    """Makers of every contestant that can play in an environment, by name; a peer that is not installed is named on
    stderr. `only`: texts of which a name must contain one; `tuned`: with the grids of peers.
    """
    shared = env in ONE_APP
    found = (
        our_policies.REFERENCES
        | our_policies.CONTESTANTS
        | (our_policies.POOLED if shared else {})
        | regret_peers.DEFAULTS
    )
    if tuned:
        found |= regret_peers.GRID | (regret_peers.POOLED if shared else {})
    for name, package in regret_peers.missing().items():
        print(f"skipped: {name} (pip install {package})", file=sys.stderr)
        found = {label: make for label, make in found.items() if not label.startswith(name)}
    chosen = {label: make for label, make in found.items() if not only or any(part in label for part in only)}
    if not chosen:
        sys.exit(f"no contestant is called {' or '.join(only)}: there are {'; '.join(found)}")
    return chosen


def curve(make: Make, streams: list[Stream], seed: int, env: str) -> Array:
    """Cumulative regret (n,) of one contestant with one seed, summed over an environment's apps, in units of the reward
    range.
    """
    total = []
    for stream in streams:
        lost = stream.regret(run(make(stream, seed), stream, None if env in EACH else BATCH))
        total.append(np.cumsum(lost[stream.stage == STAGE[env]] if env in STAGE else lost))
    shortest = min(len(c) for c in total)
    return np.asarray(np.sum([c[:shortest] for c in total], axis=0), dtype=np.float64)


def at(found: Array, env: str, last: int) -> list[float]:
    """Regret at the checkpoints up to `last` decisions; after a break, counted from the break."""
    values = []
    for n in marks(env, last):
        before = AFTER.get(env, 0)
        base = float(found[before - 1]) if 0 < before < n else 0.0
        values.append(float(found[n - 1]) - base if n <= len(found) else float("nan"))  # too few came
    return values


def marks(env: str, last: int) -> list[int]:
    """Checkpoints of an environment, in decisions, cut at `last`."""
    return [n for n in CHECKPOINTS[env] if n <= last] or [last]


def compete(
    env: str, seeds: list[int], playing: dict[str, Make], n: int | None
) -> Iterator[tuple[Table, dict[str, float]]]:
    """Results after each seed: regret at checkpoints by contestant and seed so far, and the seconds of a run of each
    contestant.
    """
    table: Table = {name: [] for name in playing}
    seconds = dict.fromkeys(playing, 0.0)
    make_streams = ENVIRONMENTS[env]
    for seed in seeds:
        streams = make_streams(seed) if n is None else make_streams(seed, n)
        for name, make in playing.items():
            start = perf_counter()
            found = curve(make, streams, seed, env)
            seconds[name] = perf_counter() - start
            table[name].append(at(found, env, n or CHECKPOINTS[env][-1]))
        print(f"{env}: seed {seed} done", file=sys.stderr, flush=True)
        yield table, seconds


def tuned(table: Table) -> dict[str, str]:
    """Best settings of each package, by mean regret at the last checkpoint over these seeds: tuned in hindsight."""
    best: dict[str, str] = {}
    for name, runs in table.items():
        family = name.partition(" (")[0]
        if name in regret_peers.DEFAULTS or name in regret_peers.GRID or name in regret_peers.POOLED:
            mean = np.mean([r[-1] for r in runs])
            if family not in best or mean < np.mean([r[-1] for r in table[best[family]]]):
                best[family] = name
    return best


def report(env: str, table: Table, seconds: dict[str, float], columns: list[int]) -> None:
    """Print means ± standard errors of regret, and the ratio to ours at the last checkpoint with its paired standard
    error, over seeds.
    """
    best = set(tuned(table).values())
    hidden = set(regret_peers.GRID | regret_peers.POOLED) - best
    mine = np.array(table[OURS])[:, -1] if OURS in table else None
    chance = np.array(table["uniform"])[:, -1].mean() if "uniform" in table else np.nan
    print(f"\n{env}: regret (expected utility lost), {len(next(iter(table.values())))} seeds, ± standard error")
    print(
        f"{'':<58}" + "".join(f"{n:>15,}" for n in columns) + f"{'× ours':>15}{'% of uniform':>14}{'median':>8}{'s':>7}"
    )
    for name, runs in sorted(table.items(), key=lambda item: np.mean([r[-1] for r in item[1]])):
        if name in hidden:
            continue
        values = np.array(runs)
        error = values.std(axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.zeros(len(columns))
        cells = "".join(f"{m:9.1f} ±{e:4.1f}" for m, e in zip(values.mean(axis=0), error, strict=True))
        last = values[:, -1]
        ratio = "" if mine is None else f"{last.mean() / mine.mean():8.2f} ±{_ratio_error(last, mine):5.2f}"
        share = f"{100 * last.mean() / chance:14.1f}{100 * np.median(last) / chance:8.1f}"
        print(f"{name + (' *' if name in best else ''):<58}{cells}{ratio:>15}{share}{seconds[name]:7.1f}")
    print("* the best settings of its family on these seeds, in hindsight")


def _ratio_error(other: Array, mine: Array) -> float:
    """Standard error of mean(other) / mean(mine) over paired seeds, by the delta method."""
    ratio = other.mean() / mine.mean()
    return float(np.std(other - ratio * mine, ddof=1) / mine.mean() / np.sqrt(len(mine))) if len(mine) > 1 else 0.0


def save(folder: Path, env: str, table: Table, seconds: dict[str, float], seeds: list[int], columns: list[int]) -> None:
    """Write `ENV.json` to the folder, with every seed so far, so that a run that is stopped loses nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    done = seeds[: len(next(iter(table.values())))]
    content: dict[str, Any] = {"env": env, "seeds": done, "decisions": columns, "regret": table, "seconds": seconds}
    (folder / f"{env}.json").write_text(json.dumps(content | {"best_of_grid": tuned(table)}, indent=1), "utf-8")


def plot(folder: Path, env: str, table: Table, seeds: int, columns: list[int]) -> None:
    """Write `ENV.png` to the folder, cumulative regret by number of decisions; where matplotlib is not installed, say
    so on stderr and return.
    """
    best = tuned(table)
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("skipped: the plot (pip install matplotlib)", file=sys.stderr)
        return
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    shown = [name for name in table if name not in (regret_peers.GRID | regret_peers.POOLED) or name in best.values()]
    for name in shown:
        values = np.array(table[name])
        error = values.std(axis=0) / np.sqrt(len(values))
        style = {"linewidth": 2.5} if name.startswith("ours") else {"linewidth": 1.0, "linestyle": "--"}
        axes.errorbar(columns, values.mean(axis=0), error, label=name, capsize=2, **style)
    axes.set_xlabel("decisions")
    axes.set_ylabel("cumulative regret (± standard error)")
    axes.set_title(f"{env}, {seeds} seeds")
    axes.legend(fontsize=6)
    figure.savefig(folder / f"{env}.png", dpi=140)


def _seeds(text: str) -> list[int]:
    """`1000:1020` or `0,1,2`."""
    if ":" in text:
        first, _, last = text.partition(":")
        return list(range(int(first), int(last)))
    return [int(part) for part in text.split(",")]


def main() -> None:
    """Parse the arguments, run the contest they describe, print tables and write files after each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", choices=[*CHECKPOINTS, *GROUPS], default="env5")
    parser.add_argument("--seeds", type=_seeds, default=list(HELD_OUT), help="1000:1020 (default) or 0,1,2")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="contestants with TEXT in the name")
    parser.add_argument("--no-grid", action="store_true", help="peers at their defaults only")
    parser.add_argument("--quick", action="store_true", help=f"2 seeds, {QUICK} decisions, no grid: does it run?")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"), help="folder for JSON and plots")
    given = parser.parse_args()
    seeds = given.seeds[:2] if given.quick else given.seeds
    for env in GROUPS.get(given.env, (given.env,)):
        if env in EACH and not uci.available():
            print(f"skipped: {env} (its file is not in {uci.folder()}; set JOURNEY_BANDIT_DATA)", file=sys.stderr)
            continue
        playing = contestants(env, given.only, tuned=not (given.no_grid or given.quick))
        length = QUICK if given.quick else None
        columns = marks(env, length or CHECKPOINTS[env][-1])
        for table, seconds in compete(env, seeds, playing, length):
            save(given.out, env, table, seconds, seeds, columns)
        report(env, table, seconds, columns)
        plot(given.out, env, table, len(seeds), columns)


if __name__ == "__main__":
    main()
