"""The example apps of `journey-bandit try`, clicked through in a browser: from the first page to what was learned."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from api.server import free_port
from journey_bandit import processes
from journey_bandit.demos.example_apps.app_specs import APPS, BY_NAME
from journey_bandit.demos.example_apps.example_catalogues import write_catalogue
from journey_bandit.demos.example_apps.story_people import StoryPeople
from tests.waiting import PATIENCE, eventually

pytest.importorskip("playwright.sync_api", reason="no playwright: tests of pages are skipped; pip install playwright")
from playwright.sync_api import expect

from tests.pages.example_stories import STORIES, Trial

AXE = Path(__file__).parents[1] / "clients" / "node_modules" / "axe-core" / "axe.min.js"
WATCH = """document.addEventListener('securitypolicyviolation', (e) =>
  console.error(`policy violated: ${e.violatedDirective} ${e.blockedURI}`))"""
EVENTS = re.compile("/v1/browser/events$")
PAGES = {
    "fashion": ("", "p/coat-aalto", "cart", "returns"),
    "travel": ("", "flights", "offer", "checkout"),
    "subscription": ("", "checkout", "checkout/trial", "checkout/card", "welcome"),
    "fintech": ("", "away", "done"),
    "gaming": ("", "shop"),
}


class RunningTrial(NamedTuple):
    """`journey-bandit try`, as a person starts it."""

    url: str
    process: subprocess.Popen[bytes]
    services: dict[str, str]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTrial]:
    port, log = free_port("127.0.0.1"), tmp_path_factory.mktemp("try") / "try.log"
    with log.open("ab") as file:
        command = [sys.executable, "-m", "journey_bandit", "try", "--port", str(port)]
        started = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    with processes.stopping(started):
        url = f"http://127.0.0.1:{port}"
        processes.wait(started, url, log)
        assert eventually(lambda: f"{url}/\n" in log.read_text())
        services = {app.name: httpx.get(f"{url}/panel/{app.name}/app").json()["service"] for app in APPS}
        yield RunningTrial(url, started, services)


@pytest.fixture
def beside(browser: Any, running: RunningTrial) -> Iterator[Callable[..., Trial]]:
    """beside(app): the app with the panel. At the end: no errors, no violations, no other host was asked."""
    contexts, errors, trials = [], list[str](), list[Trial]()

    def visit(name: str, width: int = 1440, clock: bool = False) -> Trial:
        context = browser.new_context(viewport={"width": width, "height": 900}, reduced_motion="reduce")
        contexts.append(context)
        context.set_default_timeout(PATIENCE * 1000)
        context.add_init_script(WATCH)
        page = context.new_page()
        if clock:
            page.clock.install()
        page.on("console", lambda told: errors.append(told.text) if told.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        trials.append(Trial(page, running.url, name))
        return trials[-1]

    expect.set_options(timeout=PATIENCE * 1000)
    yield visit
    for trial in trials:
        hosts = {re.sub(r"^(\w+://[^/]*).*", r"\1", url) for url in trial.sent}
        assert hosts <= {running.url, running.services[trial.name]}
    told = list(errors)
    for context in contexts:
        context.close()
    assert told == []


def receipt(running: RunningTrial, trial: Trial, place: int = 0) -> Any:
    """Receipt of the decision at a moment, from the app's service."""
    url = f"{running.services[trial.name]}/v1/decisions/{trial.made[place]['decision_id']}"
    return httpx.get(url).raise_for_status().json()


def kinds(found: Any) -> list[str]:
    return [one["kind"] for one in found["outcomes"]]


def taught(running: RunningTrial, name: str) -> dict[str, Any]:
    """What each arm of the story's stage has taught."""
    reply = httpx.get(f"{running.services[name]}/v1/policies", params={"wait": True}).raise_for_status().json()
    (policy,) = [one for one in reply["policies"] if one["stage"] == BY_NAME[name].stage]
    return {one["arm"]: one for one in policy["arms"]}


@pytest.mark.parametrize("name", STORIES)
def test_a_nudge_is_seen_rewarded_and_learned_and_changes_the_next_visit(
    name: str, running: RunningTrial, beside: Callable[..., Trial]
) -> None:
    story, trial = STORIES[name], beside(name, clock=True)
    trial.open(story.person)
    story.before(trial)
    assert trial.made == []
    trial.page.clock.pause_at(trial.page.evaluate("Date.now()") + 1000 * PATIENCE)  # never a time that is over by then
    story.moment(trial)
    expect(trial.nudge).to_be_attached()
    (made,) = trial.wait_made(1)
    assert made["nudge"]["id"] == story.nudge, f"{story.person} is not shown it: mend the context in app_specs.py"
    trial.page.clock.run_for(950)
    assert kinds(receipt(running, trial)) == []
    trial.page.clock.run_for(100)
    trial.page.clock.resume()  # what is sent may wait for others that are being sent
    assert eventually(lambda: kinds(receipt(running, trial)) == ["activation"])
    story.reward(trial)
    assert eventually(lambda: kinds(receipt(running, trial)) == ["activation", "reward"])
    before = taught(running, name)
    trial.known({"subscription": "The trial ends"}.get(name, "Look at"))
    trial.page.locator(".guide .next", has_text="The window ends").get_by_role("button").click()
    trial.known("The window ends")
    after, settled = taught(running, name), receipt(running, trial)["settled"]
    assert (settled["reward"], settled["learned"]) == (1.0, True)
    assert after[story.nudge]["learned"] == before[story.nudge]["learned"] + 1
    expect(trial.page.get_by_role("row", name=story.nudge)).to_contain_text("0 → 1")
    story.again(trial)
    trial.wait_made(2)
    was, now = (receipt(running, trial, place)["arms"] for place in (0, 1))
    both = [arm for arm in was if was[arm]["propensity"] and now.get(arm, {}).get("propensity")]
    assert any(abs(was[arm]["propensity"] - now[arm]["propensity"]) > 1e-3 for arm in both)


def test_nothing_is_shown_where_the_card_is_entered(running: RunningTrial, beside: Callable[..., Trial]) -> None:
    """The moment holds there, too; the page asks, and is answered."""
    trial = beside("subscription")
    trial.open("eva")
    trial.click("button", "Choose monthly")
    trial.known("Choose the monthly plan")
    trial.click("link", "Continue")
    trial.see("Your card")
    asked = len(trial.decisions)
    trial.pass_time("Hesitate")
    assert eventually(lambda: trial.page.wait_for_timeout(20) or len(trial.decisions) > asked)
    assert trial.decisions[-1]["nudge"]["id"] == "none"
    assert trial.made == []
    expect(trial.nudge).not_to_be_attached()
    person = trial.page.get_by_text(re.compile(r"^eva-\d+$")).inner_text()
    journey = httpx.get(f"{running.services['subscription']}/v1/users/{person}/journey").json()
    assert journey["moment"] == "hesitates"


def test_a_click_is_not_lost_when_an_answer_comes_between_press_and_release(beside: Callable[..., Trial]) -> None:
    trial = beside("subscription")
    trial.open("eva")
    trial.see("Keep playing")
    clock = trial.page.get_by_role("heading", name="in the service")
    before = clock.inner_text()
    trial.page.get_by_role("button", name="8 days").hover()
    trial.page.mouse.down()
    with trial.page.expect_response(re.compile("/panel/subscription/state")) as answered:
        trial.page.evaluate("journeyPanel.onChange({ type: 'shown', decision: { decision_id: '' } })")
    answered.value.finished()
    trial.page.wait_for_timeout(50)  # the panel has drawn, if it ever would
    trial.page.mouse.up()
    expect(clock).not_to_have_text(before)


def test_the_panel_shows_a_slow_answer_though_there_was_news_since(
    running: RunningTrial, beside: Callable[..., Trial]
) -> None:
    """Questions go one at a time, and each answer is shown: news that keeps coming does not leave the panel behind."""
    trial, held = beside("subscription"), list[Any]()

    def hold(route: Any) -> None:
        held.append(route)

    trial.open("eva")
    trial.see("Keep playing")
    trial.page.wait_for_load_state("networkidle")
    trial.page.route(re.compile("/panel/subscription/state"), hold)
    clock = trial.page.get_by_role("heading", name="in the service")
    before = clock.inner_text()
    httpx.post(f"{running.services['subscription']}/v1/clock", json={"microseconds": 86_400_000_000}).raise_for_status()
    news = "journeyPanel.onChange({ type: 'shown', decision: { decision_id: '' } })"
    trial.page.evaluate(news)
    assert eventually(lambda: trial.page.wait_for_timeout(20) or held)
    for _ in range(3):
        trial.page.evaluate(news)
    trial.page.wait_for_timeout(50)  # more would have been asked by now, if they ever were
    assert len(held) == 1
    held[0].continue_()
    expect(clock).not_to_have_text(before)
    assert eventually(lambda: trial.page.wait_for_timeout(20) or len(held) > 1)
    held[1].continue_()


def test_an_action_waits_for_what_the_page_told_before(running: RunningTrial, beside: Callable[..., Trial]) -> None:
    """Whoever chose a flight is at its cart, also if the search before was slow to arrive."""
    trial = beside("travel")
    held = trial.hold_first(EVENTS)
    trial.open("dev")
    trial.click("button", "Search")
    trial.click("button", "Choose 06:40")
    assert eventually(lambda: trial.page.wait_for_timeout(20) or held)
    trial.page.wait_for_timeout(50)  # it would have been chosen by now
    assert not trial.asked("/travel/api/choose")
    held[0].continue_()
    trial.see("Your flight to Lisbon")
    person = trial.page.get_by_text(re.compile(r"^dev-\d+$")).inner_text()
    journey = httpx.get(f"{running.services['travel']}/v1/users/{person}/journey").raise_for_status().json()
    assert (journey["stage"], set(journey["events"])) == ("cart", {"searched", "offer_chosen"})


def test_time_waits_for_what_the_page_told_before(beside: Callable[..., Trial]) -> None:
    """An event that arrived after hours had passed would have happened after them."""
    trial = beside("fintech")
    held = trial.hold_first(EVENTS)
    trial.open("ada")
    assert eventually(lambda: trial.page.wait_for_timeout(20) or held)
    trial.page.get_by_role("button", name="3 h", exact=True).click()
    trial.page.wait_for_timeout(50)  # they would have passed by now
    assert not trial.asked("/panel/fintech/clock")
    held[0].continue_()
    assert eventually(lambda: trial.page.wait_for_timeout(20) or trial.asked("/panel/fintech/clock"))


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [320, 1440])
def test_pages_fit_their_screen(name: str, width: int, running: RunningTrial, beside: Callable[..., Trial]) -> None:
    trial = beside(name, width)
    trial.open()
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert trial.page.evaluate(wide) == 0
    for path in PAGES[name]:
        trial.page.goto(f"{running.url}/{name}/{path}", wait_until="load")
        expect(trial.page.locator("main h1").first).to_be_visible()
        assert trial.page.evaluate(wide) == 0, path
    trial.page.goto(running.url, wait_until="load")
    assert trial.page.evaluate(wide) == 0


@pytest.mark.parametrize("name", PAGES)
def test_pages_have_no_serious_finding_of_axe(name: str, running: RunningTrial, beside: Callable[..., Trial]) -> None:
    if not AXE.is_file():
        pytest.skip("no axe-core: `make clients` installs it")
    trial, script = beside(name), AXE.read_text(encoding="utf-8")
    trial.open()
    found = _axe(trial.page, script)
    for path in (*(f"{name}/{path}" for path in PAGES[name]), ""):
        trial.page.goto(f"{running.url}/{path}", wait_until="load")
        expect(trial.page.locator("main h1").first).to_be_visible()
        found += _axe(trial.page, script)
    assert found == []


def _axe(page: Any, script: str) -> list[str]:
    page.evaluate(script)
    result = page.evaluate("axe.run(document, { resultTypes: ['violations'], iframes: false })")
    serious = [one for one in result["violations"] if one["impact"] in ("serious", "critical")]
    return [f"{page.url} {one['id']}: {[node['html'][:120] for node in one['nodes']]}" for one in serious]


@pytest.mark.parametrize("app", APPS, ids=lambda app: app.name)
def test_each_person_of_a_story_draws_its_nudge(app: Any, tmp_path: Path) -> None:
    people = StoryPeople(app, write_catalogue(app, tmp_path))
    for story in app.stories:
        low, high = people.interval(story)
        assert high - low > 0.015, f"{story.nudge} is drawn too rarely for a story: choose another nudge of {app.name}"
        assert people.decision_ids(story, people.person(story))


def test_ctrl_c_ends_everything(running: RunningTrial) -> None:
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(PATIENCE) == 0
    for url in (running.url, *running.services.values()):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])))
