"""Reviewer's view of an experiment: columns, order, filter and charts, as MLflow keeps a shared view; and links to
MLflow's pages. Pure.

Shared views are a feature of MLflow's pages since 3.15; writing one as a tag is not documented. A plain link shows the
same runs, with columns to choose by hand.
"""

import base64
import json
import zlib
from typing import Any

KEY = "reviewer"
TAG = f"mlflow.sharedViewState.{KEY}"
COLUMNS = (
    *("tags.kind", "tags.gate", "tags.review"),
    # money against no nudge first, in the app's currency per decision; vs_none: per user of a simulated run
    *("metrics.net_none", "metrics.net_none_lcb", "metrics.net_none_ucb", "metrics.vs_champ", "metrics.vs_none"),
)
"""Few enough for one screen. MLflow sorts metrics by name whatever their order here: nothing that comes before
`net_none` may be one. The charts show the rest."""
_BETTER = ("net_none", "net_none_lcb", "vs_champ", "champ_lcb", "lift_pp", "lift_lcb")  # money, then points
_MODE = "workflowType=machine_learning"  # without it MLflow opens a page that hides metrics


def link(uri: str, experiment: str) -> str:
    """URL of an experiment with the seeded reviewer's view. `experiment` is its id."""
    return f"{uri.rstrip('/')}/#/experiments/{experiment}/runs?{_MODE}&viewStateShareKey={KEY}"


def plain(uri: str, experiment: str) -> str:
    """URL of an experiment without the seeded view, for servers that do not know it."""
    return f"{uri.rstrip('/')}/#/experiments/{experiment}/runs?{_MODE}"


def run_link(uri: str, experiment: str, run: str) -> str:
    """URL of one run; `experiment` and `run` are ids."""
    return f"{uri.rstrip('/')}/#/experiments/{experiment}/runs/{run}?{_MODE}"


def model_link(uri: str, model: str, version: str = "") -> str:
    """URL of the page of a registered model, or of one of its versions."""
    return f"{uri.rstrip('/')}/#/models/{model}{f'/versions/{version}' if version else ''}?{_MODE}"


def tag(arms: tuple[str, ...], now: int) -> str:
    """Value of the experiment tag `TAG` that holds the view, with one chart line for each arm's share. `now`:
    milliseconds since 1970.
    """
    state = {
        "selectedColumns": [_quoted(column) for column in COLUMNS],
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "searchFilter": "tags.kind != 'audit'",
        **_charts(arms),
    }
    packed = "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    return json.dumps({"name": "Reviewer", "createdAt": now, "updatedAt": now, "state": packed})


def _quoted(column: str) -> str:
    kind, _, name = column.partition(".")
    return f"{kind}.`{name}`"


def _charts(arms: tuple[str, ...]) -> dict[str, Any]:
    wanted = {
        "Is it better, net of costs, and how sure?": [_bar(name) for name in _BETTER],
        "Can the numbers be trusted?": [_bar("ess"), _bar("max_w"), _bar("n")],
        "What does it do?": [_lines([f"share/{arm}" for arm in arms]), _lines(["propensity/min"])],
        "How did it learn?": [_lines(["regret/policy", "regret/what_was_shown", "regret/no_nudge"])],
    }
    sections, charts = [], []
    for number, (name, cards) in enumerate(wanted.items()):
        section = f"section-{number}"
        sections.append({"uuid": section, "name": name, "display": True, "isReordered": True})
        for card, given in enumerate(cards):
            common = {"uuid": f"{section}-{card}", "metricSectionId": section, "deleted": False, "isGenerated": False}
            charts.append({**common, "runsCountToCompare": 10, **given})
    return {"compareRunSections": sections, "compareRunCharts": charts}


def _bar(metric: str) -> dict[str, Any]:
    return {"type": "BAR", "metricKey": metric, "displayName": metric}


def _lines(metrics: list[str]) -> dict[str, Any]:
    return {
        "type": "LINE",
        "metricKey": metrics[0],
        "selectedMetricKeys": metrics,
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "range": {},
    }
