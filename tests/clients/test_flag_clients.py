"""OpenFeature's own clients, unmodified: a flag is evaluated, shown, rewarded by Segment's client, and learned from."""

import json
import uuid
from collections.abc import Callable
from typing import Any

import openfeature.api
import pytest
import segment.analytics
from openfeature.client import OpenFeatureClient
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import Reason

SERVER = """
import { OpenFeature } from '@openfeature/server-sdk'
import { OFREPProvider } from '@openfeature/ofrep-provider'
const [url, key, user] = process.argv.slice(2)
await OpenFeature.setProviderAndWait(new OFREPProvider({ baseUrl: url, headers: [['X-API-Key', key]] }))
const client = OpenFeature.getClient()
const context = { targetingKey: user, cart: 80.5, vip: true, when: new Date(0), nested: { a: [1] } }
const details = [
  await client.getObjectDetails('checkout', { default: true }, context),
  await client.getStringDetails('checkout.nudge', 'default', context),
  await client.getBooleanDetails('checkout.show', false, context),
  await client.getObjectDetails('nothing', { default: true }, context),
  await client.getObjectDetails('checkout', { default: true }, {}),
]
console.log(JSON.stringify(details))
"""
WEB = """
import { OpenFeature } from '@openfeature/web-sdk'
import { OFREPWebProvider } from '@openfeature/ofrep-web-provider'
const [url, key, user] = process.argv.slice(2)
const seen = []
const counting = async (request, options) => {
  const reply = await fetch(request, options)
  const headers = new Headers(options?.headers ?? request.headers)
  seen.push([reply.status, headers.get('if-none-match'), reply.headers.get('etag')])
  return reply
}
const provider = new OFREPWebProvider({
  baseUrl: url, headers: [['X-API-Key', key]], fetchImplementation: counting, pollInterval: 50, cacheMode: 'disabled',
})
await OpenFeature.setContext({ targetingKey: user, cart: 80.5 })
await OpenFeature.setProviderAndWait(provider)
const client = OpenFeature.getClient()
const read = () => [client.getObjectDetails('checkout', {}), client.getStringDetails('checkout.nudge', 'default')]
const first = read()
while (seen.filter(([status]) => status === 304).length < 2) await new Promise((done) => setTimeout(done, 20))
const again = read()
await OpenFeature.setContext({ targetingKey: user, cart: 500 })
const other = read()
await OpenFeature.close()
console.log(JSON.stringify({ seen, first, again, other }))
process.exit(0)
"""


@pytest.fixture
def client(shop: Any) -> OpenFeatureClient:
    provider = OFREPProvider(shop.url, headers_factory=lambda: {"X-API-Key": shop.key})
    openfeature.api.set_provider(provider, domain="shop")
    return openfeature.api.get_client("shop")


def shown_and_bought(shop: Any, user: str, decision: str) -> None:
    """What the page reports, by Segment's client."""
    failures: list[Any] = []
    sender = segment.analytics.Client(shop.write_key, host=shop.url, on_error=lambda e, _: failures.append(e))
    sender.track(user_id=user, event="Promotion Viewed", properties={"promotion_id": decision})
    sender.flush()
    sender.track(user_id=user, event="Order Completed", properties={"order_id": str(uuid.uuid4()), "revenue": 80.5})
    sender.flush()
    sender.join()
    assert failures == []


def closes_the_loop(shop: Any, user: str, variant: str, metadata: Any) -> None:
    decision = metadata["decisionId"]
    before = shop.learned("checkout", variant)
    shown_and_bought(shop, user, decision)
    after = shop.learned("checkout", variant)
    assert (after["learned"], after["mean_reward"]) == (before["learned"] + 1, 1.0)
    receipt = shop.receipt(decision)
    assert receipt["nudge"]["id"] == variant
    assert [outcome["kind"] for outcome in receipt["outcomes"]] == ["activation", "reward"]
    assert receipt["settled"]["learned"] is True


def test_the_python_client(shop: Any, client: OpenFeatureClient) -> None:
    user = f"u-{uuid.uuid4()}"
    who = EvaluationContext(user, {"cart": 80.5, "vip": True, "tags": ["a"], "nested": {"x": 1}})
    details = client.get_object_details("checkout", {"default": True}, who)
    assert (details.error_code, details.reason) == (None, Reason.SPLIT)
    assert details.variant in ("none", "scarcity", "discount_10")
    assert client.get_string_value("checkout.nudge", "default", who) == details.variant
    assert client.get_boolean_value("checkout.show", False, who) is (details.variant != "none")
    prefetched = client.get_object_details("checkout", {}, EvaluationContext(user, {"cart": 900.0}))  # never shown
    closes_the_loop(shop, user, str(details.variant), details.flag_metadata)
    assert shop.receipt(str(prefetched.flag_metadata["decisionId"]))["outcomes"] == []


def test_a_payload_keeps_the_types_that_it_was_declared_with(shop: Any, client: OpenFeatureClient) -> None:
    for n in range(100):
        found: Any = client.get_object_value("checkout", {}, EvaluationContext(f"typed-{n}"))
        if found:
            assert (type(found["percent"]), type(found["weight"])) == (int, float)
            return
    pytest.fail("100 users and no nudge")


@pytest.mark.parametrize(
    ("key", "who", "code"),
    [
        ("nothing", EvaluationContext("u"), ErrorCode.FLAG_NOT_FOUND),
        ("a/b:c", EvaluationContext("u"), ErrorCode.FLAG_NOT_FOUND),
        ("checkout", EvaluationContext(None, {"cart": 1.0}), ErrorCode.TARGETING_KEY_MISSING),
        ("checkout", EvaluationContext("u", {"cart": "much"}), ErrorCode.INVALID_CONTEXT),
    ],
)
def test_the_python_client_understands_our_errors(
    client: OpenFeatureClient, key: str, who: EvaluationContext, code: ErrorCode
) -> None:
    details = client.get_object_details(key, {"default": True}, who)
    assert (details.value, details.error_code) == ({"default": True}, code)


def test_the_python_client_is_told_of_a_wrong_key(shop: Any) -> None:
    openfeature.api.set_provider(OFREPProvider(shop.url, headers_factory=lambda: {"X-API-Key": "no"}), domain="wrong")
    details = openfeature.api.get_client("wrong").get_object_details("checkout", {}, EvaluationContext("u"))
    assert details.error_code == ErrorCode.GENERAL
    assert "unauthorized" in str(details.error_message).lower()


def test_the_node_client(shop: Any, node: Callable[..., str]) -> None:
    user = f"u-{uuid.uuid4()}"
    payload, name, show, missing, nobody = json.loads(node(SERVER, shop.url, shop.key, user))
    assert payload["reason"] == "SPLIT"
    assert name["value"] == payload["variant"]
    assert show["value"] is (payload["variant"] != "none")
    assert payload["flagMetadata"] == name["flagMetadata"] == show["flagMetadata"]
    assert (missing["errorCode"], missing["value"]) == ("FLAG_NOT_FOUND", {"default": True})
    assert nobody["errorCode"] == "TARGETING_KEY_MISSING"
    closes_the_loop(shop, user, payload["variant"], payload["flagMetadata"])


def test_the_web_client_polls_and_is_told_when_nothing_has_changed(shop: Any, node: Callable[..., str]) -> None:
    user = f"u-{uuid.uuid4()}"
    told = json.loads(node(WEB, shop.url, shop.key, user))
    assert told["seen"][0][:2] == [200, None]
    assert sorted({status for status, _, _ in told["seen"]}) == [200, 304]
    tags = {tag for status, sent, tag in told["seen"] if status == 304 for tag in (sent, tag)}
    assert tags == {told["seen"][0][2]}
    payload, name = told["first"]
    assert payload["variant"] == name["value"]
    assert told["again"][0]["flagMetadata"] == payload["flagMetadata"]
    other = told["other"][0]["flagMetadata"]["decisionId"]  # the same user with another cart: a new question
    assert other != payload["flagMetadata"]["decisionId"]
    closes_the_loop(shop, user, payload["variant"], payload["flagMetadata"])


def test_an_app_that_knows_no_stages_has_segment_and_openfeature(running: Any) -> None:
    """Three views by Segment's client → the journey's flag, by OpenFeature's → the reward, by Segment's again."""
    user = f"u-{uuid.uuid4()}"
    openfeature.api.set_provider(
        OFREPProvider(running.url, headers_factory=lambda: {"X-API-Key": running.key}), domain="journey"
    )
    client = openfeature.api.get_client("journey")
    who = EvaluationContext(user, {"mobile": True, "shown": True})
    off = client.get_object_details("journey", {"default": True}, who)
    assert (off.reason, off.variant, off.value) == (Reason.DISABLED, "none", {})

    def track(event: str, count: int) -> None:
        sender = segment.analytics.Client(running.write_key, host=running.url)
        for _ in range(count):
            sender.track(user_id=user, event=event, properties={"product_id": "shoe"})
        sender.flush()
        sender.join()

    track("Product Viewed", 3)
    found = client.get_object_details("journey", {}, who)
    assert (found.flag_metadata["stage"], found.flag_metadata["moment"]) == ("look", "hesitates")
    before = running.learned("look", str(found.variant))
    track("Product Added", 1)
    after = running.learned("look", str(found.variant))
    assert after["learned"] == before["learned"] + 1
    assert running.receipt(str(found.flag_metadata["decisionId"]))["settled"]["reward"] == 1.0
