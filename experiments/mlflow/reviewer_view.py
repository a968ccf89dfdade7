"""Reviewer's views of an experiment: columns with their order and widths, filter and charts, as MLflow keeps a shared
view; the tags that their columns show; and links to MLflow's pages. Pure.

Shared views are a feature of MLflow's pages since 3.15; writing one as a tag is not documented. A plain link shows the
same runs, with columns to choose by hand.

The first columns fit into the 506 pixels that MLflow leaves for the table when a window is 1,024 wide and its assistant
is open: MLflow shows columns at the widths given here, and cuts whatever is right of them.
"""

import base64
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from math import floor, isfinite, log10
from typing import Any, NamedTuple

from experiments.inference import wording

REPORT = "review/report.html"  # path of the report among a run's artifacts
TAG_PREFIX = "mlflow.sharedViewState."
_MODE = "workflowType=machine_learning"  # without it MLflow opens a page that hides metrics
_NAME, _CREATED, _DURATION = "attributes.`Run Name`", "runDateAndNestInfo", "duration"  # always shown by MLflow
_MONEY = (("net_gain", "net_low", "net_high"), ("vs_none", "vs_none_lcb", "vs_none_ucb"))  # of reviews, simulations
_PLACES = 4  # digits after the point, at most, that keep an amount from reading 0
_CELL = 27  # characters of money that its column shows without cutting them
_SHORT = {"not distinguishable": "unclear", "not asked": "–"}  # words of gate and review, for their columns


class View(NamedTuple):
    """A view of an experiment. `key` names it in links, `name` in MLflow's menu; `where` filters the runs; `more`:
    columns after those that every view begins with, {column: width in pixels}.
    """

    key: str
    name: str
    where: str
    more: Mapping[str, int]


REVIEWER = View(
    "reviewer",
    "Reviewer",
    "tags.kind != 'audit' AND tags.kind != 'live' AND tags.kind != 'study'",
    {
        "tags.review": 84,
        "metrics.p_loss": 68,
        "metrics.exp_loss": 78,
        "metrics.net_month": 92,
        "metrics.week_value": 92,
        "metrics.vs_champ": 86,
        "metrics.champ_lcb": 86,
        "metrics.champ_ucb": 86,
        "metrics.n": 66,
        "metrics.ess": 66,
        "metrics.max_w": 72,
        "metrics.min_prop": 82,
    },
)
LIVE = View("live", "Live", "tags.kind = 'live'", {"metrics.n": 66, "metrics.ess": 66, "params.data_window": 330})
STUDY = View(
    "study",
    "Simulated",
    "tags.kind = 'study'",
    {"metrics.vs_none_pct": 100, "metrics.lift_pp": 76, "metrics.n": 76, "metrics.seeds": 66, "metrics.conv_pct": 82},
)
SEEDS = View("seeds", "By policy", "tags.kind = 'seed'", {"metrics.vs_none": 90, "metrics.lift_pp": 90})
VIEWS = (REVIEWER, LIVE, STUDY, SEEDS)
_OF_KIND = {"live": LIVE, "study": STUDY, "seed": SEEDS}


def view_of(kind: str) -> View:
    """The view that shows runs whose tag `kind` is this one."""
    return _OF_KIND.get(kind, REVIEWER)


def _without_user(uri: str) -> str:
    """Address without its user part, whose password a link would carry to whoever reads it."""
    return re.sub(r"(://)[^/?#]*@", r"\1", uri)


def link(uri: str, experiment: str, view: View = REVIEWER) -> str:
    """URL of an experiment with one of its seeded views. `experiment` is its id."""
    return f"{plain(uri, experiment)}&viewStateShareKey={view.key}"


def plain(uri: str, experiment: str) -> str:
    """URL of an experiment without a seeded view, for experiments that have none."""
    return f"{_without_user(uri).rstrip('/')}/#/experiments/{experiment}/runs?{_MODE}"


def run_link(uri: str, experiment: str, run: str) -> str:
    """URL of one run; `experiment` and `run` are ids."""
    return f"{_without_user(uri).rstrip('/')}/#/experiments/{experiment}/runs/{run}?{_MODE}"


def report_link(uri: str, experiment: str, run: str) -> str:
    """URL of a run's report, opened."""
    return f"{_without_user(uri).rstrip('/')}/#/experiments/{experiment}/runs/{run}/artifactPath/{REPORT}?{_MODE}"


def model_link(uri: str, model: str, version: str = "") -> str:
    """URL of the page of a registered model, or of one of its versions."""
    return f"{_without_user(uri).rstrip('/')}/#/models/{model}{f'/versions/{version}' if version else ''}?{_MODE}"


def money_column(currency: str, per: str) -> str:
    """Name of the tag that says what a run earns over no nudge: its column's head, so it holds the unit. `per`:
    decision or user.
    """
    return f"net {currency}/{per}"


def money(metrics: Mapping[str, float]) -> str:
    """Net gain over no nudge as the view's column says it, from a run's metrics: whether it is better, by how much, and
    its interval, "better +1.06 [0.36, 1.76]". "as no nudge, 0" of what is no nudge itself, "cannot say" where the run
    has no such metric.
    """
    for names in _MONEY:
        if names[0] in metrics:
            value, low, high = (metrics.get(name, float("nan")) for name in names)
            if value == low == high == 0.0:
                return "as no nudge, 0"
            return _cell(value, low, high) if isfinite(low) and isfinite(high) else f"{value:+.2g}, no interval"
    return "cannot say"


def _cell(value: float, low: float, high: float) -> str:
    """Two digits of the interval's half-width, fewer where the column is too narrow, but so many that nothing reads 0
    and is not; zeros before the point are left out if that is still too long.
    """
    word = "better" if low > 0 else "worse" if high < 0 else "unclear"
    thousand = max(abs(low), abs(high)) >= 1000.0
    shown = [number / 1000.0 if thousand else number for number in (value, low, high)]
    half = (shown[2] - shown[1]) / 2.0
    least = max((-floor(log10(2.0 * abs(number))) for number in shown if number), default=0)
    least = least if least <= _PLACES else 0  # next to nothing reads 0
    most = max(wording.places(half), least)
    texts = [_numbers(word, shown, digits, "k" if thousand else "") for digits in range(most, max(least, 0) - 1, -1)]
    shortest = re.sub(r"\b0\.", ".", texts[-1])
    return next((text for text in texts if len(text) <= _CELL), shortest)


def _numbers(word: str, shown: Sequence[float], digits: int, unit: str) -> str:
    value, low, high = (f"{round(number, digits) + 0.0:.{digits}f}{unit}" for number in shown)
    plus = "+" if shown[0] > 0 else ""
    return f"{word} {plus}{value} [{low}, {high}]"


def run_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """What a run shows of the tags of its version: gate and review in a word, and who approved it, as `reviewer`:
    "said to be ana" is short "ana (said)", and "MLflow user ana, for ben" is "ana".
    """
    shown = {key: _SHORT.get(tags[key], tags[key]) for key in ("gate", "review") if key in tags}
    return shown | ({"reviewer": _reviewer(tags["approved_by"])} if "approved_by" in tags else {})


def _reviewer(name: str) -> str:
    proven = next((prefix for prefix in wording.PROVEN if name.startswith(prefix)), None)
    if proven is None:
        return f"{name.removeprefix('said to be ')} (said)"
    return name.removeprefix(proven).partition(",")[0]


def tag(view: View, currency: str, per: str, lines: Mapping[str, Sequence[str]], now: int) -> tuple[str, str]:
    """Name and value of the experiment tag that holds the view. `lines`: {title: metric keys} of the charts with lines;
    `now`: milliseconds since 1970.
    """
    first = {} if view is SEEDS else {f"tags.{money_column(currency, per)}": 172, "tags.gate": 66, "tags.reviewer": 77}
    columns = {_quoted(name): width for name, width in (first | dict(view.more)).items()}
    state = {
        "selectedColumns": list(columns),
        "columnOrder": [_NAME, _CREATED, *columns, _DURATION],
        # 24 is the least that MLflow's grid takes: the column of times is always there, and needs the least room
        "columnWidths": {_NAME: 94, _CREATED: 24, **columns, _DURATION: 80},
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "searchFilter": view.where,
        **_charts(f"{currency}/{per}", lines),
        **_grouped(view),
    }
    packed = "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    body = {"name": view.name, "createdAt": now, "updatedAt": now, "state": packed}
    return TAG_PREFIX + view.key, json.dumps(body)


def _grouped(view: View) -> dict[str, Any]:
    """Runs of seeds stand together by policy."""
    if view is not SEEDS:
        return {}
    return {"groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": "policy"}]}}


def _quoted(column: str) -> str:
    kind, _, name = column.partition(".")
    return f"{kind}.`{name}`"


def _charts(unit: str, lines: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Sections of charts. MLflow gives a chart no title and no axis but its metric's name: the unit is in the name of
    its section, in the 26 characters that MLflow shows of it.
    """
    wanted = {
        f"vs no nudge, {unit}": [_bar(name) for name in ("net_gain", "net_low", "vs_none", "vs_none_lcb")],
        f"vs champion, {unit}": [_bar(name) for name in ("vs_champ", "champ_lcb")],
        **{title: [_line(key) for key in keys] for title, keys in lines.items()},
        "Decisions the log is worth": [_bar("ess"), _bar("n")],
        "Largest weight, a factor": [_bar("max_w")],
    }
    sections, charts = [], []
    for number, (name, cards) in enumerate(wanted.items()):
        section = f"section-{number}"
        shape = {"columns": 2 if len(cards) > 1 else 1, "cardHeight": 300}
        sections.append({"uuid": section, "name": name, "display": True, "isReordered": True, **shape})
        for card, given in enumerate(cards):
            common = {"uuid": f"{section}-{card}", "metricSectionId": section, "deleted": False, "isGenerated": False}
            charts.append({**common, "runsCountToCompare": 10, **given})
    kept = {"isAccordionReordered": True, "hideEmptyCharts": True}  # in this order; MLflow sorts by name otherwise
    return {"compareRunSections": sections, "compareRunCharts": charts, **kept}


def _bar(metric: str) -> dict[str, Any]:
    return {"type": "BAR", "metricKey": metric}


def _line(metric: str) -> dict[str, Any]:
    return {
        "type": "LINE",
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "range": {},
    }
