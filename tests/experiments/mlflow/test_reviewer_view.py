"""The reviewer's view begins with money, also where MLflow sorts columns by name. No server: the tag only."""

import base64
import json
import zlib
from typing import Any

from experiments.mlflow import reviewer_view


def state() -> dict[str, Any]:
    body = json.loads(reviewer_view.tag(("none", "reminder"), 0))
    packed = base64.b64decode(body["state"].removeprefix("deflate;"))
    return dict(json.loads(zlib.decompress(packed)))


def test_money_against_no_nudge_is_the_first_metric_of_the_view_as_given_and_as_mlflow_sorts_it() -> None:
    metrics = [column for column in state()["selectedColumns"] if column.startswith("metrics.")]
    wanted = ["metrics.`net_none`", "metrics.`net_none_lcb`", "metrics.`net_none_ucb`"]
    assert metrics[:3] == wanted
    assert sorted(column.replace("`", "") for column in metrics)[:3] == [name.replace("`", "") for name in wanted]


def test_money_against_no_nudge_is_the_first_chart() -> None:
    charts = state()["compareRunCharts"]
    keys = [chart["metricKey"] for chart in charts]
    assert keys[:2] == ["net_none", "net_none_lcb"]
    assert keys.index("lift_pp") > keys.index("vs_champ")
