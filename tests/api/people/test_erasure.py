"""Erasure of people: what leaves the ledger, what stays of others, and what was learned, to the bit."""

import json
import secrets
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from api.ledger import audit, exposures, statistics_store, warm_start
from api.metrics import Metrics
from api.people import offline, records
from api.stores.erasure_log import Erasure
from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from api.stores.sql.rows import commits
from api.stores.sqlite.store import SqliteStore
from api.stores.webhook_queue import WebhookDelivery
from api.webhooks.config import Endpoint
from api.webhooks.dispatcher import EndpointSender
from bandit import engine, features
from bandit.catalogue.loading import parse
from bandit.catalogue.model import Catalogue
from bandit.errors import NotFound
from bandit.records import CROSSED, Decision
from journey_bandit.main import group
from journey_bandit.testing.store_builders import CATALOGUE, ContractLedger
from journey_bandit.workflows import ledger_log

Working = Callable[..., AbstractContextManager[Any]]
Later = Callable[[float], int]

LEARNERS = {
    "centred": 'loss = "50%"',  # the default policy: it has a loss account, and learns what a nudge costs
    "linear": 'policy = { name = "linear", prior_mean = 0.2 }',
    "hierarchical": 'policy = { name = "hierarchical", prior_mean = 0.2 }',
}
GONE = "ann"
HOURS = 3600


@pytest.fixture(params=sorted(LEARNERS))
def shop(request: pytest.FixtureRequest) -> Catalogue:
    """The small catalogue, its stage `signup` under each kind of policy."""
    declared = 'policy = { name = "linear", prior_mean = 0.2 }\nfloor = 0.02'
    assert declared in CATALOGUE
    return parse(CATALOGUE.replace(declared, LEARNERS[request.param]))


def visits(desk: Any, later: Later, people: str = "ann bob cem dot eve", days: int = 3) -> None:
    """People come on some days, at two stages; some report, some do not; all but the last day's decisions settle."""
    n = 0
    for day in range(days):
        for i, user in enumerate(people.split()):
            for stage in ("signup", "basket"):
                n += 1
                desk.ask(n, stage, user=user, **({"age": 20 + 7 * i + day} if stage == "signup" else {"items": i}))
                if (n + day) % 3:
                    desk.report(n, value=1.0 if (n + i) % 2 else 0.0, name=f"{user} reports {n}")
        if day < days - 1:
            later(24 * HOURS)
            desk.learn()


def erase(desk: Any, user: str = GONE, *, forget: bool) -> None:
    """Erase a person as the service does, step by step in the writer's thread."""
    store, worker = desk.store, desk.worker
    ids = records.ids_of(store, engine.user_hash(desk.salt, user))
    done = worker.erase([Erasure(secrets.token_bytes(16), ids, desk.clock(), forget)]).result()
    while done.left:
        done = worker.erase([], done.worked).result()
    if not done.ended:
        worker.run(lambda: store.end_erasures(done.worked, desk.clock())).result()


def sums(store: Store, stages: Any) -> dict[str, Any]:
    """All that the ledger keeps of what was learned, as values that are equal only bit for bit."""
    found = statistics_store.load(store, stages)
    return {name: bits(one) for name, one in found.items()}


def bits(one: Any) -> Any:
    return [epoch.digest() for epoch in one.epochs], one.delays.tobytes(), one.nudges


def others(store: Store, but: bytes) -> list[Any]:
    """Everything that is recorded of other people."""
    return [
        (f.seq, ContractLedger.bits(f.decision), f.outcomes, f.settlement)
        for f in store.decisions()
        if f.decision.user != but and not f.decision.is_remainder
    ]


def rebuilt(store: Store) -> bool:
    """Whether what is kept is what the rows give, and the rows are those that were committed."""
    return all(one.equal for one in audit.rebuild(store, audit.stages(store))) and list(store.damages()) == []


def never_was(store: Store, catalogue: Catalogue, gone: bytes) -> MemoryStore:
    """A ledger with the rows of all others, in which this person never was."""
    other = MemoryStore()
    audit.claim(other, catalogue, "salt")
    rows, specs = [f for f in store.decisions() if f.decision.user != gone], other.specs()
    for found in rows:
        other.record([found.decision], [], found.decision.at, specs)
        for outcome in found.outcomes:
            other.record([], [outcome], outcome.received, specs)
    number = {found.seq: i for i, found in enumerate(rows, 1)}
    done = sorted((f.settlement for f in rows if f.settlement), key=lambda s: s.seq)
    for one in done:
        other.settle([msgspec.structs.replace(one, seq=0, decision_seq=number[one.decision_seq])])
    return other


def test_forgetting_ends_in_the_bits_of_a_ledger_in_which_the_person_never_was(
    store: Store, working: Working, later: Later, shop: Catalogue
) -> None:
    with working(store, shop) as desk:
        desk.ask(901, user=GONE, age=33)  # on a day of her own, the first
        later(24 * HOURS)
        visits(desk, later)
        gone = engine.user_hash(desk.salt, GONE)
        apart = never_was(store, shop, gone)
        before = sums(store, shop.stages)
        live = {name: policy.snapshot.belief.digest() for name, policy in desk.worker.prepared.items()}
        erase(desk, forget=True)
        expected = {one.stage: bits(one.tally) for one in audit.rebuild(apart, shop.stages)}
        assert sums(store, shop.stages) == expected != before
        for name, stage in shop.stages.items():
            if stage.loss_share is not None:
                mine, theirs = (exposures.count(one, name, stage, one.last().decision) for one in (store, apart))
                kept = store.statistics(statistics_store.key_of(name, stage), (), 0).exposures
                assert kept is not None
                assert not exposures.differs(kept, exposures.stored(stage, theirs, kept.through))
                assert np.array_equal(mine.newest.x, theirs.newest.x)  # type: ignore[union-attr]
        assert rebuilt(store)
        desk.learn()
        learned = {one.stage: one.belief.digest() for one in audit.rebuild(apart, shop.stages)}
        now = {name: policy.snapshot.belief.digest() for name, policy in desk.worker.prepared.items()}
        assert now == learned != live  # it decides by what is left, although nothing has settled since
    apart.close()


def test_it_decides_by_what_is_left_also_where_nothing_is_open_and_nothing_settles(
    store: Store, working: Working, later: Later, shop: Catalogue
) -> None:
    with working(store, shop) as desk:
        visits(desk, later)
        later(24 * HOURS)
        desk.learn()
        assert store.counts().pending == 0
        apart = never_was(store, shop, engine.user_hash(desk.salt, GONE))
        before = {name: policy.snapshot.belief.digest() for name, policy in desk.worker.prepared.items()}
        later(1)
        erase(desk, forget=True)
        desk.learn()
        now = {name: policy.snapshot.belief.digest() for name, policy in desk.worker.prepared.items()}
        assert now == {one.stage: one.belief.digest() for one in audit.rebuild(apart, shop.stages)} != before
    apart.close()


def test_what_a_stage_began_with_is_forgotten_too(store: Store, working: Working, later: Later) -> None:
    """A stage of a higher schema begins with what the decisions of the earlier one teach it."""
    first = parse(CATALOGUE)
    linear = '[stages.signup]\npolicy = { name = "linear", prior_mean = 0.2 }\nfloor = 0.02'
    assert linear in CATALOGUE
    second = parse(CATALOGUE.replace(linear, "[stages.signup]\nschema = 2"))  # the default, centred
    with working(store, first) as desk:
        visits(desk, later)
        later(24 * HOURS)
        desk.learn()
        gone = engine.user_hash(desk.salt, GONE)
        apart = never_was(store, first, gone)
    audit.claim(apart, second, "salt")
    key, stage = statistics_store.key_of("signup", second.stages["signup"]), second.stages["signup"]
    rows, d = stage.belief_rows(stage.arms), len(features.of(stage).columns)

    def warm(one: Store) -> tuple[int, str]:
        begun = one.warm_start(key, rows, d)
        assert begun is not None
        return begun[0].rows, begun[1].digest()

    with working(store, second) as desk:
        assert warm(store) != warm(apart)
        erase(desk, forget=True)
        found = warm_start.again(store, second.stages)
        desk.worker.warm_again(second.stages, found).result()
        assert warm(store) == warm(apart)
        desk.learn()
        decides = desk.worker.prepared["signup"].snapshot.belief.digest()
        (known,) = [one for one in audit.rebuild(apart, second.stages) if one.stage == "signup"]
        assert decides == known.belief.digest()
        earlier = first.stages["signup"]
        kept = statistics_store.load(store, {"signup": earlier})["signup"]
        assert bits(kept) == bits(statistics_store.recount(apart, "signup", earlier, apart.first_settlement(key))[0])
        assert rebuilt(store)
    with closing(apart):
        assert offline.erase(apart, engine.user_hash(desk.salt, "bob"), 2**60, forget=True).found
        assert warm(apart) != warm(store)


def test_a_person_who_is_forgotten_is_in_no_answer_and_numbers_stay(
    store: Store, working: Working, later: Later, shop: Catalogue
) -> None:
    with working(store, shop) as desk:
        visits(desk, later)
        gone = engine.user_hash(desk.salt, GONE)
        kept, last = others(store, gone), store.last()
        ids = [f.decision.id for f in store.decisions() if f.decision.user == gone]
        erase(desk, forget=True)
        assert others(store, gone) == kept
        assert [row[0] for row in kept] == [f.seq for f in store.decisions()]
        assert store.decisions_by_id(ids) == {}
        assert store.last() == last
        assert not records.known(store, frozenset([gone]))
        assert not [
            one
            for key in shop.stages
            for one in store.person_rewards(statistics_store.key_of(key, shop.stages[key]), shop.stages[key].holdout)
            if one.user in (gone, b"")
        ]
        with pytest.raises(NotFound, match="erased"):
            desk.report(ids[0].int)
        visits_again = desk.ask(99, user=GONE)
        assert not visits_again.duplicate
        assert store.last().decision == last.decision + 1


def test_without_forgetting_nothing_that_was_learned_changes_and_receipts_of_others_hold(
    store: Store, working: Working, later: Later, shop: Catalogue
) -> None:
    with working(store, shop) as desk:
        visits(desk, later)
        gone = engine.user_hash(desk.salt, GONE)
        before, kept = sums(store, shop.stages), others(store, gone)
        erase(desk, forget=False)
        assert sums(store, shop.stages) == before
        assert others(store, gone) == kept
        left = [f for f in store.decisions() if f.decision.is_remainder]
        assert len(left) == 6
        assert len({f.decision.user for f in left}) == 1
        assert all(f.settlement for f in left)
        assert not {f.decision.id for f in left} & {uuid.UUID(int=n) for n in range(100)}
        for made in (f.decision for f in left):
            said = made.u, made.unit, made.request, made.evidence, set(made.excluded.values())
            assert said == (0.0, b"", b"", {}, {"excluded"} if made.excluded else set())
            assert set(made.notes) <= {CROSSED}
        assert all(o.id == str(i) for f in left for i, o in enumerate(f.outcomes, 1))
        assert {f.settlement.why for f in left if f.settlement} >= {"erased"}  # those of the last day were open
        later(24 * HOURS)
        desk.learn()
        assert rebuilt(store)
        for found in store.decisions():
            if not found.decision.is_remainder:
                assert audit.differences(store, found, desk.salt) == []
        assert not records.known(store, frozenset([gone]))


def test_receipts_of_others_who_came_before_and_after_hold_when_somebody_is_forgotten(
    store: Store, working: Working, later: Later, shop: Catalogue
) -> None:
    with working(store, shop) as desk:
        desk.ask(501, user="first of all", age=50)
        visits(desk, later)
        later(24 * HOURS)
        desk.learn()
        later(1)
        erase(desk, forget=True)
        later(1)
        desk.learn()
        desk.ask(502, user="last of all", age=50)
        specs, rest = store.specs(), 0
        for found in store.decisions():
            different = audit.differences(store, found, desk.salt)
            if not different:
                continue
            rest += 1
            assert audit.rests_on_forgotten(store, found)
            assert audit.drawn_as_recorded(found.decision, specs, different)
        assert rest > 0
        exact = store.decisions_by_id([uuid.UUID(int=501), uuid.UUID(int=502)])
        assert [audit.differences(store, one, desk.salt) for one in exact.values()] == [[], []]
        assert not audit.rests_on_forgotten(store, exact[uuid.UUID(int=502)])


def test_a_draw_that_was_changed_is_not_excused_by_somebody_who_is_forgotten(decide: Any) -> None:
    made: Decision = decide(1)
    specs = {made.stage_digest: parse(CATALOGUE).stages["signup"]}
    other = next(arm for arm in specs[made.stage_digest].arms if arm != made.arm)
    assert audit.drawn_as_recorded(made, specs, ["mean"])
    assert not audit.drawn_as_recorded(msgspec.structs.replace(made, arm=other), specs, ["mean"])
    assert not audit.drawn_as_recorded(made, specs, ["u"])


@pytest.mark.parametrize("forget", [False, True])
def test_erasing_again_finds_nothing_and_the_log_says_nobody(
    store: Store, working: Working, later: Later, catalogue: Catalogue, forget: bool
) -> None:
    with working(store) as desk:
        visits(desk, later)
        gone = engine.user_hash(desk.salt, GONE)
    first = offline.erase(store, gone, desk.clock(), forget=forget)
    assert (first.found, first.decisions, first.forgot) == (True, 6, forget)
    said = [store.erasures(), ContractLedger(store, catalogue).everything()]
    again = offline.erase(store, gone, desk.clock(), forget=forget)
    assert (again.found, again.decisions) == (False, 0)
    assert [store.erasures(), ContractLedger(store, catalogue).everything()] == said
    assert gone not in b"".join(msgspec.msgpack.encode(one) for one in store.erasures())
    assert rebuilt(store)


@pytest.fixture
def ledger_file(tmp_path: Path, working: Working, later: Later) -> Path:
    """The closed ledger of five people."""
    path = tmp_path / "ledger.db"
    with closing(SqliteStore(path)) as store, working(store) as desk:
        visits(desk, later, days=9)
    return path


@pytest.mark.parametrize("forget", [False, True])
def test_evaluations_say_whom_their_log_lacks(ledger_file: Path, forget: bool) -> None:
    ledger = ["--ledger", str(ledger_file), "--stage", "basket"]
    before = CliRunner().invoke(group, ["evaluate", *ledger])
    assert "people who stay" not in before.output
    with closing(SqliteStore(ledger_file)) as store:
        gone = engine.user_hash(audit.salt_of(store, "salt"), GONE)
        offline.erase(store, gone, 2**60, forget=forget)
        (said,) = ledger_log.of_those_who_stay(ledger_log.open_log(str(ledger_file), "basket"))
    lacks = "18 decisions (of all stages) of people who were forgotten, 20.00%"
    assert said.startswith(f"without {lacks if forget else '1 that were open when their person was erased, 1.11%'}")
    for command in ("evaluate", "monitor"):
        found = CliRunner().invoke(group, [command, *ledger, "--json"])
        assert said in json.loads(found.output)["notes"] if command == "monitor" else said in found.output


def test_a_message_that_was_being_sent_does_not_come_back_after_its_decision_was_erased(
    store: Store, working: Working, later: Later, catalogue: Catalogue
) -> None:
    with working(store) as desk:
        visits(desk, later, days=1)
        endpoint = Endpoint(url="http://127.0.0.1:9/", secret="whsec_" + "A" * 32)
        sender = EndpointSender("crm", endpoint, catalogue, store, desk.worker, desk.clock, Metrics())
        gone, stays = (
            [f.decision.id for f in store.decisions() if (f.decision.user == engine.user_hash(desk.salt, GONE)) is hers]
            for hers in (True, False)
        )
        sender.begin()
        events = [f"{kind}:{i}" for kind in ("decision", "reward") for i in (gone[0], stays[0])] + ["drift:signup:0:1"]
        put = [WebhookDelivery("crm", event, b"{}", 1, 0, "refused", dead=False, at=0) for event in events]
        erase(desk, forget=False)
        cursor = store.webhook_cursor("crm")
        assert cursor is not None
        sender._move(cursor, put, [])
        kept = {one.event for one in store.webhook_deliveries(dead=False)}
        assert kept == {f"decision:{stays[0]}", f"reward:{stays[0]}", "drift:signup:0:1"}


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("forget", [False, True])
@pytest.mark.parametrize("step", range(5))
def test_an_erasure_that_was_cut_off_goes_on(
    ledger_file: Path, forget: bool, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine days make 18 decisions of one person: with 4 a step, five steps and the end."""
    monkeypatch.setattr("api.ledger.erasure.AT_ONCE", 4)
    real, calls = SqliteStore.erase_decisions, []

    def cut(self: SqliteStore, *args: Any) -> bool:
        calls.append(1)
        if len(calls) > step:
            raise Killed
        return real(self, *args)

    with closing(SqliteStore(ledger_file)) as store:
        salt = audit.salt_of(store, "salt")
        gone = engine.user_hash(salt, GONE)
        kept = others(store, gone)
        monkeypatch.setattr(SqliteStore, "erase_decisions", cut)
        with pytest.raises(Killed):
            offline.erase(store, gone, 2**60, forget=forget)
        monkeypatch.setattr(SqliteStore, "erase_decisions", real)
        assert len(store.erasures_under_way()) == 1
        assert rebuilt(store)
    with closing(SqliteStore(ledger_file)) as store:
        done = offline.erase(store, engine.user_hash(salt, "nobody"), 2**60, forget=forget)
        assert not done.found
        assert not records.known(store, frozenset([gone]))
        assert store.erasures_under_way() == []
        assert sum(one.decisions for one in store.erasures()) == 18
        assert others(store, gone) == kept
        assert rebuilt(store)


@pytest.mark.parametrize("forget", [False, True])
@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE decisions SET u = 0.25 WHERE seq = 1", "decisions 1 to"),  # what is left of an erased one
        ("UPDATE decisions SET u = u / 2 WHERE seq = 4", "decisions 4 to"),
        ("UPDATE outcomes SET value = 0.5 WHERE seq = 1", "outcomes 1 to"),
        ("UPDATE settlements SET tau = tau + 1 WHERE seq = 1", "settlements 1 to"),
        ("UPDATE seals SET rows = x'00' WHERE seq = 1", "seals 1 to"),
        ("DELETE FROM seals WHERE seq = 2", "among"),
        ("UPDATE erasures SET decisions = 0 WHERE seq = 1", "erasures 1 to"),
    ],
)
def test_a_change_that_no_erasure_made_is_found_afterwards(
    ledger_file: Path, forget: bool, statement: str, said: str
) -> None:
    with closing(SqliteStore(ledger_file)) as store:
        gone = engine.user_hash(audit.salt_of(store, "salt"), GONE)
        offline.erase(store, gone, 2**60, forget=forget)
        assert list(store.damages()) == []
    with closing(sqlite3.connect(ledger_file)) as conn:
        assert conn.execute(statement).rowcount == 1
        conn.commit()
        found = list(commits.unlike(conn))
    assert any(said in one for one in found), found


def test_a_large_commit_is_prepared_in_several_transactions(ledger_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the one that a ledger of an earlier version is sealed in."""
    with closing(sqlite3.connect(ledger_file)) as conn:
        conn.execute("DELETE FROM commits")
        commits.CommitChain(15).seal(conn)
        conn.commit()
        assert list(commits.unlike(conn)) == []
    monkeypatch.setattr("api.stores.sql.erasure_log._MOST", 64)
    with closing(SqliteStore(ledger_file)) as store:
        gone = engine.user_hash(audit.salt_of(store, "salt"), GONE)
        answers, real = list[bool](), SqliteStore.erase_decisions

        def heard(self: SqliteStore, *args: Any) -> bool:
            answers.append(real(self, *args))
            return answers[-1]

        monkeypatch.setattr(SqliteStore, "erase_decisions", heard)
        assert offline.erase(store, gone, 2**60, forget=True).decisions == 18
        assert answers.count(False) >= 2
        assert rebuilt(store)
