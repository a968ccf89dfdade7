"""The module itself: small, quick, and harmless whatever it is told."""

import json
import re
from typing import Any

from playwright.sync_api import expect

from api.routes.browser_files import script_files
from tests.pages.shop_site import SCRIPT, Service, Shop, ask, nudge, surface
from tests.waiting import eventually

HOSTILE = "<img src=x onerror='window.hacked = 1'><script>window.hacked = 1</script>\u202e&amp;"
LINKS = (
    "javascript:window.hacked=1", " javascript:window.hacked=1", "java\nscript:window.hacked=1", "data:text/html,x",
    "//evil.example/", "/\\evil.example/", "/\t/evil.example/", "http://evil.example/", "https:evil", "ftp://evil.example",
    "cart", "vbscript:x", "#",
)  # fmt: skip
IMAGES = (
    "http://evil.example/a.png",
    "//evil.example/a.png",
    "/\\evil.example/a.png",
    "data:image/svg+xml,x",
    "javascript:1",
    "a.png",
)


def test_it_is_small() -> None:
    source = SCRIPT.read_bytes()
    packed = script_files()["journey.js"].packed
    assert packed is not None
    assert len(packed) <= 12_000
    assert b"\nimport " not in source
    assert not re.search(
        rb"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|setAttribute\('style", source
    )


def test_its_types_name_what_it_has(shop: Shop) -> None:
    page = shop.page(start=None)
    methods = page.evaluate("Object.getOwnPropertyNames(Journey.prototype)")
    declared = SCRIPT.with_suffix(".d.ts").read_text(encoding="utf-8").partition("export class Journey {")[2]
    assert methods == re.findall(r"^  (\w+)\(", declared, re.MULTILINE)


def test_words_are_words(shop: Shop, service: Service) -> None:
    """Markup in texts, payloads, ids and names of events is shown and sent as it is."""
    page = shop.page()
    service.decision = nudge(title=HOSTILE, text="{note}", button=HOSTILE, alt=HOSTILE)
    service.decision["nudge"] |= {"id": HOSTILE, "payload": {"note": HOSTILE}}
    assert ask(page)
    expect(page.locator("journey-nudge h2")).to_have_text(HOSTILE)
    expect(page.locator("journey-nudge p")).to_have_text(HOSTILE)
    assert page.locator("journey-nudge img, journey-nudge script").count() == 0
    page.evaluate("(name) => journey.track(name)", HOSTILE)
    page.locator("journey-nudge [part=action]").click()
    assert eventually(lambda: service.events(HOSTILE) and service.events("Nudge Clicked"))
    assert service.events("Nudge Clicked")[0]["properties"]["nudge"] == f"browsing.{HOSTILE}"
    assert page.evaluate("window.hacked") is None


def test_links_and_pictures_are_safe_or_nothing_is_shown(shop: Shop, service: Service) -> None:
    page = shop.page()
    for link in LINKS:
        service.decision = nudge(link=link)
        assert not ask(page), link
    for image in IMAGES:
        service.decision = nudge(image=image)
        assert not ask(page), image
    for link in ("/cart?x=1#y", "https://other.example/a", f"{shop.url}/cart"):
        service.decision = nudge(link=link)
        assert ask(page), link
        assert page.get_by_role("link", name="Keep mine").get_attribute("href").endswith(link)
        page.evaluate("journey.close()")
    assert page.evaluate("window.hacked") is None


def test_a_picture_that_is_missing_leaves_no_gap(shop: Shop, service: Service) -> None:
    service.decision = nudge(image="/v1/browser/images/none.png")
    page = shop.page()
    assert ask(page)
    expect(page.locator("journey-nudge img")).to_have_count(0)
    expect(surface(page)).to_be_visible()


def test_it_is_on_screen_with_the_next_frame(shop: Shop, service: Service) -> None:
    """Between the decision's reply and the surface nothing is loaded and no frame is drawn. How long that took on this
    machine is printed, not judged.
    """
    page = shop.page()
    shop.browser.start_tracing(
        page=page, categories=["blink.user_timing", "devtools.timeline", "disabled-by-default-devtools.timeline"]
    )
    assert ask(page)
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    trace = json.loads(shop.browser.stop_tracing())["traceEvents"]
    (reply,) = [e for e in trace if e["name"] == "journey:reply"]
    (shown,) = [e for e in trace if e["name"] == "journey:shown"]
    main = [e for e in trace if (e["pid"], e["tid"]) == (reply["pid"], reply["tid"])]
    frames = [e["ts"] for e in main if e["name"] == "Commit" and e["ts"] > shown["ts"]]
    tasks = [e.get("dur", 0) for e in main if e["name"] == "RunTask" and e["ts"] + e.get("dur", 0) > reply["ts"]]
    told = {
        "reply to surface": shown["ts"] - reply["ts"],
        "reply to frame": min(frames) - reply["ts"],
        "longest task": max(tasks),
    }
    print("\n", ", ".join(f"{name} {micros / 1000:.1f} ms" for name, micros in told.items()))
    between = [e["name"] for e in main if reply["ts"] < e["ts"] < shown["ts"]]
    assert not {"ResourceSendRequest", "Commit"} & set(between)


def test_a_copy_of_the_module_shows_no_second_surface(shop: Shop, service: Service) -> None:
    """Such as the pinned one beside that without a number."""
    page = shop.page()
    assert ask(page)
    second: Any = page.evaluate(
        """import('SERVICE/v1/browser/journey.js?copy').then(async ({ Journey }) => {
        const other = new Journey({ key: 'pub_shop' })
        other.identify('u1')
        return other.nudge()
    })""".replace("SERVICE", service.url)
    )
    assert second is None
    assert page.locator("journey-nudge").count() == 1


def test_the_service_is_where_the_module_came_from_or_where_the_app_says(shop: Shop, service: Service) -> None:
    page = shop.page(start=f"{{service: '{service.url}/shop/'}}")
    service.decision = nudge(image="/v1/browser/images/coat.svg")
    with page.expect_request(f"{service.url}/shop/v1/browser/decisions"):
        assert ask(page)
    assert page.locator("journey-nudge img").get_attribute("src") == f"{service.url}/shop/v1/browser/images/coat.svg"
