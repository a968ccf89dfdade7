"""What a reviewer sees in MLflow as it opens: a new profile, its assistant open, at 1,440 and at 1,024 pixels. Nothing
is scrolled or configured, and every answer is three clicks away at most.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from mlflow.tracking import MlflowClient

from api.server import free_port
from api.stores import open_store
from experiments.mlflow import reviewer_view
from experiments.mlflow.registry import Registry
from journey_bandit import mlflow_server, processes
from journey_bandit.registry.ui import links, models
from journey_bandit.workflows import publishing
from journey_bandit.workflows.publishing import PublishRequest
from tests.registry.conftest import HOST, MODEL, STAGE, Shop
from tests.waiting import COMMAND_PATIENCE, PATIENCE, eventually

pytestmark = pytest.mark.filterwarnings("ignore::Warning:mlflow", "ignore::DeprecationWarning", "ignore::FutureWarning")

WIDTHS = (1440, 1024)
HEIGHT = 900
WIDE = 2400  # all columns of the view side by side: MLflow draws those only that are in the window
MONEY = "tags.`net EUR/decision`"
FIRST = (MONEY, "tags.`gate`", "tags.`reviewer`")

PLACES = """columns => [...document.querySelectorAll('.ag-header-cell, .ag-row .ag-cell')].flatMap(cell => {
    const column = cell.getAttribute('col-id');
    if (!columns.includes(column)) return [];
    const nodes = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT), texts = [];
    while (nodes.nextNode()) {
        const range = document.createRange();
        range.selectNode(nodes.currentNode);
        texts.push(range.getBoundingClientRect().right);
    }
    const [box, grid] = [cell.getBoundingClientRect(), cell.closest('.ag-root').getBoundingClientRect()];
    return [{column, text: cell.innerText.trim(), left: box.left, right: box.right, bottom: box.bottom,
             words: Math.max(...texts), end: Math.min(grid.right, innerWidth), height: innerHeight}];
})"""
"""Of each head and cell of some columns: its text, its place, where the text ends if nothing cuts it, where the table
ends.
"""


HEADS = """() => [...document.querySelectorAll('.ag-header-cell')]
    .sort((a, b) => a.getBoundingClientRect().left - b.getBoundingClientRect().left).map(head => head.innerText)"""
"""Texts of the heads of columns, from left to right: in the page's source they stand in the order of their drawing."""


class Served(NamedTuple):
    """MLflow on the folder of a demonstration, to which a shop has published."""

    url: str
    client: MlflowClient

    def link(self, name: str) -> str:
        """The link that `journey-bandit ui` prints beside this name."""
        return dict([*links(self.url), *((f"model {name}", link) for name, link in models(self.url))])[name]


@pytest.fixture(scope="module")
def served(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The smallest demonstration; then two versions of another policy of the same stage, one of them approved by ana,
    and how it did while it decided.
    """
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "journey_bandit", "demo", "--folder", str(folder)]
    subprocess.run(
        [*command, "--users", "200", "--customers", "300"], check=True, timeout=COMMAND_PATIENCE, capture_output=True
    )
    port = free_port(HOST)
    url, log = f"http://{HOST}:{port}", folder / "mlflow" / "server.log"
    with processes.stopping(server := mlflow_server.start(folder / "mlflow", HOST, port)):
        processes.wait(server, f"{url}/health", log)
        mine = shop._replace(mlflow=url)
        for policy in ("linear:alpha=0.5", "uniform"):
            mine.ok("publish", STAGE, "--store", shop.store, "--policy", policy)
        approved = ("promote", "travel", STAGE, "1", "--who", "ana", "--why", "test", "--override", "test")
        mine.ok(*approved)
        store = open_store(shop.store, read_only=True)
        until = store.last().decision
        store.close()
        snapshot = Registry(url).snapshot(MODEL, "1")
        publishing.publish(url, PublishRequest(shop.store, STAGE, snapshot, "live", at=10**15, until=until, release=0))
        yield Served(url, MlflowClient(url, url))


class Reviewer:
    """Somebody with a new profile who opens a link, and counts clicks."""

    def __init__(self, browser: Any, width: int, link: str) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": HEIGHT})
        self.page = self.context.new_page()
        self.page.set_default_timeout(1000 * PATIENCE)
        self.hosts: set[str] = set()
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        self.page.goto(link, wait_until="load")
        self.page.get_by_text("MLflow Assistant").wait_for()
        self.clicks = 0

    def places(self, columns: tuple[str, ...]) -> list[dict[str, Any]]:
        """Heads and cells of these columns: their texts, where they are, where their table ends."""
        for column in columns:
            self.page.locator(f'.ag-row .ag-cell[col-id="{column}"]').first.wait_for(state="attached")
        found: list[dict[str, Any]] = self.page.evaluate(PLACES, list(columns))
        return found

    def heads(self) -> list[str]:
        """Texts of the heads from left to right, after those of the run's name and its time, without the duration's."""
        return [str(text) for text in self.page.evaluate(HEADS)][3:-1]

    def click(self, what: Any) -> None:
        """One more click."""
        what.click()
        self.clicks += 1


@pytest.fixture(params=WIDTHS)
def width(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def opened(browser: Any, width: int) -> Iterator[Any]:
    """opened(link): a reviewer at this width, whose pages asked one server only."""
    made: list[Reviewer] = []

    def open_(link: str) -> Reviewer:
        made.append(Reviewer(browser, width, link))
        return made[-1]

    yield open_
    for reviewer in made:
        assert len(reviewer.hosts) == 1, reviewer.hosts
        reviewer.context.close()


@pytest.mark.parametrize("name", ["travel-cart", "hillstrom-retention"])
def test_verdict_money_gate_and_reviewer_are_on_the_first_screen_uncut(served: Served, opened: Any, name: str) -> None:
    money = MONEY if name == "travel-cart" else "tags.`net USD/decision`"
    places = opened(served.link(name)).places((money, *FIRST[1:]))
    shown: dict[str, list[str]] = {}
    for place in places:
        assert place["left"] >= 0, place
        assert place["right"] <= place["end"] + 0.5, place
        assert place["words"] <= place["right"], place
        assert place["bottom"] <= place["height"], place
        shown.setdefault(place["column"], []).append(place["text"])
    assert {column: texts[0] for column, texts in shown.items()} == {
        column: column.split("`")[1] for column in (money, *FIRST[1:])
    }
    assert all(re.match(r"(better|worse|unclear|cannot say)\b", text) for text in shown[money][1:])
    assert any("[" in text for text in shown[money][1:])
    if name == "travel-cart":
        assert shown["tags.`reviewer`"][1:] == ["waiting", "ana (said)", "–"]  # newest first, the demonstration last
        assert set(shown["tags.`gate`"][1:]) <= {"promote", "hold", "reject", "unclear", "–"}


def test_each_column_of_the_view_has_its_head_in_a_wide_window(served: Served, browser: Any) -> None:
    """Each MLflow still reads the views that are written for it; what a narrow window hides is there in a wide one.
    MLflow leaves out metrics that no run has.
    """
    found = served.client.get_experiment_by_name(MODEL)
    assert found is not None
    runs = served.client.search_runs([found.experiment_id], reviewer_view.REVIEWER.where)
    measured = {f"metrics.{name}" for run in runs for name in run.data.metrics}
    wanted = [name for name in reviewer_view.REVIEWER.more if name in measured or name.startswith("tags.")]
    assert {"tags.review", "metrics.p_loss", "metrics.exp_loss", "metrics.n", "metrics.ess"} <= set(wanted)
    reviewer = Reviewer(browser, WIDE, served.link(MODEL))
    reviewer.places((*FIRST, *(f"{kind}.`{name}`" for kind, name in (one.split(".", 1) for one in wanted))))
    names = [*(one.split("`")[1] for one in FIRST), *(one.split(".", 1)[1] for one in wanted)]
    eventually(lambda: reviewer.heads() == names)  # heads are drawn after their cells
    assert reviewer.heads() == names
    assert reviewer.page.get_by_text("Request error").count() == 0
    reviewer.context.close()


def test_each_of_fifteen_answers_is_one_click_away_and_its_drawing_two(served: Served, opened: Any) -> None:
    reviewer = opened(served.link(MODEL))
    reviewer.click(reviewer.page.get_by_role("link", name="v1 linear"))
    answers = reviewer.page.locator("ol > li")
    answers.nth(14).wait_for(state="attached")
    texts = answers.all_text_contents()
    assert len(texts) == 15
    assert all(re.match(r".+\?\s+\w", text, re.DOTALL) for text in texts), texts
    for number, words in {
        1: "linear",
        2: "EUR per decision",
        4: "decisions whose reward is known",
        9: "floor is",
        11: "sha256",
        12: "Gate: ",
        13: "belief",
        14: "As of ",
        15: "journey-bandit rollback travel cart",
    }.items():
        assert words in texts[number - 1], (number, texts[number - 1])
    with reviewer.context.expect_page() as beside:
        reviewer.click(reviewer.page.get_by_role("link", name="Report with drawings and tables"))
    report = beside.value.frame_locator("iframe")
    report.locator("#q15").wait_for()
    assert report.locator("ol.answers > li").count() == 15
    assert report.locator("svg").count() >= 5
    assert reviewer.clicks == 2


def test_what_is_live_and_how_to_go_back_is_on_the_first_screen_of_the_model(served: Served, opened: Any) -> None:
    page = opened(served.link(f"model {MODEL}")).page
    for said in (re.compile("Live as of .*version 1"), re.compile("journey-bandit rollback travel cart")):
        page.get_by_text(said).first.wait_for()
        box = page.get_by_text(said).first.bounding_box()
        assert box["y"] + box["height"] <= HEIGHT


def test_charts_name_their_unit_and_stand_in_the_order_of_the_questions(served: Served, opened: Any) -> None:
    reviewer = opened(f"{served.link(MODEL)}&compareRunsMode=CHART")
    names = ["vs no nudge, EUR/decision", "vs champion, EUR/decision"]
    heads = [reviewer.page.get_by_text(name, exact=True).first for name in names]
    for head in heads:
        head.wait_for()
    tops = [head.bounding_box()["y"] for head in heads]
    assert tops == sorted(tops)
    assert tops[0] < HEIGHT


def test_no_policy_is_listed_twice(served: Served) -> None:
    """Neither as a run of the view, nor as a model; the live run is called what its version is called."""
    found = served.client.get_experiment_by_name(MODEL)
    assert found is not None
    experiment = found.experiment_id
    runs = served.client.search_runs([experiment], reviewer_view.REVIEWER.where)
    names = [run.info.run_name for run in runs]
    assert sorted(names) == ["centred", "v1 linear", "v2 uniform"]
    (live,) = served.client.search_runs([experiment], reviewer_view.LIVE.where)
    assert (live.info.run_name, live.data.tags["reviewer"]) == ("v1 linear live", "ana (said)")
    logged = served.client.search_logged_models([experiment])
    assert len(logged) == len({model.name for model in logged}) == 2


def test_names_and_tags_of_runs_are_short(served: Served) -> None:
    for experiment in served.client.search_experiments():
        for run in served.client.search_runs([experiment.experiment_id]):
            shown = {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")}
            assert len(run.info.run_name) <= 24
            assert {key: value for key, value in shown.items() if len(key) > 16 or len(value) > 40} == {}


def test_no_line_is_constant_and_each_names_its_unit(served: Served) -> None:
    known = re.compile(r"(share|propensity)/|.* (EUR|USD|pct)( per \w+| of \w+)?/")
    for experiment in served.client.search_experiments():
        for run in served.client.search_runs([experiment.experiment_id], "tags.kind != 'audit'"):
            lines = [key for key in run.data.metrics if "/" in key]
            assert lines
            for key in lines:
                points = served.client.get_metric_history(run.info.run_id, key)
                assert len({point.value for point in points}) > 1, (run.info.run_name, key)
                assert known.match(key), key
