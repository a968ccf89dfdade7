"""Personalizer's protocol: actions that come with the request, retried requests, rewards without ids, slots."""

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest

from api.decisions.ranking import is_long
from api.http.keys import create
from api.ledger import audit
from api.stores.sqlite.store import SqliteStore
from bandit import engine
from bandit.errors import LedgerMismatch
from bandit.policies.shared import Action, HashedFeatures
from bandit.snapshot import from_zip

LOOPS = """
app = "shop"
currency = "EUR"

[stages.offers]
policy = { name = "shared", columns = 64 }
reward = { kind = "continuous", window = "10m", min = -1.0, max = 1.0 }
[stages.summed]
policy = { name = "shared", columns = 64 }
reward = { kind = "continuous", window = "10m", min = -1.0, max = 1.0, default = -0.5 }
loop = { rewards = "sum" }
[stages.held]
policy = { name = "shared", columns = 64 }
holdout = 0.5
reward = { kind = "binary", window = "10m" }
[stages.signup]
policy = { name = "beta" }
reward = { kind = "binary", window = "1h" }
features = {}
nudges.tip = { type = "help", format = "tooltip" }
"""
ACTIONS = [
    {"id": "none", "features": [{"kind": "none", "cost": 1.5}, {"tags": {"a": True}}]},
    {"id": "discount_10", "features": [{"kind": "discount", "percent": 10}]},
    {"id": "trial", "features": []},
]
CONTEXT = [{"user": {"plan": "free"}}, {"stage": "checkout"}]


@pytest.fixture
def app(tmp_path: Path) -> str:
    path = tmp_path / "loops.toml"
    path.write_text(LOOPS, encoding="utf-8")
    return str(path)


@pytest.fixture
def client(serving: Callable[..., AbstractContextManager[Any]], app: str) -> Iterator[Any]:
    with serving(app=app) as running:
        yield running


def rank(client: Any, loop: str = "offers", path: str = "/personalizer/v1.0/rank", **more: Any) -> Any:
    body = {"actions": ACTIONS, "contextFeatures": CONTEXT, "deferActivation": False, **more}
    reply = client.post(f"/{loop}{path}", json=body)
    assert (reply.status_code, reply.headers["content-type"]) == (201, "application/json"), reply.text
    return reply.json()


def report(client: Any, event: str, value: float, loop: str = "offers", **more: Any) -> None:
    reply = client.post(f"/{loop}/personalizer/v1.0/events/{event}/reward", json={"value": value}, **more)
    assert (reply.status_code, reply.content) == (204, b""), reply.text


def activate(client: Any, event: str, loop: str = "offers") -> None:
    reply = client.post(f"/{loop}/personalizer/v1.0/events/{event}/activate")
    assert (reply.status_code, reply.content) == (204, b""), reply.text


def taught(client: Any, loop: str = "offers") -> tuple[int, float | None]:
    """Learned decisions of a loop, and their mean reward."""
    (arm,) = client.learned()[loop]["arms"]
    return arm["learned"], arm["mean_reward"]


def counted(client: Any, kind: str, status: str) -> float:
    name = f'journey_bandit_outcomes_total{{kind="{kind}",status="{status}"}} '
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name)]
    return float(lines[0].split()[-1]) if lines else 0.0


def test_a_ranking_is_a_distribution_and_what_it_draws_is_to_be_shown(client: Any) -> None:
    answer = rank(client, eventId="ev-1", excludedActions=["none"])
    assert answer.keys() == {"ranking", "eventId", "rewardActionId", "decisionId"}
    assert answer["eventId"] == "ev-1"
    assert answer["ranking"][0] == {"id": "none", "probability": 0.0}  # excluded: in its place, never drawn
    assert sum(action["probability"] for action in answer["ranking"]) == pytest.approx(1.0)
    assert answer["ranking"][1]["id"] == answer["rewardActionId"] != "none"


@pytest.mark.parametrize(
    "path",
    [
        "/personalizer/v1.0/rank",
        "/personalizer/v1.1-preview.1/rank",
        "/personalizer/v1.1-preview.3/rank",
        "/personalizer/rank?api-version=2022-09-01-preview",
        "//personalizer/v1.0/rank/",
    ],
)
def test_every_path_of_every_client(client: Any, path: str) -> None:
    first = rank(client, path=path, eventId="the same")
    assert rank(client, loop="loops/offers", eventId="the same") == first


def test_a_repeated_ranking_is_the_same_and_counts_once(client: Any, later: Callable[[float], int]) -> None:
    first = rank(client, eventId="ev-1")
    for n in range(20):
        other = rank(client, eventId=f"other-{n}")
        report(client, other["eventId"], 1.0 if other["rewardActionId"] == "trial" else -1.0)
    later(300)
    client.learned()
    assert rank(client, eventId="ev-1") == first  # the policy may have changed since
    assert rank(client, loop="summed", eventId="ev-1").keys() == first.keys()  # another loop, another event
    reply = client.post("/offers/personalizer/v1.1-preview.3/rank", json={"actions": ACTIONS[:2], "eventId": "ev-1"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "InvalidRankRequest")
    later(700)
    assert taught(client)[0] == 21


def test_an_event_id_is_given_where_none_is_sent_and_the_loop_closes(
    client: Any, later: Callable[[float], int]
) -> None:
    answer = rank(client)
    assert answer["eventId"].startswith("jb-")
    report(client, answer["eventId"], 0.75)
    later(601)
    assert taught(client) == (1, 0.75)
    receipt = client.get(f"/v1/decisions/{answer['eventId'].removeprefix('jb-')}").json()
    assert receipt["nudge"]["id"] == answer["rewardActionId"]
    assert {a: s["propensity"] for a, s in receipt["arms"].items()} == {
        a["id"]: a["probability"] for a in answer["ranking"]
    }
    assert receipt["settled"] | {"settled_at": ""} == {
        "seq": 1,
        "reward": 0.75,
        "why": "reward",
        "learned": True,
        "settled_at": "",
    }


def test_ids_with_slashes_and_other_signs(client: Any, later: Callable[[float], int]) -> None:
    for n, event in enumerate(("a/b c?d", "a%2Fb", "ü–x", "a/reward", ".")):
        assert rank(client, eventId=event)["eventId"] == event
        sent = {"a/b c?d": "a%2Fb%20c%3Fd", "a%2Fb": "a%252Fb", "a/reward": "a%2Freward", ".": "%2E"}.get(event, event)
        report(client, sent, 1.0)
        later(601)
        assert taught(client) == (n + 1, 1.0)


def test_deferred_and_never_activated_is_not_learned_even_if_rewarded(
    client: Any, later: Callable[[float], int]
) -> None:
    for event in ("never", "activated", "silent", "late"):
        rank(client, eventId=event, deferActivation=True)
    report(client, "never", 1.0)
    report(client, "activated", 0.5)
    for event in ("activated", "activated", "silent"):  # idempotent
        activate(client, event)
    later(601)
    activate(client, "late")  # after the reward wait time
    assert taught(client) == (2, 0.25)  # the reward, and the default of the silent one
    rank(client, eventId="now")
    later(601)
    assert taught(client)[0] == 3  # not deferred: silence teaches


def test_the_first_reward_counts_and_later_ones_are_dropped(client: Any, later: Callable[[float], int]) -> None:
    rank(client, eventId="ev")
    for value in (0.25, 0.25, 1.0):
        report(client, "ev", value)
    assert counted(client, "reward", "duplicate") == 1
    assert counted(client, "reward", "conflict") == 1
    later(601)
    assert taught(client) == (1, 0.25)
    report(client, "ev", 0.25)  # known already
    rank(client, eventId="silent")
    later(601)
    report(client, "silent", 1.0)  # the reward wait time is over
    assert taught(client) == (2, 0.125)


def test_sums_do_not_count_a_repeated_request_twice(
    serving: Callable[..., AbstractContextManager[Any]], app: str, later: Callable[[float], int], tmp_path: Path
) -> None:
    with serving(SqliteStore(tmp_path / "l.db"), app=app) as client:
        rank(client, "summed", eventId="ev")
        report(client, "ev", 0.25, "summed")
        later(31)  # js: after 30 s
        report(client, "ev", 0.25, "summed")
    with serving(SqliteStore(tmp_path / "l.db"), app=app) as client:  # a restart forgets nothing of it
        later(60)
        report(client, "ev", 0.25, "summed")
        later(100)  # two minutes count from the last one, not the first
        report(client, "ev", 0.25, "summed")
        later(121)
        report(client, "ev", 0.25, "summed")  # another one
        report(client, "ev", 0.125, "summed")
        for _ in range(2):  # the client's own id of the request
            report(client, "ev", 0.25, "summed", headers={"x-ms-client-request-id": "r-1"})
        report(client, "ev", 0.25, "summed", headers={"x-ms-client-request-id": "r-2"})
        later(601)
        assert taught(client, "summed") == (1, 1.0)  # 0.25 + 0.25 + 0.125 + 0.25 + 0.25, clipped to the range
    store = SqliteStore(tmp_path / "l.db")
    (found,) = store.decisions("summed")
    assert sorted(o.value or 0.0 for o in found.outcomes) == [0.125, 0.25, 0.25, 0.25, 0.25]
    store.close()


def test_the_default_reward_is_that_of_the_silent(client: Any, later: Callable[[float], int]) -> None:
    rank(client, "summed")
    later(601)
    assert taught(client, "summed") == (1, -0.5)


def test_rewards_of_unknown_events_are_taken_and_counted(client: Any) -> None:
    for path in ("events/x/reward", "events/jb-0199c816-0000-7000-8000-000000000000/reward"):
        assert client.post(f"/offers/personalizer/v1.0/{path}", json={"value": 1}).status_code == 204
    activate(client, "nobody")
    reply = client.post(
        "/offers/personalizer/v1.1-preview.3/multislot/events/x/reward", json={"reward": [{"slotId": "a", "value": 1}]}
    )
    assert reply.status_code == 204
    assert counted(client, "reward", "unknown") == 3
    assert counted(client, "activation", "unknown") == 1


def test_a_loop_says_nothing_about_another(client: Any, later: Callable[[float], int]) -> None:
    event = rank(client)["eventId"]
    report(client, event, 1.0, "summed")
    decision = client.ask("signup")["decision_id"]
    report(client, f"jb-{decision}", 1.0)
    assert counted(client, "reward", "unknown") == 2
    later(3601)
    assert taught(client) == (1, 0.0)


@pytest.mark.parametrize("count", [1, 2, 7, 50])
def test_any_number_of_actions_up_to_fifty(client: Any, count: int) -> None:
    actions = [{"id": f"a{n}", "features": [{"n": n}]} for n in range(count)]
    answer = rank(client, actions=actions)
    p = [action["probability"] for action in answer["ranking"]]
    assert sum(p) == pytest.approx(1.0)
    assert min(p) >= min(0.01, 0.2 / count) - 1e-12
    more = client.post(
        "/offers/personalizer/v1.0/rank",
        json={"actions": [*actions, *({"id": str(n), "features": []} for n in range(50))]},
    )
    assert more.status_code == 400
    only = rank(client, actions=actions, excludedActions=[a["id"] for a in actions[1:]])
    assert (only["rewardActionId"], only["ranking"][0]["probability"]) == ("a0", 1.0)


def test_control_events_get_the_first_action_and_teach_nothing(client: Any, later: Callable[[float], int]) -> None:
    shown = [rank(client, "held", eventId=f"e{n}") for n in range(60)]
    held = [answer for answer in shown if answer["ranking"][0]["probability"] == 1.0]
    assert 15 < len(held) < 45
    assert {answer["rewardActionId"] for answer in held} == {"none"}
    later(601)
    assert taught(client, "held")[0] == 60 - len(held)


def test_a_better_action_is_found_though_it_is_new_every_time(client: Any, later: Callable[[float], int]) -> None:
    """Discounts pay 1, the rest −1. Seeds are fixed by the salt and the ids; of the last 40 at least 30 are right."""
    right = []
    for n in range(120):
        actions = [
            {"id": f"d{n}", "features": [{"kind": "discount"}]},
            {"id": f"r{n}", "features": [{"kind": "reminder"}]},
        ]
        answer = rank(client, eventId=f"ev-{n}", actions=actions)
        right.append(answer["rewardActionId"] == f"d{n}")
        report(client, f"ev-{n}", 1.0 if right[-1] else -1.0)
        if n % 20 == 19:
            later(601)
            client.learned()
    assert sum(right[-40:]) >= 30


def slotted(client: Any, path: str = "v1.1-preview.3", **more: Any) -> Any:
    slots = [
        {"id": "top", "baselineAction": "none", "features": [{"size": "large"}], "excludedActions": ["trial"]},
        {"id": "side", "baselineAction": "trial"},
    ]
    body = {"actions": ACTIONS, "contextFeatures": CONTEXT, "slots": slots, **more}
    reply = client.post(f"/offers/personalizer/{path}/multislot/rank", json=body)
    assert reply.status_code == 201, reply.text
    return reply.json()


def test_no_action_fills_two_slots_and_each_slot_learns_from_its_reward(
    client: Any, later: Callable[[float], int]
) -> None:
    for n in range(30):
        answer = slotted(client, eventId=f"ev-{n}")
        top, side = answer["slots"]
        assert (top["id"], side["id"], answer["eventId"]) == ("top", "side", f"ev-{n}")
        assert top["rewardActionId"] != side["rewardActionId"]
        assert top["rewardActionId"] != "trial"
        assert 0.0 < top["probability"] <= 1.0
        assert 0.0 < side["probability"] <= 1.0
    assert slotted(client, eventId="ev-0") == slotted(client, eventId="ev-0")
    events = "/offers/personalizer/v1.1-preview.3/multislot/events"
    assert client.post(f"{events}/ev-0/reward", json={"reward": [{"slotId": "top", "value": 1}]}).status_code == 204
    assert client.post(f"{events}/ev-0/reward", json={"reward": [{"slotId": "side", "value": -1}]}).status_code == 204
    wrong = client.post(f"{events}/ev-0/reward", json={"reward": [{"slotId": "left", "value": 1}]})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "InvalidRewardRequest")
    slotted(client, eventId="deferred", deferActivation=True)
    slotted(client, eventId="activated", deferActivation=True)
    assert client.post(f"{events}/activated/activate").status_code == 204
    later(601)
    assert taught(client) == (64 - 2, 0.0)


@pytest.mark.parametrize("bad", ['{"slotId": "side", "value": 5}', '{"slotId": "side", "value": NaN}', "7", "{}",
                                 '{"slotId": "left", "value": 1}', '{"slotId": "side", "value": "1"}'])  # fmt: skip
def test_a_bad_reward_of_a_slot_is_named_and_the_others_are_recorded(
    client: Any, later: Callable[[float], int], bad: str
) -> None:
    slotted(client, eventId="page")
    body = f'{{"reward": [{bad}, {{"slotId": "top", "value": 1}}]}}'
    reply = client.post("/offers/personalizer/v1.1-preview.3/multislot/events/page/reward", content=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["target"].startswith("reward[0]")
    later(601)
    assert taught(client) == (2, 0.5)  # top: 1, side: the default


@pytest.mark.parametrize("path", ["v1.0/rank", "v1.1-preview.3/multislot/rank"])
def test_excluded_actions_that_are_not_there_exclude_nothing(client: Any, path: str) -> None:
    slots = [{"id": "top", "baselineAction": "none", "excludedActions": ["gone"]}]
    body = {"actions": ACTIONS, "excludedActions": ["gone", "none"], "slots": slots}
    reply = client.post(f"/offers/personalizer/{path}", json=body)
    assert reply.status_code == 201, reply.text
    if "ranking" in reply.json():
        assert reply.json()["ranking"][0] == {"id": "none", "probability": 0.0}
        assert {a["id"] for a in reply.json()["ranking"]} == {"none", "discount_10", "trial"}
        receipt = client.get(f"/v1/decisions/{reply.json()['decisionId']}").json()
        assert list(receipt["excluded"]) == ["none"]


def test_features_that_json_cannot_hold_are_as_null(client: Any) -> None:
    actions = b'[{"id": "a", "features": [{"x": %s}]}]'
    for bad in (b"NaN", b"-Infinity", b"1e999", rb'"\ud83d"', b'"\xff"'):
        raw = b'{"actions": ' + actions % bad + b', "contextFeatures": [{"y": %s}], "eventId": "e"}' % bad
        sent = client.post("/offers/personalizer/v1.0/rank", content=raw)
        clean = {"actions": json.loads(actions % b"null"), "contextFeatures": [{"y": None}], "eventId": "f"}
        known = client.post("/offers/personalizer/v1.0/rank", json=clean)
        assert (sent.status_code, known.status_code) == (201, 201), sent.text
        x, y = (client.get(f"/v1/decisions/{r.json()['decisionId']}").json()["x"] for r in (sent, known))
        assert x == y
    named = client.post(
        "/offers/personalizer/v1.1-preview/rank", content=rb'{"actions": [{"id": "\ud83d", "features": []}]}'
    )
    assert (named.status_code, named.json()["error"]["target"]) == (400, "actions[0].id")


def test_rewards_of_a_slot_add_up_once_each_request(client: Any, later: Callable[[float], int]) -> None:
    slots = [{"id": "top", "baselineAction": "none"}]
    body = {"actions": ACTIONS, "slots": slots, "eventId": "page"}
    assert client.post("/summed/personalizer/v1.1-preview.3/multislot/rank", json=body).status_code == 201
    sent = {"reward": [{"slotId": "top", "value": 0.25}, {"slotId": "top", "value": 0.25}]}
    for _ in range(2):  # a retry has the same id
        path = "/summed/personalizer/v1.1-preview.3/multislot/events/page/reward"
        assert client.post(path, json=sent, headers={"x-ms-client-request-id": "r"}).status_code == 204
    later(601)
    assert taught(client, "summed") == (1, 0.5)


def test_a_retried_page_is_the_same_page_whatever_was_learned(client: Any, later: Callable[[float], int]) -> None:
    first = slotted(client, eventId="page")
    for n in range(30):
        answer = rank(client, eventId=f"e{n}")
        report(client, f"e{n}", 1.0 if answer["rewardActionId"] == "discount_10" else -1.0)
    later(500)
    client.learned()
    assert slotted(client, eventId="page") == first


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("rank", b"{", 400, "InvalidRankRequest"),
        ("rank", b'{"actions": []}', 400, "InvalidRankRequest"),
        ("rank", b'{"actions": [{"id": "a"}]}', 400, "InvalidRankRequest"),
        ("rank", b'{"actions": [{"id": "", "features": []}]}', 400, "InvalidRankRequest"),
        ("rank", b'{"actions": [{"id": "a", "features": [1]}]}', 400, "InvalidRankRequest"),
        ("rank", b'{"actions": [{"id": "a", "features": []}, {"id": "a", "features": []}]}', 400, "InvalidRankRequest"),
        ("rank", b'{"actions": [{"id": "a", "features": []}], "excludedActions": ["a"]}', 400, "InvalidRankRequest"),
        ("rank", b'{"actions": [{"id": "a", "features": [{"x":' + b'{"y":' * 30 + b"1" + b"}" * 31 + b"]}]}", 400,
         "InvalidRankRequest"),
        ("events/e/reward", b'{"value": 1.5}', 400, "InvalidRewardRequest"),
        ("events/e/reward", b'{"value": "1"}', 400, "InvalidRewardRequest"),
        ("events/e/reward", b'{"value": NaN}', 400, "InvalidRewardRequest"),
        ("events/e/reward", b"{}", 400, "InvalidRewardRequest"),
        (f"events/{'e' * 257}/activate", b"", 400, "InvalidEventIdToActivate"),
        ("multislot/rank", b'{"actions": [{"id": "a", "features": []}], "slots": []}', 400, "InvalidRankRequest"),
        ("multislot/rank",
         b'{"actions": [{"id": "a", "features": []}], "slots": [{"id": "s", "baselineAction": "b"}]}', 400,
         "InvalidRankRequest"),
        ("multislot/rank",
         b'{"actions": [{"id": "a", "features": []}], "slots": [{"id": "s", "baselineAction": "a"}, {"id": "t", '
         b'"baselineAction": "a"}]}', 400, "InvalidRankRequest"),
        ("evaluations", b"{}", 404, "ResourceNotFound"),
        ("logs/interactions", b"{}", 404, "ResourceNotFound"),
        ("events/e", b"{}", 404, "ResourceNotFound"),
        ("configurations/service", b"{}", 405, "OperationNotAllowed"),
    ],
)  # fmt: skip
def test_errors_have_the_shape_and_the_words_of_their_version(
    client: Any, path: str, body: bytes, status: int, code: str
) -> None:
    for version in ("v1.0", "v1.1-preview.3"):
        reply = client.post(f"/offers/personalizer/{version}/{path}", content=body)
        assert (reply.status_code, reply.headers["content-type"]) == (status, "application/json"), reply.text
        error = reply.json()["error"]
        assert error["message"]
        old = {400: "BadRequest", 404: "ResourceNotFound"}.get(status, code)
        assert error["code"] == (old if version == "v1.0" else code)


def ranking(actions: int, slots: int, own: int, around: int) -> dict[str, Any]:
    """Body of a multi-slot rank: `own` features an action, and `around` in context and slot together."""
    return {
        "contextFeatures": [{f"c{i}": i for i in range(around - 1)}],
        "actions": [{"id": f"a{i}", "features": [{"f": [1] * own}]} for i in range(actions)],
        "slots": [{"id": f"s{i}", "baselineAction": f"a{i}", "features": [{"p": i}]} for i in range(slots)],
    }


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (ranking(50, 11, 1, 2), "slots: 11 slots × 50 actions are 550 → send 500 or fewer (slots × actions)"),
        (ranking(10, 5, 400, 100), "actions: 2,005,000 pairs of a feature with one of contextFeatures or a slot → "
         "send fewer features: 2,000,000 pairs at most, in all actions and slots"),
    ],
)  # fmt: skip
def test_a_ranking_of_too_much_work_is_refused_before_any_of_it_is_done(
    client: Any, monkeypatch: pytest.MonkeyPatch, body: dict[str, Any], message: str
) -> None:
    done = list[object]()
    monkeypatch.setattr(engine, "rank", lambda *given, **_: done.append(given))
    reply = client.post("/offers/personalizer/v1.1-preview.3/multislot/rank", json=body)
    assert (reply.status_code, reply.json()["error"]["message"], done) == (400, message, [])


def test_the_work_of_a_ranking_is_what_its_bound_counts(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs that were really hashed, in the two threads of rankings and not in the event loop's."""
    pairs, threads = list[int](), set[str]()
    paired = HashedFeatures.paired

    def counting(own: HashedFeatures, other: HashedFeatures) -> HashedFeatures:
        made = paired(own, other)
        pairs.append(len(made.number))
        threads.add(threading.current_thread().name)
        return made

    monkeypatch.setattr(HashedFeatures, "paired", counting)
    body = ranking(8, 3, 19, 40)
    path = "/offers/personalizer/v1.1-preview.3/multislot/rank"
    for _ in range(3):
        assert client.post(path, json=body).status_code == 201
    assert sum(pairs) == 3 * (3 * 40 * 8 * (19 + 1))
    assert threads <= {"ranking_0", "ranking_1"}


def test_few_actions_with_many_features_do_not_hold_the_event_loop() -> None:
    many = [{f"c{i}": i for i in range(200)}]
    assert not is_long([], [Action(f"a{i}") for i in range(6)], ())
    assert is_long([], [Action(f"a{i}") for i in range(7)], ())
    assert is_long(many, [Action("a", many)], ())


def test_which_loop_is_meant_must_be_clear(client: Any) -> None:
    for loop in ("", "/nothing", "/signup"):
        reply = client.post(f"{loop}/personalizer/v1.0/rank", json={"actions": ACTIONS})
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "ResourceNotFound")
        assert "offers, summed, held" in reply.json()["error"]["message"]


def test_keys(serving: Callable[..., AbstractContextManager[Any]], app: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    key, other = create(file, "web", ["decide", "reward"]), create(file, "other", ["read"])
    with serving(app=app, keys=str(file)) as client:
        for name in ("Ocp-Apim-Subscription-Key", "ocp-apim-subscription-key", "X-API-Key"):
            reply = client.post("/offers/personalizer/v1.0/rank", json={"actions": ACTIONS}, headers={name: key})
            assert reply.status_code == 201
        for given, status in (("", 401), ("web.no", 401), (other, 403)):
            headers = {"Ocp-Apim-Subscription-Key": given}
            reply = client.post("/offers/personalizer/v1.0/rank", json={"actions": ACTIONS}, headers=headers)
            assert (reply.status_code, reply.json()["error"]["code"]) == (status, str(status))
        both = {"Ocp-Apim-Subscription-Key": key, "X-API-Key": key}
        assert client.post("/offers/personalizer/v1.0/rank", json={}, headers=both).status_code == 401


def test_the_configuration_can_be_read(client: Any) -> None:
    reply = client.get("/summed/personalizer/v1.0/configurations/service")
    assert reply.json() == {
        "rewardWaitTime": "PT600S",
        "defaultReward": -0.5,
        "rewardAggregation": "sum",
        "learningMode": "Online",
    }


def test_the_native_api_and_flags_know_that_actions_come_with_the_request(
    client: Any, refused: Callable[[Any, int, str], Any]
) -> None:
    refused(client.post("/v1/decisions", json={"stage": "offers", "user_id": "u"}), 400, "stage")
    flags = client.post("/ofrep/v1/evaluate/flags", json={"context": {"targetingKey": "u"}}).json()["flags"]
    assert [flag["key"] for flag in flags] == ["signup", "signup.nudge", "signup.show"]
    stages = {stage["stage"]: stage for stage in client.get("/v1/stages").json()["stages"]}
    assert (stages["offers"]["nudges"], set(stages["signup"]["nudges"])) == ({}, {"none", "tip"})
    snapshot = from_zip(client.get("/v1/policies/offers/snapshot").content)
    assert snapshot.belief.shift.shape == (1, 64)


@pytest.mark.parametrize("delay", ["", ', delay = "2m"'], ids=["settled", "open too"])
def test_receipts_recompute_and_the_ledger_rebuilds_bit_for_bit(
    serving: Callable[..., AbstractContextManager[Any]],
    app: str,
    later: Callable[[float], int],
    tmp_path: Path,
    delay: str,
) -> None:
    Path(app).write_text(LOOPS.replace("max = 1.0 }", f"max = 1.0{delay} }}", 1), encoding="utf-8")
    with serving(SqliteStore(tmp_path / "l.db"), app=app) as client:
        for n in range(40):
            excluded = ["trial"] if n % 3 == 0 else []
            answer = rank(
                client, eventId=f"e{n}", excludedActions=excluded, contextFeatures=[{"n": n, "odd": n % 2 == 1}]
            )
            report(client, f"e{n}", 1.0 if answer["rewardActionId"] == "trial" else -0.5)
            if delay:  # the next is decided by what is open, too
                later(5)
                client.learned()
            if n % 10 == 9:
                slotted(client, eventId=f"page{n}")
                later(601)
                client.learned()
    store = SqliteStore(tmp_path / "l.db")
    found = list(store.decisions())
    assert len(found) == 48
    salt = audit.salt_of(store, "salt")
    assert {f.decision.settlement_version for f in found} == {0, 12, 24, 36}
    open_then = {f.decision.pending_basis.decisions for f in found if f.decision.pending_basis.at}
    assert len(open_then) >= (40 if delay else 3)
    for one in found:
        assert one.decision.phi.shape == (3, 64)
        again = engine.recompute(engine.prepare(audit.past(store, one)), one.decision, salt)
        for name in ("propensity", "mean", "sd"):
            assert getattr(again, name).tobytes() == getattr(one.decision, name).tobytes()
        assert (again.u, again.arm) == (one.decision.u, one.decision.arm)
        taken = one.decision.actions.index(one.decision.arm)
        assert one.decision.x.tobytes() == one.decision.phi[taken].tobytes()
    assert all(rebuilt.equal for rebuilt in audit.rebuild(store, audit.stages(store)))
    store.close()
    assert uuid.UUID(str(found[0].decision.id)).version == 8


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("columns = 64", "columns = 32"),
        ("columns = 64", "columns = 64, pair_sd = 0.3"),
        (
            'policy = { name = "beta" }\nreward = { kind = "binary", window = "1h" }\nfeatures = {}\n'
            'nudges.tip = { type = "help", format = "tooltip" }',
            'policy = { name = "shared" }\nreward = { kind = "binary", window = "1h" }',
        ),
    ],
    ids=["columns", "a scale", "nudges were declared before"],
)
def test_another_meaning_of_the_columns_needs_another_schema_and_begins_anew(
    serving: Callable[..., AbstractContextManager[Any]],
    app: str,
    later: Callable[[float], int],
    tmp_path: Path,
    old: str,
    new: str,
) -> None:
    stage = "signup" if "beta" in old else "offers"
    with serving(SqliteStore(tmp_path / "l.db"), app=app) as client:
        for n in range(3):
            rank(client, eventId=f"e{n}")
            client.ask("signup", f"u{n}")
        later(3601)
        client.learned()
        rank(client, eventId="open")
        client.ask("signup", "open")
    assert LOOPS.count(old) >= 1
    changed = LOOPS.replace(old, new, 1)
    Path(app).write_text(changed, encoding="utf-8")
    store = SqliteStore(tmp_path / "l.db")
    with pytest.raises(LedgerMismatch, match=rf"{stage}.*schema = 2"), serving(store, app=app):
        pass
    store.close()
    Path(app).write_text(changed.replace(f"[stages.{stage}]", f"[stages.{stage}]\nschema = 2"), encoding="utf-8")
    with serving(SqliteStore(tmp_path / "l.db"), app=app) as client:
        rank(client, stage, eventId="new")
        later(3601)
        assert taught(client, stage)[0] == 1  # only the new one
    with closing(SqliteStore(tmp_path / "l.db")) as store:
        assert all(rebuilt.equal for rebuilt in audit.rebuild(store, audit.stages(store)))
        salt = audit.salt_of(store, "salt")
        for one in store.decisions():
            again = engine.recompute(engine.prepare(audit.past(store, one)), one.decision, salt)
            assert again.propensity.tobytes() == one.decision.propensity.tobytes()
