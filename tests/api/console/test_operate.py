"""The Operate page: what operators change by forms, who may, and what the page and the ledger say of it."""

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.http.keys import SCOPES, create
from api.stores.learning_state import StatisticsKey, StatisticsUpdate
from api.stores.memory.store import MemoryStore
from api.stores.webhook_queue import WebhookDelivery
from bandit.reporters.reward_watch import RewardAlarm, RewardWatch
from journey_bandit.testing.store_builders import START
from tests.api.console.conftest import Operator, PageText, Serving

PAGE = "/console/operate"
STOP = {"place": "signup/tip", "verb": "pause", "by": "ana", "reason": "refunds rose"}
SAID = "paused by key boss, for ana: refunds rose"


def accused() -> MemoryStore:
    """Ledger with an alarm about a key and a dead letter."""
    store = MemoryStore()
    alarm = RewardAlarm(reporter="stolen", arm="tip", through=0, at=START, decisions=8, reward=6.0, allowed=0.2)
    watch = RewardWatch(alarms=(alarm,))
    store.replace_statistics(StatisticsUpdate(StatisticsKey("signup", 1), (), {}, reward_watch=watch))
    letter = WebhookDelivery("crm", "e1", b"{}", 16, START, "<b>refused</b>", dead=True, at=START)
    store.update_webhook_queue({}, [letter], [])
    return store


@pytest.fixture
def boss(desk: Serving, key_file: Path) -> Iterator[Operator]:
    """A person who is signed in with a key that may change things."""
    made = create(key_file, "boss", [*SCOPES, "admin"])
    with desk(accused(), keys=str(key_file)) as running:
        running.key = made
        assert running.sign_in(made).status_code == 303
        yield running


def test_a_pause_from_the_page_is_in_force_for_the_next_decision_and_is_listed(boss: Operator) -> None:
    assert "tip" in boss.ask()["propensities"]
    reply = boss.submit(f"{PAGE}/nudges", PAGE, **STOP)
    assert reply.status_code == 200
    assert "signup.tip is not shown from now on (key boss, for ana: refunds rose)." in reply.text
    made = boss.ask()
    assert made["excluded"]["tip"] == SAID
    assert sum(made["propensities"].values()) == 1.0
    page = boss.page(PAGE)
    assert page.row("signup") == ["tip", SAID, "2025-10-09 08:53:20 UTC"]
    assert page.row("2025-10-09 08:53:20 UTC") == ["pause signup.tip", "key boss, for ana", "refunds rose"]
    assert boss.page("/console/stages/signup").cell("tip stopped", "Drawn now") == "0 %"
    receipt = boss.page(f"/console/decisions/{made['decision_id']}")
    assert SAID in receipt.text
    listed = boss.of_app("GET", "/v1/operator-actions").json()["actions"]
    assert [(one["nudge"], one["action"], one["who"]) for one in listed] == [("tip", "pause", "key boss, for ana")]
    boss.submit(f"{PAGE}/nudges", PAGE, **{**STOP, "verb": "resume"})
    assert "tip" in boss.ask()["propensities"]


def test_a_stage_is_stopped_as_a_whole(boss: Operator) -> None:
    assert (
        "Every nudge of signup is not shown" in boss.submit(f"{PAGE}/nudges", PAGE, **{**STOP, "place": "signup/"}).text
    )
    assert boss.ask()["propensities"] == {"none": 1.0}
    assert boss.page(PAGE).row("signup")[:2] == ["every nudge", SAID]


def test_a_link_of_the_stage_page_has_chosen_the_nudge(boss: Operator) -> None:
    link = next(to for to, words in boss.page("/console/stages/signup").links if words == "Stop")
    assert link == f"{PAGE}?stage=signup&nudge=tip"
    assert '<option value="signup/tip" selected>' in boss.get(link).text


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        ({"place": ""}, 400, "place: missing"),
        ({"place": "nowhere/tip"}, 404, "no stage 'nowhere'"),
        ({"place": "signup/tpi"}, 400, "has no nudge 'tpi'"),
        ({"verb": "explode"}, 400, "verb: 'explode' is not known"),
        ({"reason": "  "}, 400, "reason: missing"),
        ({"by": "x" * 201}, 400, "by: 201 characters"),
        ({"verb": "resume"}, 409, "signup.tip: not paused"),
        ({"place": "signup/", "verb": "retire"}, 400, "nudges are retired one by one"),
    ],
)
def test_what_cannot_be_done_is_said_on_the_page_and_what_was_typed_stays(
    boss: Operator, sent: dict[str, str], status: int, words: str
) -> None:
    reply = boss.submit(f"{PAGE}/nudges", PAGE, **{**STOP, **sent})
    assert reply.status_code == status
    assert words in html.unescape(reply.text)
    assert f'value="{ {**STOP, **sent}["by"] }"' in reply.text
    assert boss.of_app("GET", "/v1/operator-actions").json() == {"actions": []}


SLOWLY = {"place": "signup/ramp", "share": "25", "by": "ana", "reason": "first day"}


def test_a_ramp_from_the_page_is_in_force_for_the_next_decision_and_is_listed(boss: Operator) -> None:
    whole = boss.ask()["propensities"]["none"]
    reply = boss.submit(f"{PAGE}/traffic", PAGE, **SLOWLY)
    assert "The ramp of signup is 25 % from now on (key boss, for ana: first day)." in reply.text
    assert boss.ask()["propensities"]["none"] > max(whole, 0.7)
    at = "2025-10-09 08:53:20 UTC"
    page = boss.page(PAGE)
    assert ["signup", "ramp", "25 %", "100 %", "key boss, for ana: first day", at] in page.rows
    assert page.row(at) == ["ramp of signup: 25 %", "key boss, for ana", "first day"]
    assert "25 % of the rest" in boss.page("/console/stages/signup").text
    boss.submit(f"{PAGE}/traffic", PAGE, **{**SLOWLY, "place": "signup/holdout", "share": "12,5 %"})
    assert "12.5 % of users" in boss.page("/console/stages/signup").text
    assert boss.submit(f"{PAGE}/traffic", PAGE, **{**SLOWLY, "share": ""}).status_code == 200
    assert boss.ask(user="other")["propensities"]["none"] == whole
    assert "ramp of signup: as declared" in boss.page(PAGE).text


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ({"place": ""}, "place: missing"),
        ({"place": "signup/pause"}, "place: 'pause' is not known"),
        ({"share": "much"}, "share: 'much' is no number"),
        ({"share": "101"}, "share: 1.01 is not the share of the traffic"),
        ({"share": "nan"}, "share: nan is not the share of the traffic"),
        ({"share": ""}, "share: the ramp of signup was not set"),
    ],
)
def test_a_share_that_cannot_be_is_said_on_the_page(boss: Operator, sent: dict[str, str], words: str) -> None:
    reply = boss.submit(f"{PAGE}/traffic", PAGE, **{**SLOWLY, **sent})
    assert reply.status_code == 400
    assert words in html.unescape(reply.text)
    assert boss.of_app("GET", "/v1/operator-actions").json() == {"actions": []}


FORMS = [
    ("nudges", STOP),
    ("traffic", SLOWLY),
    ("alarms", {"place": "signup/stolen", "verdict": "honest", "by": "a", "reason": "r"}),
    ("dead-letters", {}),
]


@pytest.mark.parametrize(("form", "fields"), FORMS)
def test_who_may_only_read_changes_nothing(operator: Operator, form: str, fields: dict[str, str]) -> None:
    page = operator.page(PAGE)
    assert [tag for tag, given in page.tags if tag == "form" and "operate" in str(given.get("action"))] == []
    assert "This key may only read" in page.text
    reply = operator.submit(f"{PAGE}/{form}", "/console", **fields)
    assert (reply.status_code, "scope admin" in reply.text) == (403, True)
    assert operator.of_app("GET", "/v1/operator-actions").json() == {"actions": []}


@pytest.mark.parametrize(("form", "fields"), FORMS)
def test_a_form_without_the_sessions_secret_or_of_another_site_changes_nothing(
    boss: Operator, form: str, fields: dict[str, str]
) -> None:
    for sent, headers in (
        ({}, {}),
        ({"csrf": "wrong"}, {}),
        ({"csrf": boss.page(PAGE).fields["csrf"]}, {"Sec-Fetch-Site": "cross-site"}),
    ):
        reply = boss.post(f"{PAGE}/{form}", data={**fields, **sent}, headers=headers, follow_redirects=False)
        assert reply.status_code == 403
    assert boss.of_app("GET", "/v1/operator-actions").json() == {"actions": []}
    assert boss.of_app("GET", "/v1/webhooks/dead-letters").json()["count"] == 1


def test_a_session_that_is_over_changes_nothing(boss: Operator, later: Any) -> None:
    csrf = boss.page(PAGE).fields["csrf"]
    later(31 * 60)
    reply = boss.post(f"{PAGE}/nudges", data={**STOP, "csrf": csrf}, follow_redirects=False)
    assert (reply.status_code, reply.headers["location"]) == (303, "/console/sign-in")
    assert boss.of_app("GET", "/v1/operator-actions").json() == {"actions": []}


def test_an_alarm_is_acknowledged(boss: Operator) -> None:
    assert boss.page(PAGE).row("signup")[0] == "stolen"
    sent = {"place": "signup/stolen", "verdict": "forged", "by": "ana", "reason": "it leaked"}
    assert "The key stolen was found forged at signup" in boss.submit(f"{PAGE}/alarms", PAGE, **sent).text
    (alarm,) = boss.learned()["signup"]["reward_alarms"]
    assert alarm["acknowledged"]["acknowledged_by"] == "key boss, for ana"
    page = boss.page(PAGE)
    assert "found the key stolen forged at signup" in page.text
    assert [given for tag, given in page.tags if given.get("id") == "accused"] == []


def test_dead_letters_are_shown_as_text_and_tried_again(boss: Operator) -> None:
    assert boss.page(PAGE).row("crm")[-1] == "<b>refused</b>"
    assert "1 message(s) are tried again." in boss.submit(f"{PAGE}/dead-letters", PAGE).text
    assert boss.of_app("GET", "/v1/webhooks/dead-letters").json()["count"] == 0


def test_keys_are_listed_without_their_secrets(boss: Operator) -> None:
    page = boss.page(PAGE)
    assert page.row("boss")[0] == "decide, reward, read, events, admin"
    assert re.search(r"[0-9a-f]{64}", page.text) is None
    assert boss.key.partition(".")[2] not in page.text


def test_words_of_operators_are_text(boss: Operator) -> None:
    reply = boss.submit(
        f"{PAGE}/nudges", PAGE, **{**STOP, "reason": "<script>alert(1)</script>", "by": '"><img src=x>'}
    )
    assert "<script>alert" not in reply.text
    assert "<img" not in reply.text
    assert "<script>alert(1)</script>" in PageText(reply.text).text
