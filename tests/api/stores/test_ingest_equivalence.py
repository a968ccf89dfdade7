"""Whatever happens to facts on their way (doubled, reordered, broken neighbours, ids joined late, refunds first), the
service learns what it would have learned from the same facts, told once and in order: through each protocol.
"""

import datetime as dt
import json
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from journey_bandit.testing.store_builders import START
from tests.api.conftest import Hands

SHOP = Path(__file__).parents[2] / "journey_shop.toml"
HOUR = 3600
Serving = Callable[..., AbstractContextManager[Any]]
Send = Callable[[Any, Sequence["Fact"]], None]


class Fact(NamedTuple):
    """One thing that happened, as one page tells it. `joined`: another id of the same person, said with it."""

    id: str
    name: str
    user: str
    hour: float
    properties: dict[str, Any]
    joined: str | None = None

    @property
    def at(self) -> str:
        return dt.datetime.fromtimestamp(START / 1e6 + self.hour * HOUR, dt.UTC).isoformat()


BROKEN: tuple[dict[str, Any], ...] = (
    {"occurred_at": "soon"},
    {"occurred_at": "0001-01-01T00:00:00Z"},
    {"occurred_at": "2999-01-01T00:00:00Z"},
    {"user_id": "undefined"},
    {"user_id": None},
    {"properties": {"order_id": "x" * 300}},
    {"properties": {"order_id": ["A"]}},
)


def native(client: Any, facts: Sequence[Fact]) -> None:
    items = []
    for n, fact in enumerate(facts):
        body: dict[str, Any] = {"event_id": fact.id, "event": fact.name, "user_id": fact.user, "occurred_at": fact.at}
        body |= {"properties": fact.properties} | ({"anonymous_id": fact.joined} if fact.joined else {})
        items += [body, {**body, "event_id": f"broken-{n}", **BROKEN[n % len(BROKEN)]}]
    for one in items:  # one by one: how a body with a broken item is answered is not asked here
        reply = client.post("/v1/events", json={"events": [one]})
        assert reply.status_code in (200, 400), reply.text


def segment(client: Any, facts: Sequence[Fact]) -> None:
    names = {"occurred_at": "timestamp", "user_id": "userId"}
    batch = []
    for n, fact in enumerate(facts):
        kind = {"type": "identify"} if fact.name == "identify" else {"type": "track", "event": fact.name}
        body: dict[str, Any] = {"messageId": fact.id, "userId": fact.user, "timestamp": fact.at, **kind}
        body |= {"properties": fact.properties} | ({"anonymousId": fact.joined} if fact.joined else {})
        wrong = {names.get(key, key): value for key, value in BROKEN[n % len(BROKEN)].items()}
        batch += [body, {**body, "anonymousId": None, "messageId": f"broken-{n}", **wrong}]
    reply = client.post("/v1/batch", json={"batch": batch, "sentAt": None})
    assert reply.status_code == 200, reply.text


def collector(client: Any, facts: Sequence[Fact]) -> None:
    for fact in facts:
        event = {
            "kind": "tracking",
            "key": fact.name,
            "userKey": fact.user,
            "creationDate": START / 1e6 + fact.hour * HOUR,
            "trackingEventDetails": fact.properties,
        }
        for one in (event, {**event, "creationDate": 1e12}):
            reply = client.post("/v1/data/collector", content=json.dumps({"events": [one]}))
            assert reply.status_code in (200, 400), reply.text


orders = st.builds(
    lambda n, who, hour, key, amount: Fact(f"o{n}", "Order Completed", who, hour, {"order_id": key, "revenue": amount}),
    st.integers(0, 10**6),
    st.sampled_from(["u0", "u1", "anon0"]),
    st.integers(0, 20),
    st.sampled_from(["A", "B", 1001, "1001"]),
    st.sampled_from([10.0, 49.9, 120.5]),
)
refunds = st.builds(
    lambda n, who, hour, key, part: Fact(
        f"r{n}", "Order Refunded", who, hour, {"order_id": key, **({"amount": part} if part else {})}
    ),
    st.integers(0, 10**6),
    st.sampled_from(["u0", "u1", "anon0"]),
    st.integers(0, 20),
    st.sampled_from(["A", "B", 1001, "1001"]),
    st.sampled_from([None, 5.0, -5.0]),
)
links = st.builds(lambda hour: Fact("link", "identify", "u0", hour, {}, "anon0"), st.integers(0, 20))
stories = st.tuples(
    st.lists(orders, min_size=1, max_size=5, unique_by=lambda fact: fact.id),
    st.lists(refunds, max_size=3, unique_by=lambda fact: fact.id),
    st.lists(links, max_size=1),
)


def learned(serving: Serving, clock: Hands, send: Send, facts: Sequence[Fact]) -> Any:
    """What the service believes after it was told, and how each decision ended."""
    clock.now = START
    with serving(app=str(SHOP)) as client:
        asked = []
        for step in range(2):
            for n, user in enumerate(("u0", "u1", "anon0")):
                for m, stage in enumerate(("basket", "later")):
                    asked.append(str(uuid.UUID(int=1 + step * 6 + n * 2 + m)))
                    body = {"stage": stage, "user_id": user, "decision_id": asked[-1]}
                    assert client.post("/v1/decisions", json=body).status_code == 200
            clock.move(5 * HOUR)
        clock.move(20 * HOUR)
        send(client, facts)
        clock.move(30 * 24 * HOUR)
        policies = client.get("/v1/policies?wait=true").json()["policies"]
        ends = [client.get(f"/v1/decisions/{one}").json()["settled"] for one in asked]
    beliefs = {policy["stage"]: policy["belief_sha256"] for policy in policies}
    return beliefs, [(end["reward"], end["learned"]) for end in ends]


@pytest.mark.parametrize("send", [native, segment, collector])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None, derandomize=True)
@given(stories, st.data())
def test_facts_end_in_the_same_belief_however_they_are_told(
    send: Send, serving: Serving, hands: Hands, story: Any, data: st.DataObject
) -> None:
    told, taken, joined = story
    if send is collector:  # it names no other id
        joined = []
    facts = [*told, *taken, *joined]
    clean = learned(serving, hands, send, sorted(facts, key=lambda fact: (fact.hour, fact.id)))
    doubled = [f._replace(id=f"{f.id}-again", hour=f.hour + 0.5) for f in told if data.draw(st.booleans())]
    messy = data.draw(st.permutations([*facts, *doubled, *facts[::2]]))
    assert learned(serving, hands, send, messy) == clean
