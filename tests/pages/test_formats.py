"""How nudges look and speak: every format, in every direction, colour and width, for hands, keyboards and ears."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.pages.shop_site import Service, Shop, ask, nudge, observed, stamp, surface
from tests.waiting import eventually

ROLES = {
    "banner": "region", "popup": "dialog", "inline_widget": "region", "tooltip": "dialog", "walkthrough": "dialog",
    "toast": "status", "scratch_card": "dialog", "progress_streak": "region", "gamified": "dialog",
}  # fmt: skip
STEPS = [
    {"title": "Your size", "text": "It is on the chart.", "anchor": "#sizes"},
    {"title": "In the cart", "text": "It stays there for {days} days.", "anchor": "#nowhere"},
]
ARABIC = {"locale": "ar", "title": "لم يبق سوى {stock} بمقاسك", "text": "تم العد قبل {age}.", "button": "احتفظ بمعطفي"}
TITLE = re.compile("Only 3 left|لم يبق")


def filled(form: str, **content: Any) -> dict[str, Any]:
    """A nudge with everything that a surface can have."""
    steps = STEPS if form == "walkthrough" else []
    words = {
        "image": "/v1/browser/images/coat.svg",
        "alt": "A grey coat",
        "link": "/cart",
        "steps": steps,
        "anchor": "#sizes",
    }
    return nudge(
        form, **(words | ({"anchor": "#size"} if form in ("inline_widget", "progress_streak") else {}) | content)
    )


def box(page: Any, part: str = "surface") -> Any:
    return page.locator(f"journey-nudge [part={part}]").bounding_box()


def gap(page: Any) -> float:
    """Pixels from the foot of the anchor to the head of the surface."""
    anchor = page.locator("#sizes").bounding_box()
    return float(box(page)["y"] - anchor["y"] - anchor["height"])


def only(page: Any, code: str) -> Any:
    """What `code` gives for the surface, which is `panel` in it."""
    panel = "document.querySelector('journey-nudge').shadowRoot.querySelector('[part=surface]')"
    return page.evaluate(f"((panel) => {code})({panel})")


def style(page: Any, inside: str, *names: str) -> list[str]:
    """Computed style of the first node of the surface that the selector finds, or of the surface."""
    return [only(page, f"getComputedStyle(panel.querySelector('{inside}') ?? panel)['{name}']") for name in names]


def test_each_format_is_seen(shop: Shop, service: Service) -> None:
    page = shop.page(stopped=True)
    for form, role in ROLES.items():
        service.decision = filled(form)
        assert ask(page, "{progress: 3}"), form
        expect(page.get_by_role("heading", name="Only 3 left in your size")).to_be_visible()
        expect(page.get_by_role("img", name="A grey coat")).to_be_visible()
        expect(page.get_by_role("button", name="Close")).to_be_visible()
        expect(page.get_by_role("button", name="Don’t show this again")).to_be_visible()
        expect(page.get_by_role(role, name="Only 3 left in your size")).to_be_visible()
        host = page.locator("journey-nudge")
        assert (host.get_attribute("data-format"), host.get_attribute("data-nudge")) == (form, "low_stock")
        observed(page)
        page.clock.run_for(1000)
        assert page.evaluate("changes.at(-1)") == "activated", form
        page.evaluate("journey.close()")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("direction", ["ltr", "rtl"])
def test_nothing_stands_in_anyones_way(
    shop: Shop, service: Service, axe: Callable[[Any], list[str]], scheme: str, direction: str
) -> None:
    """axe-core, with every format: contrast, names, roles."""
    if direction == "rtl":
        shop.pages["/"] = shop.pages["/"].replace('lang="en"', 'lang="ar" dir="rtl"')
    page = shop.page(color_scheme=scheme, bypass_csp=True)
    for form in ROLES:
        service.decision = filled(form, **(ARABIC if direction == "rtl" else {}))
        assert ask(page, "{progress: 3}"), form
        assert axe(page) == [], form
        assert only(page, "getComputedStyle(panel).direction") == direction
        page.evaluate("journey.close()")


@pytest.mark.parametrize("width", [320, 1440])
def test_nothing_overflows(shop: Shop, service: Service, width: int) -> None:
    """Neither in a narrow page nor with letters of twice the size, long words and a long countdown."""
    page = shop.page(viewport={"width": width, "height": 640})
    for form in ROLES:
        for size in ("medium", "32px"):
            service.decision = filled(
                form, title="Only {stock} left: Donaudampfschifffahrtsgesellschaftskapitänsmützen {deadline}"
            )
            service.decision["evidence"] |= {"deadline": stamp(5e6)}
            assert ask(page, "{progress: 3}"), form
            page.evaluate(
                f"document.querySelector('journey-nudge').style.fontSize = '{size}'; dispatchEvent(new Event('resize'))"
            )
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), form
            assert only(page, "panel.scrollWidth <= panel.clientWidth"), (form, size)
            at = box(page)
            assert at["x"] >= 0, (form, size)
            assert at["x"] + at["width"] <= width, (form, size)
            page.evaluate("journey.close()")


def test_targets_are_large(shop: Shop, service: Service) -> None:
    page = shop.page(viewport={"width": 320, "height": 640}, has_touch=True)
    for form in ROLES:
        service.decision = filled(form, steps=[])
        assert ask(page), form
        sizes = only(
            page,
            """[...panel.querySelectorAll('a, button')].filter((node) => node.getClientRects().length)
            .map((node) => [node.part.value, node.offsetWidth, node.offsetHeight])""",
        )
        assert {part for part, *_ in sizes} >= {"action", "dismiss", "decline"}
        assert [part for part, wide, high in sizes if wide < 44 or high < 44] == [], form
        page.evaluate("journey.close()")


def test_a_popup_keeps_the_focus_and_gives_it_back(shop: Shop, service: Service) -> None:
    page = shop.page()
    page.locator("#buy").focus()
    assert ask(page)
    focused = "document.activeElement.shadowRoot?.activeElement.part.value ?? document.activeElement.id"
    assert page.evaluate(focused) == "surface", "no button has it: whoever is typing presses none"
    seen = []
    for _ in range(6):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(focused))
    assert [part for part in seen if part][:3] == ["action", "decline", "dismiss"]
    assert set(seen) <= {"action", "decline", "dismiss", ""}, "nothing of the page behind it"
    page.keyboard.press("Escape")
    expect(surface(page)).to_have_count(0)
    assert page.evaluate("document.activeElement.id") == "buy"


def test_the_others_leave_the_focus_alone(shop: Shop, service: Service) -> None:
    """And their buttons are reached and pressed by keys."""
    page = shop.page()
    page.locator("#mail").focus()
    for n, form in enumerate(ROLES):
        if ROLES[form] != "dialog" or form in ("tooltip", "walkthrough"):
            service.decision = filled(form, link="", steps=[])
            assert ask(page), form
            page.keyboard.type(f"{n} ")
            page.locator("journey-nudge [part=decline]").focus()
            page.keyboard.press("Tab")
            page.keyboard.press("Enter")
            assert page.evaluate("changes.at(-1)") == "dismissed", form
            page.locator("#mail").focus()
    assert page.locator("#mail").input_value() == "0 2 3 4 5 7 "


def test_a_tooltip_stays_at_its_anchor(shop: Shop, service: Service) -> None:
    service.decision = filled("tooltip", image="")
    page = shop.page()
    page.evaluate("document.body.style.minHeight = '3000px'")
    assert ask(page)
    for scrolled in (0, 60):
        page.evaluate(f"scrollTo(0, {scrolled})")
        assert eventually(lambda: 8 <= gap(page) <= 20)
    page.evaluate("document.querySelector('main').style.paddingTop = '560px'")
    assert eventually(lambda: gap(page) + box(page)["height"] < 0), "above it"
    page.keyboard.press("Escape")
    assert eventually(lambda: service.events("Nudge Dismissed"))


def test_without_its_anchor_nothing_is_shown(shop: Shop, service: Service) -> None:
    page = shop.page()
    page.evaluate("document.body.append(Object.assign(document.createElement('p'), {id: 'hidden', hidden: true}))")
    for form in ("inline_widget", "tooltip"):
        for anchor in ("#nowhere", "", "#hidden"):
            service.decision = nudge(form, anchor=anchor)
            assert not ask(page), (form, anchor)
        assert ask(page, "{anchor: document.getElementById('sizes')}"), "the page may name another"
        page.evaluate("journey.close()")


def test_a_walkthrough_goes_step_by_step(shop: Shop, service: Service) -> None:
    service.decision = filled("walkthrough", anchor="")
    page = shop.page()
    page.locator("#mail").focus()
    assert ask(page)
    heading, count = page.locator("journey-nudge h2"), page.get_by_text(re.compile("^[123] / 3$"))
    expect(heading).to_have_text("Only 3 left in your size")
    expect(count).to_have_text("1 / 3")
    expect(page.get_by_role("button", name="Back")).to_be_hidden()
    page.get_by_role("button", name="Next").focus()
    page.keyboard.press("Enter")
    expect(heading).to_have_text("Your size")
    assert 8 <= gap(page) <= 20
    page.keyboard.press("Enter")
    expect(heading).to_have_text("In the cart")
    expect(page.get_by_text("It stays there for 7 days.")).to_be_visible()
    expect(page.get_by_role("button", name="Next")).to_be_hidden()
    assert page.evaluate("document.activeElement.shadowRoot.activeElement.part.value") == "action"
    page.get_by_role("button", name="Back").click()
    page.get_by_role("button", name="Back").click()
    expect(count).to_have_text("1 / 3")
    page.keyboard.press("Escape")
    assert eventually(lambda: service.events("Nudge Dismissed"))


def test_a_walkthrough_without_a_call_to_action_ends_with_done(shop: Shop, service: Service) -> None:
    service.decision = filled("walkthrough", button="", link="")
    page = shop.page()
    assert ask(page)
    for _ in range(2):
        page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Done").click()
    assert eventually(lambda: service.events("Nudge Clicked"))


def test_a_scratch_card_is_scratched_with_a_pointer(shop: Shop, service: Service) -> None:
    service.decision = filled("scratch_card", link="", image="")
    page = shop.page()
    assert ask(page)
    area = page.locator("journey-nudge .area")
    assert area.evaluate("(node) => node.inert")
    at = page.locator("journey-nudge canvas").bounding_box()
    page.mouse.move(at["x"] + 5, at["y"] + 5)
    page.mouse.move(at["x"] + 150, at["y"] + 100, steps=9)
    assert area.evaluate("(node) => node.inert"), "moving over it is not scratching"
    page.mouse.down()
    for n in range(6):
        page.mouse.move(
            at["x"] + (at["width"] - 5 if n % 2 else 5), at["y"] + 20 + n * (at["height"] - 30) / 5, steps=15
        )
    page.mouse.up()
    assert not area.evaluate("(node) => node.inert")
    page.get_by_role("button", name="Keep mine").click()
    assert eventually(lambda: service.events("Nudge Clicked"))


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_a_scratch_card_is_revealed_with_a_key(shop: Shop, service: Service, motion: str) -> None:
    """Whoever wants less motion sees none: the cover is gone at once."""
    service.decision = filled("scratch_card")
    page = shop.page(reduced_motion=motion)
    assert ask(page)
    assert only(page, "getComputedStyle(panel).animationName") == ("none" if motion == "reduce" else "in")
    page.get_by_role("button", name="Reveal").focus()
    page.keyboard.press("Enter")
    moves = only(page, "getComputedStyle(panel.querySelector('canvas')).display !== 'none'")
    assert moves == (motion != "reduce")
    assert page.evaluate("document.activeElement.shadowRoot.activeElement.className") == "area"
    expect(page.get_by_text("Counted 5 minutes ago.")).to_be_visible()


def test_a_streak_says_how_far_it_is(shop: Shop, service: Service) -> None:
    service.decision = filled("progress_streak")
    page = shop.page()
    assert ask(page, "{progress: 3}")
    bar = page.get_by_role("progressbar", name="Only 3 left")
    assert [bar.get_attribute(f"aria-{name}") for name in ("valuetext", "labelledby")] == ["3 / 7", "h"]
    assert bar.evaluate("(bar) => [bar.value, bar.max]") == [3, 7]
    page.evaluate("journey.close()")
    assert ask(page), "it says nothing of a streak that the page does not know"
    assert page.get_by_role("progressbar").count() == 0


def test_banners_stand_at_the_edge_that_the_payload_names(shop: Shop, service: Service) -> None:
    service.decision = filled("banner")
    page = shop.page()
    assert ask(page)
    assert box(page)["y"] > 500
    page.evaluate("journey.close()")
    service.decision["nudge"]["payload"]["position"] = "top"
    assert ask(page)
    assert box(page)["y"] < 50


def test_a_toast_stays(shop: Shop, service: Service) -> None:
    service.decision = filled("toast")
    page = shop.page(stopped=True)
    assert ask(page)
    page.clock.run_for(600_000)
    expect(surface(page)).to_be_visible()


def test_a_countdown_ticks_by_the_clock_of_the_service(shop: Shop, service: Service) -> None:
    """The page's own is years off. At zero the claim is over, and so is the nudge."""
    service.decision = nudge(title="Ends in {deadline}", text="")
    service.decision["evidence"] = {"deadline": "2026-01-02T02:00:30Z", "as_of": "2026-01-01T00:00:00Z"}
    answer = service.decision | {"decision_id": "01890a5d-ac96-774b-bcce-b302099a8057", "now": "2026-01-01T00:00:00Z"}
    service.answers["decisions"] = [(200, answer, {})]
    page = shop.page(stopped=True)
    assert ask(page)
    heading, timer = page.locator("journey-nudge h2"), page.get_by_role("timer")
    expect(heading).to_have_text("Ends in 1 day 02:00:30")
    page.clock.run_for(1000)
    expect(heading).to_have_text("Ends in 1 day 02:00:29")
    page.clock.fast_forward(86_400_000)
    page.clock.run_for(250)
    expect(timer).to_have_text("02:00:29")
    page.clock.fast_forward(2 * 3_600_000 + 28_000)
    page.clock.run_for(250)
    expect(timer).to_have_text("00:00:01")
    page.clock.run_for(1000)
    expect(surface(page)).to_have_count(0)
    assert service.events() == []


@pytest.mark.parametrize(
    ("locale", "told"), [("en", "1,234 left, 3 hours"), ("de", "1.234 left, 3 Stunden"), ("fa", "۱٬۲۳۴ left, ۳ ساعت")]
)
def test_numbers_are_in_the_language_of_the_words(shop: Shop, service: Service, locale: str, told: str) -> None:
    service.decision = nudge("banner", locale=locale, title="{stock} left, {age}", text="{days}")
    service.decision["evidence"] = {"stock": 1234, "as_of": stamp(-3 * 3600 - 100)}
    page = shop.page()
    assert ask(page)
    expect(page.locator("journey-nudge h2")).to_have_text(told)
    assert page.locator("journey-nudge").get_attribute("lang") == locale
    assert page.locator("journey-nudge").get_attribute("dir") == ("rtl" if locale == "fa" else "ltr")


UNTRUE = (
    {"title": "{stock} left"}, {"text": "until {deadline}"}, {"text": "{age}"}, {"button": "{discount}"},
    {"alt": "{constructor}", "image": "/a.svg"}, {"title": ""}, {"text": "{list}"}, {"text": "{}"},
    {"text": "{__proto__}"},
)  # fmt: skip


def test_what_cannot_be_said_truly_is_not_shown(shop: Shop, service: Service) -> None:
    """What has no evidence or no value. Claims that the payload makes are no evidence."""
    page = shop.page()
    for content in UNTRUE:
        service.decision = nudge(**{"title": "Your coat", "text": "", **content})
        service.decision["evidence"] = {}
        service.decision["nudge"]["payload"] = {
            "stock": 1,
            "deadline": "2100-01-01T00:00:00Z",
            "age": "1 minute",
            "list": [1],
        }
        assert not ask(page), content
        assert page.locator("journey-nudge").count() == 0
    service.decision["content"]["text"] = "{stock"
    assert ask(page), "a brace alone is a brace"


def test_a_claim_that_is_over_is_not_shown(shop: Shop, service: Service) -> None:
    service.decision = nudge(title="Ends in {deadline}")
    service.decision["evidence"]["deadline"] = stamp(-1)
    page = shop.page()
    assert not ask(page)
    service.decision = nudge() | {"expires_at": stamp(-1)}
    assert not ask(page)


def test_a_nudge_without_content_says_what_its_payload_says(shop: Shop, service: Service) -> None:
    service.decision = nudge("banner")
    del service.decision["content"]
    service.decision["nudge"]["payload"] = {"title": "Your coat", "text": "for {price}", "button": "Buy", "price": 1200}
    page = shop.page()
    assert ask(page)
    expect(page.get_by_text("for 1,200")).to_be_visible()
    expect(page.get_by_role("button", name="Buy")).to_be_visible()


def test_other_formats_are_not_shown(shop: Shop, service: Service) -> None:
    page = shop.page(start="{formats: ['banner', 'email']}")
    for form in ("push", "email", "__proto__", "", "popup"):
        service.decision = nudge(form)
        assert not ask(page), form
    service.decision = nudge("banner")
    assert ask(page)


def test_names_of_buttons_are_in_the_language_of_the_words_or_of_the_app(shop: Shop, service: Service) -> None:
    service.decision = nudge("toast", locale="de-AT")
    page = shop.page(start="{labels: {decline: 'Nie wieder'}}")
    assert ask(page)
    expect(page.get_by_role("button", name="Schließen")).to_be_visible()
    expect(page.get_by_role("button", name="Nie wieder")).to_be_visible()
    page.evaluate("journey.close()")
    service.decision = nudge("toast", locale="sv")
    assert ask(page)
    expect(page.get_by_role("button", name="Close")).to_be_visible()


def test_a_page_sets_colours_and_shape(shop: Shop, service: Service) -> None:
    shop.pages["/shop.css"] += (
        "journey-nudge { --journey-surface: rgb(1, 2, 3); --journey-accent: rgb(4, 5, 6);"
        " --journey-radius: 3px; --journey-z: 7 }"
    )
    service.decision = nudge("banner")
    page = shop.page(color_scheme="dark")
    assert ask(page)
    found = style(page, "none", "backgroundColor", "borderTopLeftRadius", "zIndex")
    assert found == ["rgb(1, 2, 3)", "3px", "7"]
    assert only(page, "getComputedStyle(panel.querySelector('[part=action]')).backgroundColor") == "rgb(4, 5, 6)"


def test_styles_of_the_page_do_not_reach_in(shop: Shop, service: Service) -> None:
    shop.pages["/shop.css"] += (
        "html { font-size: 62.5% } body { text-transform: uppercase; line-height: 3 } button, p { display: none }"
    )
    service.decision = nudge("banner")
    page = shop.page()
    assert ask(page)
    expect(page.get_by_role("button", name="Close")).to_be_visible()
    assert style(page, "p", "fontSize", "textTransform", "display") == ["15px", "none", "block"]
