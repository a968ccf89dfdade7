"""Everything about a person follows the person: group, variant, caps, consent and journey have one root."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from api.stores.sqlite.store import SqliteStore
from bandit.catalogue.loading import parse
from journey_bandit.workflows import ledger_log

TEXT = (Path(__file__).parents[2] / "journey_shop.toml").read_text(encoding="utf-8")
HELD = TEXT.replace("[stages.look]\n", "[stages.look]\nholdout = 0.5\n", 1)
Serving = Callable[..., AbstractContextManager[Any]]


@pytest.fixture
def held(serving: Serving, store: Store, tmp_path: Path) -> Any:
    """The shop with half of the people in the holdout of one stage."""
    assert "holdout = 0.5" in HELD
    (tmp_path / "held.toml").write_text(HELD, encoding="utf-8")
    with serving(store, app=str(tmp_path / "held.toml")) as client:
        yield client


def group(client: Any, user: str) -> bool:
    reply = client.post("/v1/decisions", json={"stage": "look", "user_id": user})
    assert reply.status_code == 200, reply.text
    return bool(reply.json()["holdout"])


def event(client: Any, id_: str, name: str, **body: Any) -> Any:
    reply = client.post("/v1/events", json={"events": [{"event_id": id_, "event": name, **body}]})
    assert reply.status_code == 200, reply.text
    return reply.json()["events"][0]


def join(client: Any, user: str, anonymous: str) -> None:
    assert event(client, f"{user}+{anonymous}", "identify", user_id=user, anonymous_id=anonymous)["status"] == 200


def test_nobody_changes_group_at_login(held: Any) -> None:
    before = [group(held, f"anon-{i}") for i in range(40)]
    assert 0 < sum(before) < 40
    for i in range(40):
        join(held, f"user-{i}", f"anon-{i}")
    assert [group(held, f"user-{i}") for i in range(40)] == before
    assert [group(held, f"anon-{i}") for i in range(40)] == before


def test_the_second_device_of_a_person_gets_the_persons_group(held: Any) -> None:
    before = [group(held, f"user-{i}") for i in range(40)]
    for i in range(40):
        join(held, f"user-{i}", f"phone-{i}")
    assert [group(held, f"phone-{i}") for i in range(40)] == before


def test_a_group_is_the_same_after_a_restart(serving: Serving, tmp_path: Path) -> None:
    (tmp_path / "held.toml").write_text(HELD, encoding="utf-8")
    groups = []
    for run in range(2):
        with serving(SqliteStore(tmp_path / "l.db"), app=str(tmp_path / "held.toml")) as client:
            if not run:
                groups.append([group(client, f"anon-{i}") for i in range(20)])
                for i in range(20):
                    join(client, f"user-{i}", f"anon-{i}")
            groups.append([group(client, f"user-{i}") for i in range(20)])
    assert groups[0] == groups[1] == groups[2]


def test_two_known_people_who_are_joined_have_the_group_of_the_first_and_exposure_is_noted(held: Any) -> None:
    """Their earlier decisions stay as they were; what the control group had seen before is said on each decision."""
    pairs = [(f"first-{i}", f"second-{i}") for i in range(60)]
    before = [(group(held, a), group(held, b)) for a, b in pairs]
    for a, b in pairs:
        join(held, a, b)
    after = [held.post("/v1/decisions", json={"stage": "look", "user_id": b}).json() for _, b in pairs]
    assert [one["holdout"] for one in after] == [first for first, _ in before]
    said = [any(note.startswith("control group, but nudges") for note in one["notes"]) for one in after]
    crossed = [first and not second for first, second in before]
    assert sum(said) > 0
    assert all(now <= could for now, could in zip(said, crossed, strict=True))  # some second ones were shown nothing


def test_a_flag_keeps_its_decision_at_login(held: Any) -> None:
    def flag(user: str) -> Any:
        reply = held.post("/ofrep/v1/evaluate/flags/look", json={"context": {"targetingKey": user}})
        assert reply.status_code == 200, reply.text
        return reply.json()["metadata"]["decisionId"]

    before = [flag(f"anon-{i}") for i in range(10)]
    for i in range(10):
        join(held, f"user-{i}", f"anon-{i}")
    assert [flag(f"user-{i}") for i in range(10)] == before


@pytest.mark.parametrize(
    "word", ["undefined", "null", "0", "", " NULL ", "00000000-0000-0000-0000-000000000000", "n/a"]
)
def test_placeholders_join_nobody(held: Any, word: str) -> None:
    for user in ("ann", "bob"):
        event(held, f"i-{user}", "identify", user_id=user, **({"anonymous_id": word} if word else {}))
    event(held, "v", "Product Viewed", user_id="ann", properties={"product_id": "p"})
    assert held.get("/v1/users/ann/journey").json()["events"]["viewed"]["count"] == 1
    assert "viewed" not in held.get("/v1/users/bob/journey").json()["events"]
    if word:
        item = event(held, "w", "Product Viewed", user_id=word, anonymous_id="anon-9", properties={"product_id": "p"})
        assert item["status"] == 200
        assert held.get("/v1/users/anon-9/journey").json()["events"]["viewed"]["count"] == 1
        lost = event(held, "x", "Product Viewed", user_id=word)
        assert (lost["status"], lost["problem"]["errors"][0]["field"].endswith("user_id")) == (400, True)


def test_declared_placeholders_join_nobody(serving: Serving, tmp_path: Path) -> None:
    declared = TEXT.replace("[journey]\n", '[journey]\nplaceholders = ["Test-User"]\n', 1)
    (tmp_path / "shop.toml").write_text(declared, encoding="utf-8")
    with serving(MemoryStore(), app=str(tmp_path / "shop.toml")) as client:
        assert event(client, "x", "Product Viewed", user_id="test-user")["status"] == 400
        assert event(client, "y", "Product Viewed", user_id="tester")["status"] == 200


def test_who_asks_under_a_placeholder_is_a_stranger_each_time(held: Any) -> None:
    """Else thousands of people share one group, one set of caps and one journey."""
    replies = [held.post("/v1/decisions", json={"stage": "look", "user_id": "undefined"}).json() for _ in range(40)]
    assert 0 < sum(reply["holdout"] for reply in replies) < 40
    assert all(any("stands for a missing id" in note for note in reply["notes"]) for reply in replies)
    again = {"stage": "look", "user_id": "undefined", "decision_id": replies[0]["decision_id"]}
    assert held.post("/v1/decisions", json=again).json()["duplicate"]


def test_null_takes_consent_back(serving: Serving) -> None:
    with serving(MemoryStore(), app=str(Path(__file__).parents[2] / "journey_shop.toml")) as client:
        flag, source = next(iter(client_consent().items()))
        for n, value in enumerate((True, None)):
            body = {"userId": "u", "messageId": f"i-{n}", "traits": {source: value}}
            client.post("/v1/identify", json=body).raise_for_status()
            consent = client.get("/v1/users/u/journey").json()["consent"]
            assert consent == ([flag] if value else [])


def client_consent() -> dict[str, str]:
    """The shop's consents and the traits that carry them."""
    declared = parse(TEXT).journey
    return {flag: declared.events[kept.event].path(kept.property) for flag, kept in declared.consent.items()}


def test_what_cannot_be_credited_is_answered_counted_and_listed(held: Any) -> None:
    decision = held.post("/v1/decisions", json={"stage": "later", "user_id": "ann"}).json()["decision_id"]
    told = event(held, "o", "Order Completed", user_id="ann", properties={"order_id": "A", "revenue": 50})
    assert told["event"]["credited"]["later"] == decision
    for id_, properties, reason in (
        ("twice", {"order_id": "A", "revenue": 50}, "same fact"),
        ("comma", {"order_id": "B", "revenue": "49,90"}, "unreadable value"),
        ("none", {"order_id": "C"}, "no value"),
        ("dollars", {"order_id": "D", "revenue": 50, "currency": "USD"}, "currency"),
    ):
        item = event(held, id_, "Order Completed", user_id="ann", properties=properties)["event"]
        assert "later" not in item.get("credited", {})
        assert item["not_credited"]["later"].startswith(f"{reason}: ")
    cents = event(held, "cents", "Order Completed", user_id="ann", properties={"order_id": "E", "revenue": 4990})
    assert cents["event"]["credited"]["later"] == decision
    listed = held.get("/v1/events/uncredited").json()["uncredited"]
    mine = {one["event_id"]: one["reason"] for one in listed if one["stage"] == "later"}
    assert mine == {"twice": "same fact", "comma": "unreadable value", "none": "no value", "dollars": "currency"}
    only = held.get("/v1/events/uncredited?reason=currency&limit=5").json()["uncredited"]
    assert [one["event_id"] for one in only] == ["dollars"]
    counted = held.get("/metrics").text
    assert 'journey_bandit_uncredited_total{kind="reward",reason="currency",stage="later"} 1.0' in counted
    assert 'journey_bandit_outcomes_clipped_total{stage="later"} 1.0' in counted


def test_an_outcome_outside_the_declared_range_is_noted(held: Any) -> None:
    decision = held.post("/v1/decisions", json={"stage": "later", "user_id": "ann"}).json()["decision_id"]
    body = {"decision_id": decision, "kind": "reward", "value": 4990}
    reply = held.post("/v1/outcomes", json=body).json()
    assert reply["notes"] == ["value: 4990 is outside the declared range [0, 500], counts as 500 at most"]
    fits = {**body, "value": 49.9, "outcome_id": "second"}
    assert "notes" not in held.post("/v1/outcomes", json=fits).json()


def test_contamination_of_the_control_group_is_measured_and_joined_ids_are_one_person(
    serving: Serving, tmp_path: Path
) -> None:
    (tmp_path / "held.toml").write_text(HELD, encoding="utf-8")
    with serving(SqliteStore(tmp_path / "l.db"), app=str(tmp_path / "held.toml")) as client:
        for i in range(40):
            group(client, f"first-{i}")
            group(client, f"second-{i}")
            join(client, f"first-{i}", f"second-{i}")
        replies = [
            client.post("/v1/decisions", json={"stage": "look", "user_id": f"second-{i}"}).json() for i in range(40)
        ]
    log = ledger_log.open_log(str(tmp_path / "l.db"), "look")
    noted = sum(any(note.startswith("control group, but") for note in one["notes"]) for one in replies)
    found = log.contamination()
    assert found.exposed == noted > 0
    assert found.control == sum(f.decision.holdout for f in log.store.decisions("look"))
    (rounds,) = log.source()()
    assert rounds.user is not None
    assert len(set(rounds.user.tolist())) == 40  # 80 ids
    log.store.close()
