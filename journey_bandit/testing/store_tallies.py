"""One contract, every store: decisions and settlements as they are counted, and as they are searched."""

from collections.abc import Callable
from typing import Any

import msgspec

from api.stores.decision_log import LAST, DecisionFilter, DecisionTally
from api.stores.erasure_log import ErasedDecision
from api.stores.protocol import Store
from bandit.catalogue.loading import parse
from bandit.journey import folding
from bandit.records import NOT_NOW, Decision, Event
from journey_bandit.testing.store_builders import CATALOGUE, HOUR, START, ContractLedger, Decide, Report, decisions_of
from journey_bandit.testing.store_erasures import of
from journey_bandit.testing.store_erasures import settled as ended
from journey_bandit.testing.store_settlements import settlement

_WINDOW = 'window = "1h", value = 10.0'
DAY = 24 * HOUR
TODAY = START // DAY


def alike(store: Store, after: int = 0, through: int = LAST) -> list[DecisionTally]:
    """Tallies in an order of their own."""
    return sorted(store.tally_decisions(after, through).alike, key=lambda one: (one[:5], sorted(one.excluded.items())))


class StoreTalliesContract:
    """Contract of counting: ranges add up to the whole, corrections add differences, what is erased counts no more.
    Searching finds what fits, the newest first. `stores.StoreContract` has the fixtures.
    """

    def test_decisions_are_counted_by_what_they_have_in_common(self, ledger: Any, decide: Decide) -> None:
        ledger.decided(*_several(decide))
        tip, call = {"call": "cap: 1 of this nudge per 7d"}, {"tip": "quiet hours: 22:00 to 7:00 UTC"}
        counted = [(*one[:5], one.excluded, one.decisions) for one in alike(ledger.store)]
        assert counted == [
            ("basket", "none", TODAY, True, True, {}, 1),
            ("signup", "call", TODAY + 1, False, True, call, 1),
            ("signup", "tip", TODAY, False, False, tip, 1),
            ("signup", "tip", TODAY, False, True, tip, 2),
        ]
        users = ledger.store.tally_decisions(0, LAST).users
        assert {stage: len(found) for stage, found in users.items()} == {"basket": 1, "signup": 2}

    def test_ranges_of_decisions_add_up(self, ledger: Any, decide: Decide) -> None:
        ledger.decided(*_several(decide))
        parts = [one for at in range(5) for one in alike(ledger.store, at, at + 1)]
        assert sum(one.decisions for one in parts) == sum(one.decisions for one in alike(ledger.store)) == 5
        assert [one.arm for one in alike(ledger.store, 3, 4)] == ["call"]
        assert alike(ledger.store, 5) == []

    def test_a_correction_adds_the_difference(
        self, store: Store, claimed: Callable[..., ContractLedger], outcome: Report
    ) -> None:
        catalogue = parse(CATALOGUE.replace(_WINDOW, f'{_WINDOW}, grace = "2h"'))
        graceful, decide = claimed(store, catalogue), decisions_of(catalogue)
        graceful.decided(decide(1), decide(2), decide(3))
        learned = settlement(2, reward=0.5)
        store.settle([settlement(1, reward=0.0, why="silence"), learned, settlement(3, learned=False, why="holdout")])
        (whole,) = store.tally_settlements(0, 3)
        assert whole == (learned.stage, learned.arm, 3, 2, 0.5)
        graceful.reported(outcome(1), now=START + HOUR)
        store.settle([settlement(1, corrects=1, outcomes=1, reward=1.0)])
        graceful.reported(outcome(1, name="again"), now=START + HOUR + 1)
        store.settle([settlement(1, corrects=1, outcomes=2, reward=0.25, learned=False, why="held")])
        assert store.tally_settlements(3, 4) == [(learned.stage, learned.arm, 0, 0, 1.0)]
        assert store.tally_settlements(4, 5) == [(learned.stage, learned.arm, 0, -1, -1.0)]
        assert store.tally_settlements(0, LAST) == [(learned.stage, learned.arm, 3, 1, 0.5)]
        assert store.tally_settlements(5, LAST) == []

    def test_what_is_erased_counts_no_more_and_a_remainder_is_nobodys(self, ledger: Any, decide: Decide) -> None:
        ann, bob, store = decide(1, user="ann"), decide(2, user="bob"), ledger.store
        ledger.decided(ann, bob)
        store.settle([ended(1, ann), ended(2, bob)])
        erasure = store.begin_erasure(of(ann.user))
        store.erase_decisions([erasure], START, [ErasedDecision(one) for one in store.erasable([ann.user], 9)])
        assert sum(one.decisions for one in alike(store)) == 1
        assert sum(one.settled for one in store.tally_settlements(0, LAST)) == 1
        assert store.tally_decisions(0, LAST).users == {"signup": {bob.user}}
        less = store.begin_erasure(of(bob.user, forget=False, number=bytes(16)))
        (found,) = store.erasable([bob.user], 9)
        left = msgspec.structs.replace(bob, id=decide(77).id, user=less.pseudonym(bob.user), request=b"")
        store.erase_decisions([less], START, [ErasedDecision(found, left)])
        assert [(one.arm, one.decisions) for one in alike(store)] == [(bob.arm, 1)]
        assert [one.settled for one in store.tally_settlements(0, LAST)] == [1]
        assert store.tally_decisions(0, LAST).users == {}

    def test_a_search_finds_what_fits_the_newest_first(self, ledger: Any, decide: Decide) -> None:
        made, store = _several(decide), ledger.store
        ledger.decided(*made)

        def found(above: int = 0, before: int = LAST, most: int = 9, **wanted: Any) -> list[int]:
            return [one.seq for one in store.decisions_found(DecisionFilter(**wanted), above, before, most)]

        ann = made[0].user
        assert found() == [5, 4, 3, 2, 1]
        assert found(most=2) == [5, 4]
        assert found(above=1, before=4) == [3, 2]
        assert found(stage="signup") == [4, 3, 2, 1]
        assert found(stage="signup", arm="call") == [4]
        assert found(arm="no such") == []
        assert found(users=frozenset([ann])) == [4, 3, 1]
        assert found(users=frozenset([ann]), above=1, before=4, arm="tip") == [3]
        assert found(users=frozenset([ann, made[1].user]), most=2) == [4, 3]
        assert found(since=START + DAY) == [4]
        assert found(until=START + DAY) == [5, 3, 2, 1]
        (one,) = store.decisions_found(DecisionFilter(arm="call"), 0, LAST, 9)
        assert ledger.bits(one.decision) == ledger.bits(made[3])

    def test_outcomes_are_read_in_the_order_in_which_they_came(
        self, ledger: Any, decide: Decide, outcome: Report
    ) -> None:
        ledger.decided(decide(1), decide(2, "basket"), decide(3, at=START + 5))
        void = msgspec.structs.replace(outcome(3, name="undo"), voids="order")
        ledger.reported(outcome(3, name="order"), outcome(2), outcome(1, value=0.0), void)

        def found(*asked: Any) -> list[tuple[Any, ...]]:
            read = ledger.store.outcomes_after(*asked)
            return [(one.seq, one.decision_seq, one.decided - START, one.voids, one.outcome.id) for one in read]

        every = [(1, 3, 5, 0, "order"), (3, 1, 0, 0, "reward"), (4, 3, 5, 1, "undo")]
        assert found("signup", 0, 9) == every
        assert found("signup", 1, 1) == every[1:2]
        assert found("basket", 0, 9) == [(2, 2, 0, 0, "reward")]
        assert ledger.store.outcomes_after("basket", 0, 9)[0].outcome == outcome(2)
        store, ann = ledger.store, decide(1).user
        erasure = store.begin_erasure(of(ann))
        store.erase_decisions([erasure], START, [ErasedDecision(one) for one in store.erasable([ann], 9)])
        assert found("signup", 0, 9) == found("basket", 0, 9) == []

    def test_settlements_of_a_stage_are_read_with_the_times_of_their_decisions(
        self, store: Store, claimed: Callable[..., ContractLedger], outcome: Report
    ) -> None:
        catalogue = parse(CATALOGUE.replace(_WINDOW, f'{_WINDOW}, grace = "2h"'))
        graceful, decide = claimed(store, catalogue), decisions_of(catalogue)
        made = [decide(1, user="ann"), decide(2, "basket"), decide(3, user="bob", at=START + 5)]
        graceful.decided(*made)
        told = [ended(3, made[2]), ended(2, made[1]), ended(1, made[0])]
        store.settle(told)
        graceful.reported(outcome(3), now=START + HOUR)
        told.append(msgspec.structs.replace(told[0], corrects=1, outcomes=1, reward=1.0))
        store.settle(told[-1:])

        def found(*asked: Any) -> list[tuple[Any, ...]]:
            read = store.stage_settlements_after(*asked)
            numbered = [(n, msgspec.structs.replace(one, seq=n)) for n, one in enumerate(told, 1)]
            assert [one.settlement for one in read] == [dict(numbered)[one.settlement.seq] for one in read]
            assert all(one.decision == made[one.settlement.decision_seq - 1].id for one in read)
            return [(one.settlement.seq, one.decided - START) for one in read]

        assert found("signup", 0, 9) == [(1, 5), (3, 0), (4, 5)]
        assert found("signup", 1, 1) == [(3, 0)]
        assert found("basket", 0, 9) == [(2, 0)]
        assert found("no such", 0, 9) == found("signup", 4, 9) == []
        erasure = store.begin_erasure(of(made[2].user))
        store.erase_decisions([erasure], START, [ErasedDecision(one) for one in store.erasable([made[2].user], 9)])
        assert found("signup", 0, 9) == [(3, 0)]

    def test_events_are_read_in_the_order_in_which_they_came(self, ledger: Any) -> None:
        store, (ann, bob) = ledger.store, (bytes([n]) * 16 for n in (1, 2))
        assert store.last_event() == 0
        told: dict[str, Any] = {"received": START, "name": "order", "properties": {"value": 3.5}}
        made = [Event(id=f"e{n}", user=user, at=START - n, **told) for n, user in enumerate((ann, bob, ann))]
        store.ingest(made, START, store.specs(), folding.rules(parse(CATALOGUE)))
        assert store.events_after(0, 9) == list(enumerate(made, 1))
        assert store.events_after(1, 1) == [(2, made[1])]
        erasure = store.begin_erasure(of(ann))
        store.erase_events([erasure], START, 9)
        assert store.events_after(0, 9) == [(2, made[1])]
        assert store.last_event() == 3


def _several(decide: Decide) -> list[Decision]:
    """Five decisions at two stages, on two days, of two people and one of the control group."""
    tip: dict[str, Any] = {"arm": "tip", "excluded": {"call": "cap: 1 of this nudge per 7d"}, "holdout": False}
    call: dict[str, Any] = {"arm": "call", "excluded": {"tip": "quiet hours: 22:00 to 7:00 UTC"}, "at": START + DAY}
    return [
        msgspec.structs.replace(decide(1, user="ann"), **tip),
        msgspec.structs.replace(decide(2, user="bob"), **tip),
        msgspec.structs.replace(decide(3, user="ann"), **tip, moment=NOT_NOW),
        msgspec.structs.replace(decide(4, user="ann"), **call, holdout=False),
        msgspec.structs.replace(decide(5, "basket", user="eve"), arm="none", holdout=True, excluded={}),
    ]
