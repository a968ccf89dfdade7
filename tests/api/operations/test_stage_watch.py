"""Alarms of a stage as a whole: what they look at, when they are raised, and what is done then, once."""

import asyncio
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from api.guardrails import GuardrailLoop
from api.operations.paused_nudges import PausedNudges
from api.operations.stage_watch import WHO, StageAlarm, StageDecider, StageRollback, StageWatch
from api.stores.decision_log import DecisionFilter, DecisionRecord, LedgerPosition
from api.stores.memory.store import MemoryStore
from bandit.catalogue.limits import SilenceAlarm
from bandit.catalogue.loading import parse
from bandit.errors import CatalogueError, InvalidRequest, Problem
from bandit.learning.loss_account import CLOSED
from bandit.policies import Uniform
from bandit.records import ALL_NUDGES, NOT_NOW, Decision, OperatorAction, Outcome, Release, Settlement
from journey_bandit.testing.store_builders import HOUR, START
from tests.api.releases.test_releases import live, release
from tests.waiting import PATIENCE, eventually

Working = Callable[..., AbstractContextManager[Any]]
Later = Callable[[float], int]
Serving = Callable[..., AbstractContextManager[Any]]
ALARMS = "alarms = { collapse = { after = 100 }, silence = {}, eligible = { after = 100 } }"
APP = f"""
app = "shop"
currency = "EUR"
[stages.cart]
policy = {{ name = "fixed", arm = "ten" }}
floor = 0.0
reward = {{ kind = "binary", window = "1h", value = 10.0 }}
features = {{}}
{ALARMS}
[stages.cart.nudges.ten]
type = "help"
format = "banner"
[stages.cart.nudges.few]
type = "help"
format = "banner"
"""
SHOP = parse(APP)
DIGEST = SHOP.stages["cart"].digest()


class Told(MemoryStore):
    """Ledger of decisions and settlements that a test tells: `made` and `ended`."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.done, self.read = list[DecisionRecord](), list[tuple[int, DecisionRecord]](), 0

    def last(self) -> LedgerPosition:
        return LedgerPosition(len(self.rows), len(self.done), 0)

    def decisions_found(self, wanted: DecisionFilter, above: int, before: int, most: int) -> list[DecisionRecord]:
        self.read += 1
        return [one for one in reversed(self.rows) if above < one.seq < before and wanted.fits(one.decision)][:most]

    def settlements_after(self, after: int, most: int) -> list[tuple[int, DecisionRecord]]:
        return [row for row in self.done if row[0] > after][:most]

    def made(self, decision: Decision) -> None:
        self.rows.append(DecisionRecord(len(self.rows) + 1, decision, (), None))

    def ended(self, decision: Decision, *, rewarded: bool, why: Any = None) -> None:
        number = len(self.done) + 1
        told = (
            Outcome(decision=decision.id, id="r", kind="reward", value=1.0, occurred=decision.at, received=decision.at),
        )
        row: dict[str, Any] = {
            "decision_seq": number,
            "stage": "cart",
            "arm": decision.arm,
            "at": decision.at,
        }
        done = Settlement(
            seq=number, **row, why=why or ("reward" if rewarded else "silence"), reward=1.0, learned=True,
            tau=0.0, nu=0.0, outcomes=int(rewarded),
        )  # fmt: skip
        self.done.append((number, DecisionRecord(number, decision, told if rewarded else (), done)))


BASE = Decision(
    id=uuid.UUID(int=1), at=START, expires=START + HOUR, stage="cart", stage_digest=DIGEST, settlement_version=0,
    user=b"u" * 16, request=b"r", x=np.zeros(0), propensity=np.array([0.4, 0.3, 0.3]), mean=np.zeros(3),
    sd=np.zeros(3), u=0.5, arm="ten", holdout=False, excluded={}, evidence={}, notes=(),
)  # fmt: skip
ONE_ARM: dict[str, Any] = {"propensity": np.array([0.0, 1.0, 0.0])}
NONE_DRAWN = np.array([1.0, 0.0, 0.0])


def excluded(ten: str, few: str) -> dict[str, Any]:
    return {"propensity": NONE_DRAWN, "excluded": {"ten": ten, "few": few}}


NOBODY = excluded("no evidence: send evidence.stock, the units left", "no consent: marketing")


def made(at: int = START + 1, **changed: Any) -> Decision:
    one = uuid.uuid4()
    return msgspec.structs.replace(BASE, id=one, at=at, expires=at + HOUR, **{"user": one.bytes, **changed})


class Watched:
    """A watch with its store; `decider` decides."""

    def __init__(self, catalogue: Any = SHOP) -> None:
        self.store, stage = Told(), catalogue.stages["cart"]
        self.decider = StageDecider(0, stage.digest(), stage, 0, False)
        self.pauses = PausedNudges(self.store, catalogue)
        self.watch = StageWatch(self.store, catalogue, self.pauses, lambda _: self.decider)

    def made(self, n: int, at: int = START + 1, **changed: Any) -> None:
        """So many decisions of what decides, each about another person."""
        own = {"release": self.decider.release, "stage_digest": self.decider.digest}
        for _ in range(n):
            self.store.made(made(at, **{**own, **changed}))

    def raised(self, now: int = START + 2 * HOUR) -> list[str]:
        """Names of the alarms that are raised, after everything was taken in."""
        while self.watch.look(now):
            pass
        return [one.name for one in self.watch.raised("cart")]

    def alarm(self, name: str) -> StageAlarm:
        return next(one for one in self.watch.alarms["cart"] if one.name == name)


def test_a_low_ramp_is_no_collapse() -> None:
    """The policy draws both nudges evenly; an operator, or the loss account, lets it decide 1 % of the traffic."""
    ours, even = Watched(), np.array([0.99, 0.005, 0.005])
    spec = msgspec.structs.replace(ours.decider.spec, live_ramp=0.01)
    ours.decider = ours.decider._replace(digest=spec.digest(), spec=spec)
    ours.made(100, propensity=even)
    assert ours.raised() == []
    other = Watched()
    other.made(100, propensity=even, loss_account=msgspec.structs.replace(CLOSED, share=0.01))
    assert other.raised() == []
    plain = Watched()
    plain.made(100, propensity=np.array([0.999, 0.0005, 0.0005]))
    assert plain.raised() == ["collapse"]


@pytest.mark.parametrize(("ramp", "raised"), [(0.5, ["collapse"]), (0.02, [])])
def test_floors_that_hide_what_the_policy_draws_are_no_evidence(ramp: float, raised: list[str]) -> None:
    """The policy draws one nudge always; floors of 0.005 are small beside half of the traffic, not beside 2 % of it."""
    ours = Watched()
    spec = msgspec.structs.replace(ours.decider.spec, policy=Uniform(), floor=0.005, live_ramp=ramp)
    ours.decider = ours.decider._replace(digest=spec.digest(), spec=spec)
    ours.made(100, propensity=np.array([1.0 - ramp, ramp - 0.005, 0.005]))
    assert ours.raised() == raised


def test_exploration_collapses_when_one_arm_of_three_is_drawn() -> None:
    ours = Watched()
    ours.made(99, **ONE_ARM)
    assert ours.raised() == []
    ours.made(1, **ONE_ARM)
    assert ours.raised() == ["collapse"]
    assert ours.alarm("collapse").words == (
        "the last 100 decisions chose between 1 arms in effect, where 3 could be drawn"
    )
    ours.made(30)
    assert ours.raised() == []


@pytest.mark.parametrize(
    "apart",
    [
        {"holdout": True},
        {"release": 4},
        {"stage_digest": "of another declaration"},
        {"at": START - 1},
        {"request": b""},
        {"moment": NOT_NOW},
        {"stage": "another"},
    ],
)
def test_what_says_nothing_of_what_decides_does_not_count(apart: dict[str, Any]) -> None:
    ours = Watched()
    ours.pauses._resumed = {("cart", ALL_NUDGES): START}
    ours.made(200, **{**ONE_ARM, **apart})
    ours.raised()
    assert "the last 0 decisions" in ours.alarm("collapse").words
    ours.made(100, **ONE_ARM)
    for _ in range(10):
        ours.made(300, **{**ONE_ARM, **apart})
    assert ours.raised() == ["collapse"]


def test_a_release_is_watched_under_its_own_declaration() -> None:
    """It may have another policy or floor than the catalogue, and so another digest, and fewer arms."""
    ours, other = Watched(), parse(APP.replace("floor = 0.0", "floor = 0.02")).stages["cart"]
    ours.decider = StageDecider(7, other.digest(), other, START, True)
    ours.made(100, **ONE_ARM)
    assert ours.raised() == ["collapse"]


def test_each_decision_is_read_once() -> None:
    ours = Watched()
    ours.made(1200)
    ours.raised()
    assert ours.store.read == 3
    for _ in range(20):
        ours.raised()
    assert ours.store.read == 3
    ours.made(1)
    ours.raised()
    assert ours.store.read == 4


def test_a_sudden_fall_of_who_is_eligible_is_told() -> None:
    ours = Watched()
    for n in range(100):
        ours.made(1, **(NOBODY if n % 4 == 0 else {}))
    for n in range(100):
        assert ours.raised() == []
        ours.made(1, **(NOBODY if n % 10 else {}))
    assert ours.raised() == ["eligible"]
    assert ours.alarm("eligible").words == (
        "evidence and consents of “ten” arrived in 10 % of the last 100 decisions that came to them, in 75 % of 100"
        " before"
    )


@pytest.mark.parametrize(
    "usual",
    [
        excluded("quiet hours", "budget: empty"),
        excluded("paused by ana: refunds rose", "shown today"),
        excluded("in the request's exclude list", "no evidence: send evidence.stock, the units left"),
        excluded("not in the request's include list", "no consent: marketing"),
    ],
)
def test_what_excludes_nudges_every_day_is_no_fall(usual: dict[str, Any]) -> None:
    ours = Watched()
    ours.made(200)
    ours.made(400, **usual)
    assert ours.raised() == []
    ours.made(100, **NOBODY)
    assert ours.raised() == ["eligible"]


@pytest.mark.parametrize("why", ["quiet hours", "budget: empty", "paused by ana: refunds rose"])
def test_a_nudge_that_rests_makes_no_fall_of_another(why: str) -> None:
    """The other has its evidence for a fifth of people, as before."""
    ours = Watched()
    for n in range(400):
        lacks = {} if n % 5 == 0 else {"few": "no evidence: send evidence.stock, the units left"}
        ours.made(1, excluded=lacks if n < 200 else {"ten": why, **lacks})
    assert ours.raised() == []
    ours.made(100, excluded={"ten": why, "few": "no evidence: send evidence.stock, the units left"})
    assert ours.raised() == ["eligible"]
    assert ours.alarm("eligible").words.startswith("evidence and consents of “few” arrived in 0 % of the last 100")


def test_evidence_that_says_no_has_arrived() -> None:
    ours = Watched()
    ours.made(200)
    ours.made(200, excluded={"few": "not true: the deadline has passed"})
    assert ours.raised() == []
    ours.made(100, excluded={"few": "not fresh: the evidence is from 900 s ago, the claim needs 5m"})
    assert ours.raised() == ["eligible"]


def test_one_person_is_no_fall() -> None:
    ours = Watched()
    ours.made(200)
    ours.made(150, user=b"one", **NOBODY)
    assert ours.raised() == []
    assert "arrived in 99 % of the last 100 decisions" in ours.alarm("eligible").words


def test_a_silence_of_outcomes_is_told_in_the_order_in_which_windows_end() -> None:
    """Three of ten are answered, and settle before the silent ones of the same hour."""
    ours = Watched()
    for n in range(100):
        ours.store.ended(made(START + n), rewarded=n % 10 < 3)
    assert ours.raised(START + HOUR // 2) == []
    assert ours.alarm("silence").words.startswith("no outcome of the last 0 decisions")
    assert ours.raised() == []
    late = [made(START + 100 + n) for n in range(200)]
    n = 0
    while "silence" not in ours.raised():
        ours.store.ended(late[n], rewarded=False)
        n += 1
    assert 30 <= n <= 60  # (1 + d/92)^−29 ≤ 1e-6 from d = 57 on, seven of which the first hundred end with
    assert ours.alarm("silence").words.startswith(f"no outcome of the last {n + 7} decisions that matured")
    ours.store.ended(made(START + 400), rewarded=True)
    assert ours.raised() == []


@pytest.mark.parametrize("what", ["release", "pause"])
def test_a_silence_begins_anew_and_is_compared_with_what_was_before(what: str) -> None:
    ours = Watched()
    for n in range(100):
        ours.store.ended(made(START + n), rewarded=n % 3 == 0)
    for n in range(30):
        ours.store.ended(made(START + 200 + n), rewarded=False)
    assert ours.raised() == []
    if what == "release":
        ours.decider = ours.decider._replace(release=3, began=START + 300, revocable=True)
    else:
        ours.pauses._resumed = {("cart", ALL_NUDGES): START + 300}
    ours.store.ended(made(START + 301), rewarded=False)
    assert ours.raised() == []
    assert ours.alarm("silence").words.startswith("no outcome of the last 1 decisions")
    for n in range(100):
        ours.store.ended(made(START + 302 + n), rewarded=False)
    assert ours.raised() == ["silence"]
    assert ours.alarm("silence").words.startswith("no outcome of the last 101 decisions")


@pytest.mark.parametrize("then", ["pause_stage", "roll_back"])
def test_nothing_is_done_again_before_something_new_has_matured(then: str) -> None:
    """A silence was told, and an operator mended it: what was seen before is no reason to act again."""
    ours = Watched(parse(APP.replace("silence = {}", f'silence = {{ then = "{then}" }}')))
    for n in range(100):
        ours.store.ended(made(START + n), rewarded=n % 3 == 0)
    for n in range(100):
        ours.store.ended(made(START + 200 + n), rewarded=False)
    assert ours.raised() == ["silence"]
    at = START + 3 * HOUR
    ours.decider = ours.decider._replace(release=9, began=at, revocable=True)
    assert ours.raised(at + 1) == []
    assert (ours.watch.due(at + 1), ours.watch.rollbacks()) == ([], [])
    for n in range(100):
        ours.store.ended(made(at + 1 + n), rewarded=False)
    assert ours.raised(at + 2 * HOUR) == ["silence"]
    assert (len(ours.watch.due(at)), len(ours.watch.rollbacks())) == ((1, 0) if then == "pause_stage" else (0, 1))


def test_nothing_is_rolled_back_while_the_stage_is_paused() -> None:
    ours = Watched(parse(APP.replace("silence = {}", 'silence = { then = "roll_back" }')))
    ours.store.operate(OperatorAction(at=START, who="ana", stage="cart", nudge="", verb="pause", reason="a fair"))
    ours.pauses.take(ours.store.operator_actions())
    ours.decider = ours.decider._replace(release=9, began=START - 1000, revocable=True)
    for n in range(200):
        ours.store.ended(made(START - 500 + n if n < 100 else START + n), rewarded=n < 100 and n % 3 == 0)
    assert ours.raised() == ["silence"]
    assert ours.watch.rollbacks() == []


def test_a_start_says_nothing_before_it_has_read_what_there_is() -> None:
    """Long windows, and an outage that is over: answered decisions settle first, the silent ones when windows end."""
    ours, week = Watched(), 168 * HOUR
    every = [msgspec.structs.replace(made(START + n * HOUR), expires=START + n * HOUR + week) for n in range(2600)]
    answered = [n % 5 == 0 and not 400 <= n < 800 for n in range(2600)]
    settled = [(START + n * HOUR + (HOUR if answered[n] else week), n) for n in range(2600)]
    for _, n in sorted(settled):
        ours.store.ended(every[n], rewarded=answered[n])
    now, looks = START + 2600 * HOUR, 0
    while ours.watch.look(now):
        looks += 1
        assert ours.watch.alarms == {}
    assert looks > 4
    assert ours.watch.raised("cart") == []


def test_no_nudge_to_anybody_raises_nothing() -> None:
    ours = Watched(parse(APP.replace("collapse = { after = 100 }", 'collapse = { after = 100, then = "pause_stage" }')))
    ours.decider = ours.decider._replace(release=4, began=START, shows=False)
    ours.made(200, propensity=NONE_DRAWN)
    for n in range(100):
        ours.store.ended(made(START + n), rewarded=n < 50)
    assert ours.raised() == []
    assert (ours.watch.alarms["cart"], ours.watch.due(START)) == ((), [])


def test_a_corrected_decision_counts_as_it_settled_first() -> None:
    """A service that starts reads corrections with what they correct."""
    ours, n = Watched(), 0
    for n in range(100):
        ours.store.ended(made(START + n), rewarded=True)
    number, record = ours.store.done[10]
    assert record.settlement is not None
    later = msgspec.structs.replace(record.settlement, seq=101, corrects=number, reward=0.0)
    both = DecisionRecord(record.seq, record.decision, record.outcomes, later, (record.settlement, later))
    ours.store.done[10] = (number, both)
    ours.store.done.append((101, both))
    ours.raised()
    assert ours.watch._outcomes["cart"].gaps == 99


def test_what_nobody_saw_is_no_silence() -> None:
    ours = Watched()
    for n in range(60):
        ours.store.ended(made(START + n), rewarded=True)
    for why in ("not activated", "holdout", "erased"):
        for n in range(60):
            ours.store.ended(made(START + 100 + n), rewarded=False, why=why)
    assert ours.raised() == []
    assert ours.alarm("silence").words.startswith("no outcome of the last 0 decisions")


def test_where_outcomes_come_as_before_a_silence_is_seldom_told() -> None:
    """2,000 matured decisions, a fifth of them answered, looked at after each, 50 times, with a chance of 1e-4 for each
    gap: 50 · 400 · 1e-4 = 2 alarms are expected at most. False alarm of this test ≤ 1e-3: 9 or more come with 2.4e-4
    of a Poisson count of mean 2, fewer of ours. Detects ten times as many with probability 1 − 3e-3.
    """
    rng, told, rule = np.random.default_rng(7), 0, SilenceAlarm(chance=1e-4)
    for _ in range(50):
        outcomes, was = Watched().watch._outcomes["cart"], False
        for n, answered in enumerate((rng.random(2_000) < 0.2).tolist()):
            outcomes.waiting = [(n, n, n, answered)]
            outcomes.until(n, 0)
            now = outcomes.alarm(rule, 0).raised
            told, was = told + (now and not was), now
    assert told < 9


def test_a_pause_is_asked_for_once_and_a_resumption_begins_anew() -> None:
    ours = Watched(parse(APP.replace("collapse = { after = 100 }", 'collapse = { after = 100, then = "pause_stage" }')))
    ours.made(100, **ONE_ARM)
    assert ours.raised() == ["collapse"]
    (action,) = ours.watch.due(START + HOUR)
    assert (action.who, action.verb, action.nudge, action.at) == (WHO, "pause", ALL_NUDGES, START + HOUR)
    assert action.reason == "collapse: the last 100 decisions chose between 1 arms in effect, where 3 could be drawn"
    assert ours.watch.rollbacks() == []
    ours.store.operate(action)
    ours.pauses.take(ours.store.operator_actions())
    assert ours.watch.due(START + HOUR) == []
    assert ours.raised() == []
    ours.made(100, START + 2 * HOUR, **ONE_ARM)
    assert ours.raised(START + 3 * HOUR) == ["collapse"]
    assert ours.watch.due(START + 3 * HOUR) == []  # it is paused
    resumed = OperatorAction(at=START + 3 * HOUR, who="ana", stage="cart", nudge="", verb="resume", reason="mended")
    ours.store.operate(resumed)
    ours.pauses.take(ours.store.operator_actions())
    assert ours.raised(START + 3 * HOUR) == []


def test_a_rollback_is_of_the_release_that_raised_the_alarm_and_of_no_rollback() -> None:
    ours = Watched(parse(APP.replace("collapse = { after = 100 }", 'collapse = { after = 100, then = "roll_back" }')))
    ours.made(100, **ONE_ARM)
    assert ours.raised() == ["collapse"]
    assert ours.watch.rollbacks() == []  # nothing was released
    ours.decider = ours.decider._replace(release=5, began=START + HOUR, revocable=True)
    assert ours.raised() == []
    ours.made(100, START + HOUR + 1, **ONE_ARM)
    assert ours.raised() == ["collapse"]
    (asked,) = ours.watch.rollbacks()
    assert (asked.stage, asked.release) == ("cart", 5)
    assert asked.reason == "collapse: the last 100 decisions chose between 1 arms in effect, where 3 could be drawn"
    ours.decider = ours.decider._replace(release=0, began=START + 2 * HOUR, revocable=False)
    assert ours.raised() == []  # what was learned decided before, too: those decisions are old
    ours.made(100, START + 2 * HOUR + 1, **ONE_ARM)
    assert ours.raised() == ["collapse"]
    assert ours.watch.rollbacks() == []


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ("collapse = { share = 0 }", "collapse.share"),
        ("collapse = { after = 99 }", "collapse.after"),
        ("silence = { chance = 0.5 }", "silence.chance"),
        ('eligible = { then = "explode" }', "eligible.then"),
        ("eligible = { fall = 1 }", "eligible.fall"),
        ("drift = {}", "drift"),
    ],
)
def test_an_alarm_that_cannot_be_kept_is_named(rule: str, field: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        parse(APP.replace(ALARMS, f"alarms = {{ {rule} }}"))
    assert f"stages.cart.alarms.{field}:" in str(caught.value)


def test_a_stage_without_alarms_is_declared_as_before() -> None:
    plain = parse(APP.replace(ALARMS, ""))
    assert plain.stages["cart"].digest() == parse(APP.replace(ALARMS, "alarms = {}")).stages["cart"].digest()
    assert plain.stages["cart"].digest() != DIGEST
    assert not StageWatch(MemoryStore(), plain, PausedNudges(MemoryStore(), plain), lambda _: Watched(plain).decider)


def raised(client: Any) -> bool:
    return any(one["raised"] for one in client.learned()["cart"]["alarms"])


def app(tmp_path: Path, then: str) -> str:
    file = tmp_path / "cart.toml"
    text = APP.replace(ALARMS, f'alarms = {{ collapse = {{ after = 100, then = "{then}" }} }}')
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_collapse_stops_the_stage_where_the_catalogue_says_so(serving: Serving, later: Later, tmp_path: Path) -> None:
    with serving(app=app(tmp_path, "pause_stage")) as client:
        for n in range(100):
            assert client.ask("cart", f"u{n}")["nudge"]["id"] == "ten"
        assert eventually(lambda: later(60) and client.learned()["cart"]["paused"])
        (paused,) = client.learned()["cart"]["paused"]
        assert (paused["nudge"], paused["who"]) == (None, WHO)
        asked = client.ask("cart", "y")
        assert asked["propensities"] == {"none": 1.0}
        assert asked["excluded"]["ten"] == f"paused by {WHO}: {paused['reason']}"


def test_collapse_is_told_and_nothing_else_is_done(serving: Serving, later: Later, tmp_path: Path) -> None:
    with serving(app=app(tmp_path, "tell")) as client:
        for n in range(100):
            client.ask("cart", f"u{n}")
        assert eventually(lambda: later(60) and client.get("/health/ready").json()["warnings"])
        seen = "the last 100 decisions chose between 1 arms in effect, where 3 could be drawn"
        warnings = client.get("/health/ready").json()["warnings"]
        assert warnings == {"collapse cart": f"{seen} → see alarms in /v1/policies"}
        policy = client.learned()["cart"]
        assert policy["alarms"] == [{"alarm": "collapse", "raised": True, "seen": seen, "then": "tell"}]
        assert policy["paused"] == []
        assert f"Alarm “collapse”: {seen}." in client.get("/console").text


def test_collapse_takes_the_release_back_once(serving: Serving, later: Later, tmp_path: Path) -> None:
    with serving(app=app(tmp_path, "roll_back")) as client:
        for n in range(100):
            client.ask("cart", f"u{n}")
        assert eventually(lambda: later(60) and raised(client))
        assert client.get("/v1/releases").json()["releases"] == []  # nothing to take back
        release(client, live(client, "cart"), stage="cart")
        later(1)
        for n in range(100):
            assert client.ask("cart", f"v{n}")["release"]["number"] == 1
        assert eventually(lambda: later(60) and len(client.get("/v1/releases").json()["releases"]) == 2)
        back = client.get("/v1/releases").json()["releases"][1]
        assert (back["kind"], back["version"], back["approved_by"]) == ("rollback", "", WHO)
        assert back["reason"].startswith("collapse: the last 100 decisions chose between 1 arms")
        assert "release" not in client.ask("cart", "y")


@pytest.mark.parametrize("emergency", ["none", ""])
def test_what_an_operator_went_back_to_stays(serving: Serving, later: Later, tmp_path: Path, emergency: str) -> None:
    with serving(app=app(tmp_path, "roll_back")) as client:
        release(client, live(client, "cart"), stage="cart")
        sent = {"approved_by": "ana", "reason": "refunds rose", "to": emergency}
        assert client.post("/v1/policies/cart/rollback", json=sent).status_code == 200
        later(1)
        for n in range(100):
            client.ask("cart", f"u{n}")
        assert eventually(lambda: later(60) and raised(client)) if emergency == "" else client.learned()
        for _ in range(3):
            later(60)
            client.learned()
        assert [one["version"] for one in client.get("/v1/releases").json()["releases"]] == ["1", emergency]


def test_another_release_meanwhile_is_not_taken_back(working: Working) -> None:
    with working(MemoryStore(), SHOP) as desk:
        asked = StageRollback("cart", 1, "collapse")
        assert desk.worker.roll_back(asked, START).result(PATIENCE) is None
        nobody = Release(
            stage="cart", model="shop-cart", version="none", sha256="", belief_sha256="", approved_by="ana",
            approved_at=START, reason="refunds rose",
        )  # fmt: skip
        desk.store.publish(nobody)
        assert desk.worker.roll_back(asked._replace(release=2), START).result(PATIENCE) is None
        assert len(desk.store.releases("cart")) == 1
        back = desk.worker.roll_back(asked, START).result(PATIENCE)
        assert back is not None
        assert (back.kind, back.version, back.approved_by, back.reason) == ("rollback", "", WHO, "collapse")


def test_one_that_cannot_be_taken_back_keeps_no_other_from_it(working: Working) -> None:
    class Parts:
        worker: Any

    class Current:
        parts = Parts()

    with working(MemoryStore(), SHOP) as desk:
        done = list[str]()

        def roll_back(asked: StageRollback, _: int) -> Future[Any]:
            future = Future[Any]()
            if asked.stage == "first":
                future.set_exception(InvalidRequest(Problem("to", "does not fit", "publish it anew")))
            else:
                done.append(asked.stage)
                future.set_result(None)
            return future

        Current.parts.worker = desk.worker
        Current.ground = type("Ground", (), {"clock": staticmethod(desk.clock)})  # type: ignore[attr-defined]
        desk.worker.roll_back = roll_back
        every = [StageRollback(stage, 1, "collapse") for stage in ("first", "second")]
        desk.worker.stage_watch.rollbacks = lambda: every
        desk.worker.leading = True
        paused = list[float]()

        async def life() -> None:
            async with loop.running():
                while len(paused) < 2:
                    await asyncio.sleep(0.001)

        async def pause(seconds: float) -> None:
            paused.append(seconds)
            await asyncio.sleep(0)

        loop = GuardrailLoop(Current(), pause)  # type: ignore[arg-type]
        asyncio.run(life())
        assert done[:2] == ["second", "second"]
        assert loop.failing == {"guardrails": "first cannot be rolled back: to: does not fit → publish it anew"}
