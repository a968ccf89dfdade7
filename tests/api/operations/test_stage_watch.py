"""Alarms of a stage as a whole: what they look at, when they are raised, and what is done then, once."""

import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from api.operations.paused_nudges import PausedNudges
from api.operations.stage_watch import WHO, StageAlarm, StageWatch
from api.stores.decision_log import DecisionRecord, LedgerPosition
from api.stores.memory.store import MemoryStore
from bandit.catalogue.loading import parse
from bandit.errors import CatalogueError
from bandit.records import ALL_NUDGES, Decision, OperatorAction, Outcome, Settlement
from journey_bandit.testing.store_builders import HOUR, START
from tests.api.releases.test_releases import live, release
from tests.waiting import eventually

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
        self.rows, self.done = list[DecisionRecord](), list[tuple[int, DecisionRecord]]()

    def last(self) -> LedgerPosition:
        return LedgerPosition(len(self.rows), len(self.done), 0)

    def decisions_before(self, stage: str, before: int, most: int) -> list[DecisionRecord]:
        return [one for one in reversed(self.rows) if one.seq < before and one.decision.stage == stage][:most]

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
NOBODY: dict[str, Any] = {"propensity": np.array([1.0, 0.0, 0.0]), "excluded": {"ten": "a cap", "few": "a cap"}}


def made(at: int = START + 1, **changed: Any) -> Decision:
    return msgspec.structs.replace(BASE, id=uuid.uuid4(), at=at, expires=at + HOUR, **changed)


class Watched:
    """A watch with its store; `release` decides."""

    def __init__(self, catalogue: Any = SHOP) -> None:
        self.store, self.release = Told(), 0
        self.pauses = PausedNudges(self.store, catalogue)
        self.watch = StageWatch(self.store, catalogue, self.pauses, lambda _: self.release)

    def raised(self, now: int = START + 2 * HOUR) -> list[str]:
        """Names of the alarms that are raised, after everything was taken in."""
        self.watch._looked_at = -1
        while self.watch.look(now):
            pass
        return [one.name for one in self.watch.raised("cart")]

    def alarm(self, name: str) -> StageAlarm:
        return next(one for one in self.watch.alarms["cart"] if one.name == name)


def test_exploration_collapses_when_one_arm_of_three_is_drawn() -> None:
    ours = Watched()
    for _ in range(99):
        ours.store.made(made(**ONE_ARM))
    assert ours.raised() == []
    ours.store.made(made(**ONE_ARM))
    assert ours.raised() == ["collapse"]
    assert ours.alarm("collapse").words == (
        "the last 100 decisions chose between 1 arms in effect, where 3 could be drawn"
    )
    for _ in range(30):
        ours.store.made(made())
    assert ours.raised() == []


@pytest.mark.parametrize(
    "apart",
    [
        {"holdout": True},
        {"release": 4},
        {"stage_digest": "of another declaration"},
        {"at": START - 1},
        {"request": b""},
    ],
)
def test_what_says_nothing_of_what_decides_does_not_count(apart: dict[str, Any]) -> None:
    ours = Watched()
    ours.pauses._resumed = {("cart", ALL_NUDGES): START}
    for _ in range(200):
        ours.store.made(made(**{**ONE_ARM, **apart}))
    ours.raised()
    assert "the last 0 decisions" in ours.alarm("collapse").words


def test_a_sudden_fall_of_who_is_eligible_is_told() -> None:
    ours = Watched()
    for n in range(100):
        ours.store.made(made(**NOBODY) if n % 4 == 0 else made())
    for n in range(100):
        assert ours.raised() == []
        ours.store.made(made(**NOBODY) if n % 10 else made())
    assert ours.raised() == ["eligible"]
    said = "any nudge was eligible in 10 % of the last 100 decisions, 75 % of those before"
    assert ours.alarm("eligible").words == said


def test_a_silence_of_outcomes_is_told_in_the_order_in_which_windows_end() -> None:
    """Three of ten are answered, and settle before the silent ones of the same hour."""
    ours = Watched()
    for n in range(100):
        ours.store.ended(made(START + n, arm="ten"), rewarded=n % 10 < 3)
    assert ours.raised(START + HOUR // 2) == []
    assert ours.alarm("silence").words.startswith("no outcome of the last 0 decisions")
    assert ours.raised() == []
    late = [made(START + 100 + n) for n in range(200)]
    n = 0
    while "silence" not in ours.raised():
        ours.store.ended(late[n], rewarded=False)
        n += 1
    assert 30 <= n <= 60  # (1 + d/91)^−29 ≤ 1e-6 from d = 56 on, seven of which the first hundred end with
    assert ours.alarm("silence").words.startswith(f"no outcome of the last {n + 7} decisions that matured")
    ours.store.ended(made(START + 400), rewarded=True)
    assert ours.raised() == []


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
    gap: 50 · 400 · 1e-4 = 2 alarms are expected at most. False alarm of this test ≤ 1e-4: 9 or more come with 2.4e-4
    of a Poisson count of mean 2, fewer of ours. Detects ten times as many with probability 1 − 2e-3.
    """
    catalogue = parse(APP.replace("silence = {}", "silence = { chance = 1e-4 }"))
    rng, told = np.random.default_rng(7), 0
    for _ in range(50):
        ours = Watched(catalogue)
        outcomes, was = ours.watch._outcomes["cart"], False
        for n, answered in enumerate((rng.random(2_000) < 0.2).tolist()):
            outcomes.waiting = [(n, n, answered)]
            outcomes.until(n)
            now = outcomes.silence.probability <= 1e-4
            told, was = told + (now and not was), now
    assert told < 9


def test_another_release_and_a_pause_begin_anew() -> None:
    ours = Watched(parse(APP.replace("collapse = { after = 100 }", 'collapse = { after = 100, then = "pause_stage" }')))
    for _ in range(100):
        ours.store.made(made(stage_digest=ours.watch._digests["cart"], **ONE_ARM))
    assert ours.raised() == ["collapse"]
    (action,) = ours.watch.due(START + HOUR)
    assert (action.who, action.verb, action.nudge, action.at) == (WHO, "pause", ALL_NUDGES, START + HOUR)
    assert action.reason == "collapse: the last 100 decisions chose between 1 arms in effect, where 3 could be drawn"
    ours.store.operate(action)
    ours.pauses.load()
    assert ours.watch.due(START + HOUR) == []
    assert ours.raised() == []
    ours.release = 3
    for _ in range(100):
        at = START + 2 * HOUR
        ours.store.made(made(at, stage_digest=ours.watch._digests["cart"], release=3, **ONE_ARM))
    assert ours.raised(START + 3 * HOUR) == ["collapse"]
    assert ours.watch.due(START + 3 * HOUR) == []  # it is paused
    resumed = OperatorAction(at=START + 3 * HOUR, who="ana", stage="cart", nudge="", verb="resume", reason="mended")
    ours.store.operate(resumed)
    ours.pauses.load()
    assert ours.raised(START + 3 * HOUR) == []


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
    assert not StageWatch(MemoryStore(), plain, PausedNudges(MemoryStore(), plain), lambda _: 0)


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
        for n in range(100):
            assert client.ask("cart", f"v{n}")["release"]["number"] == 1
        assert eventually(lambda: later(60) and len(client.get("/v1/releases").json()["releases"]) == 2)
        back = client.get("/v1/releases").json()["releases"][1]
        assert (back["kind"], back["version"], back["approved_by"]) == ("rollback", "", WHO)
        assert back["reason"].startswith("collapse: the last 100 decisions chose between 1 arms")
        assert "release" not in client.ask("cart", "y")
