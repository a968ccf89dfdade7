"""What a person sent is in no byte of the ledger, its log, a backup, an export or an artifact after an erasure."""

import base64
import hashlib
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from litestar.testing import TestClient

from api.app import create_app
from api.settings import Settings
from api.stores.sqlite.copies import back_up
from api.stores.sqlite.store import SqliteStore
from bandit import engine

SHOP = Path(__file__).parents[2] / "journey_shop.toml"
SEEN = """
[endpoints.crm]
url = "http://127.0.0.1:9/"
secret = "whsec_{secret}"
events = ["decision", "reward"]
"""
STORED = {
    *("event id", "second event id", "third event id", "order event id", "identify event id", "unknown event id"),
    *("product", "basket product", "colour", "order", "unreadable revenue", "wants mail", "promotion"),
    *("promotion event id", "outcome id", "segment id", "segment product", "segment identify id"),
}
"""What reaches the file as it was sent: ids that clients choose, and declared properties."""


PERSONAL = (
    ("app = ", "personal_ids = true\napp = "),
    ('product = "product_id"', 'product = { name = "product_id", personal = true }'),
    ('order = "order_id"', 'order = { name = "order_id", personal = true }'),
    ('price = "price"', 'price = "price", mail = { name = "email", personal = true }'),
)
"""What the shop declares so that only what must be read of people is kept as it was sent."""


LOOP = """
[stages.offers]
policy = { name = "shared", columns = 64 }
reward = { kind = "continuous", window = "10m", min = -1.0, max = 1.0 }
loop = { rewards = "sum" }
"""


class Planted(NamedTuple):
    """Values of one person by what they are, and the id under which the person is erased."""

    values: dict[str, str]
    user: str
    other: str


@pytest.fixture
def app() -> str:
    return str(SHOP)


@pytest.fixture
def service(tmp_path: Path, app: str) -> Iterator[Any]:
    hooks = tmp_path / "webhooks.toml"
    hooks.write_text(SEEN.format(secret=base64.b64encode(bytes(24)).decode()), encoding="utf-8")
    store, salt = f"sqlite:///{tmp_path / 'ledger.db'}", "pepper"
    settings = Settings(app=app, store=store, dev=True, salt=salt, webhooks=str(hooks))
    with TestClient(create_app(settings)) as client:
        yield client


def plant(client: Any, who: str) -> Planted:
    """A person who leaves a value in every field that a client may fill, in every protocol."""
    values: dict[str, str] = {}

    def of(kind: str) -> str:
        return values.setdefault(kind, f"{who}-{len(values):02}-{kind.replace(' ', '-')}")

    def sent(path: str, body: Any) -> Any:
        reply = client.post(path, json=body)
        assert reply.status_code < 300, reply.text
        return reply.json()

    def event(kind: str, name: str, **properties: Any) -> dict[str, Any]:
        return {"event_id": of(kind), "event": name, "user_id": of("user id"), "properties": properties}

    first = event("event id", "Product Viewed", product_id=of("product"), details={"colour": of("colour")})
    first |= {"anonymous_id": of("anonymous id")}
    first["properties"] |= {"email": of("mail"), "name": of("name"), "note": of("free text")}
    unknown = event("unknown event id", of("unknown event"), phone=of("phone"))
    basket = event("second event id", "Product Added", product_id=of("basket product"))
    sent("/v1/events", {"events": [first, unknown, basket]})
    for stage in ("look", "basket", "pay", "later"):
        made = sent("/v1/decisions", {"stage": stage, "user_id": of("user id"), "context": {}})
    refused = {"stage": "look", "user_id": of("user id"), "context": {"colour": of("category"), of("feature"): 1}}
    assert client.post("/v1/decisions", json=refused).status_code == 400
    sent("/v1/outcomes", {"decision_id": made["decision_id"], "kind": "activation", "outcome_id": of("outcome id")})
    order = event("order event id", "Order Completed", order_id=of("order"), revenue=40)
    second = event("third event id", "Order Completed", order_id=of("order"), revenue=of("unreadable revenue"))
    mail = event("identify event id", "identify", wants_mail=of("wants mail"))
    seen = event("promotion event id", "Promotion Viewed", promotion_id=of("promotion"))
    sent("/v1/events", {"events": [order, second, mail, seen]})
    track: dict[str, Any] = {
        "messageId": of("segment id"),
        "type": "track",
        "event": "Product Viewed",
        "userId": of("user id"),
    }
    track |= {"properties": {"product_id": of("segment product"), "mail": of("segment mail")}}
    sent("/v1/track", track | {"context": {"ip": of("address"), "traits": {"email": of("trait of a track")}}})
    identify = {"messageId": of("segment identify id"), "type": "identify", "userId": of("user id")}
    sent("/v1/identify", identify | {"anonymousId": of("segment anonymous id"), "traits": {"email": of("trait")}})
    flag: dict[str, Any] = {
        "context": {"targetingKey": of("user id"), "mail": of("targeting mail"), "phone": of("targeting phone")}
    }
    client.post("/ofrep/v1/evaluate/flags/look", json=flag)
    return Planted(values, values["user id"], made["decision_id"])


def plant_ranking(client: Any, who: str) -> Planted:
    """Values in every field of Personalizer that a client may fill; the rewards of each request come twice."""
    values: dict[str, str] = {}

    def of(kind: str) -> str:
        return values.setdefault(kind, f"{who}-{len(values):02}-{kind.replace(' ', '-')}")

    def sent(path: str, body: Any, request: str = "") -> Any:
        headers = {"x-ms-client-request-id": request} if request else {}
        reply = client.post(f"/offers/personalizer/{path}", json=body, headers=headers)
        assert reply.status_code < 300, reply.text
        return reply

    actions = [{"id": of("action"), "features": [{of("name of a feature"): of("feature")}]}]
    actions += [{"id": of("other action"), "features": []}]
    asked = {"actions": actions, "contextFeatures": [{"mail": of("context")}], "deferActivation": False}
    made = sent("v1.0/rank", asked | {"eventId": of("event")}, of("request of a rank")).json()
    values["long request"] = f"{who}@{'x' * 80}"
    for request in (of("request id"), of("long request")):
        for _ in range(2):
            sent(f"v1.0/events/{of('event')}/reward", {"value": 0.25}, request)
    slots = [{"id": of("slot"), "baselineAction": of("action"), "features": [{"place": of("place")}]}]
    sent("v1.1-preview.3/multislot/rank", asked | {"slots": slots, "eventId": of("page")})
    rewards = {"reward": [{"slotId": of("slot"), "value": 0.5}]}
    sent(f"v1.1-preview.3/multislot/events/{of('page')}/reward", rewards, of("request of a page"))
    return Planted(values, "", made["decisionId"])


def found(planted: Planted, *places: bytes) -> set[str]:
    """Kinds of the values that are in any of these bytes, plain or as hex."""
    whole = b"".join(places)
    return {kind for kind, value in planted.values.items() if value.encode() in whole}


def raw(folder: Path) -> bytes:
    """Every byte of the ledger and what lies beside it."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob("ledger.db*")))


@pytest.mark.parametrize("forget", [False, True])
def test_nothing_of_an_erased_person_is_in_file_log_backup_export_or_artifact(
    service: Any, tmp_path: Path, forget: bool
) -> None:
    gone, stays = plant(service, "ann"), plant(service, "bob")
    assert len(gone.values) == 34
    time.sleep(1.0)  # a webhook endpoint that does not answer: its messages wait in the ledger
    assert found(gone, raw(tmp_path)) == found(stays, raw(tmp_path)) == STORED
    told = service.get(f"/v1/users/{gone.user}/export").json()
    assert len(told["decisions"]) == 5  # the flag's among them
    assert len(told["ids"]) == 3
    assert told["waiting"]
    hashes = [bytes.fromhex(one) for one in told["ids"]]
    ids = [uuid.UUID(one["decision_id"]) for one in told["decisions"]]
    marks = [*hashes, *(one.hex().encode() for one in hashes)]
    marks += [*(one.bytes for one in ids), *(str(one).encode() for one in ids)]
    assert sum(mark in raw(tmp_path) for mark in marks) >= 8
    reply = service.delete(f"/v1/users/{gone.user}", params={"forget": forget})
    assert reply.status_code == 200, reply.text
    assert reply.json()["overwritten"]
    time.sleep(0.5)  # messages that were being sent come back
    back_up(tmp_path / "ledger.db", tmp_path / "copy.db")
    snapshots = b"".join(to_zip_of(service, stage) for stage in ("start", "look", "basket", "pay", "later"))
    exports = json.dumps(service.get(f"/v1/users/{gone.user}/export").json()["decisions"]).encode()
    places = raw(tmp_path), (tmp_path / "copy.db").read_bytes(), snapshots, exports
    assert found(gone, *places) == set()
    assert [mark for mark in marks if any(mark in place for place in places)] == []
    assert found(stays, raw(tmp_path)) == STORED
    assert service.post("/v1/outcomes", json={"decision_id": gone.other, "kind": "activation"}).status_code == 404


def test_ids_of_events_that_bring_none_cannot_be_found_from_their_words_without_the_salt(
    service: Any, tmp_path: Path
) -> None:
    """Of words that are all known but one, such as an address, that one could be tried else."""
    at = time.time() - 60.0
    tracking = {"kind": "tracking", "key": "Product Viewed", "userKey": "ann", "creationDate": at}
    tracking |= {"trackingEventDetails": {"product_id": "p", "mail": "ann@example.org"}}
    track = {"type": "track", "event": "Product Added", "userId": "ann", "timestamp": "2026-01-01T00:00:00Z"}
    words = json.dumps(track | {"properties": {"mail": "ann@example.org"}}).encode()
    long = f"ann@example.org{'x' * 120}"
    for _ in range(2):
        assert service.post("/v1/data/collector", json={"events": [tracking]}).json() == {"ingestedContentCount": 1}
        for body in (words, json.dumps(track | {"event": "Checkout Started", "messageId": long}).encode()):
            assert service.post("/v1/track", content=body).status_code == 200
    told = service.get("/v1/users/ann/export").json()["events"]
    key, sorted_words = hashlib.sha256(b"pepper").digest(), msgspec.json.encode(tracking, order="deterministic")
    hashed = {"track:": sorted_words, "": words, " ": long.encode()}

    def ids(**keyed: Any) -> set[str]:
        return {f"{to}{hashlib.blake2b(of, digest_size=16, **keyed).hexdigest()}".strip() for to, of in hashed.items()}

    assert len(told) == 3  # what came again was the same
    assert {one["event_id"] for one in told} == ids(key=key, person=b"event")
    assert not [one for one in ids() if one.encode() in raw(tmp_path)]


class TestPersonalShop:
    """The shop whose properties and ids are personal."""

    @pytest.fixture
    def app(self, tmp_path: Path) -> str:
        text = SHOP.read_text(encoding="utf-8")
        for plain, personal in PERSONAL:
            assert plain in text
            text = text.replace(plain, personal)
        (tmp_path / "shop.toml").write_text(text + LOOP, encoding="utf-8")
        return str(tmp_path / "shop.toml")

    def test_personal_values_are_in_no_byte_of_the_ledger_and_in_nothing_that_is_told(
        self, service: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        planted = plant(service, "ann")
        time.sleep(1.0)  # a webhook endpoint that does not answer: its messages wait in the ledger
        kept = {"unreadable revenue", "wants mail", "colour", "promotion"}  # an amount and so on: they are read
        assert (tmp_path / "ledger.db-wal").stat().st_size > 0
        assert found(planted, raw(tmp_path)) == kept
        export = service.get(f"/v1/users/{planted.user}/export").text
        paths = "/v1/events/uncredited", f"/v1/decisions/{planted.other}", "/metrics", "/v1/policies"
        replies = [service.get(path) for path in paths]
        assert [reply.status_code for reply in replies] == [200] * 4
        told = [export, *(reply.text for reply in replies), caplog.text]
        assert found(planted, *(text.encode() for text in told)) == kept
        hashed = {*STORED, "mail"} - kept
        key = hashlib.sha256(b"pepper").digest()
        assert {kind for kind in hashed if engine.pseudonym(key, planted.values[kind]) in export} == hashed

    def test_of_rankings_only_the_ids_of_actions_and_slots_are_kept_as_they_were_sent(
        self, service: Any, tmp_path: Path
    ) -> None:
        planted = plant_ranking(service, "ann")
        assert (tmp_path / "ledger.db-wal").stat().st_size > 0
        assert found(planted, raw(tmp_path)) == {"action", "other action", "slot"}
        receipt = service.get(f"/v1/decisions/{planted.other}").text
        told = [receipt, *(service.get(path).text for path in ("/metrics", "/v1/policies"))]
        assert found(planted, *(text.encode() for text in told)) == {"action", "other action"}
        rewards = [one for one in json.loads(receipt)["outcomes"] if one["kind"] == "reward"]
        key = hashlib.sha256(b"pepper").digest()
        assert [(one["value"], one["outcome_id"]) for one in rewards] == [
            (0.25, f"request:{engine.pseudonym(key, planted.values[kind])}") for kind in ("request id", "long request")
        ]


def to_zip_of(service: Any, stage: str) -> bytes:
    """The snapshot that a stage decides with, as it is published."""
    content: bytes = service.get(f"/v1/policies/{stage}/snapshot").content
    assert content[:2] == b"PK"
    return content


def test_bytes_that_a_page_left_when_it_was_split_are_overwritten(tmp_path: Path) -> None:
    """SQLite leaves them: `secure_delete` does not see them."""
    path = tmp_path / "ledger.db"
    with closing(SqliteStore(path)) as store:
        conn = store._ledger.writer()
        insert, gone = "INSERT INTO journeys VALUES (?, ?)", "DELETE FROM journeys WHERE user = ?"
        users = [engine.user_hash(b"salt", f"{n}") for n in range(6000)]
        for start in range(0, 6000, 20):
            with store.atomic():
                conn.executemany(
                    insert, [(one, one.hex().encode() * (1 + one[0] % 9)) for one in users[start : start + 20]]
                )
        erased, kept = users[:2000], users[2000:]
        with store.atomic():
            conn.executemany(gone, [(one,) for one in erased])
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

        def left() -> list[bytes]:
            whole = path.read_bytes()
            return [one for one in erased if one in whole or one.hex().encode() in whole]

        assert left()  # else this test shows nothing
        page = 1
        while page:
            page = store.overwrite_erased(page, 50)
        assert left() == []
        assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        with store.atomic():
            conn.executemany(insert, [(one, b"again") for one in erased])
        rows = dict(conn.execute("SELECT user, state FROM journeys"))
        assert rows == {one: one.hex().encode() * (1 + one[0] % 9) for one in kept} | dict.fromkeys(erased, b"again")
        assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_the_log_is_left_to_a_reader_who_needs_it(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "ledger.db")) as store:
        store.set_meta({"a": "b"})
        with store._ledger.beside() as conn:
            conn.execute("SELECT count(*) FROM meta").fetchone()
            store.set_meta({"a": "c"})
            assert store.overwrite_erased(1, 100) == 2
        assert store.overwrite_erased(2, 100) == 0
        assert (tmp_path / "ledger.db-wal").stat().st_size == 0
