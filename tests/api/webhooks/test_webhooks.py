"""Webhooks: what is told, how it is signed, and that it comes at least once, whatever fails."""

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path
from typing import Any

import cloudevents.v1.http
import pytest
import standardwebhooks

from api.http.keys import create as create_key
from api.stores.learning_state import StatisticsKey, StatisticsUpdate
from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from api.stores.sqlite.store import SqliteStore
from api.stores.webhook_queue import WebhookCursor, WebhookDelivery
from api.webhooks.config import KINDS, Endpoint, WebhookMessage, create, load, signed
from bandit.errors import CatalogueError
from bandit.learning.drift import DriftAlarm, DriftState
from bandit.records import Decision, Settlement
from bandit.reporters.reward_watch import RewardAlarm, RewardWatch
from bandit.snapshot import from_zip
from journey_bandit.testing.store_builders import START
from tests.api.releases.test_releases import release
from tests.waiting import PATIENCE, eventually

SECRET = "whsec_" + "c2VjcmV0" * 6


class Receiver:
    """A real server: what it got, and how it answers. `hold`: while it is set, it does not answer at all."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: Callable[[dict[str, Any]], int] = lambda _: 200
        self.free = threading.Event()
        self.free.set()
        self._more = threading.Condition()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                with receiver._more:
                    receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                    receiver._more.notify_all()
                receiver.free.wait(PATIENCE)
                try:
                    self.send_response(receiver.answers(json.loads(body)))
                    self.end_headers()
                except OSError:
                    self.close_connection = True  # the sender was stopped

            def log_message(self, *_: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks?tenant=1"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()

    def wait(self, count: int) -> list[dict[str, Any]]:
        """The first so many events, once they are here."""
        with self._more:
            assert self._more.wait_for(lambda: len(self.got) >= count, PATIENCE), [
                json.loads(b)["id"] for _, b in self.got
            ]
        return [json.loads(body) for _, body in self.got]

    def has(self, count: int) -> bool:
        """Whether so many events have come, repetitions aside."""
        return len(self.events()) == count

    def events(self) -> dict[str, dict[str, Any]]:
        """Events so far, by id, in the order in which they first came."""
        events = [json.loads(body) for _, body in list(self.got)]
        return {event["id"]: event for event in events}

    def close(self) -> None:
        self.free.set()
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def hooks(tmp_path: Path, receiver: Receiver) -> Callable[..., str]:
    """hooks(attempts=, events=): a file with one endpoint, the receiver."""

    def build(url: str = "", **more: Any) -> str:
        lines = [f"{key} = {json.dumps(value)}" for key, value in ({"private": True} | more).items()]
        file = tmp_path / "webhooks.toml"
        head = f'[endpoints.crm]\nurl = "{url or receiver.url}"\nsecret = "{SECRET}"\n'
        file.write_text(head + "\n".join(lines), encoding="utf-8")
        return str(file)

    return build


def senders() -> list[str]:
    """Threads that send webhooks now."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("webhooks-")]


def dead(client: Any) -> list[Any]:
    found = client.get("/v1/webhooks/dead-letters").raise_for_status().json()
    assert found["count"] == len(found["dead_letters"])
    letters: list[Any] = found["dead_letters"]
    return letters


def test_the_signature_is_what_standard_webhooks_verify() -> None:
    now = int(time.time())
    body = '{"a": "ü"}'
    headers = signed(Endpoint(url="http://h", secret=SECRET).key, WebhookMessage("decision:1", body.encode()), now)
    verifier = standardwebhooks.Webhook(SECRET)
    assert verifier.verify(body, headers) == {"a": "ü"}
    for wrong in ({**headers, "webhook-id": "x"}, {**headers, "webhook-timestamp": str(now - 1)}):
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            verifier.verify(body, wrong)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        verifier.verify(body + " ", headers)


def test_decisions_and_matured_rewards_are_told_as_cloudevents(
    serving: Callable[..., AbstractContextManager[Any]],
    hooks: Callable[..., str],
    receiver: Receiver,
    later: Callable[[float], int],
) -> None:
    with serving(webhooks=hooks()) as client:
        decision = client.ask("signup")
        (made,) = receiver.wait(1)
        assert made["type"] == "journey-bandit.decision.made"
        assert made["data"]["decision_id"] == decision["decision_id"]
        assert made["data"]["nudge"]["id"] == decision["nudge"]["id"]
        assert made["data"]["propensities"] == decision["propensities"]
        client.tell(decision)
        later(3601)
        client.learned()
        _, matured = receiver.wait(2)
    assert matured["type"] == "journey-bandit.reward.matured"
    data = matured["data"]
    assert (data["decision_id"], data["reward"], data["why"], data["learned"]) == (
        decision["decision_id"],
        1.0,
        "reward",
        True,
    )
    for headers, body in receiver.got:
        assert headers["content-type"] == "application/cloudevents+json"
        event = cloudevents.v1.http.from_http(headers, body)
        assert (event["specversion"], event["source"]) == ("1.0", "/journey-bandit/shop")
        assert event["id"] == headers["webhook-id"]
        assert event["subject"] == decision["decision_id"]


def test_an_endpoint_gets_the_kinds_that_it_asked_for_and_nothing_from_before(
    serving: Callable[..., AbstractContextManager[Any]],
    hooks: Callable[..., str],
    receiver: Receiver,
    later: Callable[[float], int],
    tmp_path: Path,
) -> None:
    with serving(SqliteStore(tmp_path / "l.db")) as client:
        client.ask("signup")
    with serving(SqliteStore(tmp_path / "l.db"), webhooks=hooks(events=["reward"])) as client:
        second = client.ask("signup")
        later(3601)
        client.learned()
        ids = {event["data"]["decision_id"] for event in receiver.wait(2)}
        assert second["decision_id"] in ids  # and the first one's, which matured now
    assert {json.loads(body)["type"] for _, body in receiver.got} == {"journey-bandit.reward.matured"}


def test_pages_of_what_is_not_told_are_passed(
    serving: Callable[..., AbstractContextManager[Any]], hooks: Callable[..., str], receiver: Receiver
) -> None:
    """ "Not now" is logged and told to nobody; what comes after 250 of them is told."""
    shop = str(Path(__file__).parents[2] / "journey_shop.toml")
    with serving(app=shop, webhooks=hooks(events=["decision"])) as client:
        nobody = {"decisions": [{"user_id": f"u{n}"} for n in range(250)]}
        assert client.post("/v1/decisions/batch", json=nobody).json()["decisions"][-1]["decision"]["moment"] is None
        decision = client.ask("basket")
        (event,) = receiver.wait(1)
    assert event["subject"] == decision["decision_id"]


def test_more_than_a_page_comes_once_each(
    serving: Callable[..., AbstractContextManager[Any]],
    hooks: Callable[..., str],
    receiver: Receiver,
    later: Callable[[float], int],
) -> None:
    kinds = ["decision", "reward"]  # 250 silent decisions may also raise an alarm of drift: another message, rightly
    with serving(webhooks=hooks(events=kinds)) as client:
        batch = {"decisions": [{"stage": "signup", "user_id": f"u{n}"} for n in range(250)]}
        client.post("/v1/decisions/batch", json=batch)
        later(3601)
        client.learned()
        ids = [event["id"] for event in receiver.wait(500)]
        time.sleep(0.3)  # and nothing more
    assert len(receiver.got) == len(set(ids)) == 500


def test_what_is_refused_is_tried_again_later_and_later_then_given_up(
    serving: Callable[..., AbstractContextManager[Any]],
    hooks: Callable[..., str],
    receiver: Receiver,
    later: Callable[[float], int],
) -> None:
    """Three attempts, after 1 s and then 2 s: not before. What others are told does not wait for it."""
    bad = ""
    receiver.answers = lambda event: 500 if event["subject"] == bad else 200
    with serving(webhooks=hooks(attempts=3)) as client:
        decision = client.ask("signup", decision_id="0199c816-0000-7000-8000-000000000001")
        assert decision["decision_id"] == "0199c816-0000-7000-8000-000000000001"
        receiver.wait(1)
        bad = "0199c816-0000-7000-8000-000000000002"
        client.ask("signup", decision_id=bad)
        good = client.ask("signup", user="other")["decision_id"]
        assert [event["subject"] for event in receiver.wait(3)][1:] == [bad, good]
        for seconds, attempts in ((0.9, 3), (0.2, 4), (1.8, 4), (0.3, 5)):
            later(seconds)
            receiver.wait(attempts)
            time.sleep(0.3)  # longer than a look at the ledger: nothing more comes
            assert len(receiver.got) == attempts
        (letter,) = eventually(lambda: dead(client))
        assert (letter["endpoint"], letter["attempts"], letter["error"]) == ("crm", 3, "answered 500")
        assert letter["event"]["subject"] == bad
        assert 'webhooks_total{endpoint="crm",status="dead"} 1.0' in client.get("/metrics").text
        bad = ""
        assert client.post("/v1/webhooks/dead-letters/retry?endpoint=other").json() == {"revived": 0}
        assert client.post("/v1/webhooks/dead-letters/retry").json() == {"revived": 1}
        assert receiver.wait(6)[5]["subject"] == letter["event"]["subject"]
        assert eventually(lambda: not dead(client))


def test_a_restart_loses_nothing_of_what_was_not_taken(
    serving: Callable[..., AbstractContextManager[Any]],
    hooks: Callable[..., str],
    receiver: Receiver,
    later: Callable[[float], int],
    tmp_path: Path,
) -> None:
    receiver.answers = lambda _: 503
    with serving(SqliteStore(tmp_path / "l.db"), webhooks=hooks()) as client:
        made = [client.ask("signup", user=f"u{n}")["decision_id"] for n in range(20)]
        receiver.wait(5)
    with serving(SqliteStore(tmp_path / "l.db")) as client:  # nobody is told for a while
        made.append(client.ask("signup", user="meanwhile")["decision_id"])
    receiver.answers = lambda _: 200
    count = len(receiver.got)
    with serving(SqliteStore(tmp_path / "l.db"), webhooks=hooks()) as client:
        later(5)
        taken = {event["subject"] for event in receiver.wait(count + 21)[count:]}
        assert taken == set(made)


def test_an_endpoint_that_is_not_there_or_never_answers_holds_nobody_up(
    serving: Callable[..., AbstractContextManager[Any]],
    hooks: Callable[..., str],
    receiver: Receiver,
    later: Callable[[float], int],
) -> None:
    receiver.free.clear()
    with serving(webhooks=hooks(timeout=60)) as client:
        client.ask("signup", user="first")
        receiver.wait(1)  # and it hangs
        for n in range(20):
            client.ask("signup", user=f"u{n}")
        assert "webhooks_total{" not in client.get("/metrics").text  # the first attempt has not even failed
        assert senders()
    assert not senders()  # what was being sent was cut
    receiver.free.set()
    assert len(receiver.got) == 1
    with serving(webhooks=hooks("http://127.0.0.1:1/nobody", attempts=1)) as client:
        client.ask("signup")
        (letter,) = eventually(lambda: dead(client))
        assert "refused" in letter["error"].lower()


def test_an_address_of_ones_own_network_gets_nothing_unless_it_is_allowed(
    serving: Callable[..., AbstractContextManager[Any]], hooks: Callable[..., str], receiver: Receiver
) -> None:
    with serving(webhooks=hooks(attempts=1, private=False)) as client:
        client.ask("signup")
        error = eventually(lambda: dead(client))[0]["error"]
    assert error == "AddressRefused: 127.0.0.1 is a private address: private = true at the endpoint allows it"
    assert receiver.got == []


def test_a_redirect_is_not_followed(
    serving: Callable[..., AbstractContextManager[Any]], hooks: Callable[..., str], receiver: Receiver
) -> None:
    receiver.answers = lambda _: 302
    with serving(webhooks=hooks(attempts=1)) as client:
        client.ask("signup")
        assert eventually(lambda: dead(client))[0]["error"] == "answered 302"


def test_another_policy_is_told_when_it_is_served(
    serving: Callable[..., AbstractContextManager[Any]],
    hooks: Callable[..., str],
    receiver: Receiver,
    catalogue_file: Path,
    tmp_path: Path,
) -> None:
    with serving(SqliteStore(tmp_path / "l.db"), webhooks=hooks(events=["promotion"])) as client:
        client.ask("basket")
    text = catalogue_file.read_text(encoding="utf-8")
    catalogue_file.write_text(text.replace('{ name = "beta" }', '{ name = "uniform" }'), encoding="utf-8")
    with serving(SqliteStore(tmp_path / "l.db"), webhooks=hooks(events=["promotion"])):
        (event,) = receiver.wait(1)
    assert event["type"] == "journey-bandit.policy.promoted"
    data = event["data"]
    assert (data["stage"], data["from_decision"]) == ("basket", 2)
    assert (data["before"]["policy"]["name"], data["after"]["policy"]["name"]) == ("beta", "uniform")


def test_an_approved_version_is_told_and_its_rollback(
    serving: Callable[..., AbstractContextManager[Any]], hooks: Callable[..., str], receiver: Receiver
) -> None:
    with serving(webhooks=hooks(events=["promotion"])) as client:
        approved = from_zip(client.get("/v1/policies/signup/snapshot").content)
        for version, snapshot in (("3", approved), ("4", approved), ("", None)):
            kept = release(
                client, snapshot, version, approved_at=f"2025-10-09T08:00:0{len(version)}Z", reason="r" + version
            )
        assert kept["number"] == 3
        events = receiver.wait(3)
    assert [e["id"] for e in events] == [f"release:signup:{n}" for n in (1, 2, 3)]
    told = [((e["data"]["before"] or {}).get("version"), (e["data"]["after"] or {}).get("version")) for e in events]
    assert told == [(None, "3"), ("3", "4"), ("4", None)]
    assert events[1]["data"]["approved_by"] == "ana"
    assert events[2]["data"]["reason"] == "r"


def test_an_alarm_is_told(
    serving: Callable[..., AbstractContextManager[Any]], hooks: Callable[..., str], receiver: Receiver
) -> None:
    store = MemoryStore()
    with serving(store, webhooks=hooks(events=["drift"])) as client:
        alarm = DriftAlarm(arm="tip", direction="down", through=7, at=1_760_000_000_000_000)
        key = StatisticsKey("signup", 1)
        store.replace_statistics(StatisticsUpdate(key, (), {}, DriftState(alarms=(alarm,))))
        client.ask("signup")  # the ledger moves on
        (event,) = receiver.wait(1)
    assert (event["type"], event["subject"]) == ("journey-bandit.drift.alarm", "signup")
    assert event["data"] == {"stage": "signup", "nudge": "tip", "direction": "down", "through_version": 7}


def test_alarms_about_keys_are_told_in_their_order_also_over_a_restart(
    serving: Callable[..., AbstractContextManager[Any]], hooks: Callable[..., str], receiver: Receiver, tmp_path: Path
) -> None:
    """What there was before the endpoint's first start is not told; other kinds do not come to it."""
    file, key = tmp_path / "shop.db", StatisticsKey("signup", 1)
    alarms = tuple(
        RewardAlarm(reporter=f"k{n}", arm="tip", through=n, at=START, decisions=8, reward=6.0, allowed=0.2)
        for n in range(4)
    )
    for raised in (1, 3, 4):
        with closing(SqliteStore(file)) as store:
            watch = RewardWatch(alarms=alarms[:raised])
            store.replace_statistics(StatisticsUpdate(key, (), {}, reward_watch=watch))
        with serving(SqliteStore(file), webhooks=hooks(events=["reward_alarm"])) as client:
            client.ask("signup")
            assert eventually(partial(receiver.has, raised - 1))
        assert list(receiver.events()) == [f"reward_alarm:signup:{n}:{n}" for n in range(1, raised)]
    with closing(SqliteStore(file, read_only=True)) as store:
        assert store.webhook_deliveries(dead=False) == store.webhook_deliveries(dead=True) == []
    first = next(iter(receiver.events().values()))
    assert (first["type"], first["subject"]) == ("journey-bandit.reward.alarm", "signup")
    assert first["data"] == {
        "stage": "signup", "reporter": "k1", "nudge": "tip", "through_version": 1, "decisions": 8, "rate": 0.75,
        "usual_at_most": 0.2,
    }  # fmt: skip


def test_dead_letters_need_a_key(serving: Callable[..., AbstractContextManager[Any]], tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    reader, admin = create_key(file, "reader", ["read"]), create_key(file, "admin", ["admin"])
    with serving(keys=str(file)) as client:
        path = "/v1/webhooks/dead-letters"
        assert client.get(path).status_code == 401
        assert client.get(path, headers={"X-API-Key": reader}).json() == {"count": 0, "dead_letters": []}
        assert client.post(f"{path}/retry", headers={"X-API-Key": reader}).status_code == 403
        assert client.post(f"{path}/retry", headers={"X-API-Key": admin}).json() == {"revived": 0}


def letter(n: int, *, dead: bool = False, endpoint: str = "crm") -> WebhookDelivery:
    return WebhookDelivery(endpoint, f"decision:{n}", b'{"n": 1}', 1, 100 - n, "answered 500", dead, n)


def test_every_store_keeps_letters_and_reads_the_ledger_in_its_order(
    store: Store, claimed: Callable[..., Any], decide: Callable[..., Decision], later: Callable[[float], int]
) -> None:
    ledger = claimed(store)
    ledger.decided(*(decide(n) for n in range(1, 8)))
    assert [found.seq for found in store.decisions_after(0, 3)] == [1, 2, 3]
    assert [found.seq for found in store.decisions_after(5, 100)] == [6, 7]
    assert store.decisions_after(7, 100) == []
    done = [
        Settlement(
            decision_seq=seq, stage="signup", arm="tip", at=9, reward=1.0, why="reward", learned=False, tau=0, nu=0
        )
        for seq in (5, 2, 6)
    ]
    store.settle(done)
    assert [(f.seq, n) for n, f in store.settlements_after(0, 2)] == [(5, 1), (2, 2)]
    assert [f.seq for _, f in store.settlements_after(2, 9)] == [6]
    assert store.webhook_cursor("crm") is None
    cursor = WebhookCursor(decision=3, settlement=2, alarms={"signup": 1}, era=5, release=4)
    store.update_webhook_queue({"crm": cursor}, [letter(1), letter(2), letter(3, endpoint="b")], [])
    assert (store.webhook_cursor("crm"), store.webhook_cursor("b")) == (cursor, None)
    assert store.webhook_deliveries(dead=False) == [letter(3, endpoint="b"), letter(2), letter(1)]
    store.update_webhook_queue({}, [letter(2, dead=True)], [("crm", "decision:1"), ("crm", "nothing")])
    assert (store.webhook_deliveries("crm", dead=True), store.webhook_deliveries("crm", dead=False)) == (
        [letter(2, dead=True)],
        [],
    )
    store.update_webhook_queue({}, [letter(n, dead=True) for n in range(4, 9)], [], 3)
    assert sorted(one.at for one in store.webhook_deliveries("crm", dead=True)) == [6, 7, 8]
    store.update_webhook_queue({}, [letter(9)], [], 0)
    assert (store.webhook_deliveries("crm", dead=True), store.webhook_deliveries("crm", dead=False)) == (
        [],
        [letter(9)],
    )
    assert store.webhook_deliveries("b", dead=False) == [letter(3, endpoint="b")]


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("http://", "ftp://", "endpoints.crm.url"),
        ("http://h", "http:///", "endpoints.crm.url"),
        ("http://", "http://me:word@", "endpoints.crm.url"),
        (SECRET, "whsec_short", "endpoints.crm.secret"),
        (SECRET, "", "endpoints.crm.secret"),
        ('["reward"]', '["rewards"]', "endpoints.crm.events"),
        ("attempts = 3", "attempts = 0", "endpoints.crm.attempts"),
        ("attempts = 3", "retries = 3", "endpoints.crm.retries"),
        ("[endpoints.crm]", "[endpoints.CRM]", "endpoints.CRM"),
        ("[endpoints.crm]", "[endpoints.crm", "(file)"),
    ],
)
def test_a_file_that_cannot_be_used_says_where(tmp_path: Path, old: str, new: str, field: str) -> None:
    text = f'[endpoints.crm]\nurl = "http://h/x"\nsecret = "{SECRET}"\nevents = ["reward"]\nattempts = 3\n'
    file = tmp_path / "w.toml"
    file.write_text(text, encoding="utf-8")
    assert load(file)["crm"].attempts == 3
    file.write_text(text, encoding="utf-8-sig")
    assert load(file)["crm"].attempts == 3
    file.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(CatalogueError) as wrong:
        load(file)
    assert wrong.value.mistakes[0].field.startswith(field)


def test_a_new_endpoint_can_be_loaded_and_its_secret_comes_from_the_environment_if_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "w.toml"
    secret = create(file, "crm", 'https://h/"x"', list(KINDS))
    assert load(file)["crm"].key == Endpoint(url="", secret=secret).key
    create(file, "near", "http://10.0.0.9/x", list(KINDS))
    assert {name: endpoint.private for name, endpoint in load(file).items()} == {"crm": False, "near": True}
    with pytest.raises(CatalogueError, match="exists"):
        create(file, "crm", "https://h", ["reward"])
    with pytest.raises(CatalogueError, match="not a web address"):
        create(file, "other", "h", ["reward"])
    file.write_text('[endpoints.b]\nurl = "https://h"\nsecret_env = "B_SECRET"\n', encoding="utf-8")
    with pytest.raises(CatalogueError, match="secret"):
        load(file)
    monkeypatch.setenv("B_SECRET", secret)
    assert load(file)["b"].key == Endpoint(url="", secret=secret).key
