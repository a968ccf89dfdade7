"""Figures of a comparison of simulated policies and of a sensitivity sweep, as SVG or PNG files. The same numbers give
the same bytes.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.reports.report import ReportSeries
from experiments.reports.simulation_report import ComparisonSubject, PolicyResult, band

COLOURS = ("#2563eb", "#dc2626", "#6b7280", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")


def comparison(run: ComparisonSubject, played: list[PolicyResult], folder: Path, kind: str = "png") -> list[Path]:
    """Write the figures of a comparison into `folder`, one file each: regret, value and conversion, fatigue, arms by
    persona, delay. Returns the paths; `kind` is the suffix, png or svg.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cumulative = [band(p.policy, np.cumsum(p.regret, axis=1)) for p in played]
    value = [band(p.policy, np.cumsum(p.value, axis=1) / p.users) for p in played]
    rate = [band(p.policy, 100.0 * _weekly(p.conversions) / np.maximum(_weekly(p.decisions), 1.0)) for p in played]
    tired = [band(p.policy, p.fatigue / np.maximum(p.decisions, 1.0)) for p in played]
    gone = [band(p.policy, 100.0 * p.opted_out) for p in played]
    made = {
        "regret": _lines([("Regret", f"{run.currency}, cumulative", cumulative)]),
        "value": _lines(
            [
                ("Net value", f"{run.currency}/user, cumulative", value),
                ("Conversion, 7 days", "% of decisions", rate),
            ]
        ),
        "fatigue": _lines([("Fatigue", "mean F at a visit", tired), ("Opted out", "% of users", gone)]),
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
        axes.barh(place, low - base, left=base, color=COLOURS[1], alpha=0.8)
        axes.barh(place, high - base, left=base, color=COLOURS[0], alpha=0.8)
    axes.set_yticks(range(len(ordered)), [name for name, _, _ in ordered], fontsize=8)
    axes.axvline(base, color="black", linewidth=0.8)
    axes.axvline(0.0, color=COLOURS[2], linewidth=0.8, linestyle="--")
    _labelled(axes, title, unit, "")
    return _save(figure, file)


def _weekly(values: np.ndarray) -> np.ndarray:
    """Sums over the last seven days, (S, D)."""
    total = np.cumsum(values, axis=1)
    before = np.concatenate([np.zeros((len(values), min(7, values.shape[1]))), total[:, :-7]], axis=1)
    return np.asarray(total - before[:, : values.shape[1]])


def _lines(panels: list[tuple[str, str, list[ReportSeries]]]) -> Figure:
    figure = Figure(figsize=(5.6 * len(panels), 3.6), layout="constrained")
    for place, (title, unit, lines) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), place)
        for colour, line in zip(COLOURS, lines, strict=False):
            axes.plot(line.step, line.value, label=line.name, color=colour, linewidth=1.4)
            if line.low is not None and line.high is not None:
                axes.fill_between(line.step, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
        axes.legend(frameon=False, fontsize=7)
        _labelled(axes, title, "day", unit)
    return figure


def _shares(played: list[PolicyResult]) -> Figure:
    figure = Figure(figsize=(2.4 * len(played) + 2.0, 3.6), layout="constrained")
    axes = figure.subplots(1, len(played), sharey=True, squeeze=False)[0]
    for one, panel in zip(played, axes, strict=True):
        share = one.shown / np.maximum(one.shown.sum(axis=1, keepdims=True), 1.0)
        floor = np.zeros(len(one.personas))
        for a, arm in enumerate(one.arms):
            panel.bar(range(len(floor)), share[:, a], bottom=floor, label=arm, color=COLOURS[a % len(COLOURS)])
            floor = floor + share[:, a]
        panel.set_xticks(range(len(floor)), one.personas, rotation=35, ha="right", fontsize=7)
        _labelled(panel, one.policy, "", "share of decisions" if one is played[0] else "")
    axes[-1].legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _delay(played: list[PolicyResult]) -> Figure:
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for colour, one in zip(COLOURS, played, strict=False):
        share = np.cumsum(one.ages) / max(float(one.ages.sum()), 1.0)
        at = np.arange(1, len(share) + 1) / len(share)
        axes.plot(100 * at, 100 * share, label=one.policy, color=colour, linewidth=1.4)
    axes.legend(frameon=False, fontsize=7)
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
