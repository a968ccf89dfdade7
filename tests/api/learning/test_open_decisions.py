"""What is open decides with the rest; what was retired stays in what nudges share; receipts know both."""

import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from litestar.testing import TestClient

from api.app import create_app
from api.learning import learner
from api.learning.learner import Learner
from api.ledger import audit
from api.metrics import Metrics
from api.settings import Settings
from api.stores import open_store
from bandit import engine
from bandit.catalogue.loading import parse
from bandit.engine import DecisionQuery
from bandit.learning.loss_account import CLOSED
from bandit.numerics import versions
from bandit.records import Decision, Outcome, PendingBasis

DAY = 86_400_000_000
DAILY, WAITS = ', delay = "1d"', ', delay = "window"'
APP = """
app = "shop"
currency = "EUR"
[stages.cart]
policy = {{ name = "{policy}", prior_mean = 0.3 }}
reward = {{ kind = "binary", window = "7d"{delay} }}
features = {{ mobile = {{ type = "boolean", default = true }} }}
[stages.cart.nudges]
{nudges}
"""
BOTH = 'five = { type = "discount", format = "banner" }\nten = { type = "discount", format = "popup" }'
MORE = '[stages.home.nudges]\nmore = { type = "discount", format = "banner" }'
ONE = 'five = { type = "discount", format = "banner" }'


class Clock:
    def __init__(self) -> None:
        self.now = 1_760_000_000_000_000

    def __call__(self) -> int:
        return self.now


Visit = Callable[..., list[dict[str, Any]]]


def served(
    tmp_path: Path, clock: Clock, nudges: str, policy: str = "hierarchical", delay: str = DAILY
) -> TestClient[Any]:
    file = tmp_path / "shop.toml"
    file.write_text(APP.format(nudges=nudges, policy=policy, delay=delay))
    settings = Settings(app=str(file), store=f"sqlite:///{tmp_path / 'ledger.db'}", salt="s", dev=True)
    return TestClient(create_app(settings, clock=clock))


def people(client: TestClient[Any], clock: Clock, n: int, rates: dict[str, float], seed: int) -> list[dict[str, Any]]:
    """n people, one every 20 minutes; those who convert do so at once. The service learns after every fifth, however
    slow its thread is.
    """
    rng, replies = np.random.default_rng(seed), []
    for i in range(n):
        if i % 5 == 0:
            client.get("/v1/policies?wait=true")
        clock.now += DAY // 72
        made = str(uuid.UUID(bytes=rng.bytes(16), version=4))
        ask = {"stage": "cart", "user_id": made, "decision_id": made, "context": {"mobile": bool(rng.integers(2))}}
        reply = client.post("/v1/decisions", json=ask).json()
        if rng.random() < rates[reply["nudge"]["id"]]:
            clock.now += 1000
            client.post("/v1/outcomes", json={"decision_id": made, "kind": "reward", "value": 1})
        replies.append(reply)
    return replies


def receipts_hold(tmp_path: Path, every: int) -> set[bool]:
    """Recompute some decisions; whether each rested on open ones."""
    store, found = open_store(f"sqlite:///{tmp_path / 'ledger.db'}", read_only=True), set()
    for row in list(store.decisions())[::every]:
        again = engine.recompute(engine.prepare(audit.past(store, row)), row.decision, audit.salt_of(store, "s"))
        for name in ("propensity", "mean", "sd", "u", "arm"):
            assert np.array_equal(getattr(again, name), getattr(row.decision, name)), name
        found.add(audit.past(store, row).pending is not None)
    assert all(result.equal for result in audit.rebuild(store, audit.stages(store)))
    store.close()
    return found


@pytest.mark.parametrize("policy", ["hierarchical", "linear"])
def test_open_decisions_are_learned_from_before_their_window_ends(tmp_path: Path, policy: str) -> None:
    """Five days of a window of seven: nothing has settled, and the better nudge is chosen more often all the same.

    Over 360 people the last 120 see it with mean propensity above 0.55; without learning it would be 0.33 throughout.
    """
    clock = Clock()
    with served(tmp_path, clock, BOTH, policy) as client:
        replies = people(client, clock, 360, {"none": 0.05, "five": 0.1, "ten": 0.9}, seed=1)
        state = client.get("/v1/policies?wait=true").json()["policies"][0]
        assert state["version"] == 0
        assert sum(arm["learned"] for arm in state["arms"]) == 0
    late = [reply["propensities"]["ten"] for reply in replies[-120:]]
    assert np.mean(late) > 0.55
    assert receipts_hold(tmp_path, every=24) == {True, False}


def test_what_is_not_read_at_the_start_is_read_beside_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty are open, of which ten are read at first; then one is answered, one settles and one comes. Until all are
    read, nothing that is open teaches anything and the loss account is closed; then all is as if read at once.
    """
    clock = Clock()
    with served(tmp_path, clock, BOTH, "centred") as client:
        people(client, clock, 60, {"none": 0.05, "five": 0.1, "ten": 0.9}, seed=1)
    catalogue = parse(APP.format(nudges=BOTH, policy="centred", delay=DAILY), "shop.toml")
    store = open_store(f"sqlite:///{tmp_path / 'ledger.db'}")
    rows = list(store.decisions())
    monkeypatch.setattr(learner, "AT_START", 10)
    slow = Learner(store, catalogue, Metrics(), lambda _: None, now=clock.now)
    first, silent = rows[0].decision, next(row.decision for row in rows[30:] if not row.outcomes)
    told = [Outcome(decision=silent.id, id="late", kind="reward", value=1.0, occurred=clock.now, received=clock.now)]
    clock.now = first.expires + 1
    new = msgspec.structs.replace(first, id=uuid.uuid4(), at=clock.now, expires=clock.now + 7 * DAY)
    slow.observe(*store.record([new], told, clock.now, store.specs()))
    assert slow.step(clock.now, 1) == 1
    slow.publish(clock.now, force=True)
    found = slow.prepared["cart"].snapshot
    assert (found.pending, found.pending_basis, found.loss_account) == (None, PendingBasis(), CLOSED)
    assert [slow.read(10) for _ in range(6)] == [False] * 5 + [True]
    slow.publish(clock.now, force=True)
    monkeypatch.undo()
    at_once = Learner(store, catalogue, Metrics(), lambda _: None, now=clock.now)
    at_once.publish(clock.now, force=True)
    mine, theirs = slow.prepared["cart"].snapshot, at_once.prepared["cart"].snapshot
    assert mine.pending is not None
    assert theirs.pending is not None
    assert mine.pending.digest() == theirs.pending.digest()
    assert mine.pending_basis == theirs.pending_basis
    assert mine.loss_account == theirs.loss_account
    slow.close()
    at_once.close()
    store.close()


def test_while_one_stage_is_read_no_stage_rests_on_what_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two stages say to each other what types of nudges do. One is declared anew; the other's decisions meanwhile must
    be those that a receipt computes.
    """
    text = APP.format(nudges=BOTH, policy="hierarchical", delay=DAILY)
    home = text[text.index("[stages.cart]") :].replace("stages.cart", "stages.home")
    before, after = (parse(text + one, "shop.toml") for one in (home, home.replace("[stages.home.nudges]", MORE)))
    store, now, rng = open_store("memory://"), 1_760_000_000_000_000, np.random.default_rng(0)
    salt = audit.claim(store, before, "s")
    first = Learner(store, before, Metrics(), lambda _: None, now=now)

    def made(of: Learner, stage: str) -> Decision:
        one = uuid.UUID(bytes=rng.bytes(16), version=4)
        query = DecisionQuery(id=one, user_id=one.hex, context={"mobile": True})
        return engine.decide(of.prepared[stage], query, now=now, salt=salt)

    for i in range(40):
        one, now = made(first, ("home", "cart")[i % 2]), now + DAY // 100
        told = [Outcome(decision=one.id, id="a", kind="reward", value=1.0, occurred=now, received=now)] * (i % 3)
        first.observe(*store.record([one], told[:1], now, store.specs()))
        first.publish(now, force=True)
    first.close()
    audit.claim(store, after, "s")
    monkeypatch.setattr(learner, "AT_START", 10)
    second = Learner(store, after, Metrics(), lambda _: None, before=first, now=now)
    second.publish(now + 1000, force=True)
    last = made(second, "cart")
    second.observe(*store.record([last], [], now + 1000, store.specs()))
    assert last.pending_basis == PendingBasis()
    assert audit.differences(store, store.decisions_by_id([last.id])[last.id], salt) == []
    second.close()


def test_a_stage_that_declares_no_delay_learns_before_its_windows_end(tmp_path: Path) -> None:
    """As above, with nothing known of how late answers come but the answers themselves."""
    clock = Clock()
    with served(tmp_path, clock, BOTH, delay="") as client:
        replies = people(client, clock, 360, {"none": 0.05, "five": 0.1, "ten": 0.9}, seed=1)
        assert client.get("/v1/policies?wait=true").json()["policies"][0]["version"] == 0
    assert np.mean([reply["propensities"]["ten"] for reply in replies[-120:]]) > 0.55
    assert receipts_hold(tmp_path, every=24) == {True, False}


def test_a_stage_that_waits_for_its_windows_learns_nothing_before(tmp_path: Path) -> None:
    clock = Clock()
    with served(tmp_path, clock, BOTH, delay=WAITS) as client:
        replies = people(client, clock, 60, {"none": 0.05, "five": 0.1, "ten": 0.9}, seed=1)
    assert len({tuple(reply["propensities"].values()) for reply in replies}) == 1
    assert receipts_hold(tmp_path, every=6) == {False}


def test_receipts_of_versions_that_waited_where_no_delay_was_declared_still_hold(tmp_path: Path) -> None:
    """Such a ledger names its arithmetic (2), and its decisions note a basis once something has settled, whether or not
    anything open counted. A stage that says that it waits decides as every stage without `delay` did; the ledger is
    then made to say that it declared none. The present service goes on in it: only what it decides rests on what is
    open.
    """
    clock, rates = Clock(), {"none": 0.05, "five": 0.1, "ten": 0.9}
    with served(tmp_path, clock, BOTH, delay=WAITS) as client:
        people(client, clock, 40, rates, seed=1)
        clock.now += 7 * DAY - DAY // 4
        assert 10 < client.get("/v1/policies?wait=true").json()["policies"][0]["version"] < 30
        people(client, clock, 40, rates, seed=3)
    as_if_left_out(tmp_path, arithmetic=2)
    with served(tmp_path, clock, BOTH, delay="") as client:
        people(client, clock, 40, rates, seed=2)
    with closing(open_store(f"sqlite:///{tmp_path / 'ledger.db'}", read_only=True)) as store:
        assert list(store.declarations().arithmetics) == [(1, 2), (81, versions.ARITHMETIC)]
        key, rows = audit.salt_of(store, "s"), list(store.decisions())
        assert all(row.decision.pending_basis.at for row in rows[40:80])
        assert [row.seq for row in rows if audit.differences(store, row, key)] == []
        rested = [audit.past(store, row).pending is not None for row in rows]
        assert (sum(rested[:80]), sum(rested[80:]) > 30) == (0, True)
    as_if_left_out(tmp_path, arithmetic=versions.ARITHMETIC)
    with closing(open_store(f"sqlite:///{tmp_path / 'ledger.db'}", read_only=True)) as store:
        wrong = [row.seq for row in store.decisions() if audit.differences(store, row, key)]
    assert len(wrong) > 20, "by the rule of today most of them do not hold"


def as_if_left_out(tmp_path: Path, arithmetic: int) -> None:
    """Change the ledger as if its first decisions had been made in that arithmetic, by a stage without `delay`."""
    stage = parse(APP.format(nudges=BOTH, policy="hierarchical", delay="")).stages["cart"]
    body, new = msgspec.json.encode(stage).decode(), stage.digest()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as conn, conn:
        conn.execute("UPDATE arithmetics SET number = ? WHERE first = 1", (arithmetic,))
        conn.execute("UPDATE specs SET digest = ?, body = ?", (new, body))
        conn.execute("UPDATE declaration_eras SET digest = ?", (new,))
        conn.execute("UPDATE served_stages SET digest = ?", (new,))


def test_what_a_retired_nudge_taught_stays_with_its_type_and_comes_back_with_it(tmp_path: Path) -> None:
    """The other discount is expected to do better than before any data once its sister, now retired, did well."""
    clock, rates = Clock(), {"none": 0.1, "five": 0.1, "ten": 0.8}
    with served(tmp_path, clock, ONE) as client:
        before = first_score(client)
    clock.now += 8 * DAY
    (tmp_path / "ledger.db").unlink()
    only_ten = BOTH.splitlines()[1]
    with served(tmp_path, clock, only_ten) as client:
        people(client, clock, 200, rates, seed=2)
        clock.now += 8 * DAY
        state = client.get("/v1/policies?wait=true").json()["policies"][0]
        taught = next(arm["learned"] for arm in state["arms"] if arm["arm"] == "ten")
        assert taught > 50
    with served(tmp_path, clock, ONE) as client:
        after = first_score(client)
        people(client, clock, 30, rates, seed=3)
        clock.now += 8 * DAY
        client.get("/v1/policies?wait=true")
    assert after["five"] > before["five"] + 0.2
    receipts_hold(tmp_path, every=20)
    with served(tmp_path, clock, BOTH) as client:
        state = client.get("/v1/policies?wait=true").json()["policies"][0]
        assert next(arm["learned"] for arm in state["arms"] if arm["arm"] == "ten") == taught
    receipts_hold(tmp_path, every=40)


def first_score(client: TestClient[Any]) -> dict[str, float]:
    """What the policy expects of each arm."""
    ask = {"stage": "cart", "user_id": "someone", "context": {"mobile": True}}
    made = client.post("/v1/decisions", json=ask).json()["decision_id"]
    arms = client.get(f"/v1/decisions/{made}").json()["arms"]
    return {name: arm["mean"] for name, arm in arms.items()}
