"""Rows of decisions in a SQL ledger are read as they were written, a page of them at a time."""

from typing import Any

import msgspec
import numpy as np
import pytest

from api.stores.sql.rows.decisions import decision_row, decisions_of
from bandit.catalogue.loading import parse
from bandit.learning.loss_account import LossAccount
from bandit.records import Decision, PendingBasis
from journey_bandit.testing import store_builders
from journey_bandit.testing.store_builders import CATALOGUE, ContractLedger

decide = store_builders.decisions_of(parse(CATALOGUE))


def changed(decision: Decision, **values: Any) -> Decision:
    return msgspec.structs.replace(decision, **values)


def varied() -> list[Decision]:
    """Decisions of three widths, with and without what a row may lack."""
    made = [decide(1), decide(2, "basket"), decide(3, plan="pro"), decide(4, "instant")]
    account = LossAccount(**dict.fromkeys(LossAccount.__struct_fields__, 1))
    return [
        changed(made[0], candidate=made[0].propensity[::-1].copy(), loss_account=account),
        changed(made[1], pending_basis=PendingBasis(5, 6, 7), notes=("noted",)),
        changed(made[2], loss_account=account, evidence={"stock": 3}, pending_basis=PendingBasis(5, 6, 7)),
        changed(made[3], actions=("none", "a"), phi=np.zeros((2, len(made[3].x)))),
    ]


@pytest.mark.parametrize("alike", [True, False])
def test_a_page_is_read_as_it_was_written(alike: bool) -> None:
    """Where all rows are as wide, and where they are not."""
    made = [decide(n, plan="pro") for n in range(1, 6)] if alike else varied()
    digests = {key: one.stage_digest for key, one in enumerate(made)}
    rows = [(10 * key, key, *decision_row(one)) for key, one in enumerate(made)]
    found = decisions_of(digests, rows)
    assert [seq for seq, _ in found] == [10 * key for key in digests]
    bits = ContractLedger.bits
    assert [bits(one) for _, one in found] == [bits(one) for one in made]
    assert [one.x.shape for _, one in found] == [one.x.shape for one in made]
    assert decisions_of(digests, []) == []


def test_what_two_decisions_were_read_with_is_not_shared_where_it_could_be_changed() -> None:
    made = [decide(1), decide(2)]
    rows = [(key, 0, *decision_row(one)) for key, one in enumerate(made)]
    (_, first), (_, second) = decisions_of({0: made[0].stage_digest}, rows)
    first.excluded["other"] = "not really"
    assert second.excluded == made[1].excluded
