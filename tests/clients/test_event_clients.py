"""The clients people already have, unmodified: events in, a decision, its outcome by the same client, and learning.

With each: three views of a product → the moment "hesitates" → a decision → Product Added → its arm learned a reward.
"""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
import rudderstack.analytics
import segment.analytics

SEGMENT = """
import { Analytics } from '@segment/analytics-node'
const [url, key, user, event, count] = process.argv.slice(2)
const client = new Analytics({ writeKey: key, host: url })
client.on('error', (error) => { console.error(error); process.exit(1) })
client.identify({ userId: user, anonymousId: `anon-${user}`, traits: { wants_mail: true } })
for (let i = 0; i < Number(count); i++) client.track({ userId: user, event, properties: { product_id: 'shoe' } })
await client.closeAndFlush()
console.log('sent')
"""
RUDDER = """
import Rudder from '@rudderstack/rudder-sdk-node'
const [url, key, user, event, count] = process.argv.slice(2)
const client = new (Rudder.default ?? Rudder)(key, { dataPlaneUrl: url })
client.identify({ userId: user, anonymousId: `anon-${user}`, traits: { wants_mail: true } })
for (let i = 0; i < Number(count); i++) client.track({ userId: user, event, properties: { product_id: 'shoe' } })
await new Promise((done, fail) => client.flush((error) => error ? fail(error) : done()))
console.log('sent')
process.exit(0)
"""


def closes_the_loop(running: Any, send: Callable[[str, str, int], None]) -> None:
    """`send(user, event, count)`: identify the user, then track so many events about one product, until delivered."""
    user = f"u-{uuid.uuid4()}"
    send(user, "Product Viewed", 3)
    journey = running.journey(user)
    assert (journey["moment"], journey["consent"]) == ("hesitates", ["mail"])
    assert journey["events"]["viewed"]["count"] == 3
    assert running.journey(f"anon-{user}")["moment"] == "hesitates"
    decision = running.ask(user)
    before = running.learned("look", decision["nudge"]["id"])
    send(user, "Product Added", 1)
    after = running.learned("look", decision["nudge"]["id"])
    assert after["learned"] == before["learned"] + 1
    assert after["mean_reward"] == 1.0
    receipt = running.client.get(f"/v1/decisions/{decision['decision_id']}").json()
    assert [outcome["kind"] for outcome in receipt["outcomes"]] == ["reward"]
    assert receipt["settled"]["learned"] is True


@pytest.mark.parametrize("packed", [False, True])
def test_segments_python_client(running: Any, packed: bool) -> None:
    failures: list[Any] = []

    def send(user: str, event: str, count: int) -> None:
        client = segment.analytics.Client(
            running.write_key,
            host=running.url,
            gzip=packed,
            on_error=lambda error, _: failures.append(error),
        )
        client.identify(user_id=user, anonymous_id=f"anon-{user}", traits={"wants_mail": True})
        for _ in range(count):
            client.track(user_id=user, event=event, properties={"product_id": "shoe"})
        client.flush()
        client.join()
        assert failures == []

    closes_the_loop(running, send)


@pytest.mark.parametrize("packed", [False, True])
def test_rudderstacks_python_client(running: Any, packed: bool) -> None:
    failures: list[Any] = []

    def send(user: str, event: str, count: int) -> None:
        client = rudderstack.analytics.Client(
            running.write_key, host=running.url, gzip=packed, on_error=lambda error, _: failures.append(error)
        )
        client.identify(user_id=user, anonymous_id=f"anon-{user}", traits={"wants_mail": True})
        for _ in range(count):
            client.track(user_id=user, event=event, properties={"product_id": "shoe"})
        client.flush()
        client.join()
        assert failures == []

    closes_the_loop(running, send)


@pytest.mark.parametrize("script", [SEGMENT, RUDDER], ids=["segment", "rudderstack"])
def test_the_node_clients(running: Any, node: Callable[..., str], script: str) -> None:
    def send(user: str, event: str, count: int) -> None:
        assert node(script, running.url, running.write_key, user, event, str(count)) == "sent\n"

    closes_the_loop(running, send)


def test_a_wrong_key_is_dropped_at_once_and_told(running: Any) -> None:
    """401 with code and message: the client reports it and does not send it again."""
    told: list[Any] = []
    client = segment.analytics.Client(
        "web.wrong", host=running.url, on_error=lambda error, _: told.append((error.status, error.code))
    )
    client.track(user_id="ann", event="Product Viewed")
    client.flush()
    client.join()
    assert told == [(401, "unauthorized")]
    assert running.journey("ann")["events"] == {}
