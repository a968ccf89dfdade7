"""Guardrails: a nudge that retractions follow too often is stopped by itself, and one within its bound is not."""

import asyncio
import json
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy import stats

from api.guardrails import GuardrailLoop
from api.operations.guardrail_watch import WHO, GuardrailWatch
from api.operations.paused_nudges import PausedNudges
from api.stores.decision_log import DecisionRecord
from api.stores.memory.store import MemoryStore
from api.stores.sqlite.store import SqliteStore
from bandit.catalogue.loading import parse
from bandit.errors import CatalogueError
from bandit.records import ALL_NUDGES, Decision, OperatorAction, Outcome, Settlement
from journey_bandit.testing.store_builders import HOUR, START
from tests.waiting import eventually

Serving = Callable[..., AbstractContextManager[Any]]
Working = Callable[..., AbstractContextManager[Any]]

APP = """
app = "shop"
currency = "EUR"
[stages.cart]
policy = { name = "fixed", arm = "ten" }
floor = 0.0
reward = { kind = "binary", window = "1h", value = 10.0, grace = "12h" }
features = {}
guardrail = { most = 0.05 }
[stages.cart.nudges.ten]
type = "help"
format = "banner"
[stages.cart.nudges.few]
type = "help"
format = "banner"
"""
SHOP = parse(APP)


class Settled(MemoryStore):
    """Ledger of decisions that a test says how they settled: `ended(decision, retracted=)`."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = list[tuple[int, DecisionRecord]]()

    def settlements_after(self, after: int, most: int) -> list[tuple[int, DecisionRecord]]:
        return [row for row in self.rows if row[0] > after][:most]

    def ended(self, made: Decision, *, retracted: bool, why: Any = "reward") -> None:
        number = len(self.rows) + 1
        kinds = ("reward", "retraction") if retracted else ("reward",)
        told = tuple(
            Outcome(decision=made.id, id=kind, kind=kind, value=None, occurred=made.at, received=made.at)  # type: ignore[arg-type]
            for kind in kinds
        )
        row = {"decision_seq": number, "stage": made.stage, "arm": made.arm, "at": made.at, "reward": 1.0}
        done = Settlement(seq=number, **row, why=why, learned=True, tau=0.0, nu=0.0, outcomes=len(told))  # type: ignore[arg-type]
        self.rows.append((number, DecisionRecord(number, made, told, done)))


@pytest.fixture(scope="module")
def made() -> Callable[..., Decision]:
    """made(n, at, arm): a decision, and nothing of it that guardrails do not look at."""
    nothing = np.zeros(0)
    base = Decision(
        id=uuid.UUID(int=1), at=START, expires=START + HOUR, stage="cart", stage_digest="", settlement_version=0,
        user=b"u" * 16, request=b"r", x=nothing, propensity=nothing, mean=nothing, sd=nothing, u=0.5, arm="ten",
        holdout=False, excluded={}, evidence={}, notes=(),
    )  # fmt: skip

    def build(at: int, arm: str = "ten") -> Decision:
        return msgspec.structs.replace(base, id=uuid.uuid4(), at=at, expires=at + HOUR, arm=arm)

    return build


def watched(store: Any, catalogue: Any = SHOP) -> tuple[GuardrailWatch, PausedNudges]:
    pauses = PausedNudges(store, catalogue)
    return GuardrailWatch(store, catalogue, pauses), pauses


def run(watch: GuardrailWatch, store: Settled, made: Any, bad: Any) -> int:
    """Number of the decision after which the nudge is to be stopped, 0 if it never is; looked at after each."""
    for n, is_bad in enumerate(bad):
        at = START + n * HOUR // 4
        store.ended(made(at), retracted=bool(is_bad))
        watch.look(at + HOUR)
        if watch.due(at + HOUR):
            return n + 1
    return 0


def test_a_nudge_within_its_bound_is_stopped_in_few_of_200_runs(made: Any) -> None:
    """400 decisions at the bound itself, looked at after each. False alarm of this test ≤ 1e-4: of 200 runs that are
    stopped with 5 % each, 24 or more are with 6e-5. Detects a chance of 25 % with probability 1 − 1e-5.
    """
    assert stats.binom.sf(23, 200, 0.05) < 1e-4
    assert stats.binom.cdf(23, 200, 0.25) < 1e-5
    rng, stopped = np.random.default_rng(41), 0
    for _ in range(200):
        store = Settled()
        stopped += run(watched(store)[0], store, made, rng.random(400) < 0.05) > 0
    assert stopped < 24


def test_a_nudge_at_four_times_its_bound_is_stopped_within_the_decisions_that_it_takes(made: Any) -> None:
    """The evidence of 100 decisions, of which a fifth are followed by a retraction, is far beyond 20."""
    rng = np.random.default_rng(42)
    for _ in range(20):
        store = Settled()
        assert 100 <= run(watched(store)[0], store, made, rng.random(400) < 0.2) <= 160


def test_decisions_count_once_their_window_is_over_whenever_their_reward_came(made: Any) -> None:
    store = Settled()
    watch, _ = watched(store)
    store.ended(made(START), retracted=True)
    watch.look(START + HOUR - 1)
    assert [(one.exposures, one.bad) for one in watch.evidence["cart"]] == [(0, 0), (0, 0)]
    watch.look(START + HOUR)
    assert [(one.nudge, one.exposures, one.bad) for one in watch.evidence["cart"]] == [("ten", 1, 1), ("few", 0, 0)]


def test_what_nobody_saw_does_not_count(made: Any) -> None:
    store = Settled()
    watch, _ = watched(store)
    for why in ("not activated", "holdout", "erased"):
        store.ended(made(START), retracted=True, why=why)
    store.ended(made(START, "none"), retracted=True)
    watch.look(START + HOUR)
    assert [one.exposures for one in watch.evidence["cart"]] == [0, 0]


def test_a_resumed_nudge_begins_anew(made: Any) -> None:
    store = Settled()
    watch, pauses = watched(store)
    at = START + 200 * HOUR
    assert run(watch, store, made, [True] * 120) == 100
    (action,) = watch.due(at)
    assert (action.who, action.verb, action.stage, action.nudge) == (WHO, "pause", "cart", "ten")
    assert action.reason.startswith("100 of 100 decisions were followed by a retraction; at most 5 % is declared")
    store.operate(action)
    pauses.take(store.operator_actions())
    assert watch.due(at) == []
    store.operate(OperatorAction(at=at, who="ana", stage="cart", nudge="ten", verb="resume", reason="mended"))
    pauses.take(store.operator_actions())
    watch.look(at)
    assert watch.evidence["cart"][0].exposures == 0
    for n in range(99):
        store.ended(made(at + 1 + n), retracted=True)
    watch.look(at + 2 * HOUR)
    assert watch.due(at + 2 * HOUR) == []
    store.ended(made(at + 200), retracted=True)
    watch.look(at + 2 * HOUR)
    assert [one.nudge for one in watch.due(at + 2 * HOUR)] == ["ten"]


@pytest.mark.parametrize(("then", "nudges"), [("pause_stage", [ALL_NUDGES]), ("tell", [])])
def test_what_is_done_is_declared(made: Any, then: str, nudges: list[str]) -> None:
    store = Settled()
    watch, _ = watched(store, parse(APP.replace("most = 0.05", f'most = 0.05, after = 10, then = "{then}"')))
    for n in range(60):
        store.ended(made(START + n), retracted=True)
    watch.look(START + 2 * HOUR)
    assert [one.nudge for one in watch.due(START + 2 * HOUR)] == nudges
    assert watch.raised("cart").keys() == {"ten"}


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ("most = 0", "most"),
        ("most = 0.05, after = 0", "after"),
        ('most = 0.05, then = "explode"', "then"),
        ("most = 0.05, bad = []", "bad"),
        ('most = 0.05, bad = ["silence"]', "bad[0]"),
        ("", "most"),
    ],
)
def test_a_guardrail_that_cannot_be_kept_is_named(rule: str, field: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        parse(APP.replace("most = 0.05", rule))
    assert f"stages.cart.guardrail.{field}:" in str(caught.value)


def test_opt_outs_stop_a_nudge_where_the_guardrail_counts_them(serving: Serving, later: Any, tmp_path: Path) -> None:
    """They come while the decisions are open, and change no reward; retractions do not count here."""
    file = tmp_path / "cart.toml"
    file.write_text(APP.replace("most = 0.05", 'most = 0.05, after = 20, bad = ["opt_out"]'), encoding="utf-8")
    with serving(app=str(file)) as client:
        shown = [client.ask("cart", f"u{n}") for n in range(40)]
        for n, one in enumerate(shown):
            client.tell(one, value=1)
            if n < 12:
                client.tell(one, "opt_out")
                assert client.tell(one, "opt_out")["duplicate"]
            elif n < 24:
                client.tell(one, "retraction", outcome_id="refund")
        later(3601)
        assert client.learned()["cart"]["version"] == 40
        assert eventually(lambda: client.learned()["cart"]["paused"])
        (paused,) = client.learned()["cart"]["paused"]
        assert paused["reason"].startswith("12 of 40 decisions were followed by an opt-out; at most 5 % is declared")
        (guardrail, _) = client.learned()["cart"]["guardrails"]
        assert (guardrail["bad"], guardrail["of"]) == (12, ["opt_out"])
        receipt = client.get(f"/v1/decisions/{shown[0]['decision_id']}").json()
        assert receipt["settled"]["reward"] == 1.0
        assert [one["kind"] for one in receipt["outcomes"]] == ["reward", "opt_out"]


@pytest.mark.parametrize("store", [MemoryStore, lambda: None])
def test_an_opt_out_after_an_early_reward_counts_until_the_window_ends(
    serving: Serving, later: Any, tmp_path: Path, store: Any
) -> None:
    """A stage that settles with its first reward, without grace: who bought may be annoyed, too."""
    file = tmp_path / "cart.toml"
    early = APP.replace('grace = "12h"', 'settle = "reward"').replace("most = 0.05", 'most = 0.05, bad = ["opt_out"]')
    file.write_text(early, encoding="utf-8")
    ledger = store() or SqliteStore(tmp_path / "ledger.db")
    with serving(ledger, app=str(file)) as client:
        one, other = client.ask("cart", "u1"), client.ask("cart", "u2")
        client.tell(one, value=1)
        client.tell(other, value=1)
        assert client.learned()["cart"]["version"] == 2
        assert client.tell(one, "opt_out")["late"] is False
        later(3601)
        assert client.tell(other, "opt_out")["late"] is True
        assert client.learned()["cart"]["version"] == 3
        receipt = client.get(f"/v1/decisions/{one['decision_id']}").json()
        assert (receipt["settled"]["reward"], len(receipt["corrected"])) == (1.0, 1)
        assert eventually(lambda: client.learned()["cart"]["guardrails"][0]["decisions"] == 2)
        assert client.learned()["cart"]["guardrails"][0]["bad"] == 1


def test_a_guardrail_that_counts_retractions_has_the_digest_that_it_had() -> None:
    """Pinned before `bad` was there: a catalogue that does not use what is new is the same declaration."""
    assert SHOP.stages["cart"].digest() == "aa3e92a8862d9a520deec43e7716dc51"
    assert (
        parse(APP.replace("most = 0.05", 'most = 0.05, bad = ["opt_out"]')).stages["cart"].digest()
        != "aa3e92a8862d9a520deec43e7716dc51"
    )


def test_an_opt_out_has_no_value(client: Any, refused: Any) -> None:
    made = client.ask()
    body = {"decision_id": made["decision_id"], "kind": "opt_out", "value": 1.0}
    assert refused(client.post("/v1/outcomes", json=body), 400, "value")["problem"] == "an opt-out has no value"


def test_refunds_stop_a_nudge_of_a_running_service(serving: Serving, later: Any, tmp_path: Path) -> None:
    """Refunds come in hours after the decisions settled, within the stage's grace."""
    file = tmp_path / "cart.toml"
    file.write_text(APP.replace("most = 0.05", "most = 0.05, after = 20"), encoding="utf-8")
    with serving(app=str(file)) as client:
        shown = [client.ask("cart", f"u{n}") for n in range(40)]
        assert {one["nudge"]["id"] for one in shown} == {"ten"}
        for one in shown:
            client.tell(one, value=1)
        later(3601)
        client.learned()

        def guardrail() -> Any:
            return client.learned()["cart"]["guardrails"][0]

        assert eventually(lambda: guardrail()["decisions"] == 40)
        assert (guardrail()["bad"], guardrail()["raised"], guardrail()["at_most"]) == (0, False, 0.05)
        assert client.ask("cart", "x")["nudge"]["id"] == "ten"
        for one in shown[:12]:
            client.tell(one, "retraction", outcome_id="refund")
        assert eventually(lambda: client.learned()["cart"]["paused"])
        (paused,) = client.learned()["cart"]["paused"]
        assert (paused["nudge"], paused["who"]) == ("ten", WHO)
        assert paused["reason"].startswith("12 of 40 decisions were followed by a retraction; at most 5 % is declared")
        made = client.ask("cart", "y")
        assert made["excluded"]["ten"] == f"paused by {WHO}: {paused['reason']}"
        assert client.get(f"/v1/decisions/{made['decision_id']}/recomputation").json()["verdict"] == "equal"
        assert [one["who"] for one in client.get("/v1/operator-actions").json()["actions"]] == [WHO]
        assert "Guardrail: 12 of 40 decisions" in client.get("/console").text


def test_a_nudge_that_is_told_of_is_shown_on_and_health_warns(serving: Serving, later: Any, tmp_path: Path) -> None:
    file = tmp_path / "cart.toml"
    file.write_text(APP.replace("most = 0.05", 'most = 0.05, after = 20, then = "tell"'), encoding="utf-8")
    with serving(app=str(file)) as client:
        for n in range(30):
            one = client.ask("cart", f"u{n}")
            client.tell(one, value=1)
            client.tell(one, "retraction", outcome_id="refund")
        later(3601)
        client.learned()
        assert eventually(lambda: client.get("/health/ready").json()["warnings"])
        told = client.get("/health/ready").json()
        assert (told["status"], told["warnings"]) == (
            "ok",
            {"guardrail cart": "ten → see guardrails in /v1/policies, or pause"},
        )
        assert client.ask("cart", "x")["nudge"]["id"] == "ten"


def test_a_follower_stops_nothing(working: Working) -> None:
    class Parts:
        worker: Any

    class Current:
        parts = Parts()

    with working(MemoryStore(), SHOP) as desk:
        asked = list[OperatorAction]()
        Current.parts.worker = desk.worker
        Current.ground = type("Ground", (), {"clock": staticmethod(desk.clock)})  # type: ignore[attr-defined]
        desk.worker.guardrails.due = lambda _: asked.append(None) or []  # type: ignore[func-returns-value,arg-type]
        loop = GuardrailLoop(Current())  # type: ignore[arg-type]
        for leading in (False, True):
            desk.worker.leading = leading
            asyncio.run(loop.look())
            assert len(asked) == leading


def test_webhooks_tell_what_was_stopped(serving: Serving, tmp_path: Path) -> None:
    store, file = MemoryStore(), tmp_path / "hooks.toml"
    file.write_text(
        '[endpoints.crm]\nurl = "http://127.0.0.1:9/hooks"\nsecret = "whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"\n'
        'events = ["operator_action"]\nprivate = true\n'
    )
    with serving(store=store, webhooks=str(file)) as client:
        body = {"nudge": "tip", "by": "ana", "reason": "refunds rose"}
        client.post("/v1/policies/signup/pause", json=body).raise_for_status()
        assert eventually(lambda: store.webhook_deliveries("crm", dead=False))
        (letter,) = store.webhook_deliveries("crm", dead=False)
    told = json.loads(letter.body)
    assert (told["type"], told["subject"], told["id"]) == (
        "journey-bandit.operator.action",
        "signup",
        "operator_action:1",
    )
    assert told["data"] == {
        "stage": "signup", "nudge": "tip", "action": "pause", "share": None, "who": "ana",
        "reason": "refunds rose", "number": 1,
    }  # fmt: skip
