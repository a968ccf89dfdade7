"""Outcomes of an app whose rewards are of the decider: each brings the token of its decision, or is refused by name."""

import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from bandit import engine
from bandit.catalogue.loading import parse
from bandit.errors import CatalogueError
from journey_bandit.testing.store_builders import CATALOGUE

Serving = Callable[..., AbstractContextManager[Any]]
SHOP = (Path(__file__).parents[2] / "journey_shop.toml").read_text(encoding="utf-8")


@pytest.fixture
def app(tmp_path: Path) -> str:
    (tmp_path / "decider.toml").write_text(f'rewards_of = "decider"\n{CATALOGUE}', encoding="utf-8")
    return str(tmp_path / "decider.toml")


def ask(client: Any, number: int = 1) -> Any:
    asked = {"stage": "signup", "user_id": "ann", "context": {}, "decision_id": str(uuid.UUID(int=number))}
    reply = client.post("/v1/decisions", json=asked)
    assert reply.status_code == 200, reply.text
    return reply.json()


def outcome(decision: Any, **more: Any) -> dict[str, Any]:
    return {"decision_id": decision["decision_id"], "kind": "reward", **more}


def test_an_outcome_brings_the_token_of_its_decision_or_is_refused(serving: Serving, app: str, store: Store) -> None:
    with serving(store, app=app) as client:
        one, other = ask(client), ask(client, 2)
        assert len({one["outcome_token"], other["outcome_token"]}) == 2
        assert ask(client)["outcome_token"] == one["outcome_token"]  # asked again: also by whom it was lost
        assert len(bytes.fromhex(one["outcome_token"])) == 16
        for token in (None, "", other["outcome_token"], one["outcome_token"][:-1], "é" * 32):
            reply = client.post("/v1/outcomes", json=outcome(one, outcome_token=token))
            assert (reply.status_code, reply.json()["errors"][0]["field"]) == (403, "outcome_token")
            assert reply.json()["type"] == "urn:journey-bandit:problem:forbidden"  # by which the clients know it
        nobody = {"decision_id": str(uuid.UUID(int=9))}
        assert client.post("/v1/outcomes", json=outcome(nobody)).status_code == 403
        assert not next(iter(store.decisions())).outcomes
        mine = outcome(one, outcome_token=one["outcome_token"])
        assert [client.post("/v1/outcomes", json=mine).json()["duplicate"] for _ in range(2)] == [False, True]
        assert "outcome_token" not in client.get(f"/v1/decisions/{one['decision_id']}").json()
        items = [outcome(other), mine, outcome(other, outcome_token=other["outcome_token"])]
        items = client.post("/v1/outcomes/batch", json={"outcomes": items}).json()["outcomes"]
        assert [item["status"] for item in items] == [403, 200, 200]
        assert items[0]["problem"]["errors"][0]["field"] == "outcomes[0].outcome_token"
        flag = client.post("/ofrep/v1/evaluate/flags/signup", json={"context": {"targetingKey": "bob", "shown": True}})
        metadata = flag.json()["metadata"]
        told = {"decision_id": metadata["decisionId"]}
        assert client.post("/v1/outcomes", json=outcome(told)).status_code == 403
        brought = outcome(told, outcome_token=metadata["outcomeToken"])
        assert client.post("/v1/outcomes", json=brought).status_code == 200
        (kept,) = store.decisions_by_id([uuid.UUID(told["decision_id"])]).values()
        assert [one.kind for one in kept.outcomes] == ["activation", "reward"]
    with serving(MemoryStore(), app=app) as client:  # another process with the same salt
        assert ask(client)["outcome_token"] == one["outcome_token"]


def test_without_it_nothing_changes(serving: Serving) -> None:
    with serving(MemoryStore()) as client:
        made = ask(client)
        assert "outcome_token" not in made
        assert client.post("/v1/outcomes", json=outcome(made)).status_code == 200


def test_a_token_is_of_the_salt_and_the_decision() -> None:
    ids = uuid.UUID(int=1), uuid.UUID(int=2)
    tokens = {engine.outcome_token(salt, one) for salt in (b"a" * 32, b"b" * 32) for one in ids}
    assert len(tokens) == 4
    assert not tokens & {engine.user_hash(b"a" * 32, str(one)).hex() for one in ids}


def test_ways_without_a_field_for_the_token_are_refused_by_the_check() -> None:
    with pytest.raises(CatalogueError) as error:
        parse(f'rewards_of = "decider"\n{SHOP}')
    assert {one.field.split(".")[2] for one in error.value.mistakes} == {"outcomes"}
    assert all("events carry no token" in one.problem for one in error.value.mistakes)
    shared = CATALOGUE + '\n[stages.links]\nreward = { kind = "binary", window = "1h" }\npolicy = { name = "shared" }\n'
    parse(shared)
    with pytest.raises(CatalogueError) as error:
        parse(f'rewards_of = "decider"\n{shared}')
    assert [one.field for one in error.value.mistakes] == ["stages.links.policy"]
