"""Retraction: what an API key reported leaves the belief exactly, stays in the ledger, and is marked there."""

import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from api.learning import withdrawals
from api.learning.learner import Learner
from api.ledger import audit, statistics_store
from api.metrics import Metrics
from api.stores.erasure_log import Erasure
from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from api.stores.sqlite.store import SqliteStore
from bandit.catalogue.loading import parse
from bandit.catalogue.model import Catalogue
from bandit.errors import LedgerError, Unavailable
from bandit.records import Withdrawal
from journey_bandit.main import group
from journey_bandit.testing.store_builders import CATALOGUE, HOUR, START, decisions_of, reported

Working = Callable[..., AbstractContextManager[Any]]
Later = Callable[[float], int]

LEARNERS = {
    "centred": 'loss = "50%"',
    "linear": 'policy = { name = "linear", prior_mean = 0.2 }',
    "hierarchical": 'policy = { name = "hierarchical", prior_mean = 0.2 }',
}
DAY = 24 * HOUR


def shop_of(learner: str) -> Catalogue:
    declared = 'policy = { name = "linear", prior_mean = 0.2 }\nfloor = 0.02'
    assert declared in CATALOGUE
    return parse(CATALOGUE.replace(declared, LEARNERS[learner]))


def asked(key: str = "forger", since: int = START, until: int = START + 99 * DAY) -> Withdrawal:
    return Withdrawal(at=START + 50 * DAY, who="ana", reporter=key, since=since, until=until, reason="forged")


def filled(store: Store, catalogue: Catalogue, *, forged: bool = True, open_ones: int = 3) -> None:
    """Decisions of five people at four stages, of which two keys report, honestly and not; all but the last settle."""
    audit.claim(store, catalogue, "salt")
    decide, specs, now = decisions_of(catalogue), store.specs(), START
    for n in range(1, 41):
        stage = ("signup", "basket", "shown", "instant")[n % 4]
        now = START + n * HOUR // 4
        store.record([decide(n, stage, at=now, user=f"user {n % 5}")], [], now, specs)
        told = [reported(n, "activation", None, at=now, name="a", reporter="app")] if n % 3 else []
        told += [reported(n, value=float(n % 2), at=now, name="r", reporter="app")] if n % 5 and n % 4 != 3 else []
        if forged and n % 4 != 3 and n % 2:
            told.append(reported(n, value=1.0, at=now, name="f", reporter="forger"))
        if forged and n % 6 == 0:
            told.append(reported(n, "activation", None, at=now, name="fa", reporter="forger"))
        if forged and n % 7 == 0:
            told.append(reported(n, "retraction", None, at=now, name="fr", reporter="forger"))
        store.record([], told, now, specs)
        if n % 4 == 0:
            learn(store, catalogue, now - open_ones * HOUR)


def learn(store: Store, catalogue: Catalogue, now: int) -> None:
    learner = Learner(store, catalogue, Metrics(), lambda _: None, now=now)
    while learner.step(now, 7):
        pass
    learner.close()


def learned(store: Store, catalogue: Catalogue) -> dict[str, Any]:
    """All that was learned, as values that are equal only bit for bit."""
    return {
        name: ([e.digest() for e in one.epochs], one.delays.tobytes(), one.nudges)
        for name, one in statistics_store.load(store, catalogue.stages).items()
    }


def proved(store: Store, salt: bytes) -> None:
    assert [one.stage for one in audit.rebuild(store, audit.stages(store)) if not one.equal] == []
    assert list(store.damages()) == []
    assert [one.seq for one in store.decisions() if audit.differences(store, one, salt)] == []


def test_what_a_key_reported_leaves_the_bits_of_a_ledger_in_which_it_reported_nothing(store: Store) -> None:
    """Sums, counts of delays and nudges; also of what was open. Sites of this policy depend on the row alone."""
    shop = shop_of("linear")
    filled(store, shop)
    before = learned(store, shop)
    done, voided, corrected = withdrawals.retract(store, asked())
    assert (done.seq, voided) == (1, sum(o.reporter == "forger" for f in store.decisions() for o in f.outcomes))
    assert corrected > 10
    assert learned(store, shop) != before
    apart = MemoryStore()
    filled(apart, shop, forged=False)
    assert learned(store, shop) == learned(apart, shop)
    for one in (store, apart):
        learn(one, shop, START + DAY)  # what was open
    assert learned(store, shop) == learned(apart, shop)
    rewards = [[(f.seq, f.settlement.reward, f.settlement.why) for f in one.decisions() if f.settlement]
               for one in (store, apart)]  # fmt: skip
    assert len(rewards[0]) == 40
    assert rewards[0] == rewards[1]
    apart.close()


@pytest.mark.parametrize("learner", sorted(LEARNERS))
def test_receipts_hold_and_a_rebuild_finds_the_same_whatever_the_policy(
    store: Store, working: Working, later: Later, learner: str
) -> None:
    shop = shop_of(learner)
    with working(store, shop) as desk:
        for n in range(1, 30):
            desk.ask(n, user=f"user {n % 4}", age=3 * n)
            told = msgspec.structs.replace(
                reported(n, at=desk.clock(), name="f"), reporter="forger" if n % 3 else "app"
            )
            desk.run(submitted(desk, told))
            if n % 10 == 0:
                later(3600)
                desk.learn()
    proved(store, desk.salt)
    withdrawals.retract(store, asked())
    proved(store, desk.salt)
    with working(store, shop) as desk:
        desk.ask(99)
        receipt = desk.run(desk.service.receipt(uuid.UUID(int=1)))
        assert [(one.reporter, one.retracted_at is msgspec.UNSET) for one in receipt.outcomes] == [("forger", False)]
        assert (receipt.settled.reward, [one.reward for one in receipt.corrected]) == (0.0, [1.0])
        receipt = desk.run(desk.service.receipt(uuid.UUID(int=3)))
        assert [(one.reporter, one.retracted_at) for one in receipt.outcomes] == [("app", msgspec.UNSET)]
    proved(store, desk.salt)
    assert [(one.who, one.reason, one.reporter) for one in store.withdrawals()] == [("ana", "forged", "forger")]


async def submitted(desk: Any, told: Any) -> None:
    await desk.worker.submit((), [told])


def test_again_it_does_nothing_and_only_its_time_and_key_are_touched(store: Store) -> None:
    shop = shop_of("linear")
    filled(store, shop)
    half = asked(since=START + 2 * HOUR, until=START + 6 * HOUR)
    done, voided, _ = withdrawals.retract(store, half)
    gone = {(o.decision, o.voids) for f in store.decisions() for o in f.outcomes if o.withdrawal}
    mine = {(o.decision, o.id) for f in store.decisions() for o in f.outcomes
            if o.reporter == "forger" and half.since <= o.received < half.until}  # fmt: skip
    assert gone == mine
    assert len(gone) == voided > 0
    after = learned(store, shop)
    assert withdrawals.retract(store, half) == (half, 0, 0)
    assert withdrawals.retract(store, asked("nobody"))[1:] == (0, 0)
    assert learned(store, shop) == after
    assert store.withdrawals() == [done]


class Cut(Exception):
    """The process ends here."""


@pytest.mark.parametrize("place", range(12))
def test_cut_off_anywhere_it_ends_the_same_when_called_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    shop, left = shop_of("linear"), [place]
    monkeypatch.setattr(withdrawals, "_ROWS", 3)
    monkeypatch.setattr(withdrawals, "_STEP", 2)
    filled(store, shop)
    apart = MemoryStore()
    filled(apart, shop)
    withdrawals.retract(apart, asked())

    def cut(name: str, before: bool) -> None:
        real = getattr(store, name)

        def work(*given: Any) -> Any:
            left[0] -= 1
            if left[0] == 0 and before:
                raise Unavailable("cut")
            found = real(*given)
            if left[0] == 0:
                raise Unavailable("cut")
            return found

        monkeypatch.setattr(store, name, work)

    cut("withdraw", before=place % 2 == 0)
    cut("settle", before=place % 2 == 0)
    if place:
        with pytest.raises(Unavailable):
            withdrawals.retract(store, asked())
    withdrawals.retract(store, asked())
    assert learned(store, shop) == learned(apart, shop)
    assert all(one.equal for one in audit.rebuild(store, audit.stages(store)))
    apart.close()


def test_where_the_first_reward_settles_a_true_one_may_come_after_a_forged_one(store: Store) -> None:
    shop = shop_of("linear")
    audit.claim(store, shop, "salt")
    specs = store.specs()
    store.record([decisions_of(shop)(1, "instant")], [reported(1, value=90.0, reporter="forger")], START, specs)
    assert [one.seq for one in store.matured(START, 9, ["instant"])] == [1]
    store.withdraw(asked(), 0, 9)
    assert store.matured(START, 9, ["instant"]) == []  # it waits for its window again
    (note,) = store.record([], [reported(1, value=3.0, name="true", reporter="app")], START, specs)[1]
    assert note.status == "recorded"
    learn(store, shop, START)
    assert [f.settlement.reward for f in store.decisions() if f.settlement] == [3.0]


def test_it_waits_for_an_erasure_that_was_interrupted(store: Store) -> None:
    shop = shop_of("linear")
    filled(store, shop)
    store.begin_erasure(Erasure(b"0123456789abcdef", frozenset([b"1" * 16]), START, forget=True))
    with pytest.raises(LedgerError, match="erasure"):
        withdrawals.retract(store, asked())


def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    file, shop = tmp_path / "ledger.db", shop_of("linear")
    with closing(SqliteStore(file)) as store:
        filled(store, shop)
    call = ["retract", "--store", f"sqlite:///{file}", "--key", "forger", "--since", "2025-01-01", "--reason", "forged"]
    first, again = (CliRunner().invoke(group, [*call, "--who", "ana"]) for _ in range(2))
    assert (first.exit_code, again.exit_code) == (0, 0), first.output + again.output
    assert "retraction 1 of" in first.output
    assert "nothing to retract" in again.output
    with closing(SqliteStore(file, read_only=True)) as store:
        (done,) = store.withdrawals()
        assert (done.who, done.reporter, done.reason) == ("ana", "forger", "forged")
        assert list(store.damages()) == []
    missing = CliRunner().invoke(group, ["retract", "--store", f"sqlite:///{tmp_path}/no.db", *call[3:]])
    assert missing.exit_code != 0
