"""Held rewards: after an alarm a stage may learn nothing from what the key reports, until somebody says what it was.

Alarms come soon here: little is usual after ten decisions, and the level of a false alarm is one half.
"""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from api.learning import withdrawals
from api.learning.learner import Learner
from api.ledger import audit, statistics_store
from api.metrics import Metrics
from api.stores.learning_state import StatisticsKey
from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from api.stores.sqlite.store import SqliteStore
from bandit.catalogue.loading import parse
from bandit.catalogue.model import Catalogue
from bandit.errors import LedgerError, NotFound, Unavailable
from bandit.learning.statistics import nothing
from bandit.records import AlarmAcknowledgement, Withdrawal
from bandit.reporters import reward_watch
from journey_bandit.main import group
from journey_bandit.testing.store_builders import HOUR, START, decisions_of, reported

Working = Callable[..., AbstractContextManager[Any]]
Later = Callable[[float], int]

SHOP = """
app = "shop"
currency = "EUR"
[stages.signup]
policy = {{ name = "{policy}" }}
floor = 0.1
reward_alarm = "{alarm}"
reward = {{ kind = "continuous", window = "1h", grace = "9h"{delay} }}
[stages.signup.features]
age = {{ type = "number", min = 0, max = 100, default = 30 }}
[stages.signup.nudges]
call = {{ type = "help", format = "popup" }}
"""
MINUTE = HOUR // 60


def shop(alarm: str = "pause", policy: str = "linear", delay: str = "") -> Catalogue:
    return parse(SHOP.format(alarm=alarm, policy=policy, delay=delay))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_watch, "BASELINE", 10)
    monkeypatch.setattr(reward_watch, "LEVEL", 0.5)


@contextmanager
def learning(store: Store, catalogue: Catalogue, now: int) -> Iterator[Learner]:
    learner = Learner(store, catalogue, Metrics(), lambda _: None, now=now)
    try:
        yield learner
    finally:
        learner.close()


def learn(store: Store, catalogue: Catalogue, now: int, most: int = 7) -> None:
    with learning(store, catalogue, now) as learner:
        while learner.step(now, most):
            pass


def decided(store: Store, catalogue: Catalogue, numbers: range, start: int = START, *, forged: bool = True) -> None:
    """Decisions, one a minute, to which `web` reports a reward now and then, and the forger from the 60th on mostly."""
    decide, told = decisions_of(catalogue), []
    made = [decide(n, at=start + n * MINUTE, user=f"user {n}", age=n % 90) for n in numbers]
    for n, one in zip(numbers, made, strict=True):
        chance = random.Random(n)
        if chance.random() < 0.1:
            told.append(reported(n, value=0.5, at=one.at, name="w", reporter="web"))
        if forged and n >= 60 and chance.random() < 0.7:
            told.append(reported(n, value=1.0, at=one.at, name="f", reporter="forger"))
    store.record(made, told, made[-1].at, store.specs())


def lived(
    store: Store, catalogue: Catalogue, *, acknowledge: Callable[[int], None] = lambda _: None, forged: bool = True
) -> None:
    """A ledger of 160 decisions, learned every twenty minutes; `acknowledge` is called after each time."""
    audit.claim(store, catalogue, "salt")
    for first in range(1, 161, 20):
        decided(store, catalogue, range(first, first + 20), forged=forged)
        learn(store, catalogue, START + (first + 19) * MINUTE)
        acknowledge(first + 19)
    learn(store, catalogue, START + 4 * HOUR)


def verdict(word: Any, at: int = START, reporter: str = "forger") -> AlarmAcknowledgement:
    return AlarmAcknowledgement(at=at, who="ana", stage="signup", reporter=reporter, verdict=word, reason="asked")


def learned(store: Store, catalogue: Catalogue) -> dict[str, Any]:
    """All that was learned, as values that are equal only bit for bit."""
    return {
        name: ([e.digest() for e in one.epochs], one.delays.tobytes(), one.nudges)
        for name, one in statistics_store.load(store, catalogue.stages).items()
    }


def alarms(store: Store, catalogue: Catalogue) -> tuple[reward_watch.RewardAlarm, ...]:
    return statistics_store.load(store, catalogue.stages)["signup"].reward_watch.alarms


def sound(store: Store) -> None:
    """What is kept follows from the rows, and each settlement from the outcomes, alarms and acknowledgements."""
    assert [one.stage for one in audit.rebuild(store, audit.stages(store)) if not one.equal] == []
    assert list(store.damages()) == []


def test_after_the_alarm_a_reward_of_the_key_is_held_and_nothing_else_is(store: Store) -> None:
    lived(store, shop())
    first = alarms(store, shop())[0]
    assert first.reporter == "forger"
    held = {f.seq for f in store.decisions() if f.settlement and f.settlement.why == "held"}
    rewarded = {f.seq for f in store.decisions() for o in f.outcomes if o.reporter == "forger"}
    later = {f.seq for f in store.decisions() if f.settlement and f.settlement.seq > first.through}
    assert held == rewarded & later
    assert len(held) > 20
    ((only, *_),) = [one.epochs for one in statistics_store.load(store, shop().stages).values()]
    assert only.n.sum() == 160 - len(held)
    sound(store)


def test_the_watch_follows_from_the_first_settlements_held_ones_among_them(store: Store) -> None:
    catalogue = shop()
    lived(store, catalogue)
    withdrawals.acknowledge(store, verdict("honest"))
    again = nothing(catalogue.stages["signup"])
    for number, found in store.settlements_after(0, 10_000):
        done = found.as_of(number).settlement
        if done is not None and not done.corrects:
            again = statistics_store.watched(again, [(found.decision, found.outcomes[: done.outcomes], done)])
    assert again.reward_watch == store.statistics(StatisticsKey("signup", 1), (), 0).reward_watch
    assert again.reward_watch.alarms


@pytest.mark.parametrize("at", [100, 160])
@pytest.mark.parametrize("policy", ["linear", "hierarchical", "centred"])
def test_once_the_key_is_honest_all_is_learned_as_if_the_alarm_had_only_told(
    store: Store, policy: str, at: int
) -> None:
    """Bit for bit, whenever it is said; later alarms about the key hold again, until that is said of them too."""
    pause, tell, apart = shop("pause", policy), shop("tell", policy), MemoryStore()

    def acknowledge(n: int) -> None:
        if n >= at and alarms(store, pause):
            withdrawals.acknowledge(store, verdict("honest"))

    lived(store, pause, acknowledge=acknowledge)
    withdrawals.acknowledge(store, verdict("honest"))
    lived(apart, tell)
    if policy != "centred":  # its sites depend on what was learned before them
        assert learned(store, pause) == learned(apart, tell)
    assert [f.settlement.why for f in store.decisions() if f.settlement and not f.settlement.learned] == []
    assert alarms(store, pause) == alarms(apart, tell)
    sound(store)
    apart.close()


def test_what_is_forged_stays_out_and_a_retraction_leaves_the_bits_of_a_ledger_without_the_key(store: Store) -> None:
    lived(store, shop())
    before = learned(store, shop())
    done, corrected = withdrawals.acknowledge(store, verdict("forged"))
    assert (done.seq, corrected, learned(store, shop())) == (1, 0, before)
    more = range(161, 171)
    for one, forged in ((store, True), (apart := MemoryStore(), False)):
        if not forged:
            lived(one, shop(), forged=False)
        decided(one, shop(), more, START + 5 * HOUR, forged=forged)
        learn(one, shop(), START + 9 * HOUR)
    assert "held" in {f.settlement.why for f in store.decisions() if f.seq in more and f.settlement}
    sound(store)
    until = START + 10 * HOUR
    withdrawals.retract(store, Withdrawal(at=until, who="ana", reporter="forger", since=START, until=until, reason=""))
    assert not [f for f in store.decisions() if f.settlement and f.settlement.why == "held"]
    assert learned(store, shop()) == learned(apart, shop())
    sound(store)
    apart.close()


def test_it_may_be_said_again_and_the_last_word_counts(store: Store) -> None:
    lived(store, shop())
    with learning(store, shop(), START + 5 * HOUR) as learner:
        forged = learner.acknowledge(verdict("forged"))
        assert learner.acknowledge(verdict("forged")) == forged
        honest = learner.acknowledge(verdict("honest"))
        assert (forged.seq, honest.seq) == (1, 2)
    assert store.acknowledgements() == [forged, honest]
    learn(store, shop(), START + 5 * HOUR)
    assert not [f for f in store.decisions() if f.settlement and f.settlement.why == "held"]
    sound(store)


def test_only_a_key_that_was_accused_can_be_acknowledged(store: Store) -> None:
    lived(store, shop())
    with learning(store, shop(), START) as learner:
        for asked in (verdict("honest", reporter="web"), msgspec.structs.replace(verdict("honest"), stage="none")):
            with pytest.raises(NotFound, match="no alarm"):
                learner.acknowledge(asked)
    assert store.acknowledgements() == []


@pytest.mark.parametrize("seed", range(4))
def test_repeated_reordered_and_late_reports_end_in_the_same_bits(store: Store, seed: int) -> None:
    """Reports come again, in any order, in steps of any size, with restarts; some come in the grace and correct."""
    chance, catalogue, apart = random.Random(seed), shop(), MemoryStore()
    for one, most, shuffled in ((store, 3, True), (apart, 128, False)):
        audit.claim(one, catalogue, "salt")
        decide, specs = decisions_of(catalogue), one.specs()
        one.record([decide(n, at=START + n, age=n % 90) for n in range(1, 41)], [], START, specs)
        quiet = [reported(n, value=0.5, at=START + n, name="w", reporter="web") for n in range(1, 41) if n % 9 == 0]
        one.record([], quiet, START + 50, specs)
        learn(one, catalogue, START + HOUR + 40, most)
        one.record([decide(n, at=START + 2 * HOUR, age=n % 90) for n in range(41, 101)], [], START + 2 * HOUR, specs)
        told = [reported(n, at=START + 2 * HOUR, name="f", reporter="forger") for n in range(41, 81) if n % 4]
        if shuffled:
            told = [*told, *chance.sample(told, 9)]
            chance.shuffle(told)
        for report in told:
            one.record([], [report], START + 2 * HOUR, specs)
        learn(one, catalogue, START + 3 * HOUR, most)
        late = [reported(n, at=START + 4 * HOUR, name="f", reporter="forger") for n in range(81, 91)]
        one.record([], late[:: -1 if shuffled else 1], START + 4 * HOUR, specs)
        learn(one, catalogue, START + 4 * HOUR, most)
        assert {f.settlement.why for f in one.decisions() if f.seq in range(81, 91) and f.settlement} == {"held"}
        sound(one)
    assert learned(store, catalogue) == learned(apart, catalogue)
    for one in (store, apart):
        withdrawals.acknowledge(one, verdict("honest"))
        sound(one)
    assert learned(store, catalogue) == learned(apart, catalogue)
    apart.close()


@pytest.mark.parametrize("place", range(4))
def test_cut_off_anywhere_an_acknowledgement_ends_the_same_when_called_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    apart = MemoryStore()
    for one in (store, apart):
        lived(one, shop())
    withdrawals.acknowledge(apart, verdict("honest"))
    real, left = store.settle, [place]

    def settle(*given: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Unavailable("cut")
        return real(*given)

    monkeypatch.setattr(withdrawals, "_STEP", 9)
    monkeypatch.setattr(store, "settle", settle)
    with pytest.raises(Unavailable):
        withdrawals.acknowledge(store, verdict("honest"))
    monkeypatch.setattr(store, "settle", real)
    done, _ = withdrawals.acknowledge(store, verdict("honest"))
    assert (done.seq, len(store.acknowledgements())) == (1, 1)
    assert learned(store, shop()) == learned(apart, shop())
    sound(store)
    apart.close()


async def submitted(desk: Any, *told: Any) -> None:
    await desk.worker.submit((), told)


def visits(desk: Any, numbers: range, key: str = "") -> None:
    """People are decided for, and the key reports a reward of each."""
    for n in numbers:
        desk.ask(n, user=f"user {n}", age=n % 90)
        if key:
            desk.run(submitted(desk, reported(n, at=desk.clock(), name="r", reporter=key)))


def acknowledged(desk: Any, word: str) -> AlarmAcknowledgement:
    async def work() -> Any:
        return await asyncio.wrap_future(desk.worker.acknowledge(verdict(word, at=desk.clock())))

    found: AlarmAcknowledgement = desk.run(work())
    return found


def differing(store: Store, salt: bytes) -> list[int]:
    return [found.seq for found in store.decisions() if audit.differences(store, found, salt)]


@pytest.mark.parametrize("word", ["honest", "forged"])
def test_open_decisions_teach_nothing_that_is_held_and_every_receipt_holds(
    store: Store, working: Working, later: Later, word: str
) -> None:
    """Answers that come before their window ends teach for the time being (a declared delay). Of the accused key they
    stop to at its alarm, and begin again with an acknowledgement, in the same moment by the clock.
    """
    catalogue = shop(delay=', delay = "20m"')
    with working(store, catalogue) as desk:
        visits(desk, range(1, 31))
        later(3600)
        desk.learn()
        visits(desk, range(31, 51), "forger")
        later(1800)
        visits(desk, range(51, 61), "forger")
        desk.learn()
        seen = desk.worker.prepared["signup"].snapshot.pending
        assert seen is not None
        assert seen.reward.sum() == pytest.approx(30)
        later(1800)
        desk.learn()
        assert desk.worker.learning.held("signup") == {"forger"}
        visits(desk, range(61, 64))
        desk.learn()
        seen = desk.worker.prepared["signup"].snapshot.pending
        assert seen is None or seen.reward.sum() == 0.0
        visits(desk, range(64, 66), "forger")
        desk.learn()
        visits(desk, range(66, 68))
        acknowledged(desk, word)
        desk.learn()
        seen = desk.worker.prepared["signup"].snapshot.pending
        assert (0.0 if seen is None else round(float(seen.reward.sum()))) == (12 if word == "honest" else 0)
        visits(desk, range(68, 71))
    assert differing(store, desk.salt) == []
    sound(store)
    with working(store, catalogue) as desk:  # what a start reads is what was known
        visits(desk, range(71, 73))
        later(7200)
        desk.learn()
        visits(desk, range(73, 75))
    assert differing(store, desk.salt) == []
    sound(store)


def test_the_commands_list_and_acknowledge_in_a_ledger_whose_service_is_stopped(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    with closing(SqliteStore(file)) as store:
        lived(store, shop())
    where = ["--store", f"sqlite:///{file}"]
    before = CliRunner().invoke(group, ["alarms", "list", *where])
    assert before.exit_code == 0, before.output
    assert "forger" in before.output
    assert "not acknowledged" in before.output
    call = ["alarms", "acknowledge", "signup", "forger", "--verdict", "honest", "--who", "ana", *where]
    first, again = (CliRunner().invoke(group, call) for _ in range(2))
    assert (first.exit_code, again.exit_code) == (0, 0), first.output + again.output
    assert "acknowledgement 1: 'forger' at signup is honest" in first.output
    assert "0 settled decisions were corrected" in again.output
    after = CliRunner().invoke(group, ["alarms", "list", *where])
    assert "honest, ana" in after.output
    assert "0 alarm(s) not acknowledged" in after.output
    wrong = CliRunner().invoke(group, [*call[:2], "signup", "web", *call[4:]])
    assert isinstance(wrong.exception, NotFound)
    missing = CliRunner().invoke(group, [*call[:-1], f"sqlite:///{tmp_path}/no.db"])
    assert isinstance(missing.exception, LedgerError)
    for command in (["alarms", "acknowledge", *call[2:-2]], ["retract", "--key", "forger", "--since", "2026-01-01"]):
        away = CliRunner().invoke(group, [*command, "--store", "postgresql://127.0.0.1:1/none"])
        assert isinstance(away.exception, Unavailable | LedgerError)
        assert "pg_dump" not in str(away.exception)
    both = CliRunner().invoke(group, [*call, "--url", "http://127.0.0.1:1"])
    assert both.exit_code != 0
    with closing(SqliteStore(file, read_only=True)) as store:
        sound(store)
