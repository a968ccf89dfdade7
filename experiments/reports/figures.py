"""Figures of a comparison of simulated policies, of a sensitivity sweep and of estimates with intervals, as SVG or PNG
files or below a notebook's cell. The same numbers give the same bytes.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.reports.colours import NONE, colours
from experiments.reports.report import ReportSeries
from experiments.reports.simulation_report import ComparisonSubject, PolicyResult, band, over_no_nudge

_ARMS = ("#7b858e", "#1b6ca8", "#d1495b", "#2a9d5c", "#c77d0a", "#6b4fa0", "#0f8b8d", "#b5479b", "#7a5c3e")
_BETTER, _WORSE = "#1b6ca8", "#d1495b"


class InlineFigure(Figure):
    """Figure of matplotlib that notebooks draw below a cell, without `%matplotlib` and without pyplot."""

    def _repr_png_(self) -> bytes:
        made = io.BytesIO()
        self.savefig(made, format="png", dpi=100, metadata={"Software": None})
        return made.getvalue()


class ForestBar(NamedTuple):
    """One line of a forest plot: a value with its interval at this n, and the confidence sequence's, which holds at
    every n, where there is one. In the unit of its panel.
    """

    name: str
    value: float
    interval: tuple[float, float]
    sequence: tuple[float, float] | None = None


class ForestPanel(NamedTuple):
    """One panel of a forest plot: title, unit of the values, and its lines from top to bottom. `difference`: 0 means
    that nothing differs, and has a line.
    """

    title: str
    unit: str
    bars: Sequence[ForestBar]
    difference: bool = False


def forest(panels: Sequence[ForestPanel]) -> InlineFigure:
    """Forest plot: panels side by side, in each a line for each estimate with its intervals. Numbers that are not
    finite leave a gap.
    """
    rows = max((len(panel.bars) for panel in panels), default=1)
    figure = InlineFigure(figsize=(5.2 * len(panels), 1.7 + 0.45 * rows), layout="constrained")
    known = colours(bar.name for panel in panels for bar in panel.bars)
    for place, panel in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), place)
        if panel.difference:
            axes.axvline(0.0, color=NONE, linewidth=1.0, linestyle="--")
        for row, bar in enumerate(panel.bars):
            colour = known[bar.name]
            if bar.sequence is not None:
                axes.plot(bar.sequence, (row, row), color=colour, linewidth=1.0, alpha=0.7)
            axes.plot(bar.interval, (row, row), color=colour, linewidth=4.0, alpha=0.55, solid_capstyle="butt")
            axes.plot([bar.value], [row], color=colour, marker="o", markersize=5)
        axes.set_yticks(range(len(panel.bars)), [bar.name for bar in panel.bars])
        axes.set_ylim(max(len(panel.bars), 1) - 0.5, -0.5)
        axes.margins(x=0.08)
        _labelled(axes, panel.title, panel.unit, "")
    return figure


def over_and_absolute(run: ComparisonSubject, played: Sequence[PolicyResult], baseline: PolicyResult) -> InlineFigure:
    """Figure of a comparison for notebooks: net value over no nudge of a user, day by day with its band over seeds,
    beside it the net value itself.
    """
    over = [over_no_nudge(p, baseline) for p in played if p is not baseline]
    value = [band(p.policy, np.cumsum(p.value, axis=1) / p.users) for p in played]
    unit = f"{run.currency} a user, cumulative"
    return _lines([("Net value over no nudge", unit, over), ("Net value", unit, value)], named=2)


def comparison(
    run: ComparisonSubject, played: list[PolicyResult], baseline: PolicyResult, folder: Path, kind: str = "png"
) -> list[Path]:
    """Write the figures of a comparison into `folder`, one file each: money over no nudge, regret, value and
    conversion, fatigue, arms by persona, delay. Returns the paths, money first; `kind` is the suffix, png or svg.
    """
    folder.mkdir(parents=True, exist_ok=True)
    over = [over_no_nudge(p, baseline) for p in played if p is not baseline]
    cumulative = [band(p.policy, np.cumsum(p.regret, axis=1)) for p in played]
    value = [band(p.policy, np.cumsum(p.value, axis=1) / p.users) for p in played]
    rate = [_percent(p.policy, 100.0 * _weekly(p.conversions) / np.maximum(_weekly(p.decisions), 1.0)) for p in played]
    tired = [band(p.policy, p.fatigue / np.maximum(p.decisions, 1.0)) for p in played]
    gone = [_percent(p.policy, 100.0 * p.opted_out) for p in played]
    made = {
        "over_no_nudge": _lines([("Net value over no nudge", f"{run.currency} a user, cumulative", over)]),
        "regret": _lines([("Regret", f"{run.currency}, cumulative", cumulative)]),
        "value": _lines(
            [
                ("Net value", f"{run.currency} a user, cumulative", value),
                ("Conversion, last 7 days", "% of decisions", rate),
            ]
        ),
        "fatigue": _lines([("Fatigue", "recent nudges at a visit, mean", tired), ("Opted out", "% of users", gone)]),
        "personas": _shares(played),
        "delay": _delay(played),
    }
    return [_save(figure, folder / f"{name}.{kind}") for name, figure in made.items()]


def tornado(title: str, unit: str, bars: Sequence[tuple[str, float, float]], base: float, file: Path) -> Path:
    """Write a tornado chart to `file` and return it: bars (name, value at the low end, value at the high end) in `unit`
    around `base`, widest on top.
    """
    figure = Figure(figsize=(7.0, 0.45 * len(bars) + 1.4), layout="constrained")
    axes = figure.add_subplot()
    ordered = sorted(bars, key=lambda bar: abs(bar[2] - bar[1]))
    for place, (_, low, high) in enumerate(ordered):
        axes.barh(place, low - base, left=base, color=_WORSE, alpha=0.8)
        axes.barh(place, high - base, left=base, color=_BETTER, alpha=0.8)
    axes.set_yticks(range(len(ordered)), [name for name, _, _ in ordered], fontsize=8)
    axes.axvline(base, color="black", linewidth=0.8)
    axes.axvline(0.0, color=NONE, linewidth=0.8, linestyle="--")
    _labelled(axes, title, unit, "")
    return _save(figure, file)


def _weekly(values: np.ndarray) -> np.ndarray:
    """Sums over the last seven days, (S, D)."""
    total = np.cumsum(values, axis=1)
    before = np.concatenate([np.zeros((len(values), min(7, values.shape[1]))), total[:, :-7]], axis=1)
    return np.asarray(total - before[:, : values.shape[1]])


def _percent(name: str, values: np.ndarray) -> ReportSeries:
    """A series of percentages, whose band ends at 0 and 100."""
    made = band(name, values)
    if made.low is None or made.high is None:
        return made
    return made._replace(low=np.clip(made.low, 0.0, 100.0), high=np.clip(made.high, 0.0, 100.0))


def _lines(panels: list[tuple[str, str, list[ReportSeries]]], named: int = 1) -> InlineFigure:
    """Lines with their bands, one panel beside the other. `named`: the panel, from 1, whose lines the legend names."""
    figure = InlineFigure(figsize=(5.6 * len(panels), 4.2), layout="constrained")
    for place, (title, unit, lines) in enumerate(panels, 1):
        axes, known = figure.add_subplot(1, len(panels), place), colours(line.name for line in lines)
        for line in lines:
            axes.plot(line.step, line.value, label=line.name, color=known[line.name], linewidth=1.4)
            if line.low is not None and line.high is not None:
                axes.fill_between(line.step, line.low, line.high, color=known[line.name], alpha=0.15, linewidth=0)
        axes.axhline(0.0, color=NONE, linewidth=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(y=0.08)
        _labelled(axes, title, "day", unit)
        if place == named:
            figure.legend(*axes.get_legend_handles_labels(), **_BELOW)
    return figure


_BELOW: dict[str, Any] = {"loc": "outside lower center", "ncols": 3, "frameon": False, "fontsize": 8}


def _shares(played: list[PolicyResult]) -> Figure:
    columns = min(len(played), 4)
    rows = -(-len(played) // columns)
    figure = Figure(figsize=(2.6 * columns + 0.6, 3.0 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    for panel in axes[len(played) :]:
        panel.set_visible(False)
    for one, panel in zip(played, axes, strict=False):
        share = 100.0 * one.shown / np.maximum(one.shown.sum(axis=1, keepdims=True), 1.0)
        floor = np.zeros(len(one.personas))
        for a, arm in enumerate(one.arms):
            panel.bar(range(len(floor)), share[:, a], bottom=floor, label=arm, color=_ARMS[a % len(_ARMS)])
            floor = floor + share[:, a]
        panel.set_xticks(range(len(floor)), one.personas, rotation=35, ha="right", fontsize=7)
        panel.set_ylim(0.0, 100.0)
        _labelled(panel, one.policy, "", "% of decisions" if panel.get_subplotspec().is_first_col() else "")
        panel.title.set_fontsize(9 if len(one.policy) < 24 else 6)
    figure.legend(*axes[0].get_legend_handles_labels(), **_BELOW)
    return figure


def _delay(played: list[PolicyResult]) -> Figure:
    figure, known = Figure(figsize=(5.6, 4.2), layout="constrained"), colours(one.policy for one in played)
    axes = figure.add_subplot()
    for one in played:
        share = np.cumsum(one.ages) / max(float(one.ages.sum()), 1.0)
        at = np.arange(len(share) + 1) / len(share)
        axes.plot(100 * at, 100 * np.append(0.0, share), label=one.policy, color=known[one.policy], linewidth=1.4)
    axes.set_xlim(0.0, 100.0)
    axes.set_ylim(0.0, 101.0)
    figure.legend(*axes.get_legend_handles_labels(), **_BELOW)
    _labelled(axes, "When rewards come", "% of the attribution window", "% of rewards in it")
    return figure


def _labelled(axes: Axes, title: str, along: str, unit: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(along, fontsize=9)
    axes.set_ylabel(unit, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, file: Path) -> Path:
    """Write the figure, without a date, so that the same numbers give the same file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "journey-bandit"}):
        figure.savefig(file, dpi=130, metadata={"Date": None} if file.suffix == ".svg" else None)
    return file
