"""One contract, every store: what is recorded, what is a duplicate or a conflict, what is refused."""

import uuid
from typing import Any

import msgspec
import numpy as np
import pytest

from api.stores.admission import MOST_OUTCOMES, SKEW
from api.stores.decision_log import EarlierDecision
from bandit.guardrails import NO_CONSENT
from bandit.learning.loss_account import LossAccount
from bandit.records import Decision
from journey_bandit.testing.store_builders import START, Decide, Report

NAN, INF = float("nan"), float("inf")
WORDS = [
    "reward",
    "a'; DROP TABLE outcomes; --",
    "../../etc",
    "nul\0inside",
    "é",
    "e\u0301",
    "שלום",
    "👩‍👩‍👧",
    "\u202e",
    "x" * 64,
]


def ranked(made: Decision) -> Decision:
    """Decision `made` as if its arms had come with the request: three arms with names that need quoting, and random
    features phi (3, d), d those of its x.
    """
    phi = np.rint(np.random.default_rng(6).uniform(-1, 1, (3, len(made.x))) * 4096) / 4096
    phi[0, 0], phi[1, 1] = 1.0, -1.0
    names = ("a", 'b "quoted"', "šč/?")
    return msgspec.structs.replace(made, actions=names, phi=phi, x=phi[1], arm=names[1])


class StoreRecordsContract:
    """Contract of the decision log: decisions and outcomes come back with every bit, the same one again is a duplicate,
    another under its id a conflict, and what is refused leaves nothing. `stores.StoreContract` has the fixtures.
    """

    # -- decisions -------------------------------------------------------------------------------------------------

    def test_earlier_decisions_of_a_user_are_the_newest_first_without_the_holdout(
        self, ledger: Any, decide: Decide
    ) -> None:
        of, held = decide(1).user, msgspec.structs.replace(decide(5), holdout=True)
        refused = msgspec.structs.replace(decide(2), excluded={"tip": f"{NO_CONSENT}: push", "call": "quiet hours"})
        elsewhere = msgspec.structs.replace(decide(4, "basket", items=3), holdout=False)
        made = [decide(1), refused, ranked(decide(3)), elsewhere, held]
        made = [msgspec.structs.replace(one, user=of, at=START + i) for i, one in enumerate(made)]
        other = msgspec.structs.replace(decide(6), user=bytes(16))
        ledger.decided(*made, other)
        expected = [
            EarlierDecision(
                at=one.at,
                nudge=one.arm != (one.actions or ("none",))[0],
                propensity=1.0 - float(one.propensity[0]),
                refused=i == 1,
            )
            for i, one in enumerate(made[:4])
        ]
        asked = [(of, 5), (bytes(16), 6), (of, 3), (of, 9)]
        newest = [expected[::-1], [], expected[1::-1], expected[::-1]]
        assert ledger.store.earlier_decisions(asked, 9) == newest
        assert ledger.store.earlier_decisions(asked, 2) == [found[:2] for found in newest]
        assert ledger.store.earlier_decisions(asked * 1000, 9) == newest * 1000
        assert ledger.store.earlier_decisions([], 9) == []

    def test_a_decision_comes_back_with_every_bit(self, ledger: Any, decide: Decide) -> None:
        made = [
            decide(1, age=87.317, plan="pro"),  # on the grid, and not on one that is half as fine
            decide(2, "basket", user="held out", items=3),
            decide(3, plan="никогда", age=1e9),  # notes in other letters, and a clipped number
            msgspec.structs.replace(
                decide(4), evidence={"stock": 3, "deadline": START}, excluded={"call": 'not "now" 👀'}
            ),
            msgspec.structs.replace(decide(5), deferred=True),
            ranked(decide(6)),
            msgspec.structs.replace(
                (judged := decide(7)),
                loss_account=LossAccount(share=0.1, budget=1 / 3, gain=-0.0, sd=2.0**-60, room=-1e300, daily=5e-324),
                candidate=judged.propensity[::-1].copy(),
            ),
        ]
        ledger.decided(*made)
        found = ledger.store.decisions_by_id([d.id for d in made])
        assert [ledger.bits(found[d.id].decision) for d in made] == [ledger.bits(d) for d in made]

    def test_decisions_are_numbered_from_one_in_the_order_given(self, ledger: Any, decide: Decide) -> None:
        ledger.decided(decide(9), decide(3))
        ledger.decided(decide(5))
        assert [(f.seq, f.decision.id.int) for f in ledger.store.decisions()] == [(1, 9), (2, 3), (3, 5)]

    def test_recording_again_changes_nothing_and_answers_the_first(self, ledger: Any, decide: Decide) -> None:
        first, other = decide(1, age=20), decide(1, age=70)
        ledger.decided(first)
        before = ledger.everything()
        kept, _ = ledger.store.record([first, other], [], START + 5, ledger.specs)
        assert [k.duplicate for k in kept] == [True, True]
        assert [ledger.bits(k.decision) for k in kept] == [ledger.bits(first)] * 2
        assert ledger.everything() == before

    def test_a_duplicate_within_one_call_is_recognised(self, ledger: Any, decide: Decide) -> None:
        kept, _ = ledger.store.record([decide(1, age=20), decide(2), decide(1, age=70)], [], START, ledger.specs)
        assert [k.duplicate for k in kept] == [False, False, True]
        assert ledger.bits(kept[2].decision) == ledger.bits(kept[0].decision)
        assert ledger.store.counts().decisions == 2

    def test_decisions_are_read_in_order_and_by_stage_beyond_any_page(self, ledger: Any, decide: Decide) -> None:
        one, two = decide(1), decide(2, "basket")
        rows = [msgspec.structs.replace((one, two)[i % 3 == 0], id=uuid.UUID(int=10_000 - i)) for i in range(6500)]
        for start in range(0, len(rows), 500):
            ledger.decided(*rows[start : start + 500])
        assert [f.seq for f in ledger.store.decisions()] == list(range(1, 6501))
        ids = [f.decision.id for f in ledger.store.decisions("basket")]
        assert ids == [d.id for d in rows if d.stage == "basket"]
        assert ledger.store.declared("basket") == {two.stage_digest}
        assert ledger.store.declared("nothing") == set()
        assert [f.seq for f in ledger.store.decisions(after=2500)] == list(range(2501, 6501))
        assert [f.decision.id for f in ledger.store.decisions("basket", after=2500)] == [
            d.id for d in rows[2500:] if d.stage == "basket"
        ]
        assert len(ledger.store.decisions_by_id([d.id for d in rows[:5000]])) == 5000

    def test_find_answers_only_for_what_exists(self, ledger: Any, decide: Decide) -> None:
        (made,) = ledger.decided(decide(1))
        assert ledger.store.decisions_by_id([]) == {}
        assert list(ledger.store.decisions_by_id([uuid.UUID(int=7), made.id, made.id])) == [made.id]

    # -- admission of outcomes -------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("stage", "kind", "value", "recorded"),
        [
            ("signup", "reward", None, 1.0),
            ("signup", "reward", 0.0, 0.0),
            ("signup", "activation", None, None),
            ("signup", "retraction", None, None),
            ("signup", "retraction", 1.0, 1.0),
            ("instant", "reward", -3.5, -3.5),
            ("instant", "reward", 1e12, 1e12),  # clipped to the declared range when it is settled, not before
        ],
    )
    def test_an_outcome_that_fits_is_recorded(
        self, ledger: Any, decide: Decide, outcome: Report, stage: str, kind: str, value: float, recorded: float
    ) -> None:
        (made,) = ledger.decided(decide(1, stage))
        assert [n.status for n in ledger.reported(outcome(1, kind, value))] == ["recorded"]
        (seen,) = ledger.store.decisions_by_id([made.id])[made.id].outcomes
        assert (seen.kind, seen.value, seen.late) == (kind, recorded, False)

    @pytest.mark.parametrize(
        ("stage", "kind", "value", "occurred", "field"),
        [
            ("signup", "reward", 0.5, START, "value"),
            ("signup", "activation", 1.0, START, "value"),
            ("instant", "reward", None, START, "value"),
            ("instant", "reward", NAN, START, "value"),
            ("instant", "reward", INF, START, "value"),
            ("instant", "retraction", NAN, START, "value"),  # would be kept as "take everything back"
            ("signup", "reward", NAN, START, "value"),
            ("signup", "reward", 1.0, START + SKEW + 1, "occurred_at"),
            ("signup", "reward", 1.0, START - SKEW - 1, "occurred_at"),
        ],
    )
    def test_an_outcome_that_does_not_fit_is_invalid_and_leaves_no_trace(
        self,
        ledger: Any,
        decide: Decide,
        outcome: Report,
        stage: str,
        kind: str,
        value: float,
        occurred: int,
        field: str,
    ) -> None:
        ledger.decided(decide(1, stage))
        before = ledger.everything()
        (note,) = ledger.reported(outcome(1, kind, value, occurred=occurred))
        assert note.status == "invalid"
        assert note.problem
        assert (note.problem.field, bool(note.problem.fix)) == (field, True)
        assert ledger.everything() == before

    def test_a_clock_may_differ_by_five_minutes_either_way(self, ledger: Any, decide: Decide, outcome: Report) -> None:
        ledger.decided(decide(1))
        early, ahead = outcome(1, name="a", occurred=START - SKEW), outcome(1, name="b", occurred=START + SKEW)
        assert [n.status for n in ledger.reported(early, ahead)] == ["recorded", "recorded"]

    def test_an_outcome_of_an_unknown_decision_is_unknown_and_not_kept(
        self, ledger: Any, decide: Decide, outcome: Report
    ) -> None:
        assert [n.status for n in ledger.reported(outcome(1))] == ["unknown"]
        (made,) = ledger.decided(decide(1))
        assert ledger.store.decisions_by_id([made.id])[made.id].outcomes == ()

    def test_an_outcome_may_come_in_the_same_call_as_its_decision(
        self, ledger: Any, decide: Decide, outcome: Report
    ) -> None:
        _, noted = ledger.store.record([decide(1)], [outcome(1)], START, ledger.specs)
        assert [n.status for n in noted] == ["recorded"]

    def test_the_same_outcome_again_is_a_duplicate_and_another_value_or_kind_a_conflict(
        self, ledger: Any, decide: Decide, outcome: Report
    ) -> None:
        ledger.decided(decide(1), decide(2, "instant"))
        ledger.reported(outcome(1, value=None), outcome(2, value=3.0))
        before = ledger.everything()
        noted = ledger.reported(
            outcome(1, value=1.0),  # what the first one was taken as
            outcome(1, value=0.0),
            outcome(1, "retraction", None, name="reward"),
            outcome(1, "retraction", 1.0, name="reward"),
            outcome(2, value=3.0),
            outcome(2, value=3.5),
        )
        assert [n.status for n in noted] == ["duplicate", "conflict", "conflict", "conflict", "duplicate", "conflict"]
        assert ledger.everything() == before

    def test_the_key_that_reported_an_outcome_first_is_kept(self, ledger: Any, decide: Decide, outcome: Report) -> None:
        ledger.decided(decide(1))
        noted = ledger.reported(outcome(1, reporter="till"), outcome(1, reporter="crm"), outcome(1))
        assert [n.status for n in noted] == ["recorded", "duplicate", "duplicate"]
        (found,) = ledger.store.decisions_by_id([uuid.UUID(int=1)]).values()
        assert [o.reporter for o in found.outcomes] == ["till"]

    def test_a_decision_takes_so_many_outcomes_and_repeats_are_known_all_the_same(
        self, ledger: Any, decide: Decide, outcome: Report
    ) -> None:
        ledger.decided(decide(1, "shown"), decide(2, "shown"))
        sent = [outcome(1, value=1.0, name=f"o{i}") for i in range(MOST_OUTCOMES + 1)]
        for _ in range(2):
            noted = ledger.reported(*sent, outcome(2, value=1.0))
            first = noted[0].status
            assert [note.status for note in noted] == [first] * MOST_OUTCOMES + ["invalid", first]
            problem = noted[-2].problem
            assert problem
            assert (problem.field, problem.problem) == ("decision_id", "it has 500 outcomes, and takes no more")
        assert noted[0].status == "duplicate"
        (moved,) = ledger.reported(msgspec.structs.replace(sent[-1], id="void", voids="o0"))
        assert moved.status == "recorded"

    def test_a_repetition_within_one_call_counts_once(self, ledger: Any, decide: Decide, outcome: Report) -> None:
        ledger.decided(decide(1))
        noted = ledger.reported(outcome(1), outcome(1), outcome(1, value=0.0))
        assert [n.status for n in noted] == ["recorded", "duplicate", "conflict"]
        assert ledger.store.counts().outcomes == 1

    def test_every_outcome_id_is_kept_exactly_and_apart_from_all_others(
        self, ledger: Any, decide: Decide, outcome: Report
    ) -> None:
        (made,) = ledger.decided(decide(1))
        assert {n.status for n in ledger.reported(*(outcome(1, name=w) for w in WORDS))} == {"recorded"}
        assert {n.status for n in ledger.reported(*(outcome(1, name=w) for w in WORDS))} == {"duplicate"}
        assert [o.id for o in ledger.store.decisions_by_id([made.id])[made.id].outcomes] == WORDS
