"""Replicas of a service on one ledger in PostgreSQL: limits hold across them, and all learn the same, bit for bit."""

import asyncio
import random
import secrets
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from itertools import count
from typing import Any

import msgspec
import psycopg
import pytest

from api.decisions.budgets import Budgets
from api.decisions.frequency_caps import GlobalFrequencyCaps
from api.learning import worker
from api.ledger import audit
from api.messages.decisions import DecisionRequest, OutcomeRequest
from api.stores.decision_log import DecisionRecord
from api.stores.erasure_log import Erasure
from api.stores.memory.store import MemoryStore
from api.stores.postgres.store import PostgresStore
from api.stores.protocol import Store
from api.stores.sql.rows.commits import CommitChain
from bandit.catalogue.loading import parse
from bandit.catalogue.model import Catalogue
from bandit.errors import LedgerError, Unavailable
from bandit.records import Decision, OperatorAction
from bandit.release import NO_NUDGE
from tests.postgres import PostgresServer
from tests.waiting import PATIENCE, eventually

Working = Callable[..., AbstractContextManager[Any]]
Replicas = Callable[..., AbstractContextManager[list[Any]]]

APP = """
app = "shop"
currency = "EUR"
[stages.cart]
policy = { name = "beta" }
floor = 0.1
reward = { kind = "binary", window = "1h", value = 50.0 }
features = {}
[stages.cart.nudges.ten]
type = "discount"
format = "banner"
cost_when_rewarded = 5.0
budget = { amount = 400, per = "1h" }
limits = { total = 3 }
[stages.cart.nudges.few]
type = "help"
format = "banner"
limits = { everyone = { most = 70, per = "1d" } }
"""


@pytest.fixture
def url(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.schema() as address:
        yield address


@pytest.fixture
def replicas(url: str, working: Working) -> Replicas:
    """replicas(n, catalogue): desks on one ledger, each with a store, a worker and an event loop of its own."""

    @contextmanager
    def started(n: int, catalogue: Catalogue) -> Iterator[list[Any]]:
        with ExitStack() as opened:
            yield [
                opened.enter_context(working(opened.enter_context(closing(PostgresStore(url, shared=True))), catalogue))
                for _ in range(n)
            ]

    return started


def proved(store: Store, salt: bytes, made: Iterable[DecisionRecord]) -> None:
    """Beliefs and these receipts follow from the rows, and the rows are those that were committed."""
    assert [one.stage for one in audit.rebuild(store, audit.stages(store)) if not one.equal] == []
    assert [one.seq for one in made if audit.differences(store, one, salt)] == []
    assert list(store.damages()) == []


def test_a_cap_holds_for_a_user_who_asks_another_replica(replicas: Replicas) -> None:
    text = APP.replace("beta", 'fixed", arm = "ten').replace("floor = 0.1", "floor = 0.0")
    with replicas(2, parse(text)) as (one, two):
        assert [two.ask(1, "cart").nudge.id, one.ask(2, "cart").nudge.id] == ["ten", "ten"]
        assert two.ask(3, "cart").nudge.id == "ten"
        for desk, n in ((one, 4), (two, 5)):
            reply = desk.ask(n, "cart")
            assert reply.nudge.id == "none"
            assert reply.excluded["ten"].startswith("cap: 3")
        assert [one.ask(3, "cart").duplicate, two.ask(3, "cart").nudge.id] == [True, "ten"]


async def crowd(desk: Any, rng: random.Random, others: list[tuple[uuid.UUID, str]], clients: int, each: int) -> None:
    """Clients of one replica: they decide for a few people, repeat what others asked, and report."""

    async def client(own: random.Random) -> None:
        for _ in range(each):
            asked = uuid.UUID(int=own.getrandbits(128), version=4), f"user {own.randrange(40)}"
            if others and own.random() < 0.2:
                asked = own.choice(others)
            others.append(asked)
            request = DecisionRequest(stage="cart", user_id=asked[1], context={}, decision_id=asked[0])
            reply = await desk.service.decide(request)
            if own.random() < 0.3:
                await desk.service.report(OutcomeRequest(decision_id=reply.decision_id, kind="reward"))

    await asyncio.gather(*(client(random.Random(rng.random())) for _ in range(clients)))


def test_no_limit_is_passed_and_all_learn_the_same(replicas: Replicas, hands: Any) -> None:
    catalogue = parse(APP)
    with replicas(3, catalogue) as desks:
        asked: list[tuple[uuid.UUID, str]] = []
        for round_ in range(3):
            with ThreadPoolExecutor(3) as threads:
                work = [
                    threads.submit(desk.run, crowd(desk, random.Random(f"{round_} {i}"), asked, 8, 10))
                    for i, desk in enumerate(desks)
                ]
                for done in work:
                    done.result()
            hands.move(1200)
        learned = [desk.learn() for desk in desks]
        assert learned[0] == learned[1] == learned[2]
        assert learned[0]["cart"][0] > 0
        store, salt = desks[0].store, desks[0].salt
        made = list(store.decisions())
        proved(store, salt, random.Random(3).sample(made, 25))
        assert {one.decision.id for one in made} == {one for one, _ in asked}
        shown = Counter((one.decision.user, one.decision.arm) for one in made)
        assert max(n for (_, arm), n in shown.items() if arm == "ten") == 3
        assert sum(n for (_, arm), n in shown.items() if arm == "few") == 70
        ours = [{one.decision.id: desk.store.decisions_by_id([one.decision.id]) for one in made} for desk in desks]
        assert str(ours[0]) == str(ours[1]) == str(ours[2])


def test_an_owner_and_replicas_keep_each_other_out(url: str) -> None:
    with (
        closing(PostgresStore(url, shared=True)),
        closing(PostgresStore(url, shared=True)),
        pytest.raises(LedgerError, match="in use by another process"),
    ):
        PostgresStore(url)
    PostgresStore(url).close()


def test_whoever_is_left_leads(replicas: Replicas, url: str, hands: Any) -> None:
    with replicas(2, parse(APP)) as desks:
        assert eventually(lambda: sum(desk.worker.leading for desk in desks) == 1)
        for n, desk in enumerate(desks, 1):
            desk.ask(n, "cart", user=f"user {n}")
        hands.move(3601)
        (learned,) = {str(desk.learn()) for desk in desks}
        leader = next(desk for desk in desks if desk.worker.leading)
        other = next(desk for desk in desks if desk is not leader)
        leader.worker.stop()
        leader.store.close()
        other.ask(3, "cart", user="user 3")
        hands.move(3601)
        assert other.learn()["cart"][0] == 3
        assert other.worker.leading
        proved(other.store, other.salt, other.store.decisions())
        assert str(other.learn()) != learned


def test_what_was_reported_to_another_replica_is_learned_once(replicas: Replicas, hands: Any) -> None:
    with replicas(2, parse(APP)) as (one, two):
        one.ask(1, "cart")
        assert not two.report(1).duplicate
        assert one.report(1).duplicate
        hands.move(3601)
        assert one.learn() == two.learn()
        (found,) = one.store.decisions()
        assert (found.settlement.reward, found.settlement.learned) == (1.0, True)
        proved(two.store, two.salt, two.store.decisions())


def test_a_replica_with_another_catalogue_decides_no_more(replicas: Replicas, url: str, working: Working) -> None:
    with replicas(1, parse(APP)) as (old,):
        old.ask(1, "cart")
        with closing(PostgresStore(url, shared=True)) as store, working(store, parse(APP.replace("70", "80"))) as new:
            with pytest.raises(Unavailable, match="other replicas serve another catalogue by now"):
                old.ask(2, "cart")
            assert not new.ask(2, "cart").duplicate
            assert "write" in old.worker.failing


def test_a_lost_connection_costs_no_decision_and_no_lead_stays_behind(replicas: Replicas, url: str, hands: Any) -> None:
    with replicas(2, parse(APP)) as desks:
        for n in range(1, 21):
            with psycopg.connect(url, autocommit=True) as conn:
                conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                             "AND application_name = 'journey-bandit' AND random() < 0.5")  # fmt: skip
            for desk in desks:
                asked_until_answered(desk, n)
        hands.move(3601)
        assert eventually(lambda: not any(desk.worker.failing for desk in desks))
        assert eventually(lambda: sum(desk.worker.leading for desk in desks) == 1)
        assert desks[0].learn() == desks[1].learn()
        made = list(desks[0].store.decisions())
        assert [one.decision.id.int for one in made] == list(range(1, 21))
        proved(desks[0].store, desks[0].salt, made)


@pytest.mark.parametrize("forget", [False, True])
def test_what_one_replica_erases_the_others_forget(replicas: Replicas, hands: Any, *, forget: bool) -> None:
    with replicas(2, parse(APP)) as (one, two):
        for n in range(1, 13):
            (one, two)[n % 2].ask(n, "cart", user=f"user {n % 3}")
            if n % 4 == 0:
                (two, one)[n % 2].report(n)
        hands.move(3601)
        assert one.learn() == two.learn()
        for n in range(13, 25):
            (one, two)[n % 2].ask(n, "cart", user=f"user {n % 3}")
        hands.move(10)  # what is open is looked at from time to time
        assert eventually(lambda: all(desk.worker.prepared["cart"].snapshot.pending is not None for desk in (one, two)))
        asked = [Erasure(secrets.token_bytes(16), frozenset({one.service.user_hash("user 1")}), hands(), forget)]
        done = one.worker.erase(asked).result()
        for n in range(25, 37):
            two.ask(n, "cart", user=f"user {n % 3 + 3}")
            one.ask(n + 100, "cart", user=f"user {n % 3 + 3}")
            if done.left:
                done = one.worker.erase([], done.worked).result()
        one.worker.run(lambda: one.store.end_erasures(done.worked, hands())).result()
        hands.move(3601)
        assert one.learn() == two.learn()
        made = list(two.store.decisions())
        assert one.service.user_hash("user 1") not in {record.decision.user for record in made}
        others = [record for record in made if not record.decision.is_remainder]
        exact = [record for record in others if not audit.rests_on_forgotten(two.store, record)]
        assert exact
        proved(two.store, two.salt, exact)


def test_commits_that_a_failover_lost_are_forgotten(replicas: Replicas, url: str, hands: Any) -> None:
    """A standby that lags becomes the primary: numbers mean other rows from then on."""
    with replicas(2, parse(APP)) as (one, two):
        one.ask(1, "cart", user="a")
        two.ask(2, "cart", user="b")
        assert eventually(lambda: one.worker.learning._last.decision == 2)
        with psycopg.connect(url) as conn:
            conn.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('journey-bandit turn ' || current_schema(), 0))"
            )
            conn.execute("DELETE FROM pending WHERE decision_seq = 2")
            conn.execute("DELETE FROM decisions WHERE seq = 2")
            conn.execute("DELETE FROM commits WHERE seq = (SELECT max(seq) FROM commits)")
        for n, desk in ((3, one), (4, two), (5, one)):
            assert not desk.ask(n, "cart", user=f"user {n}").duplicate
        hands.move(3601)
        assert one.learn() == two.learn()
        made = list(one.store.decisions())
        assert [record.decision.id.int for record in made] == [1, 3, 4, 5]
        proved(one.store, one.salt, made)


def asked_until_answered(desk: Any, n: int) -> None:
    for _ in range(100):
        try:
            desk.ask(n, "cart", user=f"user {n}")
        except Unavailable:
            continue
        return
    raise AssertionError(f"decision {n} was never answered")


FIXED = APP.replace('"beta"', '"fixed", arm = "ten"').replace("floor = 0.1", "floor = 0.0")


def failing_once(monkeypatch: pytest.MonkeyPatch, where: object, name: str) -> None:
    """The next call of a method fails as a lost connection does."""
    method, left = getattr(where, name), [1]

    def once(*args: Any, **more: Any) -> Any:
        if left:
            left.pop()
            raise psycopg.OperationalError("the connection is lost")
        return method(*args, **more)

    monkeypatch.setattr(where, name, once)


def test_news_that_could_not_be_read_is_told_again(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    with replicas(2, parse(FIXED)) as (one, two):
        assert two.ask(1, "cart").nudge.id == "ten"
        one.worker.run(lambda: None).result()
        monkeypatch.setattr(worker, "_LOOK", 3600.0)  # news is met by commits alone
        two.worker.run(lambda: None).result()
        two.worker._look_at = float("inf")  # nor by a look that was planned before
        assert [one.ask(n, "cart").nudge.id for n in (2, 3)] == ["ten", "ten"]
        failing_once(monkeypatch, two.store, "_told")
        with pytest.raises(Unavailable):
            two.ask(4, "cart")
        assert two.ask(5, "cart").nudge.id == "none"


class LostAt:
    """The connection of one replica's writer is ended by the server just before its step number `at`, counted from
    `arm` on; `found`: whether it came to that.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, url: str, desk: Any):
        self._url, self._desk, self._left, self.found = url, desk, -1, False
        wait = psycopg.Connection.wait

        def counted(conn: Any, *args: Any, **more: Any) -> Any:
            if self._left >= 0 and conn is desk.store._ledger._open["writer"]._conn:
                if self._left == 0:
                    self.found = True
                    self._end(conn.info.backend_pid)
                self._left -= 1
            return wait(conn, *args, **more)

        monkeypatch.setattr(psycopg.Connection, "wait", counted)

    def arm(self, at: int) -> None:
        self._left, self.found = at, False

    def disarm(self) -> None:
        self._left = -1

    def _end(self, pid: int) -> None:
        with psycopg.connect(self._url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))


def test_whatever_step_a_connection_is_lost_at_pauses_and_caps_of_another_replica_hold(
    replicas: Replicas, url: str, hands: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step of a transaction that begins with news, one after the other, up to its commit and past it."""
    text = FIXED.replace("limits = { total = 3 }", "limits = { total = 1 }").replace("amount = 400", "amount = 40000")
    with replicas(2, parse(text)) as desks:
        assert eventually(lambda: sum(desk.worker.leading for desk in desks) == 1)
        one, two = sorted(desks, key=lambda desk: not desk.worker.leading)
        monkeypatch.setattr(worker, "_LOOK", 3600.0)  # news is met by commits alone
        two.worker.run(lambda: None).result()
        two.worker._look_at = two.worker._help_at = float("inf")
        lost, numbers = LostAt(monkeypatch, url, two), count(1)

        def operate(verb: Any) -> None:
            action = OperatorAction(at=hands(), who="ana", stage="cart", nudge="ten", verb=verb, reason="why")
            one.worker.operate(action).result()

        def asks(desk: Any, user: str) -> str | None:
            try:
                return str(desk.ask(next(numbers), "cart", user=user).nudge.id)
            except Unavailable:
                return None

        for at in count():
            assert asks(one, f"capped {at}") == "ten"
            operate("pause")
            lost.arm(at)
            said = asks(two, f"first {at}")
            lost.disarm()
            assert said in ("none", None)
            assert asks(two, f"second {at}") == "none"
            operate("resume")
            assert [asks(two, f"capped {at}"), asks(two, f"third {at}")] == ["none", "ten"]
            if not lost.found:
                break
        assert at > 20
        proved(one.store, one.salt, random.Random(5).sample(list(one.store.decisions()), 40))


def test_a_ramp_that_one_replica_was_told_is_in_force_on_all(
    replicas: Replicas, hands: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with replicas(2, parse(FIXED.replace("limits = { total = 3 }", ""))) as (one, two):
        monkeypatch.setattr(worker, "_LOOK", 3600.0)  # news is met by commits alone
        for n, share in enumerate((0.25, 0.5, None)):
            action = OperatorAction(at=hands(), who="ana", stage="cart", nudge="", verb="ramp", reason="r", share=share)
            one.worker.operate(action).result()
            made = two.ask(n + 1, "cart")
            assert made.propensities["ten"] == (share or 1.0)
            assert two.worker.traffic.of("cart") == one.worker.traffic.of("cart")
        hands.move(3601)
        assert one.learn() == two.learn()
        proved(one.store, one.salt, list(one.store.decisions()))


def test_a_settlement_that_was_not_committed_frees_no_budget(
    replicas: Replicas, hands: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = parse(FIXED.replace('per = "1h"', 'per = "30d"').replace("amount = 400", "amount = 900"))
    with replicas(1, catalogue) as (desk,):
        for n in range(1, 11):
            desk.ask(n, "cart", user=f"user {n}")
        desk.report(1)
        assert eventually(lambda: desk.worker.leading)
        failing_once(monkeypatch, CommitChain, "seal")
        hands.move(3601)
        assert eventually(lambda: desk.store.version("cart") == 10)
        desk.learn()
        (account,) = desk.budgets.accounts("cart", hands()).values()
        assert account.committed == Budgets(catalogue, desk.store, hands()).accounts("cart", hands())["ten"].committed
        assert account.committed == 5_000_000


def test_an_original_that_was_refused_is_not_written_by_who_asks_once_more(
    replicas: Replicas, decide: Callable[..., Decision]
) -> None:
    with replicas(1, parse(APP)) as (desk,):
        made = msgspec.structs.replace(decide(7, "basket"), stage="cart")

        async def original() -> Any:
            return await desk.worker.submit([made], known=[worker.ORIGINAL])

        assert desk.run(original()) == ([None], [])
        assert list(desk.store.decisions()) == []


def test_a_rollback_decides_on_every_replica(replicas: Replicas, hands: Any) -> None:
    with replicas(2, parse(FIXED)) as (one, two):
        assert [desk.ask(n, "cart").nudge.id for n, desk in enumerate((one, two))] == ["ten", "ten"]
        work = partial(one.worker.releases.rollback, "cart", NO_NUDGE, "ops", hands(), "it costs", hands())
        one.worker.run(work, together=True).result()
        assert one.ask(11, "cart").nudge.id == "none"
        assert eventually(lambda: "cart" in two.worker.releases.served)
        reply = two.ask(12, "cart", user="somebody")
        assert (reply.nudge.id, reply.release.version) == ("none", NO_NUDGE)
        proved(two.store, two.salt, list(two.store.decisions()))


def test_another_replica_settles_when_the_leader_hangs(
    replicas: Replicas, hands: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_HELP", 0.0)
    with replicas(2, parse(APP)) as desks:
        assert eventually(lambda: sum(desk.worker.leading for desk in desks) == 1)
        leader = next(desk for desk in desks if desk.worker.leading)
        other = next(desk for desk in desks if desk is not leader)
        other.ask(1, "cart")
        over = threading.Event()
        hangs = leader.worker.run(over.wait)
        try:
            hands.move(3700)
            assert eventually(lambda: other.store.version("cart") == 1)
            assert not other.worker.leading
        finally:
            over.set()
            hangs.result()
        assert leader.learn() == other.learn()


def test_limits_of_a_period_that_is_over_allow_nothing(decide: Callable[..., Decision]) -> None:
    """A replica whose clock is behind meets what others decided in the next period."""
    catalogue, store, day = parse(APP), MemoryStore(), 86_400 * 10**6
    made = msgspec.structs.replace(decide(1, "basket"), stage="cart", arm="few", at=10 * day - 1)
    caps = GlobalFrequencyCaps(catalogue, store, 9 * day)
    assert caps.allows(made)
    caps.add(msgspec.structs.replace(made, at=10 * day), 1)
    assert not caps.allows(made)
    assert caps.allows(msgspec.structs.replace(made, at=10 * day + 1))


def test_a_pause_at_one_replica_counts_at_the_others_for_what_they_have_drawn_already(replicas: Replicas) -> None:
    text = APP.replace("beta", 'fixed", arm = "ten').replace("floor = 0.1", "floor = 0.0")
    with replicas(2, parse(text)) as (one, two):
        pending = two.service.maker.prepare(DecisionRequest(stage="cart", user_id="a", context={}), two.clock())
        assert pending.decision.arm == "ten"
        action = OperatorAction(at=1, who="ana", stage="cart", nudge="ten", verb="pause", reason="refunds rose")
        assert one.worker.operate(action).result(PATIENCE).seq == 1
        (written,) = two.run(two.service.writer.write([pending]))
        assert (written.decision.arm, written.decision.excluded["ten"]) == ("none", "paused by ana: refunds rose")
        assert two.ask(1, "cart", user="b").nudge.id == "none"
        assert two.worker.operate(msgspec.structs.replace(action, verb="resume")).result(PATIENCE).seq == 2
        assert two.ask(3, "cart", user="c").nudge.id == "ten"
        assert eventually(lambda: not one.worker.pauses)
        assert one.ask(4, "cart", user="d").nudge.id == "ten"
        proved(two.store, two.salt, two.store.decisions())


@pytest.mark.parametrize("unread", ["operator_actions", "releases"])
def test_what_another_replica_did_that_could_not_be_read_is_read_again(
    replicas: Replicas, hands: Any, monkeypatch: pytest.MonkeyPatch, unread: str
) -> None:
    with replicas(2, parse(FIXED)) as (one, two):
        assert two.ask(1, "cart", user="a").nudge.id == "ten"
        read, failed = getattr(two.store, unread), threading.Event()

        def once(*given: Any) -> Any:
            if not failed.is_set():
                failed.set()
                raise Unavailable("the connection is gone")
            return read(*given)

        monkeypatch.setattr(two.store, unread, once)
        if unread == "releases":
            work = partial(one.worker.releases.rollback, "cart", NO_NUDGE, "ops", hands(), "it costs", hands())
            one.worker.run(work, together=True).result(PATIENCE)
        else:
            action = OperatorAction(at=1, who="ana", stage="cart", nudge="ten", verb="pause", reason="refunds rose")
            one.worker.operate(action).result(PATIENCE)
            assert eventually(lambda: not two.worker.failing)
        assert failed.wait(PATIENCE)
        assert eventually(lambda: unread == "operator_actions" or "cart" in two.worker.releases.served)
        assert two.ask(2, "cart", user="b").nudge.id == "none"
        proved(two.store, two.salt, two.store.decisions())
