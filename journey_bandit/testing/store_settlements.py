"""One contract, every store: when decisions are final, how they are settled, and what is handed in and out."""

import uuid
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from api.stores.decision_log import DecisionRecord
from api.stores.learning_state import StatisticsKey, StatisticsUpdate
from api.stores.protocol import Store
from bandit.belief import Belief, empty
from bandit.catalogue.model import Catalogue
from bandit.errors import LedgerError
from bandit.records import Decision, Settlement
from journey_bandit.testing.store_builders import HOUR, START, Decide, Report

NAN = float("nan")


def settlement(seq: int, stage: str = "signup", arm: str = "none", **changes: Any) -> Settlement:
    """Settlement of the decision with number `seq` in the ledger: reward 1, learned, with the site (1, 1), unless
    `changes` say otherwise for fields of `Settlement`.
    """
    values = {"at": START, "reward": 1.0, "why": "reward", "learned": True, "tau": 1.0, "nu": 1.0, **changes}
    return Settlement(decision_seq=seq, stage=stage, arm=arm, **values)


SIGNUP = StatisticsKey("signup", 1)


def update(stage: str, rows: tuple[str, ...], belief: Belief) -> StatisticsUpdate:
    """Update of one stage's statistics under its schema 1: epoch 0 becomes `belief`, whose arms are named by `rows`;
    drift and delays stay as they are.
    """
    return StatisticsUpdate(StatisticsKey(stage, 1), rows, {0: belief})


def some_belief(k: int, d: int, seed: int = 1) -> Belief:
    """Belief of k arms and d features made of random numbers, the same for the same `seed`: for tests of storage, not a
    state that learning could reach.
    """
    rng = np.random.default_rng(seed)
    return Belief(rng.random(k), rng.random(k), rng.random(k), rng.normal(size=(k, d, d)), rng.normal(size=(k, d)))


def scribble(decision: Decision) -> None:
    """Overwrite in place whatever of a decision can be: its writable arrays and its dictionaries. A store must have
    kept values of its own.
    """
    for values in (decision.x, decision.propensity, decision.mean, decision.sd):
        if values.flags.writeable:
            values[:] = 0.5
    decision.excluded["none"] = "scribbled"
    decision.evidence["stock"] = -1


class StoreSettlementsContract:
    """Contract of settlements: when a decision matures, what settling records, which beliefs come back, and that no
    value handed in or out can change the store. `stores.StoreContract` has the fixtures.
    """

    # -- late, final, due ------------------------------------------------------------------------------------------

    def test_an_outcome_is_late_from_the_end_of_the_window_on(
        self, ledger: Any, decide: Decide, outcome: Report
    ) -> None:
        ledger.decided(decide(1), decide(2))
        (in_time,) = ledger.reported(outcome(1), now=START + HOUR - 1)
        (late,) = ledger.reported(outcome(2), now=START + HOUR)
        assert (in_time.status, in_time.late, late.status, late.late) == ("recorded", False, "recorded", True)
        (again,) = ledger.reported(outcome(2), now=START)
        assert (again.status, again.late) == ("duplicate", True)

    def test_after_settlement_everything_is_late_whatever_the_clock_says(
        self, ledger: Any, decide: Decide, outcome: Report
    ) -> None:
        ledger.decided(decide(1))
        ledger.store.settle([settlement(1)])
        assert [n.late for n in ledger.reported(outcome(1), now=START)] == [True]

    def test_a_decision_is_due_exactly_when_its_window_ends(self, ledger: Any, decide: Decide) -> None:
        ledger.decided(decide(1))
        assert ledger.due(START + HOUR - 1) == []
        assert ledger.due(START + HOUR) == [1]

    def test_the_oldest_due_come_first_and_no_more_than_asked_for(
        self, ledger: Any, decide: Decide, outcome: Report
    ) -> None:
        ledger.decided(
            decide(1, at=START + 40), decide(2, at=START), decide(3, at=START + 20), decide(4, "instant", at=START)
        )
        ledger.reported(outcome(4, value=2.0))  # final already: due since ever
        later = START + 3 * HOUR
        assert ledger.due(later) == [4, 2, 3, 1]
        assert ledger.due(later, limit=2) == [4, 2]
        assert ledger.due(later, stages=["instant"]) == [4]
        assert ledger.due(later, stages=[]) == []

    def test_what_is_due_comes_with_what_was_reported_in_order(
        self, ledger: Any, decide: Decide, outcome: Report
    ) -> None:
        made = decide(1, "shown")
        ledger.decided(made)
        ledger.reported(outcome(1, "activation", None), outcome(1, value=7.0))
        (matured,) = ledger.store.matured(START + HOUR, 10, ["shown"])
        assert ledger.bits(matured.decision) == ledger.bits(made)
        assert [(o.kind, o.value) for o in matured.outcomes] == [("activation", None), ("reward", 7.0)]

    def test_a_stage_that_settles_at_the_reward_is_due_with_it(
        self, ledger: Any, decide: Decide, outcome: Report
    ) -> None:
        ledger.decided(decide(1, "instant"), decide(2, "instant"), decide(3, "signup"))
        ledger.reported(outcome(1, "activation", None), outcome(3))
        assert ledger.due(START) == []
        ledger.reported(outcome(1, value=0.0), outcome(2, value=4.0))
        assert ledger.due(START) == [1, 2]

    def test_where_activation_is_required_a_reward_alone_is_not_final(
        self, store: Store, claimed: Callable[..., Any], catalogue: Catalogue, decide: Decide, outcome: Report
    ) -> None:
        stage = msgspec.structs.replace(catalogue.stages["instant"], activation="required")
        ledger = claimed(store, msgspec.structs.replace(catalogue, stages={"instant": stage}))
        ledger.decided(*(msgspec.structs.replace(decide(n, "instant"), stage_digest=stage.digest()) for n in (1, 2)))
        ledger.reported(outcome(1, value=4.0), outcome(2, "activation", None))
        assert ledger.due(START) == []
        ledger.reported(outcome(1, "activation", None), outcome(2, value=4.0))
        assert ledger.due(START) == [1, 2]

    def test_the_rules_of_a_decision_are_those_it_was_made_under(
        self, store: Store, claimed: Callable[..., Any], catalogue: Catalogue, decide: Decide, outcome: Report
    ) -> None:
        """The catalogue may change while a decision is pending; its stage may even be gone."""
        ledger = claimed(store, catalogue)
        ledger.decided(decide(1, "instant"))
        waits = msgspec.structs.replace(catalogue.stages["instant"].reward, settle="window")
        changed = msgspec.structs.replace(catalogue.stages["instant"], reward=waits)
        ledger = claimed(store, msgspec.structs.replace(catalogue, stages={"instant": changed}))
        assert [n.status for n in ledger.reported(outcome(1, value=None))] == ["invalid"]
        ledger.reported(outcome(1, value=2.0))
        assert ledger.due(START) == [1]

    # -- settlements and beliefs -----------------------------------------------------------------------------------

    def test_settlements_are_numbered_and_give_each_stage_its_version(
        self, ledger: Any, decide: Decide, catalogue: Catalogue
    ) -> None:
        ledger.decided(decide(1), decide(2, "basket"), decide(3), decide(4))
        arms = catalogue.stages["signup"].arms
        belief = some_belief(len(arms), 8)
        given = [update("signup", arms, belief), update("basket", ("none", "reminder"), empty(2, 3))]
        done = [settlement(1), settlement(2, "basket"), settlement(3)]
        assert ledger.store.settle(done, given) == {"signup": 3, "basket": 2}
        assert ledger.store.settle([settlement(4)], [update("signup", arms, belief)]) == {"signup": 4}
        numbered = [(f.settlement.seq, f.settlement.decision_seq) for f in ledger.store.decisions() if f.settlement]
        assert numbered == [(1, 1), (2, 2), (3, 3), (4, 4)]
        assert ledger.store.statistics(SIGNUP, arms, 8).version == 4
        assert ledger.due(START + 9 * HOUR) == []

    def test_settled_reads_one_stage_in_order_up_to_a_number(self, ledger: Any, decide: Decide) -> None:
        made = [
            decide(n, ("signup", "basket")[n % 2], age=n) if n % 2 == 0 else decide(n, "basket") for n in range(1, 7)
        ]
        ledger.decided(*made)
        order = [6, 1, 2, 3, 4, 5]
        done = [settlement(n, made[n - 1].stage, nu=n / 8, why="silence") for n in order]
        ledger.store.settle(done)
        rows = list(ledger.store.settled("signup"))
        assert [(s.seq, s.decision_seq, s.nu, s.why) for s, *_ in rows] == [
            (1, 6, 0.75, "silence"),
            (3, 2, 0.25, "silence"),
            (5, 4, 0.5, "silence"),
        ]
        assert [x.tobytes() for _, x, _ in rows] == [made[n - 1].x.tobytes() for n in (6, 2, 4)]
        assert [s.seq for s, *_ in ledger.store.settled("signup", 4)] == [1, 3]
        assert list(ledger.store.settled("signup", 0)) == []

    def test_settled_reads_beyond_any_page(self, ledger: Any, decide: Decide) -> None:
        one = decide(1)
        ledger.decided(*(msgspec.structs.replace(one, id=uuid.UUID(int=i)) for i in range(1, 4502)))
        ledger.store.settle([settlement(n) for n in range(1, 4502)])
        assert [s.seq for s, *_ in ledger.store.settled("signup")] == list(range(1, 4502))

    @pytest.mark.parametrize(
        "bad",
        [
            pytest.param([settlement(2), settlement(1)], id="one is settled already"),
            pytest.param([settlement(2), settlement(2)], id="the same twice"),
            pytest.param([settlement(2), settlement(77)], id="no such decision"),
            pytest.param([settlement(2, reward=NAN)], id="reward is NaN"),
            pytest.param([settlement(3), settlement(2, nu=NAN)], id="ν is NaN"),
            pytest.param([settlement(2, tau=NAN)], id="τ is NaN"),
        ],
    )
    def test_settling_is_all_or_nothing(
        self, ledger: Any, decide: Decide, catalogue: Catalogue, bad: list[Settlement]
    ) -> None:
        ledger.decided(decide(1), decide(2), decide(3))
        arms = catalogue.stages["signup"].arms
        good = some_belief(len(arms), 8)
        ledger.store.settle([settlement(1)], [update("signup", arms, good)])
        before, due = ledger.everything(), ledger.due(START + HOUR)
        with pytest.raises(LedgerError):
            ledger.store.settle(bad, [update("signup", arms, some_belief(len(arms), 8, seed=2))])
        assert (ledger.everything(), ledger.due(START + HOUR)) == (before, due)
        found = ledger.store.statistics(SIGNUP, arms, 8)
        belief, version = found.epochs[0], found.version
        assert (belief.digest(), version) == (good.digest(), 1)

    def test_a_belief_comes_back_bit_for_bit(self, store: Store) -> None:
        arms = ("none", "a", "b")
        edges = np.array([5e-324, -0.0, 1.7976931348623157e308, 2.0**-24, 1.0 / 3.0])
        belief = some_belief(3, 5)._replace(
            shift=np.stack([edges, -edges, edges[::-1]]), n=np.array([0.0, 2.0**53, 1.0])
        )
        store.replace_statistics(update("signup", arms, belief))
        found = store.statistics(SIGNUP, arms, 5)
        back, version = found.epochs[0], found.version
        assert [part.tobytes() for part in back] == [part.tobytes() for part in belief]
        assert version == 0

    def test_a_new_arm_knows_nothing_and_the_others_keep_what_they_know(self, store: Store) -> None:
        belief = some_belief(2, 4)
        store.replace_statistics(update("signup", ("none", "a"), belief))
        (back,) = store.statistics(SIGNUP, ("none", "new", "a"), 4).epochs
        assert [part[[0, 2]].tobytes() for part in back] == [part.tobytes() for part in belief]
        assert all(not part[1].any() for part in back)
        assert [part.shape for part in back] == [(3,), (3,), (3,), (3, 4, 4), (3, 4)]

    def test_replacing_a_belief_leaves_its_version(self, ledger: Any, decide: Decide) -> None:
        ledger.decided(decide(1))
        ledger.store.settle([settlement(1)], [update("signup", ("none",), some_belief(1, 8))])
        ledger.store.replace_statistics(update("signup", ("none",), some_belief(1, 8, seed=3)))
        found = ledger.store.statistics(SIGNUP, ("none",), 8)
        back, version = found.epochs[0], found.version
        assert (back.digest(), version) == (some_belief(1, 8, seed=3).digest(), 1)

    # -- what is handed in and out ---------------------------------------------------------------------------------

    def test_values_handed_in_or_out_cannot_change_the_store(self, ledger: Any, decide: Decide) -> None:
        store = ledger.store
        made = msgspec.structs.replace(decide(1), mean=decide(1).mean.copy(), x=decide(1).x.copy())
        before = ledger.bits(made)
        for handed in [made, *ledger.decided(made), *ledger.decided(made)]:
            scribble(handed)
        readers: list[Callable[[], Sequence[Decision]]] = [
            lambda: [f.decision for f in store.decisions_by_id([made.id]).values()],
            lambda: [f.decision for f in store.decisions()],
            lambda: [m.decision for m in store.matured(START + HOUR, 5, ["signup"])],
        ]
        for read in readers:
            (seen,) = read()
            assert ledger.bits(seen) == before
            scribble(seen)
        store.settle([settlement(1)])
        for _, x, _ in store.settled("signup"):
            if x.flags.writeable:
                x[:] = 0.5
        assert [x.tobytes() for _, x, _ in store.settled("signup")] == [before["x"][1]]
        assert ledger.bits(store.decisions_by_id([made.id])[made.id].decision) == before

    def test_beliefs_handed_in_or_out_cannot_change_the_store(self, store: Store) -> None:
        given = some_belief(2, 4)
        digest = given.digest()
        store.replace_statistics(update("signup", ("none", "a"), given))
        for handed in (given, store.statistics(SIGNUP, ("none", "a"), 4).epochs[0]):
            for part in handed:
                if part.flags.writeable:
                    part[:] = 0.25
            assert store.statistics(SIGNUP, ("none", "a"), 4).epochs[0].digest() == digest

    def test_facts_and_declarations_are_kept_once_and_handed_out_as_copies(
        self, store: Store, catalogue: Catalogue
    ) -> None:
        store.set_meta({"app": "shop", "note": "ünïcode 'quoted'"})
        store.set_meta({"app": "other"})
        store.register(catalogue.stages)
        store.register(catalogue.stages)
        store.meta()["app"] = "scribbled"
        assert store.meta() == {"app": "other", "note": "ünïcode 'quoted'"}
        assert list(store.specs().items()) == [(s.digest(), s) for s in catalogue.stages.values()]

    def test_what_is_registered_later_appears_in_what_was_handed_out(self, store: Store, catalogue: Catalogue) -> None:
        seen = store.specs()
        assert not seen
        store.register(catalogue.stages)
        assert list(seen.values()) == list(catalogue.stages.values())

    def test_counts_count(self, ledger: Any, decide: Decide, outcome: Report) -> None:
        assert tuple(ledger.store.counts()) == (0, 0, 0, 0)
        ledger.decided(decide(1), decide(2), decide(3))
        ledger.reported(outcome(1), outcome(1), outcome(2, "activation", None), outcome(2, "retraction", None))
        ledger.store.settle([settlement(2)])
        assert ledger.store.counts()._asdict() == {"decisions": 3, "outcomes": 3, "settlements": 1, "pending": 2}

    def test_what_is_tried_changes_nothing(self, ledger: Any, decide: Decide, outcome: Report) -> None:
        ledger.decided(decide(1))
        before = ledger.everything()
        ledger.store.try_writing(lambda: ledger.decided(decide(2)))
        ledger.store.try_writing(lambda: ledger.reported(outcome(1)))
        assert ledger.everything() == before
        assert ledger.store.counts()._asdict() == {"decisions": 1, "outcomes": 0, "settlements": 0, "pending": 1}
        ledger.decided(decide(2))
        assert ledger.store.counts().decisions == 2

    def test_found_tells_all_that_was_recorded(self, ledger: Any, decide: Decide, outcome: Report) -> None:
        (made,) = ledger.decided(decide(1))
        ledger.reported(outcome(1, occurred=START + 7), now=START + 9)
        done = settlement(1, at=START + 11, reward=0.0, why="holdout", learned=False, tau=0.0, nu=0.0)
        ledger.store.settle([done])
        found = ledger.store.decisions_by_id([made.id])[made.id]
        assert isinstance(found, DecisionRecord)
        assert (found.seq, found.settlement) == (1, msgspec.structs.replace(done, seq=1))
        assert found.outcomes == (outcome(1, occurred=START + 7),)
