"""Azure Personalizer's clients, unmodified: rank, reward, activate, slots; what was rewarded is learned, once."""

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from azure.cognitiveservices.personalizer import PersonalizerClient
from azure.cognitiveservices.personalizer.models import ErrorResponseException, RankableAction, RankRequest
from msrest.authentication import CognitiveServicesCredentials
from msrest.exceptions import HttpOperationError

JS = """
import { PersonalizerClient } from '@azure/cognitiveservices-personalizer'
import { ApiKeyCredentials } from '@azure/ms-rest-js'
const [url, key, event] = process.argv.slice(2)
const credentials = new ApiKeyCredentials({ inHeader: { 'Ocp-Apim-Subscription-Key': key } })
const client = new PersonalizerClient(credentials, url)  // it loses a path of the endpoint: the key names the loop
const answer = await client.rank({
  eventId: event, deferActivation: true,
  contextFeatures: [{ user: { plan: 'free' } }, { stage: 'checkout' }],
  actions: [{ id: 'none', features: [] }, { id: 'discount_10', features: [{ kind: 'discount', percent: 10 }] }],
})
await client.events.activate(event)
await client.events.reward(event, { value: 1 })
const wrong = await client.rank({ actions: [] }).catch((error) => error.body)
console.log(JSON.stringify({ answer, wrong }))
"""
REST = """
import module from '@azure-rest/ai-personalizer'
import { AzureKeyCredential } from '@azure/core-auth'
const [url, key, event] = process.argv.slice(2)
const client = (module.default ?? module)(`${url}/page`, new AzureKeyCredential(key), { allowInsecureConnection: true })
const actions = [{ id: 'a', features: [{ kind: 'news' }] }, { id: 'b', features: [] }, { id: 'c', features: [] }]
const slots = [{ id: 'top', baselineAction: 'a', features: [{ size: 'large' }] }, { id: 'side', baselineAction: 'b' }]
const ranked = await client.path('/multislot/rank').post({ body: { eventId: event, actions, slots } })
const path = client.path('/multislot/events/{eventId}/reward', event)
const rewarded = await path.post({ body: { reward: [{ slotId: 'top', value: 1 }, { slotId: 'side', value: -1 }] } })
const activated = await client.path('/multislot/events/{eventId}/activate', event).post()
const single = await client.path('/rank').post({ body: { eventId: event, actions, deferActivation: false } })
const reward = await client.path('/events/{eventId}/reward', event).post({ body: { value: 0.5 } })
const statuses = [ranked, rewarded, activated, single, reward].map((reply) => reply.status)
console.log(JSON.stringify({ statuses, ranked: ranked.body, single: single.body }))
"""
ACTIONS = [
    RankableAction(id="none", features=[{"kind": "none", "cost": 1.5}, {"tags": {"a": True}}]),
    RankableAction(id="discount_10", features=[{"kind": "discount", "percent": 10}]),
    RankableAction(id="trial", features=[]),
]


@pytest.fixture
def client(shop: Any) -> Iterator[PersonalizerClient]:
    with PersonalizerClient(f"{shop.url}/loops/offers/", CognitiveServicesCredentials(shop.key)) as found:
        yield found


def asked(event: str | None = None, **more: Any) -> RankRequest:
    context = [{"user": {"plan": "free"}}, {"stage": "checkout"}]
    return RankRequest(actions=ACTIONS, context_features=context, event_id=event, **more)


def test_the_python_client(shop: Any, client: PersonalizerClient) -> None:
    before = shop.learned("offers", "taken")["learned"]
    answer = client.rank(asked(excluded_actions=["none"]))
    assert answer.ranking[0].id == "none"
    assert answer.ranking[0].probability == 0.0
    assert sum(action.probability for action in answer.ranking) == pytest.approx(1.0)
    assert answer.reward_action_id in ("discount_10", "trial")
    client.events.reward(answer.event_id, 0.75)
    client.events.reward(answer.event_id, 0.75)  # a retry
    receipt = shop.receipt(answer.event_id.removeprefix("jb-"))
    assert receipt["nudge"]["id"] == answer.reward_action_id
    assert [outcome["value"] for outcome in receipt["outcomes"]] == [0.75]
    assert shop.learned("offers", "taken")["learned"] == before + 1
    assert shop.receipt(answer.event_id.removeprefix("jb-"))["settled"]["learned"] is True


def test_the_python_client_defers_and_activates(shop: Any, client: PersonalizerClient) -> None:
    before = shop.learned("offers", "taken")["learned"]
    shown, hidden = f"shown/{uuid.uuid4()}", f"hidden ?{uuid.uuid4()}"
    for event in (shown, hidden):
        assert client.rank(asked(event, defer_activation=True)).event_id == event
        assert client.rank(asked(event, defer_activation=True)).event_id == event
        client.events.reward(event, 1.0)
    assert shop.learned("offers", "taken")["learned"] == before
    client.events.activate(shown)
    client.events.activate(shown)
    assert shop.learned("offers", "taken")["learned"] == before + 1


def test_the_python_client_understands_our_errors(shop: Any, client: PersonalizerClient) -> None:
    with pytest.raises(ErrorResponseException) as refused:
        client.rank(asked(excluded_actions=["none", "discount_10", "trial"]))
    assert refused.value.error.error.code == "BadRequest"
    assert "excludedActions" in refused.value.error.error.message
    lost = PersonalizerClient(f"{shop.url}/nothing", CognitiveServicesCredentials(shop.key))
    with lost, pytest.raises(ErrorResponseException) as refused:
        lost.rank(asked())
    assert refused.value.error.error.code == "ResourceNotFound"
    stranger = PersonalizerClient(f"{shop.url}/offers", CognitiveServicesCredentials("wrong"))
    with stranger, pytest.raises(ErrorResponseException) as refused:
        stranger.rank(asked())
    assert refused.value.error.error.code == "401"
    with pytest.raises(HttpOperationError):
        client.events.reward("ev", 5.0)
    client.events.reward("nobody knows it", 1.0)


def test_the_javascript_client(shop: Any, node: Callable[..., str]) -> None:
    before = shop.learned("offers", "taken")["learned"]
    told = json.loads(node(JS, shop.url, shop.key, f"js/{uuid.uuid4()}"))
    answer = told["answer"]
    assert {action["id"] for action in answer["ranking"]} == {"none", "discount_10"}
    assert answer["rewardActionId"] == answer["ranking"][0]["id"]
    assert told["wrong"]["error"]["code"] == "BadRequest"
    assert shop.learned("offers", "taken")["learned"] == before + 1


def test_the_rest_client_fills_slots(shop: Any, node: Callable[..., str]) -> None:
    before = shop.learned("page", "taken")["learned"]
    told = json.loads(node(REST, shop.url, shop.key, f"page {uuid.uuid4()}"))
    assert told["statuses"] == ["201", "204", "204", "201", "204"]
    top, side = told["ranked"]["slots"]
    assert (top["id"], side["id"]) == ("top", "side")
    assert top["rewardActionId"] != side["rewardActionId"]
    assert told["single"]["rewardActionId"] in ("a", "b", "c")
    assert shop.learned("page", "taken")["learned"] == before + 3
