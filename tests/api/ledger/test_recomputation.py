"""What is said of recomputed decisions where it is not simply "equal": that is in other tests."""

from typing import Any

import msgspec

from api.ledger.recomputation import recompute
from api.stores.protocol import Store
from bandit.records import Decision
from journey_bandit.testing.store_builders import Decide


def test_a_remainder_of_an_erasure_is_not_recomputed(store: Store, claimed: Any, decide: Decide) -> None:
    made: Decision = msgspec.structs.replace(decide(1), request=b"")
    claimed(store).decided(made)
    found = recompute(store, store.decisions_by_id([made.id])[made.id], b"s")
    assert (found.verdict, found.differences) == ("impossible", ())
    assert found.said == "not possible: its person was erased, and this is what is left"
