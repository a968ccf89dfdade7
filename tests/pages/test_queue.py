"""What a page reports arrives: in order, with the same ids until it is acknowledged, as the user's who did it."""

import functools
import json
from typing import Any

import pytest

from tests.pages.shop_site import Service, Shop, ask, observed, visibility
from tests.waiting import eventually

TOKENS = "{token: () => { window.asked = (window.asked ?? 0) + 1; return `token ${window.asked}` }}"


def names(service: Service) -> list[str]:
    return [event["event"] for event in service.events()]


def waiting(page: Any) -> list[dict[str, Any]]:
    """What the page keeps, in order."""
    found = page.evaluate("""Object.keys(localStorage).sort()
        .filter((name) => name.startsWith('journey-bandit:pub_shop:q')).map((name) => localStorage[name])""")
    return [json.loads(text) for text in found]


def paused(page: Any, wait: int) -> bool:
    """Whether the last timer that was set is of so many milliseconds."""
    return bool(page.evaluate("pauses.at(-1)") == wait)


def refused(status: int, detail: str = "no") -> tuple[int, Any, dict[str, str]]:
    return status, {"detail": detail}, {}


def test_events_go_together_in_order(shop: Shop, service: Service) -> None:
    page = shop.page(stopped=True)
    page.evaluate("for (let i = 0; i < 120; i++) journey.track(`E${i}`, {i})")
    page.clock.run_for(500)
    assert eventually(lambda: len(service.events()) == 120)
    assert names(service) == [f"E{i}" for i in range(120)]
    assert [len(body["events"]) for body in service.of("events")] == [50, 50, 20]
    assert {event["ago"] for event in service.events()} == {0}
    assert len({event["event_id"] for event in service.events()}) == 120
    assert eventually(lambda: not waiting(page))


def test_bodies_are_small(shop: Shop, service: Service) -> None:
    page = shop.page()
    page.evaluate("for (let i = 0; i < 10; i++) journey.track('E', {text: 'ü'.repeat(10_000)})")
    page.evaluate("journey.track('too large', {text: 'x'.repeat(60_000)})")
    assert eventually(lambda: len(service.events()) == 10)
    assert max(len(json.dumps(body, ensure_ascii=False).encode()) for body in service.of("events")) < 60_000


def test_offline_events_are_sent_with_their_ids_after_a_reload(shop: Shop, service: Service) -> None:
    context = shop.context()
    page = shop.page(context=context)
    context.set_offline(True)
    page.evaluate("journey.track('Product Viewed'); journey.track('Product Added')")
    ids = [item["id"] for item in waiting(page)]
    service.answers["events"] = [refused(503)] * 99  # before the network is back: then the page sends at once
    context.set_offline(False)
    shop.go(page)
    assert eventually(lambda: len(service.events()) >= 2)
    assert [item["id"] for item in waiting(page)] == ids
    service.answers.clear()
    shop.go(page)
    assert eventually(lambda: not waiting(page))
    assert {event["event_id"] for event in service.events()} == set(ids)


def test_it_sends_as_soon_as_the_network_is_back(shop: Shop, service: Service) -> None:
    context = shop.context()
    page = shop.page(context=context, stopped=True)
    context.set_offline(True)
    page.evaluate("journey.track('Product Viewed')")
    page.clock.run_for(500)
    assert eventually(lambda: page.evaluate("answered"))
    (item,) = waiting(page)
    assert service.events() == []
    context.set_offline(False)
    assert eventually(lambda: page.evaluate("dispatchEvent(new Event('online'))") and service.events())
    assert service.events()[0]["event_id"] == item["id"]


def test_retries_wait_as_long_as_the_service_asks(shop: Shop, service: Service) -> None:
    service.answers["events"] = [(429, {}, {"Retry-After": "30"})]
    page = shop.page(stopped=True)
    page.evaluate("Math.random = () => 0; journey.track('Product Viewed')")
    page.clock.run_for(500)
    assert eventually(lambda: 30_250 in page.evaluate("pauses"))
    page.evaluate("journey.track('later')")
    page.clock.run_for(29_000)
    assert len(service.events()) == 1
    page.clock.run_for(1250)
    assert eventually(lambda: len(service.events()) == 3)
    first, again, later = service.events()
    assert again["event_id"] == first["event_id"]
    assert (again["ago"] >= 30, later["ago"] >= 29, later["event"]) == (True, True, "later")


def test_retries_after_errors_come_less_and_less_often(shop: Shop, service: Service) -> None:
    service.answers["events"] = [refused(500), refused(503), refused(502), refused(504)]
    page = shop.page(stopped=True)
    page.evaluate("Math.random = () => 0.6; journey.track('Product Viewed')")
    page.clock.run_for(500)
    for wait in (400, 800, 1600, 3200):
        assert eventually(functools.partial(paused, page, wait))
        page.clock.run_for(wait)
    assert eventually(lambda: not waiting(page))
    assert len({event["event_id"] for event in service.events()}) == 1


def test_a_closed_tab_leaves_nothing_behind(shop: Shop, service: Service) -> None:
    """The beacon of a page that is closed: nobody waits for its answer, so the next page sends the same id."""
    context = shop.context()
    page = shop.page(context=context)
    other = shop.page(context=context, start=None)
    page.evaluate("journey.track('Product Viewed')")
    page.close()
    assert eventually(service.events)
    other.evaluate("start()")
    # another process of the browser may hear of the storage later, so the next page may have to look again
    assert eventually(lambda: other.evaluate("journey.identify('u1')") or len(service.events()) > 1)
    assert len({event["event_id"] for event in service.events()}) == 1
    assert eventually(lambda: not waiting(other))


def test_a_hidden_tab_sends_what_it_has(shop: Shop, service: Service) -> None:
    page = shop.page(stopped=True)
    page.evaluate("journey.track('Product Viewed')")
    visibility(page, "hidden")
    assert eventually(service.events)


def test_what_is_refused_holds_up_nothing(shop: Shop, service: Service) -> None:
    service.answers["events"] = [
        (200, {"events": [{"status": 200}, {"status": 403, "problem": {"detail": "<b>no</b>"}}, {"status": 503}]}, {})
    ]
    page = shop.page()
    page.evaluate("for (const name of ['first', 'Order Completed', 'third']) journey.track(name)")
    assert eventually(lambda: len(service.events()) == 4)
    assert names(service) == ["first", "Order Completed", "third", "third"]
    assert eventually(lambda: not waiting(page))


def test_a_refused_activation_is_dropped(shop: Shop, service: Service) -> None:
    page = shop.page(stopped=True)
    for n, status in enumerate((400, 403, 404, 409), 1):
        service.answers["activations"] = [refused(status)]
        assert ask(page)
        observed(page)
        page.clock.run_for(1000)
        assert eventually(lambda: not waiting(page))
        assert len(service.activated()) == n
        page.evaluate("journey.close()")


def test_a_refused_token_is_asked_for_once_more(shop: Shop, service: Service) -> None:
    service.answers["events"] = [refused(401)]
    page = shop.page(start=TOKENS)
    page.evaluate("journey.track('Product Viewed')")
    assert eventually(lambda: not waiting(page))
    assert [body["token"] for body in service.of("events")] == ["token 1", "token 2"]
    assert len({event["event_id"] for event in service.events()}) == 1


def test_a_token_that_stays_refused_waits_for_another(shop: Shop, service: Service) -> None:
    service.answers["events"] = [refused(401)] * 2
    page = shop.page(start=TOKENS, stopped=True)
    page.evaluate("journey.track('Product Viewed')")
    page.clock.run_for(500)
    assert eventually(lambda: page.evaluate("answered") == 2)
    page.clock.run_for(600_000)
    assert len(service.sent) == 2
    page.evaluate("journey.identify('u1', {token: 'fresh'})")
    assert eventually(lambda: not waiting(page))
    assert [body["token"] for body in service.of("events")] == ["token 1", "token 2", "fresh"]


def test_events_stay_those_of_their_user(shop: Shop, service: Service) -> None:
    """The first user's wait with the first user's token; a third user's, of whom no token is known here, stay."""
    context = shop.context()
    page = shop.page(context=context, start="{token: () => 'of ' + window.who}", stopped=True)
    page.evaluate("window.who = 'u1'; journey.identify('u1'); journey.track('one')")
    page.clock.run_for(500)
    assert eventually(lambda: names(service) == ["one"])
    context.set_offline(True)
    page.evaluate("journey.track('two'); window.who = 'u2'; journey.identify('u2'); journey.track('three')")
    page.evaluate("""localStorage.setItem('journey-bandit:pub_shop:q0-elsewhere',
        JSON.stringify({user: 'u3', id: 'x', event: 'four', properties: {}, at: Date.now()}))""")
    context.set_offline(False)
    assert eventually(lambda: page.clock.run_for(2000) or len(waiting(page)) == 1)
    sent = {
        event["event"]: (body["user_id"], body["token"]) for body in service.of("events") for event in body["events"]
    }
    assert sent == {"one": ("u1", "of u1"), "two": ("u1", "of u1"), "three": ("u2", "of u2")}
    assert waiting(page)[0]["user"] == "u3"


@pytest.mark.parametrize("known", [True, False])
def test_nobody_is_given_anothers_token(shop: Shop, service: Service, known: bool) -> None:
    """What gives tokens gives those of the user who is there now: it is not asked for the former user's."""
    page = shop.page(start="{token: () => 'of ' + window.who}", stopped=True)
    page.evaluate("window.who = 'u1'")
    if known:
        page.evaluate("journey.track('one')")
        page.clock.run_for(500)
        assert eventually(lambda: not waiting(page))
        service.answers["events"] = [refused(401)]
    page.evaluate("journey.track('again'); window.who = 'u2'; journey.identify('u2'); journey.track('two')")
    page.clock.run_for(500)
    assert eventually(lambda: "two" in names(service))
    sent = {(body["user_id"], body["token"]) for body in service.of("events")}
    assert sent == ({("u1", "of u1"), ("u2", "of u2")} if known else {("u2", "of u2")})
    assert eventually(lambda: len(waiting(page)) == 1)
    assert waiting(page)[0]["user"] == "u1"


def test_one_tab_sends_at_a_time(shop: Shop, service: Service) -> None:
    """A tab may learn late what another has sent: it sends that again, with the same ids."""
    context = shop.context()
    pages = [shop.page(context=context) for _ in range(2)]
    for n, page in enumerate(pages):
        page.evaluate(f"for (let i = 0; i < 30; i++) journey.track('E{n}-' + i)")
    assert eventually(lambda: not waiting(pages[0]) and not waiting(pages[1]))
    assert set(names(service)) == {f"E{n}-{i}" for n in range(2) for i in range(30)}
    assert len({event["event_id"] for event in service.events()}) == 60
    assert service.at_once == 1


def test_at_most_five_hundred_wait(shop: Shop, service: Service) -> None:
    context = shop.context()
    page = shop.page(context=context, stopped=True)
    page.evaluate("for (let i = 0; i < 510; i++) journey.track(`E${i}`)")
    kept = waiting(page)
    assert [item["event"] for item in kept] == [f"E{i}" for i in range(10, 510)]


@pytest.mark.parametrize(
    "storage", ["null", "{getItem: () => null, removeItem() {}, setItem() { throw Error('full') }}"]
)
def test_it_works_without_storage(shop: Shop, service: Service, storage: str) -> None:
    page = shop.page(start=f"{{storage: {storage}}}")
    service.answers["events"] = [refused(503)]
    page.evaluate("journey.track('Product Viewed')")
    assert eventually(lambda: len(service.events()) == 2)
    assert waiting(page) == []
    assert ask(page)


def test_what_others_wrote_there_does_no_harm(shop: Shop, service: Service) -> None:
    page = shop.page()
    page.evaluate("""for (const [name, text] of Object.entries({q1: '{', q2: 'null', q3: '7', q4: '{"at": ""}'}))
        localStorage.setItem(`journey-bandit:pub_shop:${name}`, text)""")
    page.evaluate("journey.track('Product Viewed')")
    assert eventually(lambda: names(service) == ["Product Viewed"])
    assert eventually(lambda: not waiting(page))


@pytest.mark.parametrize("status", [403, 404])
def test_what_is_refused_as_a_whole_waits(shop: Shop, service: Service, status: int) -> None:
    """A token of somebody else, or a route that is not there during a deploy, is no reason to lose events."""
    page = shop.page()
    service.answers["events"] = [refused(status)]
    page.evaluate("journey.track('Kept')")
    assert eventually(lambda: not service.answers["events"])
    assert waiting(page)
    page.evaluate("journey.identify('u1')")
    assert eventually(lambda: service.events("Kept"))
