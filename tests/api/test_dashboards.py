"""Grafana's dashboard and Prometheus' rules in docs/guides/deployment name what `/metrics` really has."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from litestar.testing import TestClient
from prometheus_client.parser import text_string_to_metric_families

from api.app import create_service
from api.settings import Settings
from api.stores.memory.store import MemoryStore

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "guides" / "deployment"
DASHBOARD = json.loads((FOLDER / "grafana.json").read_text(encoding="utf-8"))
RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

FUNCTIONS = set(
    "abs absent changes exp histogram_quantile increase ln max min rate sum time topk".split()  # noqa: SIM905
)
GROUPING = {"by", "on", "group_left"}
OPERATORS = {"and", "or", "unless", "offset"}
OF_PROMETHEUS = {"instance", "job"}  # labels that it adds
UNSHOWN = {  # details, for who looks for them
    "commit_rows",
    "event_properties_dropped_total",
    "people_erased_at_rest_total",
    "values_unusable_total",
}

TOKEN = re.compile(
    r'(?P<text>"[^"]*")|(?P<name>[a-zA-Z_:][\w:]*)|(?P<number>\d[\d.]*(?:e\d+)?[smhd]?)|(?P<sign>=~|[!=<>]=|\S)'
)


class Selector(NamedTuple):
    """A metric in an expression, with its matchers: label, operator, value."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...] = ()


class Expression(NamedTuple):
    """What an expression names: metrics, and the labels that it groups by."""

    selectors: list[Selector]
    grouped: set[str]


def read(text: str) -> Expression:
    """Names in an expression of PromQL. ValueError for what this knows not to be one: brackets that are not closed, a
    function that it does not know, matchers of nothing.
    """
    tokens = [(str(m.lastgroup), m.group()) for m in TOKEN.finditer(text)]
    found, grouped, open_, i = list[Selector](), set[str](), list[str](), 0
    while i < len(tokens):
        kind, word = tokens[i]
        following = tokens[i + 1][1] if i + 1 < len(tokens) else ""
        if kind == "name" and word in GROUPING:
            end = next(j for j in range(i, len(tokens)) if tokens[j][1] == ")")
            grouped |= {w for k, w in tokens[i + 1 : end] if k == "name"}
            i = end
        elif kind == "name" and following == "(":
            if word not in FUNCTIONS:
                raise ValueError(f"{word} is no function")
        elif kind == "name" and word not in OPERATORS | FUNCTIONS:
            matchers, i = _matchers(tokens, i + 1) if following == "{" else ((), i)
            found.append(Selector(word, matchers))
        elif word in "([":
            open_.append(word)
        elif word in ")]" and (not open_ or open_.pop() + word not in {"()", "[]"}):
            raise ValueError(f"{word} closes nothing")
        elif word in '{}"':
            raise ValueError(f"{word} stands alone")
        i += 1
    if open_ or not found:
        raise ValueError("not closed, or nothing selected")
    return Expression(found, grouped)


def _matchers(tokens: list[tuple[str, str]], start: int) -> tuple[tuple[tuple[str, str, str], ...], int]:
    """Matchers from the bracket at `start`, and where it closes."""
    end = next(j for j in range(start, len(tokens)) if tokens[j][1] == "}")
    inside = tokens[start + 1 : end]
    given = [(inside[j][1], inside[j + 1][1], inside[j + 2][1].strip('"')) for j in range(0, len(inside), 4)]
    if any(inside[j + 2][0] != "text" for j in range(0, len(inside), 4)):
        raise ValueError("a matcher without a text")
    return tuple(given), end


class Exposed(NamedTuple):
    """What `/metrics` has: labels by name of series, and the values that were seen of each label of each name."""

    labels: dict[str, set[str]]
    values: dict[tuple[str, str], set[str]]


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Exposed:
    """From a service that has decided and was told of outcomes, once each metric that it declares has a series. A
    webhook is `dead` by the tests of webhooks.
    """
    made = create_service(Settings(app="travel", store="memory://", dev=True, salt="s"), store=MemoryStore())
    with TestClient(made.app) as client:
        for n in range(40):
            reply = client.post("/v1/decisions", json={"stage": "cart", "user_id": f"user-{n}"})
            assert reply.status_code == 200, reply.text
            told = {"decision_id": reply.json()["decision_id"], "kind": "reward"}
            assert client.post("/v1/outcomes", json=told).status_code == 200
        client.post("/v1/outcomes", json=told | {"decision_id": "01890a5d-ac96-774b-bcce-b302099a8057"})
        for collector in vars(made.metrics).values():
            if names := getattr(collector, "_labelnames", ()):
                collector.labels(*["(any)"] * len(names))
        made.metrics.webhooks.labels("crm", "dead")
        text = client.get("/metrics").text
    assert "user-" not in text
    labels, values = dict[str, set[str]](), dict[tuple[str, str], set[str]]()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
            for label, value in sample.labels.items():
                values.setdefault((sample.name, label), set()).add(value)
    return Exposed(labels, values)


def wrong(text: str, exposed: Exposed, told: str = "") -> list[str]:
    """What an expression, and words with placeholders that are said of its result, name and the service has not."""
    expression = read(text)
    known = {"up": set[str](), **exposed.labels}
    mine = [f"{s.metric} is no metric" for s in expression.selectors if s.metric not in known]
    everything = OF_PROMETHEUS.union(*(known.get(s.metric, set()) for s in expression.selectors))
    for metric, matchers in expression.selectors:
        for label, operator, value in matchers:
            if label not in known.get(metric, set()) | OF_PROMETHEUS:
                mine.append(f"{metric} has no label {label}")
            elif operator == "=" and label not in OF_PROMETHEUS and value not in exposed.values[metric, label]:
                mine.append(f"{label} of {metric} is never {value}")
    mine += [f"nothing has a label {label} to group by" for label in sorted(expression.grouped - everything)]
    kept = expression.grouped if re.search(r"\b(sum|max|min)\b", text) else everything
    placeholders = set(re.findall(r"\{\{\s*(?:\$labels\.)?([a-z]\w*)\s*\}\}", told))
    return mine + [f"the result has no label {label}" for label in sorted(placeholders - kept)]


def plain(text: str) -> str:
    """An expression of the dashboard with its variables put in."""
    declared = {one["name"] for one in DASHBOARD["templating"]["list"]} | {"__rate_interval"}
    assert set(re.findall(r"\$(\w+)", text)) <= declared
    return text.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$stage", ".*")


def targets() -> Iterator[tuple[str, str]]:
    yield from ((target["expr"], target["legendFormat"]) for panel in PANELS for target in panel["targets"])


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_asks_for_metrics_and_labels_that_the_service_has(panel: dict[str, Any], exposed: Exposed) -> None:
    assert panel["targets"]
    for target in panel["targets"]:
        assert wrong(plain(target["expr"]), exposed, target["legendFormat"]) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_asks_for_metrics_and_labels_that_the_service_has(rule: dict[str, Any], exposed: Exposed) -> None:
    assert rule.keys() - {"for"} == {"alert", "expr", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"page", "ticket"}
    summary, action = rule["annotations"]["summary"], rule["annotations"]["action"]
    assert len(summary) > 15 < len(action)
    assert wrong(rule["expr"], exposed, summary + action) == []


@pytest.mark.parametrize(
    ("text", "told", "problem"),
    [
        ("rate(journey_bandit_decisons_total[5m])", "", "journey_bandit_decisons_total is no metric"),
        ("journey_bandit_decisions", "", "journey_bandit_decisions is no metric"),
        ('journey_bandit_queue_rows{stage="cart"}', "", "journey_bandit_queue_rows has no label stage"),
        ("sum by (nudge) (journey_bandit_decisions_total)", "", "nothing has a label nudge to group by"),
        ('journey_bandit_decisions_total{holdout="no"}', "", "holdout of journey_bandit_decisions_total is never no"),
        ("sum(journey_bandit_decisions_total)", "{{stage}}", "the result has no label stage"),
        ("journey_bandit_queue_rows", "{{ $labels.stage }}: it waits", "the result has no label stage"),
    ],
)
def test_a_wrong_name_is_found(text: str, told: str, problem: str, exposed: Exposed) -> None:
    assert wrong(text, exposed, told) == [problem]


@pytest.mark.parametrize(
    "text", ["rates(x[5m])", "sum(x", "x)", "x[5m)", 'x{a="b"', "x{a=b}", "1 + 2", "", "by (a) {b}", '{a="b"}']
)
def test_what_is_no_expression_is_found(text: str) -> None:
    with pytest.raises((ValueError, StopIteration)):
        read(text)


def test_every_metric_is_shown_or_left_out_on_purpose(exposed: Exposed) -> None:
    asked = [plain(text) for text, _ in targets()] + [str(rule["expr"]) for rule in RULES]
    asked += [one["definition"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]
    named = set(re.findall(r"journey_bandit_\w+", " ".join(asked)))
    base = {re.sub(r"_(bucket|count|sum)$", "", name) for name in named}
    there = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in exposed.labels}
    there -= {name for name in there if f"{name}_total" in there}
    assert there - base == {f"journey_bandit_{name}" for name in UNSHOWN}


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    """What its schema demands of panels, and what people need: a title, a unit, and what to do."""
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids)) > 30
    assert DASHBOARD.keys() >= {"title", "uid", "schemaVersion", "panels", "templating", "time"}
    titles = [panel["title"] for panel in DASHBOARD["panels"]]
    assert len(titles) == len(set(titles))
    for panel in PANELS:
        assert panel["type"] in {"timeseries", "stat"}
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in {"short", "reqps", "percentunit", "s", "bytes"}
        assert panel["description"].endswith("."), panel["title"]
        assert len(panel["description"]) > 40
        refs = [target["refId"] for target in panel["targets"]]
        assert len(refs) == len(set(refs))
    assert overlaps(panel["gridPos"] for panel in DASHBOARD["panels"]) == []
    variables = [one["name"] for one in DASHBOARD["templating"]["list"]]
    assert variables == ["datasource", "instance", "stage"]


def overlaps(places: Iterable[dict[str, int]]) -> list[tuple[int, int]]:
    """Cells of the grid, 24 wide, that two panels claim, or that are beyond it."""
    taken, twice = set[tuple[int, int]](), list[tuple[int, int]]()
    for place in places:
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        twice += [cell for cell in cells if cell in taken or cell[0] >= 24]
        taken |= cells
    return sorted(twice)


def test_names_of_rules_are_unique_and_each_variable_of_the_dashboard_exists(exposed: Exposed) -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names)) > 20
    for one in DASHBOARD["templating"]["list"]:
        if one["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", one["definition"]).groups()  # type: ignore[union-attr]
            assert label in exposed.labels[metric] | OF_PROMETHEUS


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool of Prometheus is not installed")
def test_prometheus_takes_rules_and_expressions_and_fires_when_it_should(tmp_path: Path) -> None:
    asked = [{"record": f"panel:{i}", "expr": plain(text)} for i, (text, _) in enumerate(targets())]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": asked}]}))
    for words in (
        ["check", "rules", str(FOLDER / "alerts.yaml"), str(tmp_path / "panels.yaml")],
        ["test", "rules", str(ROOT / "tests" / "data" / "alerts.yaml")],
    ):
        done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
