"""Does a policy earn more than no nudge, and how much does it lose where nudges do not help? Money over no nudge in a
month, app by app and world by world (`simulations.worlds`).

    python -m benchmarks.evidence.harm --quick                     half a minute: does it run?
    python -m benchmarks.evidence.harm --worlds declared --users 1000 --policies default --seeds 12
    python -m benchmarks.evidence.harm --folder harm               everything: hours of the processor (some 2.3)
    python -m benchmarks.evidence.harm --apps travel --policies default oracle oracle:price=0.26 --json

Every run is paired with no nudge on the same seed: the same people, the same random numbers. The figure is Σ expected
net value of all decisions of the 30 days under the policy less the same with no nudge (`simulations.offline.paired`
says of which fields), without a holdout. Totals of the month are compared, because nudges change who comes later. Seeds
0–23 are those on which policies are designed: `--base` begins behind them.

    a user   currency a user in the month: mean over seeds ± standard error, Student's 95 % interval
    %        the same in % of what no nudge earns with that seed
    kept     share of runs that lose no more than the declared loss (2 % of what no nudge earns), its 95 % interval by
             Clopper and Pearson, and the 95th percentile over runs of loss / declared loss (below 0: won)

Each run is kept in --folder, so an interrupted benchmark goes on where it stopped. `linear` is linear Thompson sampling
(LinTS), `hierarchical` the earlier default; Vowpal Wabbit's squarecb plays where the package is installed
(`simulations.contenders.peers`).
"""

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # before numpy reads them
    os.environ.setdefault(_name, "1")

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from bandit.arrays import Array
from bandit.catalogue.loading import parse, read_shipped
from bandit.errors import InvalidRequest
from experiments.inference.intervals import mean
from experiments.inference.wording import bounds
from simulations import scenario
from simulations.contenders.playing import made_from
from simulations.offline import parallel, study
from simulations.offline.paired import BASELINE, PairedRuns, paired
from simulations.offline.runner import CellOutcome, SimulationCell
from simulations.worlds import WORLDS

DAYS = 30
LOSS = 2.0  # the declared loss, in % of what no nudge earns in the month
USERS = (500, 1000, 4000, 20_000)
PEER = "peer:squarecb"
POLICIES = ("default", "hierarchical", "linear", "uniform", "oracle")
SEEDS, BASE, RESERVED = 12, 100, 24
QUICK: dict[str, Any] = {"users": [300], "worlds": ["declared", "x0"], "policies": ["default"], "seeds": 2}

Row = dict[str, Any]


class HarmGroup(NamedTuple):
    """Group of runs that one line of the table is about: all policies and seeds of one app in one world, at one number
    of users.
    """

    app: str
    world: str
    users: int
    cells: list[SimulationCell]


def groups(
    apps: Sequence[str], worlds: Sequence[str], users: Sequence[int], policies: Sequence[str], seeds: Sequence[int]
) -> list[HarmGroup]:
    """Groups of a benchmark: every app in every world at every number of users. No nudge is always among the
    policies.
    """
    found = []
    for world, many, app in product(worlds, users, apps):
        changed = WORLDS[world].change(scenario.load(app))
        playing = dict.fromkeys((BASELINE, *policies))
        found.append(HarmGroup(app, world, many, study.cells(changed, playing, seeds, users=many, days=DAYS)))
    return found


def play(cell: SimulationCell, folder: Path) -> tuple[CellOutcome, float]:
    """Outcome of one cell, read from the folder if it was finished before and kept there if not; and the seconds of
    the processor that it took.
    """
    start = process_time()
    (done,) = study.study([cell], folder)
    return done, process_time() - start


def results(found: Sequence[HarmGroup], folder: Path, workers: int | None) -> tuple[list[Row], float]:
    """Rows of the benchmark, one for each policy of each group but no nudge, and the seconds of the processor, all
    workers together.
    """
    todo = {cell.digest(): cell for group in found for cell in group.cells}
    backend: parallel.Backend = "serial" if workers == 1 else "processes"
    done, seconds = dict[str, CellOutcome](), 0.0
    digests = list(todo)
    for i, (outcome, took) in parallel.run(
        partial(play, folder=folder), list(todo.values()), backend=backend, workers=workers, progress=_progress
    ):
        done[digests[i]], seconds = outcome, seconds + took
    rows = []
    for group in found:
        for runs in paired([done[cell.digest()] for cell in group.cells]):
            if runs.policy != BASELINE:
                rows.append({"app": group.app, "world": group.world} | row(runs))
    return rows, seconds


def row(runs: PairedRuns) -> Row:
    """Figures of one policy in one world: see the module. Money in the app's currency; one seed has no intervals, and
    they are None then.
    """
    ratio = -runs.percent / LOSS
    inside = int((ratio <= 1.0).sum())
    return {
        "policy": runs.policy,
        "users": runs.users,
        "seeds": list(runs.seeds),
        "no_nudge_per_user": float(runs.none.mean() / runs.users),
        "per_user": _spread(runs.per_user),
        "percent": _spread(runs.percent),
        "kept": {"share": inside / len(ratio), "interval": list(clopper_pearson(inside, len(ratio)))},
        "loss_p95": float(np.quantile(ratio, 0.95)),
    }


def _spread(values: Array) -> Row:
    """Mean over seeds of `values` (S,), its standard error and Student's 95 % interval."""
    found = mean(values)
    if len(values) < 2:
        return {"mean": found.value, "se": None, "interval": None}
    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    return {"mean": found.value, "se": error, "interval": [float(found.low), float(found.high)]}


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a probability after `successes` in n independent trials (Clopper and Pearson 1934): each end
    is missed with a probability of at most (1 − level) / 2.
    """
    tail = (1.0 - level) / 2.0
    low = float(stats.beta.ppf(tail, successes, n - successes + 1)) if successes else 0.0
    high = float(stats.beta.ppf(1.0 - tail, successes + 1, n - successes)) if successes < n else 1.0
    return low, high


def tables(rows: Sequence[Row]) -> Iterator[str]:
    """Lines of the tables, one table for each world and number of users: policies down, apps across."""
    for world, users in dict.fromkeys((r["world"], r["users"]) for r in rows):
        here = [r for r in rows if (r["world"], r["users"]) == (world, users)]
        seeds = here[0]["seeds"]
        yield ""
        yield f"{WORLDS[world].title}: {users:,} users, {DAYS} days, {len(seeds)} seed(s) from {seeds[0]}"
        apps = list(dict.fromkeys(r["app"] for r in here))
        lines = [["", "", *(f"{app}, {parse(read_shipped(app)).currency}" for app in apps)]]
        lines.append(["no nudge", "a user", *(_baseline(here, app) for app in apps)])
        for policy in dict.fromkeys(r["policy"] for r in here):
            mine = {r["app"]: r for r in here if r["policy"] == policy}
            lines.append([policy, "a user", *(_money(mine[app]) for app in apps)])
            lines.append(["", "%", *(_percent(mine[app]) for app in apps)])
            lines.append(["", "kept", *(_kept(mine[app]) for app in apps)])
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        for first, second, *cells in lines:
            across = "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths[2:], strict=True))
            yield f"{first:<{widths[0]}}  {second:<{widths[1]}}{across}".rstrip()


def _baseline(here: Sequence[Row], app: str) -> str:
    return f"{next(r for r in here if r['app'] == app)['no_nudge_per_user']:.2f}"


def _money(one: Row) -> str:
    found = one["per_user"]
    if found["se"] is None:
        return f"{found['mean']:+.2f}"
    return f"{found['mean']:+.2f} ± {found['se']:.2f} {_ends(found['interval'], '+.2f')}"


def _percent(one: Row) -> str:
    found = one["percent"]
    return f"{found['mean']:+.1f}" + (f" {_ends(found['interval'], '+.1f')}" if found["interval"] else "")


def _kept(one: Row) -> str:
    return f"{one['kept']['share']:.2f} {_ends(one['kept']['interval'], '.2f')} p95 {one['loss_p95']:+.1f}"


def _ends(interval: list[float], digits: str) -> str:
    return bounds(interval[0], interval[1], digits)


def _progress(done: int, total: int) -> None:
    if done % max(1, total // 20) == 0 or done == total:
        print(f"{done} of {total} runs", file=sys.stderr, flush=True)


def _chosen_policies(given: Sequence[str] | None) -> list[str]:
    """The policies that were named, or all that can play here; a peer that is not installed is named on stderr."""
    found = []
    for policy in given or [*POLICIES, PEER]:
        try:
            made_from(policy)
        except InvalidRequest as error:
            if policy != PEER:
                raise
            print(f"left out: {error}", file=sys.stderr)
        else:
            found.append(policy)
    return [policy for policy in found if policy != BASELINE]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apps", nargs="+", choices=scenario.names(), default=scenario.names())
    parser.add_argument("--users", nargs="+", type=int, help=f"people of each run (default: {USERS})")
    parser.add_argument("--worlds", nargs="+", choices=list(WORLDS), help="default: all")
    parser.add_argument("--policies", nargs="+", help=f"specifications, as of `simulate` (default: {POLICIES})")
    parser.add_argument("--seeds", type=int, help=f"how many (default: {SEEDS})")
    parser.add_argument("--base", type=int, default=BASE, help=f"the first seed (default: {BASE})")
    parser.add_argument("--workers", type=int, help="runs at a time (default: processors)")
    parser.add_argument("--folder", type=Path, default=Path("benchmark-results/harm"), help="where runs are kept")
    parser.add_argument("--json", action="store_true", help="every figure, for programs")
    parser.add_argument("--quick", action="store_true", help="few users, worlds, policies and seeds: does it run?")
    return parser


def main() -> None:
    """Parse the arguments, run what they name, print the tables and the load."""
    given = _parser().parse_args()
    small = QUICK if given.quick else {}
    users = given.users or small.get("users", USERS)
    worlds = given.worlds or small.get("worlds", list(WORLDS))
    policies = _chosen_policies(given.policies or small.get("policies"))
    count = given.seeds or small.get("seeds", SEEDS)
    if not policies or count < 1 or given.base < 0 or min(users) < 1:
        sys.exit("give a policy other than no nudge, one seed or more from 0 on, and users")
    if given.base < RESERVED:
        print(f"seeds below {RESERVED} are those on which policies are designed", file=sys.stderr)
    seeds = range(given.base, given.base + count)
    try:
        rows, seconds = results(groups(given.apps, worlds, users, policies, seeds), given.folder, given.workers)
    except InvalidRequest as error:
        sys.exit(str(error))
    if given.json:
        print(json.dumps({"days": DAYS, "declared_loss_percent": LOSS, "rows": rows, "processor_seconds": seconds}))
        return
    for line in tables(rows):
        print(line)
    print(f"\nload: {seconds:.1f} seconds of processor; what {given.folder} held already took none")


if __name__ == "__main__":
    main()
