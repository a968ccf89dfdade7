"""The reviewer's views begin with money, fit beside MLflow's assistant, and say the same of every run. No server."""

import base64
import json
import re
import zlib
from typing import Any

import pytest

from experiments.mlflow import reviewer_view
from experiments.mlflow.reviewer_view import LIVE, REVIEWER, SEEDS, STUDY, View

ROOM = 506  # pixels for the table in a window of 1,024 with the assistant open, as a browser measured them
CHECKBOXES = 73


def state(view: View) -> dict[str, Any]:
    name, text = reviewer_view.tag(view, "EUR", "decision", {"Regret, EUR": ["regret EUR/policy"]}, 0)
    assert name == f"mlflow.sharedViewState.{view.key}"
    packed = base64.b64decode(json.loads(text)["state"].removeprefix("deflate;"))
    return dict(json.loads(zlib.decompress(packed)))


@pytest.mark.parametrize("view", [REVIEWER, LIVE, STUDY])
def test_money_gate_and_reviewer_are_the_first_columns_and_fit_beside_the_assistant(view: View) -> None:
    found = state(view)
    first = ["attributes.`Run Name`", "runDateAndNestInfo", "tags.`net EUR/decision`", "tags.`gate`", "tags.`reviewer`"]
    assert found["columnOrder"][:5] == first
    assert CHECKBOXES + sum(found["columnWidths"][column] for column in first) <= ROOM
    assert set(found["selectedColumns"]) == set(found["columnOrder"][2:-1])


def test_runs_of_seeds_stand_together_by_policy() -> None:
    assert state(SEEDS)["groupBy"]["groupByKeys"] == [{"mode": "param", "groupByData": "policy"}]


def test_money_against_no_nudge_is_the_first_chart_and_the_unit_is_in_the_name_of_its_section() -> None:
    found = state(REVIEWER)
    assert [chart["metricKey"] for chart in found["compareRunCharts"]][:2] == ["net_gain", "net_low"]
    names = [section["name"] for section in found["compareRunSections"]]
    assert names[:3] == ["vs no nudge, EUR/decision", "vs champion, EUR/decision", "Regret, EUR"]
    assert all(len(name) <= 26 for name in names)  # MLflow shows no more


@pytest.mark.parametrize(
    ("value", "low", "high", "said"),
    [
        (1.06, 0.36, 1.76, "better +1.06 [0.36, 1.76]"),
        (-0.048, -0.061, -0.035, "worse -0.05 [-0.06, -0.04]"),
        (-0.001, -0.004, 0.001, "unclear -.001 [-.004, .001]"),
        (-1.75, -8.48, 8.99, "unclear -1.8 [-8.5, 9.0]"),
        (1234.0, -2345.0, 3456.0, "unclear +1.2k [-2.3k, 3.5k]"),
        (0.0, 0.0, 0.0, "as no nudge, 0"),
        (-0.3, -1e-12, 0.2, "unclear -0.30 [0.00, 0.20]"),
    ],
)
def test_money_is_told_in_the_width_of_its_column_without_a_zero_that_is_none(
    value: float, low: float, high: float, said: str
) -> None:
    assert reviewer_view.money({"net_gain": value, "net_low": low, "net_high": high}) == said
    assert reviewer_view.money({"vs_none": value, "vs_none_lcb": low, "vs_none_ucb": high}) == said
    assert len(said) <= 27
    assert not re.search(r"-[0.]+[\],k ]", said)


def test_a_log_that_cannot_say_says_so() -> None:
    assert reviewer_view.money({"n": 4.0}) == "cannot say"
    assert reviewer_view.money({"vs_none": 0.5}) == "+0.5, no interval"


@pytest.mark.parametrize(
    ("by", "shown"),
    [("said to be ana", "ana (said)"), ("key ops", "ops"), ("MLflow user ana, for ben", "ana")],
)
def test_a_reviewer_whom_nothing_proves_is_marked(by: str, shown: str) -> None:
    assert reviewer_view.run_tags({"approved_by": by, "gate": "not distinguishable", "why": "x"}) == {
        "gate": "unclear",
        "reviewer": shown,
    }


def test_a_link_does_not_carry_the_password_of_the_address() -> None:
    uri = "http://ana:s3cret@mlflow:5000/"
    links = [
        reviewer_view.link(uri, "1"),
        reviewer_view.plain(uri, "1"),
        reviewer_view.run_link(uri, "1", "r"),
        reviewer_view.report_link(uri, "1", "r"),
        reviewer_view.model_link(uri, "shop-cart"),
    ]
    assert all(link.startswith("http://mlflow:5000/#/") for link in links), links
