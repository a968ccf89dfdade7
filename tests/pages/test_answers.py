"""What the user answers: once, at once, and for ever."""

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.pages.shop_site import Service, Shop, ask, nudge, surface
from tests.waiting import eventually

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
FORGET = """const mine = (name) => name.startsWith('journey-bandit:pub_shop:d')
for (const name of Object.keys(localStorage)) if (mine(name)) localStorage.removeItem(name)"""
PARTS = {"action": "Clicked", "dismiss": "Dismissed", "decline": "Declined"}


@pytest.fixture(autouse=True)
def one_decision(service: Service) -> None:
    """Every question has the same answer, as within a moment of the journey."""
    service.decision = {**nudge(), "decision_id": ID}
    service.answers["decisions"] = [lambda _: (200, service.decision | {"now": "2026-01-01T00:00:00Z"}, {})] * 9


@pytest.mark.parametrize("part", PARTS)
def test_each_button_reports_once_and_at_once(shop: Shop, service: Service, part: str) -> None:
    """A double click counts once, and no timer is waited for: time stands still. The decision is not shown again."""
    page = shop.page(stopped=True)
    assert ask(page)
    page.evaluate(f"""(() => {{
        const button = document.querySelector('journey-nudge').shadowRoot.querySelector('[part={part}]')
        button.click()
        button.click()
    }})()""")
    expect(surface(page)).to_have_count(0)
    assert eventually(service.events)
    (event,) = service.events()
    kind = PARTS[part].lower()
    properties = {"nudge": "browsing.low_stock", "decision": ID}
    assert event == {"event_id": f"{ID}:{kind}", "event": f"Nudge {PARTS[part]}", "properties": properties, "ago": 0}
    assert page.evaluate("changes") == ["shown", "activated", "closed", kind]
    assert eventually(service.activated)  # who answers within a second has seen it
    assert service.activated() == [ID]
    assert not ask(page)
    shop.go(page)
    assert not ask(page)


def test_a_link_is_followed_and_the_click_is_reported(shop: Shop, service: Service) -> None:
    service.decision["content"]["link"] = "/cart"
    page = shop.page()
    assert ask(page)
    page.get_by_role("link", name="Keep mine").dblclick(no_wait_after=True)
    page.wait_for_url("**/cart")
    assert eventually(lambda: service.events("Nudge Clicked"))
    assert {e["event_id"] for e in service.events()} == {f"{ID}:clicked"}


def test_an_app_follows_the_link_itself(shop: Shop, service: Service) -> None:
    service.decision["content"]["link"] = "/cart"
    page = shop.page()
    assert ask(page, "{navigate: (url) => { window.led = url; throw Error('of the app') }}")
    page.get_by_role("link", name="Keep mine").click()
    assert page.evaluate("led") == f"{shop.url}/cart"
    assert page.url == f"{shop.url}/"


def test_the_backdrop_and_escape_dismiss(shop: Shop, service: Service) -> None:
    page = shop.page()
    for key in ("", "Escape"):
        page.evaluate(FORGET)
        assert ask(page)
        if key:
            page.keyboard.press(key)
        else:
            page.mouse.click(5, 5)
        expect(surface(page)).to_have_count(0)
    assert eventually(lambda: len(service.events("Nudge Dismissed")) > 1)


def test_only_the_last_five_hundred_decisions_are_remembered(shop: Shop, service: Service) -> None:
    page = shop.page()
    kept: Any = page.evaluate("""async () => {
        for (let i = 0; i < 500; i++)
            localStorage.setItem(`journey-bandit:pub_shop:dold-${i}`, JSON.stringify({closed: 1, at: i}))
        const surface = await journey.nudge()
        surface.element.shadowRoot.querySelector('[part=dismiss]').click()
        return Object.keys(localStorage).filter((name) => name.startsWith('journey-bandit:pub_shop:d')).length
    }""")
    assert kept == 500
