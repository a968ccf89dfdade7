"""Who reported something: the ledger keeps the name of the API key with each outcome and event, whatever the protocol,
and the first one's when another repeats it.
"""

import datetime as dt
import gzip
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from api.app import create_app
from api.http.browser_access import signed
from api.http.keys import PublishableKey, create, create_publishable
from api.settings import Settings
from api.stores.memory.store import MemoryStore
from api.stores.sqlite.copies import back_up
from api.stores.sqlite.store import SqliteStore
from bandit.catalogue.loading import read_shipped
from bandit.records import Outcome
from journey_bandit.testing.store_builders import START, ContractLedger, Decide, Report

Client = TestClient[Litestar]
LOOP = """
[stages.offers]
policy = { name = "shared", columns = 64 }
reward = { kind = "continuous", window = "10m", min = -1.0, max = 1.0 }
"""
SHOP = "https://shop.example"
NAMES = ("web", "till", "crm")
OLD = sorted((Path(__file__).parents[2] / "data" / "ledgers").glob("full-*.db.gz"))


class Shop(NamedTuple):
    """A service of the shop: its client, the secrets of its keys by name, and its store."""

    client: Client
    secrets: dict[str, str]
    page: PublishableKey
    store: MemoryStore

    def send(self, name: str, path: str, body: Any) -> Any:
        """What is answered to the key of that name; an error fails the test."""
        reply = self.client.post(path, json=body, headers={"X-API-Key": self.secrets[name]})
        assert reply.status_code < 300, reply.text
        return reply.json() if reply.content else None

    def decided(self, stage: str = "browsing", user: str = "u1") -> str:
        return str(self.send("web", "/v1/decisions", {"stage": stage, "user_id": user})["decision_id"])

    def outcomes(self, decision: str) -> tuple[Outcome, ...]:
        found = self.store.decisions_by_id([uuid.UUID(decision)])
        return found[uuid.UUID(decision)].outcomes

    def reporters(self, decision: str) -> dict[str, str]:
        """Who reported each outcome of a decision."""
        return {outcome.id: outcome.reporter for outcome in self.outcomes(decision)}

    def events(self, user: str = "u1") -> dict[str, str]:
        """Who sent each event of a user, as an export says it."""
        headers = {"X-API-Key": self.secrets["web"]}
        exported = self.client.get(f"/v1/users/{user}/export", headers=headers).json()
        assert {o["reporter"] for one in exported["decisions"] for o in one["outcomes"]} <= {"till", self.page.id}
        return {event["event_id"]: event["reporter"] for event in exported["events"]}


@pytest.fixture
def shop(tmp_path: Path, clock: Any) -> Iterator[Shop]:
    app, keys = tmp_path / "shop.toml", tmp_path / "keys.toml"
    app.write_text(read_shipped("fashion") + LOOP)
    secrets = {name: create(keys, name, ["decide", "reward", "read", "events", "admin"]) for name in NAMES}
    page = create_publishable(keys, "shop", [SHOP], "signed", dt.datetime.now(dt.UTC))
    store = MemoryStore()
    with TestClient(create_app(Settings(app=str(app), keys=str(keys), salt="s"), clock=clock, store=store)) as client:
        yield Shop(client, secrets, page, store)


def test_an_outcome_is_of_the_key_that_reported_it_first(shop: Shop) -> None:
    one, two = shop.decided(), shop.decided(user="u2")
    told = {"decision_id": one, "kind": "reward", "value": 1}
    assert not shop.send("till", "/v1/outcomes", told)["duplicate"]
    assert shop.send("crm", "/v1/outcomes", told)["duplicate"]
    batch = [told, {"decision_id": one, "kind": "activation"}, {"decision_id": two, "kind": "reward"}]
    shop.send("crm", "/v1/outcomes/batch", {"outcomes": batch})
    assert shop.reporters(one) == {"reward": "till", "activation": "crm"}
    assert shop.reporters(two) == {"reward": "crm"}
    receipt = shop.client.get(f"/v1/decisions/{one}", headers={"X-API-Key": shop.secrets["web"]}).json()
    assert {o["outcome_id"]: o["reporter"] for o in receipt["outcomes"]} == {"reward": "till", "activation": "crm"}


def test_loops_and_flags_keep_who_reported(shop: Shop) -> None:
    rank = {"actions": [{"id": "a", "features": []}, {"id": "b", "features": []}], "deferActivation": True}
    path = "/offers/personalizer/v1.0"
    ranked = shop.send("web", f"{path}/rank", rank)
    shop.send("till", f"{path}/events/{ranked['eventId']}/activate", None)
    shop.send("crm", f"{path}/events/{ranked['eventId']}/reward", {"value": 1.0})
    assert shop.reporters(ranked["decisionId"]) == {"activation": "till", "reward": "crm"}
    slots = {**rank, "slots": [{"id": "s", "baselineAction": "a", "features": []}]}
    filled = shop.send("web", f"{path}/multislot/rank", slots)
    shop.send("crm", f"{path}/multislot/events/{filled['eventId']}/activate", None)
    rewards = {"reward": [{"slotId": "s", "value": 1.0}]}
    shop.send("till", f"{path}/multislot/events/{filled['eventId']}/reward", rewards)
    assert shop.reporters(filled["slots"][0]["decisionId"]) == {"activation": "crm", "reward": "till"}
    context = {"context": {"targetingKey": "u3", "shown": True}}
    flag = shop.send("crm", "/ofrep/v1/evaluate/flags/browsing", context)
    assert shop.reporters(flag["metadata"]["decisionId"]) == {"activation": "crm"}


def test_an_event_is_of_the_key_that_sent_it_and_so_is_what_it_reports(shop: Shop) -> None:
    decision = shop.decided("checkout")
    order = {
        "event_id": "e1",
        "event": "Order Completed",
        "user_id": "u1",
        "properties": {"order_id": "o1", "total": 9},
    }
    shop.send("till", "/v1/events", {"events": [order]})
    shop.send("crm", "/v1/events", {"events": [order]})
    message = {"type": "track", "event": "Product Viewed", "userId": "u1"}
    shop.send("crm", "/v1/track", {**message, "messageId": "s1"})
    body = {"batch": [{**message, "messageId": "s2"}], "writeKey": shop.secrets["till"]}
    assert shop.client.post("/v1/batch", json=body).status_code == 200
    tracked = {"kind": "tracking", "key": "Product Viewed", "userKey": "u1"}
    shop.send("till", "/v1/data/collector", {"events": [tracked]})
    found = shop.events()
    assert {name: found.pop(name) for name in ("e1", "s1", "s2")} == {"e1": "till", "s1": "crm", "s2": "till"}
    assert set(found.values()) == {"till"}  # the collector's has no id of its own
    assert set(shop.reporters(decision).values()) == {"till"}


def test_pages_are_known_by_the_id_of_their_key(shop: Shop, clock: Any) -> None:
    page = shop.page.id
    token = signed(shop.page, "u1", clock() // 1_000_000 + 600)
    said = {"key": page, "token": token, "user_id": "u1"}
    headers = {"Origin": SHOP}
    made = shop.client.post("/v1/browser/decisions", json=said | {"stage": "browsing"}, headers=headers).json()
    seen = said | {"decision_id": made["decision_id"]}
    assert shop.client.post("/v1/browser/activations", json=seen, headers=headers).status_code == 200
    told = said | {"events": [{"event_id": "e1", "event": "Product Viewed"}]}
    assert shop.client.post("/v1/browser/events", json=told, headers=headers).status_code == 200
    assert shop.reporters(made["decision_id"]) == {"activation": page}
    assert shop.events() == {"e1": page}


def test_a_trial_without_keys_believes_no_name(client: Any) -> None:
    made = client.post("/v1/decisions", json={"stage": "signup", "user_id": "u"}).json()
    told = {"decision_id": made["decision_id"], "kind": "reward"}
    assert client.post("/v1/outcomes", json=told, headers={"X-API-Key": "till.x"}).status_code == 200
    (outcome,) = client.get(f"/v1/decisions/{made['decision_id']}").json()["outcomes"]
    assert outcome["reporter"] == ""


def test_a_copy_of_the_ledger_knows_who_reported(
    tmp_path: Path, decide: Decide, outcome: Report, catalogue: Any
) -> None:
    path, copy = tmp_path / "ledger.db", tmp_path / "copy.db"
    with closing(SqliteStore(path)) as store:
        ledger = ContractLedger(store, catalogue)
        ledger.decided(decide(1))
        ledger.reported(outcome(1, reporter="till"), now=START)
        assert store.decisions_by_id([uuid.UUID(int=1)])[uuid.UUID(int=1)].outcomes[0].reporter == "till"
    back_up(path, copy)
    with closing(SqliteStore(copy, read_only=True)) as store:
        assert store.decisions_by_id([uuid.UUID(int=1)])[uuid.UUID(int=1)].outcomes[0].reporter == "till"
        assert list(store.damages()) == []


@pytest.mark.parametrize("packed", OLD, ids=lambda path: path.name.removesuffix(".db.gz"))
def test_of_an_older_ledger_nobody_is_named(packed: Path, tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    with closing(SqliteStore(path)) as store:
        told = [outcome for found in store.decisions() for outcome in found.outcomes]
        assert told
        assert {outcome.reporter for outcome in told} == {""}
        assert list(store.damages()) == []


@pytest.mark.parametrize(("forget", "left"), [(False, ["till"]), (True, [""])])
def test_an_erasure_that_forgets_leaves_no_reporter(tmp_path: Path, forget: bool, left: list[str], clock: Any) -> None:
    """A remainder, which is nobody's, still says which key taught it: it may have to be taken back."""
    path, keys = tmp_path / "ledger.db", tmp_path / "keys.toml"
    secret = create(keys, "till", ["decide", "reward", "events", "admin"])
    settings = Settings(app="fashion", keys=str(keys), salt="s")
    with TestClient(create_app(settings, clock=clock, store=SqliteStore(path))) as client:
        headers = {"X-API-Key": secret}
        made = client.post("/v1/decisions", json={"stage": "browsing", "user_id": "u"}, headers=headers).json()
        told = {"decision_id": made["decision_id"], "kind": "reward"}
        assert client.post("/v1/outcomes", json=told, headers=headers).status_code == 200
        event = {"event_id": "e1", "event": "Product Viewed", "user_id": "u"}
        assert client.post("/v1/events", json={"events": [event]}, headers=headers).status_code == 200
        assert client.delete("/v1/users/u", params={"forget": forget}, headers=headers).json()["found"]
    with closing(sqlite3.connect(path)) as conn:
        assert [name for (name,) in conn.execute("SELECT reporter FROM outcomes")] == left
        assert [name for (name,) in conn.execute("SELECT reporter FROM events")] == [""]
    with closing(SqliteStore(path, read_only=True)) as store:
        assert list(store.damages()) == []
