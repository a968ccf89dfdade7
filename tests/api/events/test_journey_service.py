"""Events in, decisions out over HTTP: stage, moment and features from the journey, one decision a visit, outcomes from
events, and beliefs that end as if what was refunded or never shown had not been.
"""

import asyncio
import datetime as dt
import random
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.events.service import ReceivedEvent
from api.ledger import audit
from api.messages.decisions import DecisionRequest, EvidenceIn
from api.stores import ingest
from api.stores.decision_log import LedgerPosition
from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from bandit import engine
from bandit.catalogue.limits import GlobalCap, Limits
from bandit.catalogue.loading import parse
from bandit.catalogue.model import Catalogue

SHOP = Path(__file__).parents[2] / "journey_shop.toml"
TEXT = SHOP.read_text(encoding="utf-8")
MINUTE, HOUR, DAY = 60, 3600, 86_400
VIEWS = [ReceivedEvent(f"v{i}", "Product Viewed", "ann", None, {"product_id": "shoe"}, None) for i in range(3)]
Serving = Callable[..., AbstractContextManager[Any]]
Later = Callable[[float], int]


class Shop:
    """A running service of the shop, and short words for what is asked of it."""

    def __init__(self, client: Any, clock: Callable[[], int]):
        self.client, self.clock, self.sent = client, clock, 0

    def event(self, name: str, user: str | None = "ann", ago: float = 0.0, **more: Any) -> Any:
        self.sent += 1
        known: dict[str, Any] = {key: more.pop(key) for key in ("event_id", "anonymous_id") if key in more}
        at = dt.datetime.fromtimestamp(self.clock() / 1e6 - ago, dt.UTC).isoformat()
        body = {
            "event_id": f"e{self.sent}",
            "event": name,
            "user_id": user,
            "occurred_at": at,
            "properties": more,
            **known,
        }
        reply = self.client.post("/v1/events", json={"events": [body]})
        assert reply.status_code == 200, reply.text
        (item,) = reply.json()["events"]
        return item

    def ask(self, user: str = "ann", **more: Any) -> Any:
        reply = self.client.post("/v1/decisions", json={"user_id": user, **more})
        assert reply.status_code == 200, reply.text
        return reply.json()

    def journey(self, user: str = "ann") -> Any:
        reply = self.client.get(f"/v1/users/{user}/journey")
        assert reply.status_code == 200, reply.text
        return reply.json()

    def receipt(self, decision: Any) -> Any:
        return self.client.get(f"/v1/decisions/{decision['decision_id']}").json()


@pytest.fixture
def shop(serving: Serving, clock: Callable[[], int], store: Store) -> Any:
    with serving(store, app=str(SHOP)) as client:
        yield Shop(client, clock)


def views(shop: Shop, count: int = 3, **more: Any) -> None:
    for i in range(count):
        shop.event("Product Viewed", ago=count - i, product_id="shoe", price="49.90", **more)


def test_what_is_personal_is_one_fact_and_one_retry_under_its_hash(
    serving: Serving, clock: Callable[[], int], later: Later, store: Store, tmp_path: Path
) -> None:
    text = TEXT.replace('order = "order_id"', 'order = { name = "order_id", personal = true }')
    (tmp_path / "shop.toml").write_text(f"personal_ids = true\n{text}", encoding="utf-8")
    with serving(store, app=str(tmp_path / "shop.toml")) as client:
        shop = Shop(client, clock)
        shop.event("Product Added", ago=1200.0, product_id="shoe")
        made = shop.ask()["decision_id"]
        later(MINUTE)

        def said(name: str, **more: Any) -> Any:
            return shop.event(name, ago=0.0, **more)["event"]

        assert said("Order Completed", event_id="first", order_id=1001)["credited"]["basket"] == made
        assert said("Order Refunded", order_id="1001.0").get("credited") is None  # another text, another order
        assert said("Order Completed", event_id="first", order_id="1001")["duplicate"]
        again = said("Order Completed", event_id="second", order_id="1001")
        assert again["not_credited"]["basket"].startswith("same fact")
        assert said("Order Refunded", order_id="1001")["credited"]["basket"] == made
        body = {"decision_id": made, "kind": "activation", "outcome_id": "mine"}
        replies = [client.post("/v1/outcomes", json=body).json()["duplicate"] for _ in range(2)]
        assert replies == [False, True]
        other = body | {"outcome_id": "activation"}  # the name of a kind is the outcome without an id
        client.post("/v1/outcomes", json=other)
        assert client.post("/v1/outcomes", json={**other, "outcome_id": None}).json()["duplicate"]
        told = client.get("/v1/users/ann/export").text
        assert not any(f'"{plain}' in told for plain in ("first", "second", "1001", "mine", "event:first"))
        salt = audit.salt_of(store, "salt")
        assert all(engine.pseudonym(salt, plain) in told for plain in ("first", "second", "1001", "mine"))


# -- journeys ------------------------------------------------------------------------------------------------------


def test_an_event_that_too_many_followed_is_refused_by_name(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "LATE", 3)
    for ago in (50.0, 40.0, 30.0, 20.0):
        assert shop.event("Product Viewed", ago=ago)["status"] == 200
    item = shop.event("Product Viewed", ago=60.0)
    assert item["status"] == 400
    (problem,) = item["problem"]["errors"]
    assert problem["field"].endswith("occurred_at")
    assert problem["problem"].endswith("events of this person happened after it")
    assert shop.event("Product Viewed", ago=45.0)["status"] == 200


def test_a_journey_says_where_a_user_is_why_and_what_may_be_shown(shop: Shop) -> None:
    assert shop.journey()["why"] == "no event of this user is known"
    views(shop)
    found = shop.journey()
    assert (found["stage"], found["moment"]) == ("look", "hesitates")
    assert found["why"] == "viewed came 3 times about the same, without added"
    assert found["events"]["viewed"]["count"] == 3
    assert (found["visits"], found["abandoned"], found["consent"], found["exposures"]) == (1, 0, [], [])
    assert found["features"]["price"] == 49.9
    assert found["eligible"] == ["none", "help"]
    assert found["excluded"] == {"few_left": "no evidence: send evidence.stock, the units left"}
    shop.event("Product Added", product_id="shoe")
    assert (shop.journey()["stage"], shop.journey()["moment"]) == ("basket", None)


def test_events_are_answered_one_by_one(shop: Shop, refused: Callable[..., Any]) -> None:
    recorded = {"status": 200, "event": {"recorded": True, "duplicate": False, "known": True}}
    assert shop.event("Product Viewed", event_id="one") == recorded
    again = shop.event("Product Viewed", event_id="one")
    assert again["event"] == {"recorded": True, "duplicate": True, "known": True}
    assert shop.event("Cat Petted")["event"]["known"] is False
    other = shop.event("Product Added", event_id="one")
    assert (other["status"], other["problem"]["errors"][0]["field"]) == (409, "events[0].event_id")
    assert shop.event("Product Viewed", user=None)["problem"]["errors"][0]["field"] == "events[0].user_id"
    assert shop.event("Product Viewed", ago=-HOUR)["problem"]["errors"][0]["field"] == "events[0].occurred_at"
    refused(shop.client.post("/v1/events", json={"event": []}), 400, "event")


def test_an_anonymous_visitor_becomes_a_user_with_all_they_did(shop: Shop) -> None:
    for i in range(3):
        shop.event("Product Viewed", user=None, anonymous_id="anon", ago=9 - i, product_id="shoe")
    assert shop.journey("ann")["moment"] is None
    shop.event("identify", anonymous_id="anon", wants_mail=True)
    for who in ("ann", "anon"):
        assert (shop.journey(who)["moment"], shop.journey(who)["consent"]) == ("hesitates", ["mail"])


# -- decisions from journeys ---------------------------------------------------------------------------------------


def test_the_journey_gives_stage_moment_and_features_and_the_request_the_rest(shop: Shop) -> None:
    views(shop, details={"colour": "blue"})
    got = shop.ask(context={"price": 999, "mobile": True, "hours": 5})
    assert (got["stage"], got["moment"]) == ("look", "hesitates")
    x = shop.receipt(got)["x"]
    assert x["price"] == pytest.approx(49.9 / 500 - 1, abs=2**-12)  # the journey's, not the request's
    assert (x["views"], x["mobile"], x["mobile missing"], x["colour=blue"]) == (
        round(-0.8 * 4096) / 4096,
        1.0,
        0.0,
        1.0,
    )
    assert got["notes"][0] == "moment hesitates: viewed came 3 times about the same, without added"


def test_what_no_stage_knows_is_refused(shop: Shop, refused: Callable[..., Any]) -> None:
    for body, field in (
        ({"context": {"prise": 1}}, "context.prise"),
        ({"include": ["helb"]}, "include[0]"),
        ({"exclude": ["helb"]}, "exclude[0]"),
    ):
        refused(shop.client.post("/v1/decisions", json={"user_id": "ann", **body}), 400, field)


def test_when_no_moment_holds_the_answer_is_not_now_logged_and_not_learned(shop: Shop, later: Later) -> None:
    views(shop, 2)
    got = shop.ask()
    assert (got["moment"], got["nudge"]["id"], got["propensity"]) == (None, "none", 1.0)
    assert got["excluded"]["help"] == "not now: no moment of look holds"
    assert shop.receipt(got)["notes"][0] == "not now: no moment of look holds"
    later(30 * DAY)
    shop.client.learned()
    assert shop.receipt(got)["settled"] is None
    assert all(policy["version"] == 0 for policy in shop.client.learned().values())


def test_an_app_without_events_needs_a_stage(client: Any, refused: Callable[..., Any]) -> None:
    refused(client.post("/v1/decisions", json={"user_id": "u"}), 400, "stage")


def test_a_visit_keeps_its_decision_when_a_ramp_or_a_holdout_is_set(shop: Shop, later: Later) -> None:
    views(shop)
    first = shop.ask()
    for verb, share in (("ramp", 0.5), ("holdout", 0.9), ("ramp", None)):
        body = {"share": share, "by": "ana", "reason": "slowly"}
        shop.client.post(f"/v1/policies/look/{verb}", json=body).raise_for_status()
        again = shop.ask()
        assert (again["decision_id"], again["duplicate"]) == (first["decision_id"], True)
    later(HOUR)
    views(shop)
    second = shop.ask()
    assert not second["duplicate"]
    shop.client.post("/v1/policies/look/pause", json={"by": "ana", "reason": "wrong"}).raise_for_status()
    assert shop.ask()["nudge"]["id"] == "none"


def test_a_visit_gets_one_decision_which_trains_once(shop: Shop, later: Later) -> None:
    views(shop)
    first = shop.ask()
    again = [shop.ask(), shop.ask(decision_id=str(uuid.uuid4())), shop.ask(context={"mobile": True})]
    assert {a["decision_id"] for a in again} == {first["decision_id"]}
    assert all(a["duplicate"] and a["moment"] == "hesitates" for a in again)
    later(HOUR)
    views(shop)
    second = shop.ask()
    assert second["decision_id"] != first["decision_id"]
    later(2 * DAY)
    learned = shop.client.learned()["look"]
    assert sum(arm["learned"] for arm in learned["arms"]) == 2


def test_the_original_is_found_again_after_a_restart(
    serving: Serving, clock: Callable[[], int], store: Store, tmp_path: Path
) -> None:
    """Each store is reopened in the only way it can be: the memory one lives on in the hands of the test."""
    if not isinstance(store, MemoryStore):
        pytest.skip("the file is reopened in test_events_contract")
    store.close = lambda: None  # type: ignore[method-assign]
    with serving(store, app=str(SHOP)) as client:
        shop = Shop(client, clock)
        views(shop)
        first = shop.ask()
    with serving(store, app=str(SHOP)) as client:
        assert Shop(client, clock).ask()["decision_id"] == first["decision_id"]


def test_concurrent_repeats_of_a_visit_are_one_decision(working: Callable[..., Any], store: Store) -> None:
    """50 at once, while the first is not durable yet."""
    with working(store, parse(TEXT)) as desk:
        desk.send(*VIEWS)

        async def crowd() -> list[Any]:
            return await asyncio.gather(*(desk.service.decide(DecisionRequest(user_id="ann")) for _ in range(50)))

        replies = desk.run(crowd())
        assert len({reply.decision_id for reply in replies}) == 1
        assert sum(not reply.duplicate for reply in replies) == 1
        assert store.counts().decisions == 1


# -- outcomes from events ------------------------------------------------------------------------------------------


def test_the_loop_closes_event_decision_event_belief(shop: Shop, later: Later) -> None:
    views(shop)
    got = shop.ask()
    later(5)
    shop.event("Product Added", product_id="shoe")
    shop.event("Product Added", product_id="shoe", event_id="again")
    shop.event("Product Added", product_id="shoe", event_id="again")
    told = [(o["outcome_id"], o["kind"], o["value"]) for o in shop.receipt(got)["outcomes"]]
    assert told == [("event:e4", "reward", 1.0)]  # one product, one fact
    later(2 * DAY)
    learned = {arm["arm"]: arm for arm in shop.client.learned()["look"]["arms"]}
    assert learned[got["nudge"]["id"]] == {"arm": got["nudge"]["id"], "learned": 1, "mean_reward": 1.0}


def test_what_a_journey_decided_and_events_rewarded_is_rebuilt_and_recomputed_bit_for_bit(
    shop: Shop, store: Store, later: Later
) -> None:
    """Among decisions that were "not now", repeated, refunded and never shown."""
    rng = random.Random(3)
    for i in range(120):
        user = f"u{rng.randrange(20)}"
        name = rng.choice(["Product Viewed", "Product Viewed", "Product Added", "Order Completed", "Checkout Started"])
        shop.event(name, user, ago=rng.choice([0, 45, 700]), product_id="shoe", order_id=f"o{i}", revenue=9)
        shop.event("Order Refunded", user, order_id=f"o{rng.randrange(120)}", amount=9)
        shop.ask(user)
        later(rng.choice([1, 60, HOUR, DAY]))
    shop.client.learned()
    rebuilt = list(audit.rebuild(store, audit.stages(store)))
    assert all(result.equal for result in rebuilt)
    assert sum(result.settlements for result in rebuilt) > 20
    specs, salt = store.specs(), audit.salt_of(store, "salt")
    found = list(store.decisions())
    assert {f.decision.is_actionable for f in found} == {True, False}
    for one in found:
        again = engine.recompute(engine.prepare(audit.past(store, one)), one.decision, salt)
        assert (again.u, again.arm) == (one.decision.u, one.decision.arm)
        assert again.propensity.tobytes() == one.decision.propensity.tobytes()
        assert one.decision.stage_digest in specs


def ended(serving: Serving, clock: Callable[[], int], later: Later, story: Callable[[Shop, Later], None]) -> Any:
    """Beliefs after a story, and after every window has passed."""
    before = clock()
    with serving(MemoryStore(), app=str(SHOP)) as client:
        story(Shop(client, clock), later)
        later(60 * DAY)
        found = {stage: policy["belief_sha256"] for stage, policy in client.learned().items()}
    later((before - clock()) / 1e6)
    return found


def _buys(shop: Shop, later: Later, *after: tuple[str, dict[str, Any]]) -> None:
    shop.event("Product Added", ago=11 * MINUTE, product_id="shoe")
    shop.ask(decision_id=str(uuid.UUID(int=1)))
    later(MINUTE)
    for name, properties in after:
        shop.event(name, **properties)
        later(1)


def test_a_refund_ends_as_if_never_converted_bit_for_bit(serving: Serving, clock: Any, later: Later) -> None:
    """Also when it is told twice, or before the order; another order counts all the same."""
    order = ("Order Completed", {"order_id": "A", "revenue": "79.10"})
    refund = ("Order Refunded", {"order_id": "A", "amount": 79.1})

    def belief(*after: tuple[str, dict[str, Any]]) -> Any:
        return ended(serving, clock, later, lambda shop, later: _buys(shop, later, *after))["basket"]

    never = belief()
    assert belief(order) != never
    assert belief(order, refund) == belief(order, refund, refund) == belief(refund, order) == never
    assert belief(order, refund, ("Order Completed", {"order_id": "B"})) == belief(order)


def test_revenue_taken_back_is_silence_again(serving: Serving, clock: Any, later: Later) -> None:
    def story(*after: tuple[str, dict[str, Any]]) -> Callable[[Shop, Later], None]:
        def tell(shop: Shop, later: Later) -> None:
            shop.event("Order Completed", ago=8 * DAY, order_id="old", revenue=1)
            assert shop.ask(decision_id=str(uuid.UUID(int=2)))["moment"] == "week"
            later(MINUTE)
            for name, properties in after:
                shop.event(name, **properties)

        return tell

    order = ("Order Completed", {"order_id": "B", "revenue": "79.10"})
    parts = [("Order Refunded", {"order_id": "B", "amount": part}) for part in ("29.10", 50)]
    never = ended(serving, clock, later, story())
    assert ended(serving, clock, later, story(order))["later"] != never["later"]
    assert ended(serving, clock, later, story(order, parts[0]))["later"] != never["later"]
    assert ended(serving, clock, later, story(order, *parts))["later"] == never["later"]


def test_what_was_never_shown_is_never_learned_and_what_was_shown_is_silence(
    serving: Serving, clock: Any, later: Later
) -> None:
    def story(*after: tuple[str, dict[str, Any]]) -> Callable[[Shop, Later], None]:
        def tell(shop: Shop, later: Later) -> None:
            shop.event("Checkout Started", ago=45)
            got = shop.ask(decision_id=str(uuid.UUID(int=3)))
            assert got["moment"] == "lingers"
            later(5)
            for name, properties in after:
                named = {k: v.replace("{id}", got["decision_id"]) for k, v in properties.items()}
                shop.event(name, **named)
            later(60 * DAY)
            shop.client.learned()
            told.append(shop.receipt(got)["settled"])

        return tell

    told: list[Any] = []
    seen, order = ("Promotion Viewed", {"promotion_id": "{id}"}), ("Order Completed", {"order_id": "A"})
    nothing = ended(serving, clock, later, story())
    bought = ended(serving, clock, later, story(order))
    shown = ended(serving, clock, later, story(seen))
    both = ended(serving, clock, later, story(order, seen))
    assert [(t["why"], t["learned"], t["reward"]) for t in told] == [
        ("not activated", False, 0.0),
        ("not activated", False, 1.0),
        ("silence", True, 0.0),
        ("reward", True, 1.0),
    ]
    assert nothing["pay"] == bought["pay"]
    assert len({nothing["pay"], shown["pay"], both["pay"]}) == 3


# -- guardrails ----------------------------------------------------------------------------------------------------


def capped(**limits: Any) -> Catalogue:
    """The shop with limits on the app."""
    return msgspec.structs.replace(parse(TEXT), limits=Limits(**limits))


def many(desk: Any, requests: list[DecisionRequest]) -> list[Any]:
    async def crowd() -> list[Any]:
        return await asyncio.gather(*(desk.service.decide(request) for request in requests))

    replies: list[Any] = desk.run(crowd())
    return replies


@pytest.mark.parametrize("most", [1, 3, 7])
def test_no_cap_is_passed_by_50_concurrent_clients(working: Callable[..., Any], store: Store, most: int) -> None:
    """50 clients of each of three users at once, four times: exactly `most` exposures of each."""
    with working(store, capped(per_day=most)) as desk:
        for _ in range(4):
            many(desk, [DecisionRequest(stage="look", user_id=f"u{i % 3}") for i in range(150)])
        shown = [f.decision for f in store.decisions() if f.decision.arm != "none"]
        users = {d.user for d in shown}
        assert {user: sum(d.user == user for d in shown) for user in users} == dict.fromkeys(users, most)
        assert len(users) == 3
        reasons = {r for f in store.decisions() for r in f.decision.excluded.values() if r.startswith("cap")}
        assert reasons == {f"cap: {most} of the app per day"}


def test_a_cap_on_everyone_holds_for_50_concurrent_users_and_after_a_restart(
    working: Callable[..., Any], store: Store, later: Later
) -> None:
    catalogue = capped(everyone=GlobalCap(most=17, per="1d"))
    for _ in range(2):
        with working(store, catalogue) as desk:
            many(desk, [DecisionRequest(stage="look", user_id=f"u{i}") for i in range(100)])
        assert sum(f.decision.arm != "none" for f in store.decisions()) == 17
    later(DAY)
    with working(store, catalogue) as desk:
        many(desk, [DecisionRequest(stage="look", user_id=f"v{i}") for i in range(100)])
    assert sum(f.decision.arm != "none" for f in store.decisions()) == 34


def test_retries_of_one_decision_count_once(working: Callable[..., Any], store: Store) -> None:
    with working(store, capped(per_day=2)) as desk:
        ids = [uuid.UUID(int=n) for n in range(1, 40)]
        requests = [DecisionRequest(stage="look", user_id="u", decision_id=i) for i in ids]
        first = many(desk, requests)
        again = many(desk, requests)
        assert [r.nudge for r in again] == [r.nudge for r in first]
        assert sum(r.nudge.id != "none" for r in first) == 2
        assert all(r.duplicate for r in again)
        assert not desk.service.maker._sessions.session(
            first and store.decisions_by_id(ids[:1])[ids[0]].decision.user
        ).in_flight


def test_a_deferred_exposure_counts_until_its_window_ends_and_for_good_once_shown(shop_with: Any, later: Later) -> None:
    shop = shop_with(capped(total=1))
    for shown, expected in ((False, "trust"), (True, None)):
        user = f"u{shown}"
        first = _until(shop, user, "trust")
        if shown:
            shop.client.post("/v1/outcomes", json={"decision_id": first["decision_id"], "kind": "activation"})
        assert set(shop.ask(user, stage="pay")["excluded"]) == {"trust"}
        later(3 * HOUR)
        assert set(shop.ask(user, stage="pay")["excluded"]) == (set() if expected else {"trust"})


def _until(shop: Shop, user: str, arm: str) -> Any:
    for _ in range(100):
        got = shop.ask(user, stage="pay")
        if got["nudge"]["id"] == arm:
            return got
    raise AssertionError(f"{arm} was not drawn in 100 decisions")


@pytest.fixture
def shop_with(serving: Serving, clock: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A running service of another catalogue."""
    entered = []

    def start(catalogue: Catalogue) -> Shop:
        monkeypatch.setattr("api.app.read_catalogue", lambda _: catalogue)
        context = serving(MemoryStore(), app="shop")
        entered.append(context)
        return Shop(context.__enter__(), clock)

    yield start
    for context in entered:
        context.__exit__(None, None, None)


def test_caps_count_a_person_under_all_their_ids(shop_with: Any) -> None:
    shop = shop_with(capped(total=1))
    _until(shop, "anon", "trust")
    assert shop.journey("ann")["exposures"] == []
    shop.event("identify", anonymous_id="anon")
    for who in ("ann", "anon"):
        assert shop.ask(who, stage="pay")["excluded"] == {"trust": "cap: 1 of the app per user"}
    assert shop.journey("anon")["exposures"][0]["count"] == 1


def test_who_was_parted_from_a_person_is_not_taken_for_them_again(shop_with: Any) -> None:
    """The anonymous id was bob's, until an earlier link said that it was ann's."""
    shop = shop_with(capped(total=1))
    shop.event("identify", "bob", anonymous_id="anon")
    _until(shop, "bob", "trust")
    assert shop.journey("anon")["exposures"] != []
    shop.event("identify", "ann", ago=60, anonymous_id="anon")
    assert shop.journey("bob")["exposures"] != []
    assert shop.journey("anon")["exposures"] == shop.journey("ann")["exposures"] == []


def test_the_learner_sees_what_events_report_and_not_what_was_not_now(
    working: Callable[..., Any], store: Store
) -> None:
    """Open decisions count in the policy: those that wait for a reward, with the outcomes reported so far."""
    with working(store, parse(TEXT)) as desk:
        desk.send(*VIEWS, *(one._replace(id=one.id + "bob", user="bob") for one in VIEWS[:2]))
        waits, not_now = (desk.run(desk.service.decide(DecisionRequest(user_id=user))) for user in ("ann", "bob"))
        desk.send(ReceivedEvent("added", "Product Added", "ann", None, {"product_id": "shoe"}, None))
        desk.learn()
        assert (waits.moment, not_now.moment) == ("hesitates", None)
        assert desk.worker.learning._last == store.last() == LedgerPosition(decision=2, outcome=1, settlement=0)
        rows = desk.worker.learning._open["look"].rows()
        assert (rows.seq.tolist(), rows.reward.tolist()) == ([1], [1.0])


def test_a_claim_is_never_made_without_its_evidence(working: Callable[..., Any], clock: Callable[[], int]) -> None:
    """20,000 random requests (100,000 in `make chaos`), journeys and repeats among them: a claim needs fresh stock."""
    claims(working, clock, 20_000)


@pytest.mark.slow
def test_a_claim_is_never_made_without_its_evidence_in_100000_requests(
    working: Callable[..., Any], clock: Callable[[], int]
) -> None:
    claims(working, clock, 100_000)


def claims(working: Callable[..., Any], clock: Callable[[], int], count: int) -> None:
    rng, store = random.Random(7), MemoryStore()
    served, users = 0, [f"u{i}" for i in range(30)]
    with working(store, parse(TEXT)) as desk:
        desk.send(*(one._replace(id=one.id + user, user=user) for one in VIEWS for user in users))
        now = dt.datetime.fromtimestamp(clock() / 1e6, dt.UTC)
        for _ in range(count // 500):
            evidence = [
                EvidenceIn(
                    rng.choice([None, 0, 1, 5, 6]), None, rng.choice([None, now, now - dt.timedelta(minutes=11)])
                )
                for _ in range(500)
            ]
            requests = [
                DecisionRequest(user_id=rng.choice(users), stage=rng.choice([None, "look"]), evidence=e)
                for e in evidence
            ]
            for sent, reply in zip(evidence, desk.run(desk.service.decide_many(requests)), strict=True):
                fresh = sent.as_of is None or sent.as_of == now
                if reply.nudge.id == "few_left":
                    served += 1
                    assert sent.stock in (1, 5)
                    assert fresh
    assert served > count / 50
