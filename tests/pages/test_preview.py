"""`journey-bandit preview` in Chromium: every nudge is drawn, as declared and in every other way that pages show."""

import functools
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner

from api.catalogue_files import read_catalogue
from bandit.catalogue.content.model import PAGE_FORMATS
from journey_bandit.main import group
from tests.pages.shop_site import START

AXE = Path(__file__).parents[2] / "tests" / "clients" / "node_modules" / "axe-core" / "axe.min.js"
PATIENCE = 120_000  # milliseconds after which a frame hangs
HOSTILE = "<img src=x onerror=alert(1)>"
SHOP = f"""app = "shop"
title = "{HOSTILE}"
currency = "EUR"

[stages.look]
description = "{HOSTILE}"
reward = {{ kind = "binary", window = "1h" }}
features = {{}}

[stages.look.nudges.content]
type = "{HOSTILE}"
format = "banner"
description = "{HOSTILE}"
content.texts.en = {{ title = "{HOSTILE}", text = "{HOSTILE}", button = "{HOSTILE}" }}

[stages.look.nudges.payload]
type = "help"
format = "popup"
payload = {{ title = "{HOSTILE}" }}

[stages.look.nudges.letter]
type = "help"
format = "{HOSTILE}"
"""
REFUSED = """app = "shop"
currency = "EUR"

[stages.look]
reward = { kind = "binary", window = "1h" }
features = {}

[stages.look.nudges.silent]
type = "help"
format = "banner"

[stages.look.nudges.lost]
type = "help"
format = "tooltip"
content = { anchor = "##", texts.en = { title = "Here" } }

[stages.look.nudges.beside]
type = "help"
format = "tooltip"
content = { anchor = "form > .row", texts.en = { title = "Here" } }
"""


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None: ...


class Preview:
    """Folder that the command wrote, at a plain web server, and one page of a browser that keeps what goes wrong."""

    def __init__(self, browser: Any, folder: Path, app: str) -> None:
        done = CliRunner().invoke(group, ["preview", "--app", app, "--output", str(folder)])
        assert done.exit_code == 0, done.exception
        handler = functools.partial(QuietHandler, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.context = browser.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
        self.context.clock.set_fixed_time(START)  # frames say how long ago: however slowly they are drawn
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.said: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", self._dialog)
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))

    def _dialog(self, dialog: Any) -> None:
        self.said.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def close(self) -> None:
        self.context.close()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def open(self, query: str = "") -> None:
        self.page.goto(f"{self.url}/{query}", wait_until="load")
        self.page.wait_for_selector(".count:not(:empty)")

    def frames(self) -> list[tuple[dict[str, str], Any]]:
        """Every frame with what it was asked for, once it has drawn something."""
        drawn = []
        for element in self.page.query_selector_all("iframe"):
            element.scroll_into_view_if_needed()
            frame = element.content_frame()
            frame.wait_for_selector("html[data-state]", state="attached")
            asked = parse_qs(urlsplit(frame.url).query)
            drawn.append(({name: value for name, (value,) in asked.items()}, frame))
        return drawn


Open = Callable[[str], Preview]


@pytest.fixture
def preview(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """preview(app): the preview of a shipped catalogue, or of the text of one. Whatever is done with it: it asks nobody
    but its own server.
    """
    made: list[Preview] = []

    def new(app: str) -> Preview:
        if "\n" in app:
            (tmp_path / "shop.toml").write_text(app, encoding="utf-8")
        made.append(Preview(browser, tmp_path / "out", str(tmp_path / "shop.toml") if "\n" in app else app))
        return made[-1]

    yield new
    for one in made:
        one.close()
        assert one.hosts - {""} == {urlsplit(one.url).netloc}


def surface(frame: Any) -> Any:
    return frame.locator("journey-nudge [part=surface]")


PICTURES = """() => Promise.all([...document.querySelector('journey-nudge').shadowRoot.querySelectorAll('img')]
  .map((picture) => picture.decode().then(() => picture.naturalWidth > 0)))"""


@pytest.mark.parametrize("app", ["fashion", "fintech", "gaming", "subscription", "travel"])
def test_every_nudge_is_drawn_as_declared_and_nothing_complains(preview: Open, app: str) -> None:
    shop = preview(app)
    shop.open()
    declared = [
        (stage, name, nudge.format)
        for stage, each in read_catalogue(app).stages.items()
        for name, nudge in each.nudges.items()
    ]
    shown = [one for one in declared if one[2] in PAGE_FORMATS]
    frames = shop.frames()
    assert len(shown) > 5
    assert [(a["stage"], a["nudge"], a["format"]) for a, _ in frames] == [one for one in shown for _ in range(2)]
    assert [frame.evaluate("innerWidth") for _, frame in frames] == [320, 1024] * len(shown)
    for asked, frame in frames:
        assert frame.get_attribute("html", "data-state") == "shown", (asked, frame.inner_text("aside"))
        assert frame.get_attribute("journey-nudge", "data-format") == asked["format"]
        assert surface(frame).is_visible()
        assert frame.evaluate("document.documentElement.scrollWidth <= innerWidth"), asked
        pictures = frame.evaluate(PICTURES)
        assert all(pictures), asked
    others = " ".join(shop.page.locator("main .note").all_inner_texts())
    assert all(f"{name} ({form})" in others for _, name, form in declared if form not in PAGE_FORMATS)
    assert shop.said == []


LUMINANCE = """(panel) => {
  const [r, g, b] = getComputedStyle(panel).backgroundColor.match(/[0-9.]+/g).map(Number)
  return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255
}"""


def test_a_nudge_is_drawn_in_every_format_colour_and_direction(preview: Open) -> None:
    shop = preview("fashion")
    shop.open()
    shop.page.get_by_role("link", name="browsing.low_stock in every format, colour and direction").click()
    shop.page.wait_for_url("**nudge=browsing.low_stock**")
    shop.page.get_by_label("Width", exact=True).select_option("320 px")
    frames = shop.frames()
    formats = [name for name in PAGE_FORMATS if name != "gamified"]
    assert [(a["format"], a["scheme"], a["dir"]) for a, _ in frames] == [
        (form, scheme, side)
        for form in sorted(formats, key=lambda name: name != "banner")
        for scheme in ("light", "dark")
        for side in ("ltr", "rtl")
    ]
    for asked, frame in frames:
        assert frame.get_attribute("html", "data-state") == "shown", (asked, frame.inner_text("aside"))
        assert frame.get_attribute("journey-nudge", "dir") == asked["dir"]
        panel = surface(frame)
        assert panel.is_visible()
        assert "Only 3 left" in panel.inner_text()
        assert "2 minutes ago" in panel.text_content()
        luminance = panel.evaluate(LUMINANCE)
        assert luminance < 0.2 if asked["scheme"] == "dark" else luminance > 0.8, asked
    assert shop.said == []


def test_every_locale_is_drawn_and_a_deadline_and_progress_are_there(preview: Open) -> None:
    shop = preview("gaming")
    shop.open("?nudge=retention.streak&locale=all&width=narrow")
    streaks = shop.frames()
    assert [(a["locale"], a["dir"]) for a, _ in streaks] == [("en", "ltr"), ("de", "ltr"), ("ar", "rtl")]
    assert [frame.get_attribute("journey-nudge", "dir") for _, frame in streaks] == ["ltr", "ltr", "rtl"]
    assert streaks[0][1].locator("progress").evaluate("(bar) => [bar.value, bar.max]") == [2, 3]
    shop.open("?nudge=browsing.leaving_the_shop&width=narrow")
    ((_, frame),) = shop.frames()
    assert frame.locator("[role=timer]").first.inner_text().startswith(("01:59", "02:00"))
    shop.page.get_by_label("Language", exact=True).select_option("ar")
    assert shop.page.get_by_text("It has no texts in ar.").is_visible()
    assert shop.page.locator("iframe").count() == 0


def test_texts_of_the_catalogue_are_never_markup(preview: Open) -> None:
    shop = preview(SHOP)
    shop.open()
    frames = shop.frames()
    assert len(frames) == 4
    for asked, frame in frames:
        assert frame.get_attribute("html", "data-state") == "shown", (asked, frame.inner_text("aside"))
        assert HOSTILE in surface(frame).inner_text()
        assert frame.inner_text(".app") == HOSTILE
        assert frame.locator("img").count() == 0
    assert shop.page.inner_text("h1") == HOSTILE
    assert shop.page.title() == f"{HOSTILE}: preview of nudges"
    assert shop.page.get_by_text(f"Not shown by pages: letter ({HOSTILE}).").is_visible()
    assert shop.page.get_by_text("It has no content: it is drawn from its payload.").count() == 1
    assert shop.page.locator("img").count() == 0
    assert shop.said == []


def test_a_nudge_that_cannot_be_drawn_says_why(preview: Open) -> None:
    shop = preview(REFUSED)
    shop.open("?width=narrow")
    told = {asked["nudge"]: (frame.get_attribute("html", "data-state"), frame) for asked, frame in shop.frames()}
    assert told["silent"][0] == told["lost"][0] == "refused"
    assert told["silent"][1].inner_text("aside") == "journey.js shows nothing: silent has no title."
    assert told["lost"][1].inner_text("aside") == "It cannot be shown: ## is no CSS selector."
    assert told["beside"][0] == "shown", "an element is made for it"


def test_a_nudge_that_was_closed_is_shown_again(preview: Open) -> None:
    shop = preview("fashion")
    shop.open("?nudge=onboarding.first_order&width=narrow")
    ((_, frame),) = shop.frames()
    frame.locator("[part=dismiss]").click()
    assert "It was dismissed." in frame.inner_text("aside")
    frame.get_by_role("button", name="Show it again").click()
    assert surface(frame).is_visible()
    frame.locator("[part=action]").click()
    assert "It was clicked." in frame.inner_text("aside")
    assert frame.url.startswith(f"{shop.url}/frame.html?"), "the link leads nowhere here"
    assert shop.said == []


def test_frames_do_not_take_the_focus(preview: Open) -> None:
    shop = preview("subscription")
    shop.open("?format=popup&width=narrow")
    shop.frames()
    assert shop.page.evaluate("document.activeElement === document.body")
    stage = shop.page.get_by_label("Stage", exact=True)
    stage.focus()
    stage.press("ArrowDown")
    assert {asked["stage"] for asked, _ in shop.frames()} == {"onboarding"}
    assert shop.page.evaluate("document.activeElement.name") == "stage"


def test_choices_are_in_the_address_and_more_is_drawn_when_it_is_asked_for(preview: Open) -> None:
    shop = preview("travel")
    shop.open("?format=nonsense")
    before = shop.page.locator("iframe").count()
    shop.page.get_by_label("Stage", exact=True).select_option("cart")
    shop.page.get_by_label("Format", exact=True).select_option("toast")
    assert 0 < shop.page.locator("iframe").count() < before
    assert parse_qs(urlsplit(shop.page.url).query) == {"stage": ["cart"], "format": ["toast"]}
    shop.page.reload(wait_until="load")
    assert shop.page.get_by_label("Format", exact=True).input_value() == "toast"
    assert {"toast"} == {parse_qs(frame)["format"][0] for frame in shop.page.locator("iframe").evaluate_all(
        "(all) => all.map((frame) => new URL(frame.src).search.slice(1))")}  # fmt: skip
    shop.open("?format=all&locale=all&scheme=all&width=narrow")
    assert shop.page.locator("iframe").count() == 32
    shop.page.get_by_role("button", name="Show 32 more").click()
    assert shop.page.locator("iframe").count() == 64
    assert (
        shop.page.evaluate("[...document.querySelectorAll('.case')].indexOf(document.activeElement.closest('.case'))")
        == 32
    )


@pytest.mark.parametrize("width", [320, 390, 1440])
def test_the_page_fits_its_window(preview: Open, width: int) -> None:
    shop = preview("fintech")
    shop.page.set_viewport_size({"width": width, "height": 800})
    shop.open("?format=all&stage=onboarding")
    assert shop.page.evaluate("document.documentElement.scrollWidth") == width
    room = shop.page.locator(".screen").evaluate_all("(all) => all.map((one) => one.getBoundingClientRect().right)")
    assert max(room) <= width
    wide = shop.page.locator("figure.wide iframe").first
    assert wide.evaluate("(frame) => frame.contentWindow.innerWidth") == 1024
    assert wide.bounding_box()["width"] <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1440])
def test_axe_finds_nothing_serious(preview: Open, scheme: str, width: int) -> None:
    if not AXE.is_file():
        pytest.skip("no axe-core: accessibility is not checked; `make clients` installs it")
    shop = preview("fashion")
    shop.page.set_viewport_size({"width": width, "height": 800})
    shop.page.emulate_media(color_scheme=scheme)
    shop.open()
    shop.page.evaluate(AXE.read_text(encoding="utf-8"))
    found = shop.page.evaluate("axe.run(document, {iframes: false, resultTypes: ['violations']})")
    assert len(found["passes"]) > 10
    serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
    assert serious == [], json.dumps(serious, indent=1)
