"""Plot of what the default policy earns over no nudge, month after month, by the number of people a month.

    python -m benchmarks.evidence.harm_plot --out docs/images/cost.svg       the plot of `docs/explanation/cost.md`
    python -m benchmarks.evidence.harm_plot --apps travel --users 300 --months 2 --seeds 2 --out travel.svg

Every run is paired with no nudge on the same seed, as in `benchmarks.evidence.harm`. A run of M months has M times the
people of one month, who arrive evenly; those of earlier months come back. The figure of a month is Σ expected net value
of its decisions under the policy less the same with no nudge, divided by the people of one month: mean over seeds ±
standard error. Figures are printed as well; each run is kept in --folder.
"""

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # before numpy reads them
    os.environ.setdefault(_name, "1")

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bandit.arrays import Array
from bandit.catalogue.loading import parse, read_shipped
from benchmarks.evidence import harm
from simulations import scenario
from simulations.offline import parallel, study
from simulations.offline.paired import BASELINE
from simulations.offline.runner import CellOutcome

POLICY = "default"
USERS = (500, 1000, 4000)  # a month
MONTHS, SEEDS = 3, 4
COLOURS = ("#7a8794", "#2b7bba", "#12355b", "#c8553d")


class MonthlyGain(NamedTuple):
    """Gain of the policy over no nudge in one app with so many people a month, `gain`, and what no nudge earns, `base`:
    currency a person of one month, by month and seed, (M, S).
    """

    app: str
    users: int
    gain: Array
    base: Array

    @property
    def mean(self) -> Array:
        """Mean over seeds, (M,)."""
        return np.asarray(self.gain.mean(axis=1))

    @property
    def error(self) -> Array:
        """Standard error over seeds, (M,); 0 for a single seed."""
        s = self.gain.shape[1]
        return np.asarray(self.gain.std(axis=1, ddof=1) / np.sqrt(s) if s > 1 else np.zeros(len(self.gain)))


def by_month(done: CellOutcome) -> Array:
    """Expected net value of each month of a run, (M,), all stages together."""
    days = np.sum([summary.value for summary in done.stages.values()], axis=0)
    return np.asarray(np.reshape(days, (-1, harm.DAYS)).sum(axis=1))


def gains(
    apps: Sequence[str], users: Sequence[int], months: int, seeds: Sequence[int], folder: Path, workers: int | None
) -> list[MonthlyGain]:
    """Gains of every app at every size; runs that are in the folder already are read."""
    groups = {
        (app, many): study.cells(
            scenario.load(app), (BASELINE, POLICY), seeds, users=many * months, days=harm.DAYS * months
        )
        for app in apps
        for many in users
    }
    todo = [cell for cells in groups.values() for cell in cells]
    backend: parallel.Backend = "serial" if workers == 1 else "processes"
    found = dict[str, Array]()
    play = partial(harm.play, folder=folder)
    for i, (outcome, _) in parallel.run(play, todo, backend=backend, workers=workers, progress=_progress):
        found[todo[i].digest()] = by_month(outcome)
    made = []
    for (app, many), cells in groups.items():
        earned = {(cell.policy, cell.seed): found[cell.digest()] for cell in cells}
        gain = np.stack([earned[POLICY, s] - earned[BASELINE, s] for s in seeds], axis=1) / many
        base = np.stack([earned[BASELINE, s] for s in seeds], axis=1) / many
        made.append(MonthlyGain(app, many, gain, base))
    return made


def lines(found: Sequence[MonthlyGain]) -> Iterator[str]:
    """Lines of the figures, one for each app and size: every month, then what no nudge earns in the last, and the worst
    run of that month, in currency and in percent of it.
    """
    for one in found:
        cells = "  ".join(f"{m:+.2f} ± {e:.2f}" for m, e in zip(one.mean, one.error, strict=True))
        worst = int(np.argmin(one.gain[-1]))
        gain, base = one.gain[-1, worst], one.base[-1, worst]
        end = f"no nudge {one.base[-1].mean():.1f}, worst {gain:+.2f} ({100 * gain / base:+.1f} %)"
        yield f"{one.app:<13}{one.users:>7,} a month   {cells}   {end}"


def draw(found: Sequence[MonthlyGain], out: Path) -> None:
    """Write the plot to `out`, one panel for each app; the same figures give the same file."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    apps = list(dict.fromkeys(one.app for one in found))
    figure = Figure(figsize=(2.3 * len(apps) + 0.6, 3.0), layout="constrained")
    for axes, app in zip(figure.subplots(1, len(apps), squeeze=False)[0], apps, strict=True):
        mine = [one for one in found if one.app == app]
        axes.axhline(0.0, color="#444444", linewidth=0.8)
        for place, one in enumerate(mine):
            along = np.arange(1, len(one.mean) + 1) + 0.08 * (place - (len(mine) - 1) / 2)
            style = {"color": COLOURS[place % len(COLOURS)], "marker": "o", "markersize": 3, "capsize": 2}
            axes.errorbar(along, one.mean, one.error, label=f"{one.users:,} people", linewidth=1.4, **style)
        axes.set_title(f"{app}, {parse(read_shipped(app)).currency} a person", fontsize=9)
        axes.set_xticks(range(1, len(mine[0].mean) + 1))
        axes.set_xlabel("month", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        if app == apps[0]:
            axes.legend(frameon=False, fontsize=7)
    out.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "journey-bandit"}):
        figure.savefig(out, dpi=130, metadata={"Date": None} if out.suffix == ".svg" else None)


def _progress(done: int, total: int) -> None:
    print(f"{done} of {total} runs", file=sys.stderr, flush=True)


def main() -> None:
    """Parse the arguments, run what is missing, print the figures and write the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apps", nargs="+", choices=scenario.names(), default=scenario.names())
    parser.add_argument("--users", nargs="+", type=int, default=list(USERS), help=f"a month (default: {USERS})")
    parser.add_argument("--months", type=int, default=MONTHS)
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"how many, from {harm.BASE} on (default: {SEEDS})")
    parser.add_argument("--workers", type=int, help="runs at a time (default: processors)")
    parser.add_argument("--folder", type=Path, default=Path("benchmark-results/harm"), help="where runs are kept")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results/cost.svg"), help="svg or png")
    given = parser.parse_args()
    if min(given.users) < 1 or given.months < 1 or given.seeds < 1:
        sys.exit("give users, months and seeds of 1 or more")
    seeds = range(harm.BASE, harm.BASE + given.seeds)
    found = gains(given.apps, given.users, given.months, seeds, given.folder, given.workers)
    for line in lines(found):
        print(line)
    draw(found, given.out)


if __name__ == "__main__":
    main()
