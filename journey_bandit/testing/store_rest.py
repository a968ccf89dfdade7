"""One contract, every store: who is at rest."""

import hashlib
from typing import Any

import pytest

from api.stores import rest
from api.stores.erasure_log import ErasedDecision
from api.stores.rest import RestCursor, RestPage
from bandit.catalogue.model import Catalogue
from bandit.journey import folding
from bandit.records import Event
from journey_bandit.testing.store_builders import HOUR, STAGES, START, Decide
from journey_bandit.testing.store_erasures import of, settled

LATER = START + 9 * HOUR


def happened(name: str, user: bytes, received: int, alias: bytes | None = None) -> Event:
    """Event of a user, received at `received` (µs), which happened long before; it may name another id."""
    return Event(id=name, user=user, alias=alias, at=START - 1000 * HOUR, received=received, name="")


def hashed(user: str) -> bytes:
    """Hash of a user of whom nothing is decided."""
    return hashlib.blake2b(user.encode(), digest_size=16).digest()


class StoreRestContract:
    """Contract of the look-up of persons at rest: a person is found once, with all ids, when nothing of them is newer,
    and the walk never passes anybody who is to be found later. `stores.StoreContract` has the fixtures.
    """

    def test_who_has_nothing_newer_is_found_in_the_order_of_the_rows(self, ledger: Any, decide: Decide) -> None:
        made = [decide(n, user=user, at=START + n * HOUR) for n, user in enumerate("abacb", 1)]
        ledger.decided(*made)
        a, b, c = (made[n].user for n in (0, 1, 3))

        def at(hour: int, most: int = 9, after: RestCursor = RestCursor()) -> RestPage:  # noqa: B008 - immutable
            page: RestPage = ledger.store.at_rest(after, START + hour * HOUR, most, [])
            return page

        assert at(1) == RestPage([], RestCursor(), 0, 0, 0, left=False)
        assert at(3) == RestPage([], RestCursor(2), 2, made[1].at, 0, left=False)  # a came at 3 and b at 5
        assert at(4).people == [frozenset([a])]
        assert at(6) == RestPage([frozenset([one]) for one in (a, b, c)], RestCursor(5), 5, made[4].at, 0, left=False)
        assert at(6, 1) == RestPage([frozenset([a])], RestCursor(1), 1, made[0].at, 0, left=True)
        assert at(6, 1, RestCursor(3)) == RestPage([frozenset([c])], RestCursor(4), 1, made[3].at, 0, left=True)
        assert at(9, 9, RestCursor(5)).rows == 0
        assert [ledger.store.is_at_rest([a], made[2].at + n) for n in (0, 1)] == [False, True]
        assert not ledger.store.is_at_rest([a, c], made[3].at)

    def test_events_count_by_when_they_came_and_joined_ids_are_one_person(
        self, ledger: Any, decide: Decide, catalogue: Catalogue
    ) -> None:
        ann, bob = decide(1, user="ann"), decide(2, user="bob")
        ledger.decided(ann, bob)
        eve, phone = hashed("eve"), hashed("phone")
        sent = [
            happened("1", eve, START),
            happened("2", ann.user, START, phone),
            happened("3", bob.user, START + HOUR),
            happened("4", phone, START + 2 * HOUR),
        ]
        ledger.store.ingest(sent, START, ledger.specs, folding.rules(catalogue))
        none = RestCursor()
        early = ledger.store.at_rest(none, START + HOUR, 9, [])
        assert (early.people, early.through) == ([{eve}], RestCursor(2, 2))
        late = ledger.store.at_rest(none, START + 2 * HOUR, 9, [])
        assert (late.people, late.through) == ([{bob.user}, {eve}], RestCursor(2, 3))
        rest_ = ledger.store.at_rest(late.through, START + 3 * HOUR, 9, [])
        assert (rest_.people, rest_.received) == ([{ann.user, phone}], START + 2 * HOUR)
        assert not ledger.store.is_at_rest({ann.user, phone}, START + 2 * HOUR)
        assert ledger.store.is_at_rest({ann.user, phone}, START + 2 * HOUR + 1)

    def test_the_walk_waits_for_who_is_to_be_learned_yet(self, ledger: Any, decide: Decide) -> None:
        ann, bob, cem = (decide(n, user=user) for n, user in ((1, "ann"), (2, "bob"), (3, "cem")))
        ledger.decided(ann, bob, cem)
        store, none = ledger.store, RestCursor()
        store.settle([settled(1, ann), settled(3, cem)])
        waits = store.at_rest(none, LATER, 9, STAGES)
        assert waits == RestPage([frozenset([ann.user])], RestCursor(1), 1, START, 0, left=False)
        assert len(store.at_rest(none, LATER, 9, ["basket"]).people) == 3  # nobody learns its stage any more
        store.settle([settled(2, bob)])
        assert len(store.at_rest(none, LATER, 9, STAGES).people) == 3

    def test_what_was_erased_is_passed_over(self, ledger: Any, decide: Decide) -> None:
        made = [decide(n, user="ann", at=START + n) for n in (1, 2)]
        ledger.decided(*made, decide(3, user="bob"))
        store, erasure = ledger.store, ledger.store.begin_erasure(of(made[0].user))
        assert store.erase_decisions(
            [erasure], START, [ErasedDecision(one) for one in store.erasable(erasure.users, 9)]
        )
        page = store.at_rest(RestCursor(), LATER, 9, [])
        assert (len(page.people), page.rows, page.through) == (1, 3, RestCursor(3))

    def test_a_page_looks_at_so_many_rows(self, ledger: Any, decide: Decide, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rest, "ROWS", 2)
        ledger.decided(*(decide(n, user="ann", at=START + n) for n in (1, 2, 3)))
        page = ledger.store.at_rest(RestCursor(), START + 3, 9, [])
        assert page == RestPage([], RestCursor(2), 2, START + 2, 0, left=True)
        assert ledger.store.at_rest(page.through, START + 3, 9, []).left is False
