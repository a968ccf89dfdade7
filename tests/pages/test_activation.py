"""A decision counts once somebody saw it: a second without a break, in the tab that is looked at, once."""

from typing import Any

import pytest

from tests.pages.shop_site import NONE, Service, Shop, ask, nudge, observed, surface, visibility
from tests.waiting import eventually

ID = "01890a5d-ac96-774b-bcce-b302099a8057"


def changes(page: Any) -> list[str]:
    return list(page.evaluate("window.changes"))


def answered(page: Any) -> bool:
    """Whether the page has heard of all that it sent: nothing is kept for another try."""
    kept = "Object.keys(localStorage).filter((name) => name.startsWith('journey-bandit:pub_shop:q')).length"
    return bool(eventually(lambda: page.evaluate(kept) == 0))


def activated(service: Service) -> list[str]:
    """What is activated in the end: at least one."""
    assert eventually(service.activated)
    return service.activated()


def test_it_is_reported_after_one_visible_second(shop: Shop, service: Service) -> None:
    page = shop.page(stopped=True)
    assert ask(page)
    observed(page)
    page.clock.run_for(990)
    assert changes(page) == ["shown"]
    page.clock.run_for(10)
    assert changes(page) == ["shown", "activated"]
    assert activated(service) == [service.of("decisions")[0]["decision_id"]]
    page.clock.run_for(20_000)
    assert len(service.activated()) == 1


def test_a_hidden_tab_begins_the_second_anew(shop: Shop, service: Service) -> None:
    page = shop.page(stopped=True)
    assert ask(page)
    observed(page)
    page.clock.run_for(900)
    visibility(page, "hidden")
    page.clock.run_for(60_000)
    visibility(page, "visible")
    page.clock.run_for(990)
    assert changes(page) == ["shown"]
    page.clock.run_for(10)
    assert changes(page) == ["shown", "activated"]
    assert len(activated(service)) == 1


def test_what_is_out_of_view_is_not_seen(shop: Shop, service: Service) -> None:
    """An inline widget far below: the second begins when half of it is in view."""
    service.decision = nudge("inline_widget")
    page = shop.page(stopped=True)
    page.evaluate("document.getElementById('size').style.marginTop = '3000px'")
    assert ask(page)
    observed(page)
    page.clock.run_for(5000)
    assert changes(page) == ["shown"]
    page.evaluate("scrollTo(0, 3000)")
    page.wait_for_timeout(0)
    observed(page)
    page.clock.run_for(1000)
    assert changes(page) == ["shown", "activated"]
    assert len(activated(service)) == 1


def test_what_is_closed_too_early_is_not_seen(shop: Shop, service: Service) -> None:
    page = shop.page(stopped=True)
    assert ask(page)
    observed(page)
    page.clock.run_for(900)
    page.evaluate("journey.close()")
    page.clock.run_for(5000)
    assert changes(page) == ["shown", "closed"]
    assert service.activated() == []


def test_no_nudge_counts_once_the_page_was_visible_for_a_second(shop: Shop, service: Service) -> None:
    service.decision = NONE
    page = shop.page(stopped=True)
    visibility(page, "hidden")
    assert page.evaluate("journey.decide().then((d) => d.nudge.id)") == "none"
    page.clock.run_for(5000)
    assert changes(page) == []
    visibility(page, "visible")
    page.clock.run_for(990)
    assert changes(page) == []
    page.clock.run_for(10)
    assert activated(service) == [service.of("decisions")[0]["decision_id"]]


@pytest.mark.parametrize("why", ["another page", "not now"])
def test_no_nudge_does_not_count(shop: Shop, service: Service, why: str) -> None:
    """Where the journey did not ask, or the page was left before a nudge would have been seen."""
    service.decision = NONE | ({"moment": None} if why == "not now" else {})
    page = shop.page(stopped=True)
    page.evaluate("journey.decide()")
    if why == "another page":
        page.evaluate("history.pushState(null, '', '/cart')")
    page.clock.run_for(5000)
    assert changes(page) == []


def test_a_reload_shows_it_again_and_counts_once(shop: Shop, service: Service) -> None:
    service.decision = {"decision_id": ID} | nudge()
    service.answers["decisions"] = [lambda _: (200, service.decision | {"now": "2026-01-01T00:00:00Z"}, {})] * 2
    page = shop.page(stopped=True)
    assert ask(page)
    observed(page)
    page.clock.run_for(1000)
    assert activated(service) == [ID]
    assert answered(page)  # else it is sent again, with the same id, after the reload
    shop.go(page)
    assert ask(page)
    assert surface(page).is_visible()
    observed(page)
    page.clock.run_for(60_000)
    assert changes(page) == ["shown"]
    assert service.activated() == [ID]
