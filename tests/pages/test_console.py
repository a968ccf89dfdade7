"""The console in Chromium, as an operator sees it: every page, narrow and wide, light and dark, by keyboard too."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from api.http.keys import SCOPES, create
from api.server import free_port
from journey_bandit import processes
from tests.waiting import PATIENCE

pytest.importorskip("playwright.sync_api", reason="no playwright: tests of pages are skipped; pip install playwright")
from playwright.sync_api import expect

HOSTILE = "<img src=x onerror=alert(1)>"
SHOP = f"""app = "shop"
title = "{HOSTILE}"
currency = "EUR"
"""
STAGE = """
[stages.{name}]
description = "{hostile}"
reward = {{ kind = "binary", window = "1h", value = 20.0 }}
holdout = 0.2
[stages.{name}.features]
items = {{ type = "number", min = 0, max = 20, default = 1 }}
plan = {{ type = "category", values = ["free", "pro"], default = "free" }}
[stages.{name}.nudges.a_nudge_with_a_rather_long_name_of_forty]
type = "{hostile}"
format = "banner"
cost = 0.25
budget = {{ amount = 5.0, per = "1d" }}
[stages.{name}.nudges.last_units]
type = "scarcity"
format = "tooltip"
evidence = {{ kind = "stock", at_most = 5 }}
"""
STAGES = ("onboarding", "browsing", "cart", "checkout", "retention")
WATCH = """document.addEventListener('securitypolicyviolation', (e) =>
  console.error(`policy violated: ${e.violatedDirective} ${e.blockedURI}`))"""


class Desk(NamedTuple):
    """A service with some decisions, the key of an operator, and the id of one decision."""

    url: str
    key: str
    decision: str


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder, port = tmp_path_factory.mktemp("console"), free_port("127.0.0.1")
    catalogue, keys, log = folder / "shop.toml", folder / "keys.toml", folder / "serve.log"
    catalogue.write_text(SHOP + "".join(STAGE.format(name=name, hostile=HOSTILE) for name in STAGES), "utf-8")
    key, url = create(keys, "ana", [*SCOPES, "admin"]), f"http://127.0.0.1:{port}"
    with log.open("ab") as file:
        options = ["--app", catalogue, "--keys", keys, "--store", f"sqlite:///{folder}/ledger.db", "--port", port]
        command = [sys.executable, "-m", "journey_bandit", "serve", *map(str, options), "--window-scale", "0.0001"]
        started = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    with processes.stopping(started):
        processes.wait(started, url, log)
        yield Desk(url, key, _decisions(url, key))


def _decisions(url: str, key: str) -> str:
    """The id of the last of some decisions, of which a part is rewarded."""
    with httpx.Client(base_url=url, headers={"X-API-Key": key}) as client:
        for n in range(40):
            asked = [{"stage": name, "user_id": f"u{n}", "context": {"items": n % 9}} for name in STAGES]
            reply = client.post("/v1/decisions/batch", json={"decisions": asked}).raise_for_status()
            made = [item["decision"]["decision_id"] for item in reply.json()["decisions"]]
            told = [{"decision_id": one, "kind": "reward", "value": 1.0} for one in made[n % 3 :]]
            client.post("/v1/outcomes/batch", json={"outcomes": told}).raise_for_status()
        return str(made[-1])


@pytest.fixture
def beside(browser: Any, running: Desk) -> Iterator[Callable[..., Any]]:
    """beside(…): a page that is signed in. In the end: no errors, violations, dialogs or requests to another host."""
    contexts, told, hosts = [], list[str](), set[str]()

    def visit(**options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE * 1000)
        context.add_init_script(WATCH)
        page = context.new_page()
        page.on("console", lambda said: told.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("dialog", lambda dialog: told.append(f"a dialog: {dialog.message}"))
        page.on("request", lambda sent: hosts.add(re.sub(r"^(\w+://[^/]*).*", r"\1", sent.url)))
        page.goto(f"{running.url}/console")
        page.get_by_label("API key").fill(running.key)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        return page

    expect.set_options(timeout=PATIENCE * 1000)
    yield visit
    for context in contexts:
        context.close()
    assert told == []
    assert hosts - {"data:,"} <= {running.url}


def pages(running: Desk) -> list[str]:
    return [
        "",
        "/stages/browsing?f.items=4&f.plan=pro",
        "/decisions",
        f"/decisions/{running.decision}",
        "/people",
        "/operate",
        "/sign-in?next=%2Fconsole",
    ]


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_page_fits_and_nobody_is_kept_out(
    beside: Callable[..., Any], running: Desk, width: int, scheme: str
) -> None:
    page = beside(viewport={"width": width, "height": 900}, color_scheme=scheme)
    for path in pages(running):
        page.goto(f"{running.url}/console{path}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        assert page.evaluate("document.styleSheets.length == 1 && getComputedStyle(document.body).margin") == "0px", (
            path
        )
    page.goto(f"{running.url}/console/people")
    page.get_by_label("User id").fill("u1")
    page.get_by_role("button", name="Look up").click()
    expect(page.get_by_role("heading", name="Now")).to_be_visible()
    page.wait_for_load_state("load")  # a heading can be there before the style sheet is
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(
    beside: Callable[..., Any], running: Desk, axe: Callable[[Any], list[str]], width: int, scheme: str
) -> None:
    page = beside(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    for path in pages(running):
        page.goto(f"{running.url}/console{path}")
        for closed in page.locator("details:not([open]) summary").all():
            closed.click()
        assert axe(page) == [], path


def test_a_decision_is_found_and_recomputed_with_the_keyboard_alone(beside: Callable[..., Any], running: Desk) -> None:
    page = beside()

    def tab_to(name: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if name in page.evaluate("document.activeElement.textContent || document.activeElement.id"):
                return
        raise AssertionError(f"{name} cannot be reached")

    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    tab_to("Decisions")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Decisions")).to_be_visible()
    page.get_by_label("Decision id").focus()
    page.keyboard.type(running.decision)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Receipt")).to_be_visible()
    tab_to("Recompute from the ledger")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Equal to the bit")


def test_the_overview_looks_for_news_by_itself_until_it_is_told_not_to(
    beside: Callable[..., Any], running: Desk
) -> None:
    page = beside()
    page.clock.install()
    page.reload()
    before = page.locator("footer").text_content()
    with page.expect_response(lambda reply: reply.request.headers.get("x-console-refresh") == "1"):
        page.clock.run_for(15_000)
    expect(page.locator("footer")).not_to_have_text(before)
    page.get_by_label("Refresh every 15 s").uncheck()
    asked = list[str]()
    page.on("request", lambda sent: asked.append(sent.url))
    page.clock.run_for(60_000)
    assert asked == []


def test_hostile_names_are_text(beside: Callable[..., Any], running: Desk) -> None:
    page = beside()
    assert HOSTILE in page.title()
    for path in pages(running)[:2]:
        page.goto(f"{running.url}/console{path}")
        assert page.locator("img").count() == 0
        expect(page.get_by_text(HOSTILE).first).to_be_visible()
    page.goto(f"{running.url}/console/people")
    page.get_by_label("User id").fill(HOSTILE)
    page.get_by_role("button", name="Look up").click()
    expect(page.get_by_label("User id")).to_have_value(HOSTILE)
    assert page.locator("img").count() == 0


def test_a_nudge_is_stopped_and_shown_again_with_the_keyboard_alone(beside: Callable[..., Any], running: Desk) -> None:
    page = beside()
    page.goto(f"{running.url}/console/stages/cart")
    page.get_by_role("link", name="Stop").last.focus()
    page.keyboard.press("Enter")
    for verb, words in (("Pause", "is not shown from now on"), ("Resume", "may be shown again")):
        page.get_by_label("Nudge", exact=True).focus()
        page.get_by_label("What", exact=True).focus()
        page.keyboard.type(verb)
        page.keyboard.press("Tab")
        page.keyboard.type("ana")
        page.keyboard.press("Tab")
        page.keyboard.type(HOSTILE)
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text(words)
        expect(page.get_by_role("status")).to_contain_text(HOSTILE)
        assert page.locator("img").count() == 0
        if verb == "Pause":
            page.get_by_label("Nudge", exact=True).select_option("cart/last_units")
    expect(page.get_by_role("row", name="resume cart.last_units")).to_be_visible()


def test_who_signs_out_sees_nothing_any_more(beside: Callable[..., Any], running: Desk) -> None:
    page = beside()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.goto(f"{running.url}/console/decisions")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
