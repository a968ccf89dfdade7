"""One contract, every store: events are recorded once, ids are joined, the journey kept equals the fold."""

import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.stores import ingest
from api.stores.event_log import IngestResult
from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from api.stores.sqlite.store import SqliteStore
from bandit import engine, features
from bandit.belief import empty
from bandit.catalogue.loading import parse
from bandit.catalogue.model import Catalogue
from bandit.engine import DecisionQuery
from bandit.errors import LedgerError
from bandit.journey import attribution, folding
from bandit.journey.folding import JourneyFold, JourneyState
from bandit.records import NOT_NOW, Decision, Event
from bandit.snapshot import Snapshot

TEXT = (Path(__file__).parents[2] / "journey_shop.toml").read_text(encoding="utf-8")
START = 1_760_000_000_000_000
MINUTE, HOUR = 60_000_000, 3_600_000_000
SHOP = parse(TEXT)
RULES = folding.rules(SHOP)
NAMES = ("viewed", "added", "ordered", "refunded", "seen", "paying", "")
PEOPLE = ("ann", "bob", "anon-1", "anon-2")

each_store = pytest.mark.parametrize("kind", ["memory", "sqlite"])


class Ledger:
    """A store of the shop, called as the worker calls it."""

    def __init__(self, store: Store):
        self.store = store
        store.register(SHOP.stages)
        self.specs = store.specs()

    def take(self, *events: Event, now: int = START) -> IngestResult:
        with self.store.atomic():
            self.store.record([], [], now, self.specs)
            return self.store.ingest(events, now, self.specs, RULES)

    def decided(self, *decisions: Decision) -> None:
        self.store.record(decisions, [], START, self.specs)

    def outcomes(self) -> dict[int, list[tuple[str, str, float | None]]]:
        found = self.store.decisions()
        return {f.decision.id.int: sorted((o.id, o.kind, o.value) for o in f.outcomes) for f in found if f.outcomes}


@pytest.fixture
def ledger(store: Store) -> Ledger:
    return Ledger(store)


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[Ledger]:
    store: Store = MemoryStore() if kind == "memory" else SqliteStore(folder / f"{uuid.uuid4()}.db")
    try:
        yield Ledger(store)
    finally:
        store.close()


def user(name: str) -> bytes:
    return engine.user_hash(b"s", name)


def event(
    id_: str, name: str = "viewed", who: str = "ann", at: int = 0, alias: str | None = None, **kept: Any
) -> Event:
    when = START + at
    return Event(
        id=id_,
        user=user(who),
        alias=user(alias) if alias else None,
        at=when,
        received=when,
        name=name,
        properties=kept,
    )


def decision(n: int, stage: str = "basket", who: str = "ann", at: int = 0, moment: str = "") -> Decision:
    spec = SHOP.stages[stage]
    d = len(features.schema(spec.features).columns)
    live = engine.prepare(Snapshot("shop", stage, spec, 0, empty(len(spec.arms), d)))
    ask = DecisionQuery(id=uuid.UUID(int=n), user_id=who, context={}, moment=moment)
    return engine.decide(live, ask, now=START + at, salt=b"s")


# -- recording -----------------------------------------------------------------------------------------------------


def test_an_event_comes_back_as_it_was(ledger: Ledger) -> None:
    made = [
        event("1", product="é👩‍👩‍👧", price=0.1, known=True),
        event("2; DROP TABLE events; --", at=-5, alias="anon-1"),
        event("3", "", at=7, count=1e15, text="nul\0inside"),
    ]
    assert ledger.take(*made).taken == ["recorded"] * 3
    assert ledger.store.events([user("ann")]) == sorted(made, key=folding.order)
    assert ledger.store.recorded_events(["4", "3", made[1].id]) == {"3", made[1].id}
    assert ledger.store.recorded_events([]) == set()


def test_a_late_event_costs_a_bounded_part_of_a_long_journey_and_ends_as_if_all_were_folded(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folded events are counted: with 20 that may be late, at most 40 and the two that came since, of 500."""
    monkeypatch.setattr(ingest, "LATE", 20)
    folded, step = list[str](), folding._next

    def counting(rules: JourneyFold, state: JourneyState, one: Event) -> JourneyState:
        folded.append(one.id)
        return step(rules, state, one)

    monkeypatch.setattr(folding, "_next", counting)
    names = [NAMES[i % len(NAMES)] for i in range(500)]
    ledger.take(*(event(f"e{i}", name, at=i * MINUTE) for i, name in enumerate(names)))
    folded.clear()
    assert ledger.take(event("first", at=490 * MINUTE - 1)).taken == ["recorded"]
    assert len(folded) == 21, "from where the first fold could begin again"
    for n in range(60):
        folded.clear()
        ledger.take(event(f"on{n}", "added", at=(500 + n) * MINUTE))
        assert len(folded) == 1
        folded.clear()
        assert ledger.take(event(f"late{n}", "viewed", at=(495 + n) * MINUTE + 7)).taken == ["recorded"]
        assert len(folded) <= 42
    state = ledger.store.person(user("ann"), 10).state
    assert state == folding.fold(RULES, ledger.store.events([user("ann")]))
    assert state
    assert state.count == 621


def test_an_event_that_more_than_so_many_followed_is_refused_and_leaves_no_trace(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "LATE", 20)
    ledger.take(*(event(f"e{i}", at=i * MINUTE) for i in range(30)))
    before = ledger.store.person(user("ann"), 10)
    late, again, other = event("late", at=5 * MINUTE), event("e3", at=3 * MINUTE), event("x", who="bob", at=5 * MINUTE)
    assert ledger.take(late, again, other).taken == ["refused", "duplicate", "recorded"]
    assert ledger.store.person(user("ann"), 10) == before
    assert ledger.take(event("edge", at=9 * MINUTE)).taken == ["recorded"]


def test_a_journey_that_is_not_what_was_remembered_is_folded_from_the_beginning(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered is of a transaction that was given up."""
    monkeypatch.setattr(ingest, "LATE", 20)
    ledger.take(*(event(f"e{i}", at=i * MINUTE) for i in range(100)))
    for i in range(100, 125):
        ledger.take(event(f"e{i}", at=i * MINUTE))
    if isinstance(ledger.store, MemoryStore):
        pytest.skip("it gives nothing up")
    ghost = [event("ghost", "added", at=105 * MINUTE - 1)]

    def given_up() -> None:
        with ledger.store.atomic():
            ledger.store.ingest(ghost, START, ledger.specs, RULES)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        given_up()
    ledger.take(event("late", "added", at=115 * MINUTE - 1))
    everything = ledger.store.events([user("ann")])
    assert len(everything) == 126
    assert ledger.store.person(user("ann"), 10).state == folding.fold(RULES, everything)


def test_so_many_of_the_newest_reports_are_attributed_together(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "REPORTS", 10)
    asked, attribute = list[int](), attribution.attribute

    def counting(rules: JourneyFold, events: Sequence[Event], *rest: Any) -> Any:
        asked.append(len(events))
        return attribute(rules, events, *rest)

    monkeypatch.setattr(attribution, "attribute", counting)
    ledger.decided(decision(1))
    for i in range(30):
        ledger.take(event(f"o{i}", "ordered", at=(i + 1) * 1_000_000, order=f"n{i}", total=1.0))
    ledger.take(event("early", "ordered", at=1_500_000, order="first", total=1.0))
    assert max(asked) == 11
    assert len(ledger.outcomes()[1]) == 31


def test_reports_are_credited_to_so_many_of_the_newest_decisions_and_older_ones_keep_their_credits(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a person with 60 decisions, 9 are looked at for each report. An order before them is taken back all the same,
    is not counted again when it is told again, and moves to no other decision.
    """
    monkeypatch.setattr(ingest, "DECISIONS", 8)
    looked, attribute = list[int](), attribution.attribute

    def counting(rules: JourneyFold, events: Sequence[Event], candidates: Sequence[Any], credits_: Any) -> Any:
        looked.append(len(candidates))
        return attribute(rules, events, candidates, credits_)

    monkeypatch.setattr(attribution, "attribute", counting)
    second = 1_000_000
    for n in range(1, 61):
        ledger.decided(decision(n, at=n * second))
        if n in (1, 2, 60):
            told = event(f"o{n}", "ordered", at=n * second + 1, order=f"n{n}", total=float(n))
            assert ledger.take(told, now=told.received).credits[told.id].credited
    assert looked == [1, 2, 9]
    before = ledger.outcomes()
    assert {n: [value for _, _, value in found] for n, found in before.items()} == {1: [1.0], 2: [1.0], 60: [1.0]}
    again = event("again", "ordered", at=second + 2, order="n1", total=9.0)
    ahead = event("ahead", "ordered", at=second - 1, order="n1", total=9.0)
    now = START + 61 * second
    for told, reason in ((again, "same fact"), (ahead, "same fact")):
        assert ledger.take(told, now=now).credits[told.id].missed["basket"].reason == reason
    assert ledger.outcomes() == before
    unknown = event("unknown", "ordered", at=3 * second + 1, order="n3", total=3.0)
    assert ledger.take(unknown, now=now).credits["unknown"].missed["basket"].reason == "no open decision"
    ledger.take(event("back", "refunded", at=60 * second + 2, order="n1"), now=now)
    (kept,) = [one for one in ledger.outcomes()[1] if one not in before[1]]
    assert kept[1] == "retraction"
    assert ledger.outcomes().keys() == before.keys()
    assert max(looked) == 9


def test_the_same_event_again_changes_nothing_and_other_content_is_a_conflict(ledger: Ledger) -> None:
    first = event("1", product="shoe")
    ledger.take(first)
    before = ledger.store.person(user("ann"), 10)
    later = msgspec.structs.replace(first, at=START + 5, received=START + 9)
    other = msgspec.structs.replace(first, name="added")
    assert ledger.take(first, later, other, event("2"), event("2")).taken == [
        "duplicate",
        "duplicate",
        "conflict",
        "recorded",
        "duplicate",
    ]
    after = ledger.store.person(user("ann"), 10)
    assert after.state
    assert before.state
    assert (after.state.count, before.state.count) == (2, 1)
    assert len(ledger.store.events([user("ann")])) == 2


def test_events_and_what_they_report_are_one_transaction(ledger: Ledger) -> None:
    class Torn(Exception):
        pass

    def fail(store: Store) -> None:
        with store.atomic():
            store.record([decision(1)], [], START, ledger.specs)
            store.ingest([event("1", "ordered", at=5)], START, ledger.specs, RULES)
            raise Torn

    if isinstance(ledger.store, MemoryStore):
        pytest.skip("what ends with the process cannot be torn by its end")
    with pytest.raises(Torn):
        fail(ledger.store)
    assert ledger.store.counts().decisions == 0
    assert ledger.store.events([user("ann")]) == []
    assert ledger.store.person(user("ann"), 10).state is None


def test_whoever_is_written_after_strangers_were_asked_about_is_found(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    one = Ledger(SqliteStore(path))
    for i in range(10):  # the filter of known users is complete after four
        assert one.store.person(user(f"stranger-{i}"), 10).state is None
    one.decided(decision(1))
    one.take(event("1", "added", "anon-1"), event("2", "", "bob", 5, "anon-1"), event("3", "", "eve", 5, "anon-2"))
    with_query = SqliteStore(path, read_only=True)
    for who in (*PEOPLE, "eve", "nobody"):
        assert one.store.person(user(who), 10) == with_query.person(user(who), 10)
    assert one.store.person(user("ann"), 10).asked
    assert one.store.person(user("anon-1"), 10).root == user("bob")
    with_query.close()
    one.store.close()


def test_a_reopened_file_knows_events_people_and_credits(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    one = Ledger(SqliteStore(path))
    one.decided(decision(1))
    one.take(event("1", "added", "anon-1"), event("2", "ordered", "ann", 5, "anon-1", order="A"))
    before = one.store.person(user("anon-1"), 10), one.outcomes()
    one.store.close()
    two = Ledger(SqliteStore(path))
    assert (two.store.person(user("anon-1"), 10), two.outcomes()) == before
    assert two.take(event("2", "ordered", "ann", 5, "anon-1", order="A")).taken == ["duplicate"]
    assert two.outcomes() == before[1]
    two.store.close()


def test_a_file_of_the_first_version_is_brought_up_to_date(tmp_path: Path, claimed: Callable[..., Any]) -> None:
    """Decisions without the new columns are read as decisions whose caller named the stage."""
    path = tmp_path / "old.db"
    made = decision(1)
    one = Ledger(SqliteStore(path))
    one.decided(made)
    one.store.close()
    conn = sqlite3.connect(path)
    conn.execute("ALTER TABLE decisions DROP COLUMN moment")
    conn.execute("ALTER TABLE outcomes DROP COLUMN reporter")
    for name in ("events", "links", "owners", "journeys", "credits"):
        conn.execute(f"DROP TABLE {name}")
    conn.execute("DROP INDEX decisions_user")
    conn.execute("DELETE FROM _sqlite_migrations WHERE name IN ('events', 'reporters')")
    conn.commit()
    conn.close()
    two = Ledger(SqliteStore(path))
    (found,) = two.store.decisions()
    assert (found.decision.id, found.decision.moment) == (made.id, "")
    assert two.take(event("1")).taken == ["recorded"]
    two.store.close()


# -- identities ----------------------------------------------------------------------------------------------------


def test_what_was_done_under_an_anonymous_id_belongs_to_the_user_it_became(ledger: Ledger) -> None:
    ledger.take(event("1", who="anon-1", product="shoe"), event("2", who="anon-1", at=1, product="shoe"))
    ledger.take(event("3", "", "ann", 2, alias="anon-1"), event("4", who="anon-1", at=3, product="shoe"))
    for who in ("ann", "anon-1"):
        person = ledger.store.person(user(who), 10)
        assert (person.root, person.ids) == (user("ann"), frozenset({user("ann"), user("anon-1")}))
        assert person.state
        assert person.state.count == 4
        assert folding.read(RULES, person.state, START + 5).moment == "hesitates"


def test_an_alias_belongs_to_the_owner_of_its_earliest_link_whatever_came_first(ledger: Ledger) -> None:
    late, early = event("b", "", "bob", 9, "anon-1"), event("a", "", "ann", 5, "anon-1")
    ledger.take(event("1", who="anon-1"))
    ledger.take(late)
    assert ledger.store.person(user("anon-1"), 10).root == user("bob")
    change = ledger.take(early)
    assert {user("ann"), user("bob")} <= set(change.moved)
    assert ledger.store.person(user("anon-1"), 10).root == user("ann")
    bob = ledger.store.person(user("bob"), 10)
    assert bob.ids == {user("bob")}
    assert bob.state
    assert bob.state.count == 1


def test_links_that_go_round_have_one_root(ledger: Ledger) -> None:
    ledger.take(event("1", "", "ann", 1, "bob"), event("2", "", "bob", 2, "anon-1"), event("3", "", "anon-1", 3, "ann"))
    person, *others = [ledger.store.person(user(who), 10) for who in ("ann", "bob", "anon-1")]
    assert others == [person, person]
    assert person.ids == {user("ann"), user("bob"), user("anon-1")}
    assert person.state
    assert person.state.count == 3


# -- the promise ---------------------------------------------------------------------------------------------------

told = st.lists(
    st.tuples(
        st.integers(0, 400),  # minutes
        st.sampled_from(NAMES),
        st.sampled_from(PEOPLE),
        st.none() | st.sampled_from(PEOPLE),
        st.sampled_from(["A", "B"]),
    ),
    min_size=1,
    max_size=14,
)


def story(steps: Sequence[tuple[int, str, str, str | None, str]]) -> list[Event]:
    keyed = {"viewed": "product", "added": "product", "ordered": "order", "refunded": "order"}
    return [
        event(
            f"e{i:02d}",
            name,
            who,
            minutes * MINUTE,
            alias if alias != who else None,
            **({keyed[name]: key} if name in keyed else {}),
        )
        for i, (minutes, name, who, alias, key) in enumerate(steps)
    ]


@each_store
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None, derandomize=True)
@given(told, st.data())
def test_the_journey_kept_is_the_fold_of_any_interleaving(
    kind: str, tmp_path: Path, steps: Any, data: st.DataObject
) -> None:
    """Events arrive in any order, again, in any batches; every prefix keeps the promise, all orders end alike."""
    events = story(steps)
    arrivals = data.draw(st.permutations(events + data.draw(st.lists(st.sampled_from(events), max_size=5))))
    with opened(kind, tmp_path) as one, opened(kind, tmp_path) as two:
        while arrivals:
            size = data.draw(st.integers(1, len(arrivals)))
            one.take(*arrivals[:size])
            arrivals = arrivals[size:]
            _check_fold(one)
        two.take(*sorted(events, key=folding.order))
        for who in PEOPLE:
            assert one.store.person(user(who), 10) == two.store.person(user(who), 10)


def _check_fold(ledger: Ledger) -> None:
    for who in PEOPLE:
        person = ledger.store.person(user(who), 10)
        everything = ledger.store.events(person.ids)
        assert person.state == (folding.fold(RULES, everything) if everything else None)
        assert user(who) in person.ids
        assert all(ledger.store.person(one, 10).root == person.root for one in person.ids)


# -- outcomes from events --------------------------------------------------------------------------------------------


def test_an_order_rewards_the_decision_of_the_person_behind_both_ids(ledger: Ledger) -> None:
    ledger.decided(decision(1, who="anon-1"))
    ledger.take(event("o", "ordered", "ann", 5, order="A"))
    assert ledger.outcomes() == {}
    ledger.take(event("i", "", "ann", 9, "anon-1"))  # who ann was is said later
    assert ledger.outcomes() == {1: [("event:o", "reward", 1.0)]}


def test_outcomes_of_events_are_recorded_once_whatever_comes_again(ledger: Ledger) -> None:
    ledger.decided(decision(1), decision(2, at=HOUR))
    order, refund = event("o", "ordered", at=5, order="A"), event("r", "refunded", at=9, order="A")
    for _ in range(3):
        ledger.take(refund, order, refund)
        ledger.take(event("i", "", "ann", 20, "anon-1"))
    assert ledger.outcomes() == {1: [("event:o", "reward", 1.0), ("event:r", "retraction", None)]}


def test_an_event_after_the_decision_was_settled_is_recorded_late(ledger: Ledger) -> None:
    ledger.decided(decision(1))
    late = 73 * HOUR
    ledger.take(event("o", "ordered", at=5, order="A"), now=START + late)
    (found,) = ledger.store.decisions_by_id([uuid.UUID(int=1)]).values()
    assert [(o.id, o.late) for o in found.outcomes] == [("event:o", True)]


def test_a_decision_of_no_moment_is_never_due_and_credited_with_nothing(ledger: Ledger) -> None:
    ledger.decided(decision(1, moment=NOT_NOW), decision(2, at=-HOUR))
    ledger.take(event("o", "ordered", at=5, order="A"))
    assert ledger.outcomes() == {2: [("event:o", "reward", 1.0)]}
    assert [m.decision.id.int for m in ledger.store.matured(START + 10**15, 10, list(SHOP.stages))] == [2]
    assert [f.decision.id.int for f in ledger.store.open_decisions("basket")] == [2]
    assert [f.decision.id.int for f in ledger.store.open_decisions("basket", ledger.store.last())] == [2]


@each_store
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None, derandomize=True)
@given(told, st.data())
def test_credits_end_the_same_when_ids_are_known_from_the_start(
    kind: str, tmp_path: Path, steps: Any, data: st.DataObject
) -> None:
    """Without links, in whatever order events come, rewards are the same and nobody owes more than was given."""
    events = [msgspec.structs.replace(e, alias=None) for e in story(steps) if e.name != "seen"]
    decisions = [decision(n + 1, ("basket", "look")[n % 2], PEOPLE[n % 4], n * 20 * MINUTE) for n in range(10)]
    if not events:
        return
    with opened(kind, tmp_path) as one, opened(kind, tmp_path) as two:
        one.decided(*decisions)
        two.decided(*decisions)
        one.take(*events)
        for late in data.draw(st.permutations(events)):
            two.take(late)
        rewards = [
            {n: [o for o in found if o[1] == "reward"] for n, found in ledger.outcomes().items()}
            for ledger in (one, two)
        ]
        assert rewards[0] == rewards[1]
        net = [
            {
                n: sum((v or 0) * (1 if k == "reward" else -1) for _, k, v in found)
                for n, found in ledger.outcomes().items()
            }
            for ledger in (one, two)
        ]
        assert all(value >= 0.0 for each in net for value in each.values())


def test_a_read_only_file_takes_no_events(tmp_path: Path) -> None:
    Ledger(SqliteStore(tmp_path / "shop.db")).store.close()
    store = SqliteStore(tmp_path / "shop.db", read_only=True)
    with pytest.raises(LedgerError, match="read-only"):
        store.ingest([event("1")], START, store.specs(), RULES)
    store.close()


def rules_of(catalogue: Catalogue) -> JourneyFold:
    return folding.rules(catalogue)


def test_a_journey_of_older_declarations_is_folded_again(ledger: Ledger) -> None:
    ledger.take(event("1"), event("2", at=45 * MINUTE))
    patient = rules_of(parse(TEXT.replace('visit = "30m"', 'visit = "60m"')))
    ledger.store.ingest([event("3", at=50 * MINUTE)], START, ledger.specs, patient)
    state = ledger.store.person(user("ann"), 10).state
    assert state == folding.fold(patient, ledger.store.events([user("ann")]))
    assert state.visits == 1
