"""HTML page of a report, report.html: one self-contained file, drawings inline as SVG, nothing loaded from anywhere."""

import html
import io
import re

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from experiments.inference.wording import capital
from experiments.reports.colours import NONE, colours
from experiments.reports.report import Report, ReportAnswer, ReportBar, ReportRow, ReportSeries, ReportTable

_BLUE, _RED = "#1b6ca8", "#d1495b"
_WIDTH = 4.4  # inches of a drawing, 317 units of its own: what a narrow page has, so that text keeps its size there
_SIZE = 13  # of text in a drawing, in those units
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2329; max-width: 1080px; margin: 1.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .3rem; }
h3 { font-size: .95rem; margin: 1rem 0 .2rem; } ol.answers { padding-left: 1.6rem; }
ol.answers > li::marker { color: #1b6ca8; font-weight: 700; } ol.answers p { margin: .3rem 0; }
ol.answers h2 { display: inline; } ol.answers > li { margin: 1.6rem 0; }
.iv { white-space: nowrap; }
@media (min-width: 721px) and (max-width: 1000px) { table { display: block; overflow-x: auto; } }
@media (max-width: 720px), (min-width: 1100px) { .one { white-space: nowrap; } }
.verdict { font-size: 1.1rem; background: #eef4fa; border-left: 4px solid #1b6ca8; padding: .7rem 1rem; }
.verdict span + span { display: block; font-size: 1rem; margin-top: .25rem; }
.verdict span:first-child { font-weight: 600; }
.loss { border-left: 4px solid #e0a030; background: #fdf8ec; padding: .6rem 1rem; margin: 1rem 0; }
.loss h2 { margin: 0; } .loss ul { margin: .3rem 0 0; padding-left: 1.2rem; }
table { border-collapse: collapse; } th, td { text-align: right; padding: .25rem .6rem; vertical-align: top;
 border-bottom: 1px solid #e2e6e9; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
td:first-child { white-space: nowrap; }
th { color: #5a6570; font-weight: 600; }
.note, .sub { color: #5a6570; font-size: .9rem; }
.grid { display: grid; grid-template-columns: 1fr 1fr; gap: 0 1.5rem; }
.grid > * { min-width: 0; }
svg { width: 100%; max-width: 27rem; height: auto; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem .9rem; margin: .2rem 0 0; padding: 0; list-style: none;
 font-size: .85rem; } .legend i { display: inline-block; width: .8rem; height: .8rem;
 margin-right: .3rem; vertical-align: -.1rem; border-radius: 2px; }
code { background: #f2f4f6; padding: .1rem .3rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dt { color: #5a6570; } dd { margin: 0; overflow-wrap: anywhere; }
.grid table, ol.answers table { width: 100%; } th { min-width: 3.2rem; } th, td { vertical-align: bottom; }
.grid table { font-size: .86rem; } .grid td, .grid th { padding: .2rem .35rem; }
@media (max-width: 720px) {
 .grid { grid-template-columns: minmax(0, 1fr); } body { margin: 1rem auto; padding: 0 .7rem; }
 ol.answers { padding-left: 0; list-style-position: inside; }
 dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; }
 table, tbody, tr, td { display: block; } tr.head { display: none; } tr { padding: .4rem 0;
 border-bottom: 1px solid #e2e6e9; } td { display: flex; justify-content: space-between; gap: 1rem; border: 0;
 padding: .1rem 0; } td:first-child { font-weight: 600; white-space: normal; overflow-wrap: anywhere; }
 td span { text-align: right; } td:first-child span { text-align: left; }
 td:not(:first-child)::before { content: attr(data-head); color: #5a6570; text-align: left; }
}
"""


def render(report: Report) -> str:
    """The HTML page of a report: the answers of a review if there are any, else its tables and curves. The same report
    gives the same bytes; all text in it is escaped.
    """
    return _answered(report) if report.answers else _plain(report)


def _head(report: Report) -> str:
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    return f'<head><meta charset="utf-8">{view}<title>{_text(report.title)}</title><style>{_STYLE}</style></head>'


def _answered(report: Report) -> str:
    parts = "".join(_answer(number, answer, report.floor) for number, answer in enumerate(report.answers, 1))
    facts = "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in report.facts.items())
    return f"""<!doctype html>
<html lang="en">{_head(report)}<body>
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
    first, *others = report.verdict.rstrip(".").split("; ")
    parts = [f"<span>{_text(part)}.</span>" for part in (first, *map(capital, others))]
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
    figures = [_section(curve.title, _lines(curve.unit, curve.lines, curve.along)) for curve in report.curves]
    if report.shares:
        figures.append(_section("Arm shares over time", _stack(report.shares, report.along)))
    if len(report.propensities):
        figures.append(
            _section("Propensity of what was shown", _histogram("propensity", report.propensities, report.floor))
        )
    facts = "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in report.facts.items())
    first, others = report.tables[:1], report.tables[1:]
    return f"""<!doctype html>
<html lang="en">{_head(report)}<body>
<h1>{_text(report.title)}</h1>
<p class="sub">{_text(report.facts["kind"])} · {report.metrics["n"]:,.0f} decisions</p>
{_headline(report)}
{"".join(_table(table) for table in first)}
<div class="grid">{"".join(figures)}</div>
{"".join(_table(table) for table in others)}
<h2>What was run</h2><dl>{facts}</dl>
<h2>Run it again</h2><p><code>{_text(report.command)}</code></p>
</body></html>
"""


def _table(table: ReportTable, heading: str = "h2") -> str:
    """A table; on a narrow page each row is a list, in which the heads stand beside the cells."""
    heads = ("", *table.head)
    head = "".join(f"<th>{_cell(cell)}</th>" for cell in heads)
    rows = "".join(_row(row, heads) for row in table.rows)
    note = f'<p class="note">{_text(table.note)}</p>' if table.note else ""
    return f'<{heading}>{_text(table.title)}</{heading}><table><tr class="head">{head}</tr>{rows}</table>{note}'


def _row(row: ReportRow, heads: tuple[str, ...]) -> str:
    cells = zip(heads, (row.name, *row.cells), strict=False)
    return (
        "<tr>" + "".join(f'<td data-head="{_unit(head)}"><span>{_cell(c)}</span></td>' for head, c in cells) + "</tr>"
    )


def _cell(text: str) -> str:
    """A cell, whose interval and unit are not broken; nor is a value parted from its interval, where both are short
    and the page has room.
    """
    said = _INTERVAL.sub(r'<span class="iv">\g<0></span>', _unit(text))
    return f'<span class="one">{said}</span>' if len(text) <= _SHORT and "[" in text else said


def _unit(text: str) -> str:
    return _text(text).replace(" %", "\u00a0%")


_SHORT = 26  # characters that a cell keeps in one line
_INTERVAL = re.compile(r"\[[^\[\]]*\]")


def _section(title: str, drawing: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{drawing}</section>"


def _lines(unit: str, series: tuple[ReportSeries, ...], along: str = "decisions") -> str:
    figure, axes = _axes(unit, along)
    known = colours(line.name for line in series)
    for line in series:
        axes.plot(line.step, line.value, color=known[line.name], linewidth=1.8)
        if line.low is not None and line.high is not None:
            axes.fill_between(line.step, line.low, line.high, color=known[line.name], alpha=0.18, linewidth=0)
    if any(line.low is not None for line in series):
        axes.set_ylim(*_span(series))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.axhline(0.0, color=NONE, linewidth=0.8)
    return _svg(figure) + _legend({line.name: known[line.name] for line in series})


def _span(series: tuple[ReportSeries, ...]) -> tuple[float, float]:
    """Ends of the axis: bands whole, unless they reach far beyond all values."""
    values = np.concatenate([line.value for line in series])
    low = np.concatenate([line.value if line.low is None else line.low for line in series])
    high = np.concatenate([line.value if line.high is None else line.high for line in series])
    wide = float(np.ptp(values)) or 1.0
    bottom = max(float(np.nanmin(low)), float(values.min()) - 0.6 * wide)
    top = min(float(np.nanmax(high)), float(values.max()) + 0.6 * wide)
    return bottom - 0.04 * wide, top + 0.04 * wide


def _legend(known: dict[str, str]) -> str:
    """Names with their colours, in HTML, so that they wrap and keep their size."""
    if len(known) < 2:
        return ""
    items = "".join(f'<li><i style="background: {colour}"></i>{_text(name)}</li>' for name, colour in known.items())
    return f'<ul class="legend">{items}</ul>'


def _stack(shares: tuple[ReportSeries, ...], along: str = "decisions") -> str:
    figure, axes = _axes("% of decisions", along)
    known = colours(one.name for one in shares)
    values = [100.0 * one.value for one in shares]
    axes.stackplot(shares[0].step, *values, colors=[known[one.name] for one in shares], alpha=0.85)
    axes.set_ylim(0, 100)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return _svg(figure) + _legend({one.name: known[one.name] for one in shares})


def _forest(unit: str, bars: tuple[ReportBar, ...]) -> str:
    """One line for each value with its interval, the first on top."""
    figure, axes = _axes("", unit, height=0.8 + 0.32 * len(bars))
    for place, bar in enumerate(reversed(bars)):
        colour = NONE if bar.name.startswith("holdout") else _BLUE
        axes.plot([bar.low, bar.high], [place, place], color=colour, linewidth=2)
        axes.plot([bar.value], [place], "o", color=colour, markersize=5)
    axes.set_yticks(range(len(bars)), [bar.name for bar in reversed(bars)])
    axes.axvline(bars[0].value, color=NONE, linewidth=0.7, linestyle=":")
    return _svg(figure)


def _histogram(what: str, values: NDArray[np.float64], floor: float) -> str:
    figure, axes = _axes("decisions", what)
    axes.hist(values, bins=np.linspace(0, 1, 41).tolist(), color=_BLUE)
    if floor > 0:
        axes.axvline(floor, color=_RED, linewidth=1)
    return _svg(figure) + (_legend({"decisions": _BLUE, f"floor {floor:g}": _RED}) if floor > 0 else "")


def _axes(unit: str, along: str = "decisions", height: float = 3.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(along, fontsize=_SIZE)
    axes.set_ylabel(unit, fontsize=_SIZE)
    axes.tick_params(labelsize=_SIZE)
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
