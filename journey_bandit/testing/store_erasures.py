"""One contract, every store: what an erasure overwrites, and what it leaves to others."""

from collections.abc import Sequence
from typing import Any

import msgspec

from api.stores.erasure_log import ErasedDecision, Erasure
from api.stores.learning_state import StatisticsKey
from bandit.records import NOT_NOW, Decision, Settlement
from journey_bandit.testing.store_builders import HOUR, START, Decide, Report

SECRET = b"0123456789abcdef"


def of(*users: bytes, forget: bool = True, number: bytes = SECRET) -> Erasure:
    """Erasure of these users, asked for at START."""
    return Erasure(number, frozenset(users), START, forget)


def settled(seq: int, decision: Decision, why: Any = "silence") -> Settlement:
    """Settlement of a decision by its number, which teaches something unless it is of one who was erased."""
    learned = why != "erased"
    return Settlement(
        decision_seq=seq,
        stage=decision.stage,
        arm=decision.arm,
        at=START + HOUR,
        reward=0.0,
        why=why,
        learned=learned,
        tau=float(learned),
        nu=0.0,
    )


class StoreErasuresContract:
    """Contract of the erasure log: what is erased is in no answer, what is left takes its place under its number, and
    everything of others stays as it is. `stores.StoreContract` has the fixtures.
    """

    def test_decisions_of_which_nothing_is_left_are_in_no_answer(
        self, ledger: Any, decide: Decide, outcome: Report
    ) -> None:
        ann, bob = decide(1, user="ann"), decide(2, user="bob")
        ledger.decided(ann, bob, decide(3, user="ann", at=START + 1))
        ledger.reported(outcome(1), outcome(2))
        ledger.store.settle([settled(1, ann), settled(2, bob)])
        last, store = ledger.store.last(), ledger.store
        erasure = store.begin_erasure(of(ann.user))
        found = store.erasable(erasure.users, 9)
        assert [one.seq for one in found] == [3, 1]
        assert [one.seq for one in store.erasable(erasure.users, 1)] == [3]
        assert [one.seq for one in store.erasable(erasure.users, 9, 3)] == [1]
        assert store.erase_decisions([erasure], START + 2, [ErasedDecision(one) for one in found])
        answers: Sequence[list[Any]] = [
            list(store.decisions()),
            list(store.decisions("signup")),
            store.decisions_after(0, 9),
            store.decisions_before("signup", 9, 9),
            [one for _, one in store.settlements_after(0, 9)],
        ]
        for answer in answers:
            assert [one.seq for one in answer] == [2]
            assert ledger.bits(answer[0].decision) == ledger.bits(bob)
            assert [o.value for o in answer[0].outcomes] == [1.0]
        assert [one.decision_seq for one, *_ in store.settled("signup")] == [2]
        assert [one.seq for one in store.open_after(0, 9, ["signup"])] == []
        assert list(store.open_decisions("signup")) == []
        assert [one.seq for one in store.open_decisions("signup", last._replace(settlement=0))] == [2]
        assert store.matured(START + 9 * HOUR, 9, ["signup"]) == []
        assert store.decisions_by_id([ann.id]) == {}
        assert [one.user for one in store.person_rewards(StatisticsKey("signup", 1), 0.0)] == [bob.user]
        assert [one.seq for one in store.decision_times("signup")] == [2]
        assert store.erasable(erasure.users, 9) == []
        assert store.last() == last
        assert ledger.reported(outcome(1, name="again"))[0].status == "unknown"
        kept, _ = store.record([decide(4, user="ann")], [], START, ledger.specs)
        assert kept[0].seq == 4

    def test_a_remainder_takes_the_place_of_a_decision(self, ledger: Any, decide: Decide, outcome: Report) -> None:
        made, store = decide(1, user="ann"), ledger.store
        ledger.decided(made, decide(2))
        ledger.reported(outcome(1, name="hers"), outcome(1, "activation", name="shown"))
        erasure = store.begin_erasure(of(made.user, forget=False))
        (found,) = store.erasable([made.user], 9)
        left = msgspec.structs.replace(made, id=decide(77).id, user=erasure.pseudonym(made.user), request=b"")
        outcomes = tuple(msgspec.structs.replace(o, decision=left.id, id=str(i)) for i, o in enumerate(found.outcomes))
        ended = settled(1, made, "erased")
        assert store.erase_decisions([erasure], START, [ErasedDecision(found, left, outcomes)], [ended])
        first, second = store.decisions()
        assert (first.seq, ledger.bits(first.decision)) == (1, ledger.bits(left))
        assert first.decision.is_remainder
        assert first.outcomes == outcomes
        assert first.settlement == msgspec.structs.replace(ended, seq=1)
        assert second.seq == 2
        assert ledger.due(START + 9 * HOUR) == [2]
        assert store.decisions_by_id([made.id]) == {}
        assert store.decisions_by_id([left.id])[left.id].seq == 1
        assert store.version("signup") == 1
        assert store.person_rewards(StatisticsKey("signup", 1), 0.0) == []  # nobody knows what it brought

    def test_an_erasure_is_known_until_it_ends_and_then_says_nobody(self, ledger: Any, decide: Decide) -> None:
        store, ann, other = ledger.store, decide(1, user="ann").user, decide(2, user="other").user
        ledger.decided(decide(1, user="ann"))
        first = store.begin_erasure(of(ann, forget=True))
        assert store.begin_erasure(of(ann, other, forget=False, number=bytes(16))) == of(ann, other)
        assert store.erasures_under_way() == [of(ann, other)]
        more = store.begin_erasure(of(bytes(16), forget=False, number=bytes(16)))
        assert more.number != first.number
        assert store.erase_decisions([first], START + 1, [ErasedDecision(one) for one in store.erasable([ann], 9)])
        store.end_erasures([of(ann, other)], START + 2)
        assert store.erasures_under_way() == [more]
        told = [(one.decisions, one.ids, one.first, one.forget, one.done) for one in store.erasures()]
        assert told == [(1, 0, 1, True, False), (0, 2, 0, True, True)]
        assert {one.number for one in store.erasures()} == {first.entry}
        assert first.entry != first.number
        assert [one.seq for one in store.erasures(1)] == [2]
        assert [one.seq for one in store.erasures(number=first.entry)] == [1, 2]
        assert store.erasures(number=more.entry) == store.erasures(1, bytes(16)) == []

    def test_erasures_that_share_a_transaction_are_counted_apart(
        self, ledger: Any, decide: Decide, outcome: Report
    ) -> None:
        ledger.decided(decide(1, user="ann"), decide(2, user="bob"), decide(3, user="ann"), decide(4, user="cem"))
        ledger.reported(outcome(1), outcome(2), outcome(4))
        store, (ann, bob) = ledger.store, (decide(n, user=name).user for n, name in ((1, "ann"), (2, "bob")))
        with store.atomic():
            hers, his = (store.begin_erasure(of(user, number=number)) for user, number in ((ann, SECRET), (bob, b"b")))
            assert store.begin_erasure(of(bob, bytes(16), number=b"c")).number == b"b"  # begun in the same transaction
        found = store.erasable([ann, bob], 9)
        erased = [ErasedDecision(one) for one in found]
        assert [one.seq for one in found] == [3, 2, 1]
        assert store.erase_decisions([hers, his], START + 1, erased)
        assert not store.erase_events([hers, his], START + 1, 9)
        store.end_erasures([hers, his], START + 2)
        for one, counted in ((hers, [(2, 1, 0, 1), (0, 0, 1, 0)]), (his, [(1, 1, 0, 2), (0, 0, 1, 0)])):
            told = store.erasures(number=one.entry)
            assert [(e.decisions, e.outcomes, e.ids, e.first) for e in told] == counted
        assert store.erasures_under_way() == []
        assert [one.seq for one in store.decisions()] == [4]

    def test_pseudonyms_join_what_was_one_users_and_depend_on_the_secret(self) -> None:
        one, other = of(b"a"), of(b"a", number=bytes(16))
        assert one.pseudonym(b"a") == one.pseudonym(b"a")
        assert len({one.pseudonym(b"a"), one.pseudonym(b"b"), other.pseudonym(b"a"), one.entry, b"a"}) == 5

    def test_times_of_decisions_leave_out_the_control_group_and_those_at_no_moment(
        self, ledger: Any, decide: Decide
    ) -> None:
        made = [decide(1), decide(2, "basket"), decide(3, at=START + 5), decide(4)]
        made[0] = msgspec.structs.replace(made[0], holdout=True)
        made[3] = msgspec.structs.replace(made[3], moment=NOT_NOW)
        ledger.decided(*made)
        (found,) = ledger.store.decision_times("signup")
        assert found == (3, made[2].stage_digest, START + 5, made[2].expires)
