"""HTML page of a report, report.html: one self-contained file, drawings inline as SVG, nothing loaded from anywhere."""

import html
import io
import itertools

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.reports.report import Report, ReportAnswer, ReportBar, ReportSeries, ReportTable

_NONE = "#9aa3ab"
_COLOURS = ("#1b6ca8", "#d1495b", "#2a9d5c", "#e0a030", "#6b4fa0", "#14a3a8", "#c46fb0", "#4d4d4d")
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2329; max-width: 960px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .3rem; }
h3 { font-size: .95rem; margin: 1rem 0 .2rem; } ol.answers { padding-left: 1.6rem; }
ol.answers > li::marker { color: #1b6ca8; font-weight: 700; } ol.answers p { margin: .3rem 0; }
ol.answers h2 { display: inline; } ol.answers > li { margin: 1.6rem 0; }
td { white-space: nowrap; }
.verdict { font-size: 1.1rem; background: #eef4fa; border-left: 4px solid #1b6ca8; padding: .7rem 1rem; }
.verdict span + span { display: block; font-size: 1rem; margin-top: .25rem; }
.verdict span:first-child { font-weight: 600; }
.loss { border-left: 4px solid #e0a030; background: #fdf8ec; padding: .6rem 1rem; margin: 1rem 0; }
.loss h2 { margin: 0; } .loss ul { margin: .3rem 0 0; padding-left: 1.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; } th, td { text-align: right; padding: .2rem .8rem;
 border-bottom: 1px solid #e2e6e9; }
th:first-child, td:first-child { text-align: left; }
th { color: #5a6570; font-weight: 600; }
.note, .sub { color: #5a6570; font-size: .9rem; }
.grid { display: grid; grid-template-columns: 1fr 1fr; gap: 0 1.5rem; }
.grid > * { min-width: 0; }
svg { max-width: 100%; height: auto; } code { background: #f2f4f6; padding: .1rem .3rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dt { color: #5a6570; } dd { margin: 0; overflow-wrap: anywhere; }
.grid table, ol.answers table { width: 100%; } th { min-width: 3.2rem; } th, td { vertical-align: bottom; }
.grid table { font-size: .86rem; } .grid td, .grid th { padding: .2rem .35rem; white-space: normal; }
@media (max-width: 720px) {
 body { margin: 1rem auto; padding: 0 .7rem; } .grid { grid-template-columns: minmax(0, 1fr); }
 ol.answers { padding-left: 0; list-style-position: inside; }
 table { width: 100%; font-size: .78rem; line-height: 1.35; } th, td { padding: .2rem .25rem; min-width: 0; }
 td, th { white-space: normal; overflow-wrap: anywhere; hyphens: auto; } dl { grid-template-columns: 1fr; }
 dd { margin-bottom: .3rem; }
}
"""


def render(report: Report) -> str:
    """The HTML page of a report: the answers of a review if there are any, else its tables and curves. The same report
    gives the same bytes; all text in it is escaped.
    """
    return _answered(report) if report.answers else _plain(report)


def _answered(report: Report) -> str:
    parts = "".join(_answer(number, answer, report.floor) for number, answer in enumerate(report.answers, 1))
    facts = "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in report.facts.items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{_text(report.title)}</title><style>{_STYLE}</style></head><body>
<h1>{_text(report.title)}</h1>
<p class="sub">{_text(f"{report.facts['kind']} · {report.metrics.get('n', 0):,.0f} decisions")} ·
{_text(report.facts["data_window"])}</p>
{_headline(report)}
<ol class="answers">{parts}</ol>
<details><summary>Parameters</summary><dl>{facts}</dl></details>
</body></html>
"""


def _headline(report: Report) -> str:
    """The verdict in money, below it, smaller, what it is in conversions, and what learning may cost and has cost."""
    small = f'<p class="note">{_text(report.conversions)}</p>' if report.conversions else ""
    said = "".join(f"<li>{_text(sentence)}</li>" for sentence in report.loss)
    loss = f'<div class="loss"><h2>What learning costs</h2><ul>{said}</ul></div>' if report.loss else ""
    parts = [f"<span>{_text(part)}</span>" for part in report.verdict.split("; ")]
    return f'<p class="verdict">{" ".join(parts)}</p>{small}{loss}'


def _answer(number: int, answer: ReportAnswer, floor: float) -> str:
    shown = [f"<p>{_text(answer.answer)}</p>"]
    shown += [f'<p class="note">{_text(answer.note)}</p>'] if answer.note else []
    shown += [f"<p><code>{_text(answer.code)}</code></p>"] if answer.code else []
    drawn = []
    if answer.forest:
        drawn.append(_forest(answer.unit, answer.forest))
    if answer.lines and answer.lines[1] and len(answer.lines[1][0].step):
        drawn.append(_lines(*answer.lines))
    if answer.stack and len(answer.stack[0].step):
        drawn.append(_stack(answer.stack))
    if answer.histogram and len(answer.histogram[1]):
        drawn.append(_histogram(*answer.histogram, floor))
    tables = "".join(_table(table, "h3") for table in answer.tables)
    beside = f'<div class="grid"><div>{tables}</div><div>{"".join(drawn)}</div></div>' if tables and drawn else ""
    return (
        f'<li id="q{number}"><h2>{_text(answer.question)}</h2>{"".join(shown)}{beside or tables + "".join(drawn)}</li>'
    )


def _plain(report: Report) -> str:
    figures = [_section(curve.title, _lines(curve.unit, curve.lines)) for curve in report.curves]
    figures.append(_section("Arm shares over time", _stack(report.shares)))
    figures.append(
        _section("Propensity of what was shown", _histogram("propensity", report.propensities, report.floor))
    )
    facts = "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in report.facts.items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{_text(report.title)}</title><style>{_STYLE}</style></head><body>
<h1>{_text(report.title)}</h1>
<p class="sub">{_text(report.facts["kind"])} · {report.metrics["n"]:,.0f} decisions</p>
{_headline(report)}
{"".join(_table(table) for table in report.tables)}
<div class="grid">{"".join(figures)}</div>
<h2>What was run</h2><dl>{facts}</dl>
<h2>Run it again</h2><p><code>{_text(report.command)}</code></p>
</body></html>
"""


def _table(table: ReportTable, heading: str = "h2") -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in ("", *table.head))
    rows = "".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in (row.name, *row.cells)) + "</tr>" for row in table.rows
    )
    note = f'<p class="note">{_text(table.note)}</p>' if table.note else ""
    shown = f'<div class="wide"><table><tr>{head}</tr>{rows}</table></div>'
    return f"<{heading}>{_text(table.title)}</{heading}>{shown}{note}"


def _section(title: str, drawing: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{drawing}</section>"


def _lines(unit: str, series: tuple[ReportSeries, ...]) -> str:
    figure, axes = _axes(unit)
    for colour, line in zip(_colours(series), series, strict=True):
        axes.plot(line.step, line.value, color=colour, label=line.name, linewidth=1.6)
        if line.low is not None and line.high is not None:
            axes.fill_between(line.step, line.low, line.high, color=colour, alpha=0.18, linewidth=0)
    if any(line.low is not None for line in series):
        values = np.concatenate([line.value for line in series])
        bottom, top = values.min(), values.max()
        margin = 0.6 * (top - bottom) or 1.0
        axes.set_ylim(bottom - margin, top + margin)
    if len(series) == 1:
        axes.axhline(0.0, color="#9aa3ab", linewidth=0.8)
    else:
        axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def _colours(series: tuple[ReportSeries, ...]) -> list[str]:
    """A colour for each series: no nudge is grey everywhere, the others take their colours in turn."""
    others = itertools.cycle(_COLOURS)
    return [_NONE if "no" in line.name.replace("none", "no").split() else next(others) for line in series]


def _stack(shares: tuple[ReportSeries, ...]) -> str:
    figure, axes = _axes("share of decisions")
    axes.stackplot(
        shares[0].step,
        *(s.value for s in shares),
        labels=[s.name for s in shares],
        colors=_colours(shares),
        alpha=0.85,
    )
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, fontsize=8, loc="upper center", ncols=3, bbox_to_anchor=(0.5, -0.18))
    return _svg(figure)


def _forest(unit: str, bars: tuple[ReportBar, ...]) -> str:
    """One line for each value with its interval, the first on top."""
    figure, axes = _axes("", unit, height=0.6 + 0.28 * len(bars))
    for place, bar in enumerate(reversed(bars)):
        colour = _NONE if bar.name.startswith("holdout") else _COLOURS[0]
        axes.plot([bar.low, bar.high], [place, place], color=colour, linewidth=2)
        axes.plot([bar.value], [place], "o", color=colour, markersize=5)
    axes.set_yticks(range(len(bars)), [bar.name for bar in reversed(bars)])
    axes.axvline(bars[0].value, color=_NONE, linewidth=0.7, linestyle=":")
    return _svg(figure)


def _histogram(what: str, values: NDArray[np.float64], floor: float) -> str:
    figure, axes = _axes("decisions", what)
    axes.hist(values, bins=np.linspace(0, 1, 41).tolist(), color=_COLOURS[0])
    if floor > 0:
        axes.axvline(floor, color=_COLOURS[1], linewidth=1, label=f"floor {floor:g}")
        axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def _axes(unit: str, along: str = "decisions", height: float = 3.1) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.2, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(along, fontsize=9)
    axes.set_ylabel(unit, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    """Inline SVG: fixed ids and no date, so that the same report gives the same bytes."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "journey-bandit", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _text(value: object) -> str:
    return html.escape(str(value))
