"""Decisions that are asked for: with what the page knows, in time, on the page that asked, for one tab."""

import threading
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.pages.shop_site import NONE, Answer, Service, Shop, ask, nudge, observed, stamp, surface
from tests.waiting import PATIENCE, eventually

ID = "01890a5d-ac96-774b-bcce-b302099a8057"


class Held:
    """Answer of the service that waits for `now`."""

    def __init__(self, service: Service) -> None:
        self.now, self.service = threading.Event(), service
        service.answers["decisions"] = [self]

    def __call__(self, body: dict[str, Any]) -> Answer:
        self.now.wait(PATIENCE)
        return 200, {"decision_id": body["decision_id"], **self.service.decision, "now": stamp()}, {}


def always(service: Service, decision: dict[str, Any]) -> None:
    """The same decision for whoever asks."""
    service.decision = decision | {"decision_id": ID}
    service.answers["decisions"] = [lambda _: (200, service.decision | {"now": stamp()}, {})] * 9


def test_it_asks_with_what_the_page_knows(shop: Shop, service: Service) -> None:
    page = shop.page("/coats/wool")
    page.evaluate(
        """journey.decide({stage: 'browsing', context: {cart: 80.5}, consent: {ads: false},
            evidence: async () => 'signed'})"""
    )
    (body,) = service.of("decisions")
    assert body.pop("decision_id")
    assert body.pop("formats")[:3] == ["banner", "popup", "inline_widget"]
    assert body == {
        "key": "pub_shop", "token": "", "user_id": "u1", "page": "/coats/wool", "locale": "en", "stage": "browsing",
        "context": {"cart": 80.5}, "consent": {"ads": False}, "evidence": "signed",
    }  # fmt: skip


@pytest.mark.parametrize(("option", "page", "visitor", "expected"), [
    ("'de_AT'", "fr", "es-ES", "de-AT"), ("undefined", "fr", "es-ES", "fr"),
    ("undefined", "", "es-ES", "es-ES"), ("'?'", "", "es-ES", "en"),
])  # fmt: skip
def test_the_language_is_that_of_the_app_or_the_page_or_the_browser(
    shop: Shop, service: Service, option: str, page: str, visitor: str, expected: str
) -> None:
    shop.pages["/"] = shop.pages["/"].replace('lang="en"', f'lang="{page}"')
    shop.page(start=f"{{locale: {option}}}", locale=visitor).evaluate("journey.decide()")
    assert service.of("decisions")[0]["locale"] == expected


def test_a_page_may_make_the_ids_and_hears_of_every_decision(shop: Shop, service: Service) -> None:
    service.decision = NONE
    page = shop.page(start=f"{{newId: () => '{ID}', onChange: (change) => {{ window.told = change }}}}", stopped=True)
    page.evaluate("journey.decide()")
    assert service.of("decisions")[0]["decision_id"] == ID
    assert page.evaluate("[told.type, told.decision.nudge.id]") == ["decided", "none"]


def test_it_asks_after_its_events_are_there(shop: Shop, service: Service) -> None:
    page = shop.page(stopped=True)
    page.evaluate("journey.track('Cart Viewed'); journey.decide()")
    assert eventually(lambda: service.of("decisions"))
    assert [one.path for one in service.sent[:2]] == ["events", "decisions"]


def test_retries_have_the_same_id(shop: Shop, service: Service) -> None:
    service.answers["decisions"] = [(503, {}, {}), (429, {}, {})]
    page = shop.page()
    assert ask(page)
    assert len(service.of("decisions")) == 3
    assert len({body["decision_id"] for body in service.of("decisions")}) == 1


def test_a_slow_service_shows_nothing_and_nothing_counts(shop: Shop, service: Service) -> None:
    held = Held(service)
    page = shop.page(stopped=True, start="{patience: undefined}")
    page.evaluate("window.given = 'nothing'; journey.nudge().then((one) => (window.given = one)); 0")
    assert eventually(lambda: service.of("decisions"))
    page.clock.run_for(1999)
    assert page.evaluate("given") == "nothing"
    page.clock.run_for(1)
    assert page.evaluate("given") is None
    held.now.set()
    assert ask(page), "the next question is answered"
    observed(page)
    page.clock.run_for(1000)
    assert eventually(service.activated)
    assert service.activated() == [service.of("decisions")[1]["decision_id"]]


@pytest.mark.parametrize("decision", [nudge(), NONE])
def test_a_page_that_was_left_meanwhile_shows_nothing(shop: Shop, service: Service, decision: dict[str, Any]) -> None:
    held = Held(service)
    service.decision = decision
    page = shop.page(stopped=True)
    page.evaluate("window.given = journey.decide(); 0")
    assert eventually(lambda: service.of("decisions"))
    page.evaluate("history.pushState(null, '', '/cart')")
    held.now.set()
    assert page.evaluate("given") is None
    page.clock.run_for(1000)
    assert page.evaluate("changes") == []


def test_a_decision_of_another_page_or_user_is_not_shown(shop: Shop) -> None:
    page = shop.page()
    for leave in ("history.pushState(null, '', '/cart')", "journey.identify('u2')"):
        assert (
            page.evaluate(f"journey.decide().then((decision) => {{ {leave}; return journey.show(decision) }})") is None
        )


def test_a_surface_goes_with_its_page(shop: Shop) -> None:
    page = shop.page()
    for leave in ("history.pushState(null, '', '/cart')", "journey.identify('u2')"):
        assert ask(page)
        page.evaluate(leave)
        expect(surface(page)).to_have_count(0)
    page.evaluate("delete window.navigation; Object.defineProperty(window, 'navigation', {value: undefined})")
    assert ask(page)
    page.evaluate("history.pushState(null, '', '/')")
    expect(surface(page)).to_have_count(0)


def test_two_moments_at_once_show_one(shop: Shop, service: Service) -> None:
    """With a picture that takes its time: the words do not wait for it."""
    service.images.clear()
    service.decision = nudge(image="/v1/browser/images/coat.svg")
    page = shop.page()
    assert (
        page.evaluate("Promise.all([journey.nudge(), journey.nudge()]).then((both) => both.filter(Boolean).length)")
        == 1
    )
    expect(page.get_by_role("heading", name="Only 3 left")).to_be_visible()
    assert page.locator("journey-nudge img").evaluate("(image) => image.complete") is False
    service.images.set()
    assert eventually(lambda: page.locator("journey-nudge img").evaluate("(image) => image.naturalWidth"))


def test_two_tabs_show_it_in_one(shop: Shop, service: Service) -> None:
    always(service, nudge())
    context = shop.context()
    first, second = shop.page(context=context), shop.page(context=context)
    assert ask(first)
    assert not ask(second)
    assert first.evaluate("journey.decide().then(Boolean)"), "the tab that has it may ask again"
    first.close()
    assert eventually(lambda: ask(second))


def test_what_is_refused_shows_nothing(shop: Shop, service: Service) -> None:
    """And the next question is answered."""
    page = shop.page(stopped=True)
    answers: list[Answer] = [
        (400, {"detail": "context: unknown"}, {}), (403, {}, {}), (401, {}, {}),
        (200, {"nonsense": 1}, {}), (200, None, {}),
    ]  # fmt: skip
    for n, answer in enumerate(answers):
        service.answers["decisions"] = [answer]
        assert not ask(page), answer
        assert len(service.of("decisions")) == 2 * n + 1
        assert ask(page)
        page.evaluate("journey.close()")


def test_offline_shows_nothing(shop: Shop) -> None:
    context = shop.context()
    page = shop.page(context=context, start="{patience: 100}")
    context.set_offline(True)
    assert not ask(page)


def test_no_method_throws(shop: Shop, service: Service) -> None:
    """Whatever it is called with: one warning each, and null."""
    page = shop.page()
    warnings: list[str] = []
    page.on("console", lambda message: warnings.append(message.text) if message.type == "warning" else None)
    wrong: dict[str, Any] = {
        "new Journey()": {}, "new Journey({key: 7})": {}, "journey.identify()": None, "journey.identify({})": None,
        "journey.track()": None, "journey.track('x'.repeat(257))": None, "journey.track('E', {n: 1n})": None,
        "journey.decide({context: {n: 1n}})": None, "journey.decide({evidence: () => { throw Error('none') }})": None,
        "new Journey({key: 'k'}).decide()": None, "new Journey({key: 'k'}).track('E')": None,
        "journey.show(7)": None, "journey.show({})": None,
        "journey.show({decision_id: 'd', nudge: {id: 'n', format: 'popup', payload: {title: 'T {x}'}}})": None,
        "journey.show({nudge: {id: 'n', format: 'toast', payload: {title: 'T'}}}, {anchor: '<'})": None,
        "journey.show({decision_id: 'd', nudge: {id: 'n', format: 'popup', payload: {}}})": None,
    }  # fmt: skip
    for code, given in wrong.items():
        assert page.evaluate(f"(async () => await ({code}))()") == given, code
    assert page.evaluate("journey.show(null)") is None
    page.evaluate("journey.identify('u1')")
    assert page.evaluate("journey.decide(null).then(Boolean)")
    assert len(warnings) == len(wrong), warnings
    assert all(text.startswith("Journey Bandit:") for text in warnings)


def test_a_preview_asks_nothing_and_keeps_nothing(shop: Shop, service: Service) -> None:
    page = shop.page(start=None)
    page.evaluate("start({silent: true, key: undefined})")
    decision = {**nudge("banner"), "decision_id": ID, "now": stamp()}
    assert page.evaluate("journey.decide()") is None
    for _ in range(2):
        assert page.evaluate("(decision) => Boolean(journey.show(decision))", decision)
        assert eventually(lambda: "activated" in page.evaluate("changes"))
        page.get_by_role("button", name="Close").click()
        page.evaluate("start({silent: true})")
    assert service.sent == []
    assert page.evaluate("localStorage.length") == 0


def test_a_copy_of_a_decision_is_that_decision(shop: Shop) -> None:
    """Frameworks wrap objects; whose decision it is and for which page is known by its id."""
    page = shop.page()
    page.evaluate("journey.decide().then((made) => (window.copy = structuredClone(made)))")
    assert eventually(lambda: page.evaluate("Boolean(window.copy)"))
    page.evaluate("history.pushState(null, '', '/checkout/card')")
    assert page.evaluate("journey.show(copy)") is None
    page.evaluate("history.pushState(null, '', '/')")
    page.evaluate("journey.identify('u2')")
    assert page.evaluate("journey.show(copy)") is None
    page.evaluate("journey.identify('u1')")
    assert page.evaluate("journey.show(copy) !== null")


def test_a_route_in_the_fragment_is_a_page_of_its_own(shop: Shop, service: Service) -> None:
    page = shop.page("/#/shop")
    assert ask(page)
    assert service.of("decisions")[0]["page"] == "/#/shop"
    page.evaluate("location.hash = '#/checkout/card'")
    expect(surface(page)).to_have_count(0)
    page.evaluate("location.hash = '#sizes'")  # a place in a page is none
    page.evaluate("journey.decide()")
    assert service.of("decisions")[1]["page"] == "/"


@pytest.mark.parametrize("nobody", ["null", "undefined", "''", "{}", "NaN"])
def test_nobody_is_asked_for_after_the_user_has_left(shop: Shop, service: Service, nobody: str) -> None:
    page = shop.page()
    assert ask(page)
    page.evaluate(f"journey.identify({nobody})")
    expect(surface(page)).to_have_count(0)
    page.evaluate("journey.track('After')")
    assert page.evaluate("journey.decide()") is None
    assert len(service.of("decisions")) == 1
    page.evaluate("journey.identify('u2'); journey.track('Next')")
    assert eventually(lambda: service.events("Next"))
    assert not service.events("After")


def test_without_a_key_nothing_is_sent(shop: Shop, service: Service) -> None:
    page = shop.page(start=None)
    page.evaluate("start({key: ''})")
    page.evaluate("journey.track('Product Viewed')")
    assert page.evaluate("journey.decide()") is None
    assert service.sent == []
