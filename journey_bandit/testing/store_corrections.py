"""One contract, every store: how settled decisions are corrected, and that what they were stays readable."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from api.stores.erasure_log import ErasedDecision
from api.stores.learning_state import StatisticsKey
from api.stores.protocol import Store
from bandit.catalogue.loading import parse
from bandit.errors import LedgerError
from bandit.records import AlarmAcknowledgement, OperatorAction
from journey_bandit.testing.store_builders import CATALOGUE, HOUR, START, ContractLedger, Decide, Report, decisions_of
from journey_bandit.testing.store_erasures import of
from journey_bandit.testing.store_settlements import settlement

_WINDOW = 'window = "1h", value = 10.0'
SILENT: dict[str, Any] = {"reward": 0.0, "why": "silence", "outcomes": 0}
HELD: dict[str, Any] = {"why": "held", "learned": False, "outcomes": 1}
LATER = START + HOUR


class StoreCorrectionsContract:
    """Contract of corrections: what a stage's grace lets in, what is to be corrected, and how a decision reads that has
    several settlements. `stores.StoreContract` has the fixtures.
    """

    @pytest.fixture
    def graceful(self, store: Store, claimed: Callable[..., ContractLedger]) -> ContractLedger:
        """Ledger whose stage `signup` has a window of one hour and a grace of two."""
        return claimed(store, parse(CATALOGUE.replace(_WINDOW, f'{_WINDOW}, grace = "2h"')))

    @pytest.fixture
    def graced(self) -> Decide:
        """Factory of decisions, as the contract's, made under that declaration."""
        return decisions_of(parse(CATALOGUE.replace(_WINDOW, f'{_WINDOW}, grace = "2h"')))

    def test_what_comes_within_the_grace_is_not_late_and_says_that_it_corrects(
        self, graceful: Any, graced: Decide, outcome: Report
    ) -> None:
        graceful.decided(graced(1), graced(2), graced(3))
        notes = [
            *graceful.reported(outcome(1), now=LATER - 1),
            *graceful.reported(outcome(2, at=LATER), now=LATER),
            *graceful.reported(outcome(3, at=LATER), now=LATER + 2 * HOUR),
            *graceful.reported(outcome(2, at=LATER), now=LATER + 9 * HOUR),
        ]
        assert [(one.late, one.corrects) for one in notes] == [
            (False, False),
            (False, True),
            (True, False),
            (False, True),
        ]

    def test_without_a_grace_nothing_is_to_be_corrected(self, ledger: Any, outcome: Report) -> None:
        ledger.decided(decisions_of(parse(CATALOGUE))(1))
        ledger.store.settle([settlement(1, **SILENT)])
        (note,) = ledger.reported(outcome(1), now=START)
        assert (note.late, note.corrects) == (True, False)
        assert ledger.due(LATER) == []

    def test_a_settled_decision_is_due_again_once_with_its_settlement(
        self, graceful: Any, graced: Decide, outcome: Report
    ) -> None:
        graceful.decided(graced(1), graced(2))
        graceful.store.settle([settlement(1, **SILENT)])
        assert graceful.due(LATER - 1) == []
        graceful.reported(outcome(1), outcome(1, "activation", None), now=LATER)
        assert graceful.due(LATER) == [2, 1]
        assert graceful.due(LATER, limit=1) == [2]
        assert graceful.due(LATER, stages=["basket"]) == []
        open_one, again = graceful.store.matured(LATER, 9, ["signup"])
        assert open_one.settled is None
        assert (again.settled.seq, again.settled.reward, len(again.outcomes)) == (1, 0.0, 2)
        assert [one.seq for one in graceful.store.open_after(0, 9, ["signup"])] == [2]
        assert graceful.store.counts().pending == 1
        graceful.store.settle([settlement(1, corrects=1, outcomes=2)])
        assert graceful.due(LATER) == [2]

    def test_a_correction_and_what_it_corrects_are_both_there(
        self, graceful: Any, graced: Decide, outcome: Report
    ) -> None:
        made, store = graced(1), graceful.store
        graceful.decided(made)
        store.settle([settlement(1, **SILENT)])
        graceful.reported(outcome(1), now=LATER)
        assert store.settle([settlement(1, corrects=1, outcomes=1)]) == {"signup": 2}
        (found,) = store.decisions()
        assert [(s.seq, s.reward, s.corrects, s.outcomes) for s in found.settlements] == [
            (1, 0.0, 0, 0),
            (2, 1.0, 1, 1),
        ]
        assert found.settlement == found.settlements[1]
        was, now = found.settled(1), found.settled()
        assert was is not None
        assert now is not None
        assert (was[1:], now[1:]) == (((), found.settlements[0]), (found.outcomes, found.settlements[1]))
        assert found.settled(0) is None
        assert [(n, one.as_of(n).settlement.reward) for n, one in store.settlements_after(0, 9)] == [(1, 0.0), (2, 1.0)]
        assert [n for n, _ in store.settlements_after(1, 9)] == [2]
        assert [s.seq for s, *_ in store.settled("signup")] == [1, 2]
        (person,) = store.person_rewards(StatisticsKey("signup", 1), 0.0)
        assert (person.decisions, person.reward) == (1, 1.0)

    def test_what_was_open_before_the_first_settlement_is_open_once(
        self, graceful: Any, graced: Decide, outcome: Report
    ) -> None:
        graceful.decided(graced(1))
        before = graceful.store.last()
        graceful.store.settle([settlement(1, **SILENT)])
        between = graceful.store.last()
        graceful.reported(outcome(1), now=LATER)
        graceful.store.settle([settlement(1, corrects=1, outcomes=1)])
        assert [
            (one.seq, one.outcomes, one.settlements) for one in graceful.store.open_decisions("signup", before)
        ] == [(1, (), ())]
        assert list(graceful.store.open_decisions("signup", between)) == []

    def test_a_correction_needs_something_new_and_a_first_settlement_comes_once(
        self, graceful: Any, graced: Decide, outcome: Report
    ) -> None:
        graceful.decided(graced(1), graced(2))
        graceful.store.settle([settlement(1, **SILENT)])
        before = graceful.everything()
        for wrong in ([settlement(1, corrects=1)], [settlement(2, corrects=1)], [settlement(1)]):
            with pytest.raises(LedgerError):
                graceful.store.settle(wrong)
        with pytest.raises(LedgerError):
            graceful.store.settle([], [], [1])
        assert graceful.everything() == before
        graceful.reported(outcome(1), now=LATER)
        with pytest.raises(LedgerError):
            graceful.store.settle([settlement(1)])
        graceful.store.settle([], [], [1])  # it stands as it was settled
        assert graceful.due(LATER - 1) == []
        assert [len(one.settlements) for one in graceful.store.decisions()] == [1, 0]

    def test_what_is_held_of_a_key_is_due_again_once_it_is_found_honest(
        self, graceful: Any, graced: Decide, outcome: Report
    ) -> None:
        store, held = graceful.store, HELD
        graceful.decided(*(graced(n) for n in range(1, 6)))
        graceful.reported(*(outcome(n, reporter="a" if n < 5 else "b") for n in range(1, 6)))
        store.settle([settlement(1, **held), settlement(2, outcomes=1), *(settlement(n, **held) for n in (3, 4, 5))])
        assert graceful.due(LATER) == []
        asked = AlarmAcknowledgement(at=7, who="ana", stage="signup", reporter="a", verdict="forged", reason="r")
        forged = store.acknowledge(asked, 0)
        assert (forged.seq, forged.through) == (1, 5)
        assert graceful.due(LATER) == []
        other = store.acknowledge(msgspec.structs.replace(asked, stage="basket", verdict="honest"), 0)
        assert graceful.due(LATER) == []
        honest = store.acknowledge(msgspec.structs.replace(asked, verdict="honest"), 1)
        assert graceful.due(LATER) == [3, 4]
        assert store.acknowledgements() == [forged, other, honest]
        assert [(one.seq, one.verdict, one.who, one.at) for one in (other, honest)] == [
            (2, "honest", "ana", 7),
            (3, "honest", "ana", 7),
        ]
        again = [settlement(3, corrects=3, **held), settlement(4, corrects=4, outcomes=1)]
        assert store.settle(again) == {"signup": 7}
        assert store.acknowledge(honest, 1).through == 7
        assert graceful.due(LATER) == [3]

    @pytest.mark.parametrize("corrected", [True, False])
    def test_a_forgotten_decision_leaves_none_of_its_settlements(
        self, graceful: Any, graced: Decide, outcome: Report, corrected: bool
    ) -> None:
        made, store = graced(1), graceful.store
        graceful.decided(made)
        store.settle([settlement(1, **SILENT)])
        graceful.reported(outcome(1), now=LATER)
        if corrected:
            store.settle([settlement(1, corrects=1, outcomes=1)])
        erasure = store.begin_erasure(of(made.user))
        found = store.erasable(erasure.users, 9)
        assert store.erase_decisions([erasure], LATER, [ErasedDecision(one) for one in found])
        assert list(store.settled("signup")) == []
        assert store.settlements_after(0, 9) == []
        assert graceful.due(9 * HOUR + LATER) == []
        assert store.last().settlement == 1 + corrected

    def test_actions_of_operators_are_kept_in_their_order(self, store: Store) -> None:
        """`operate` numbers what it appends from 1, and `operator_actions` lists it."""
        asked = OperatorAction(at=7, who="ana", stage="signup", nudge="tip", verb="pause", reason="r")
        first = store.operate(asked)
        second = store.operate(msgspec.structs.replace(asked, at=9, nudge="", verb="resume", reason="s"))
        assert first == msgspec.structs.replace(asked, seq=1)
        assert (second.seq, second.at, second.nudge, second.verb, second.reason) == (2, 9, "", "resume", "s")
        third = store.operate(msgspec.structs.replace(asked, at=11, nudge="", verb="ramp", share=0.1))
        assert (third.seq, third.share) == (3, 0.1)
        assert store.operator_actions() == [first, second, third]
