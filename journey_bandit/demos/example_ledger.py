"""Example ledger for notebooks: some weeks of a shop's cart, as a service writes them, the same at every run."""

from pathlib import Path
from uuid import UUID

import numpy as np

from api.ledger import audit
from api.stores import open_store
from bandit.arrays import Mask
from bandit.catalogue.loading import parse
from bandit.engine import DecisionQuery, decide, prepare
from bandit.errors import InvalidRequest, Problem
from bandit.records import Decision, Settlement
from bandit.snapshot import Snapshot

CATALOGUE = """
app = "shop"
currency = "EUR"

[stages.cart]
reward = { kind = "binary", window = "1h", value = 20.0 }
holdout = 0.1
floor = 0.05

[stages.cart.features]
items = { type = "number", min = 0, max = 10, default = 1 }

[stages.cart.nudges.reminder]
type = "reminder"
format = "push"
cost = 0.05

[stages.cart.nudges.discount]
type = "discount"
format = "banner"
cost_when_rewarded = 6.0
"""
"""Catalogue of the shop: a reminder that costs little, a discount that costs 6 EUR of each order."""

_BEGIN, _PAUSE = 1_760_000_000_000_000, 300_000_000  # µs
_RATES = {"none": 0.10, "reminder": 0.16, "discount": 0.20}  # of people who order, besides what items say


def write(file: str | Path, decisions: int = 6_000, seed: int = 7) -> Path:
    """Write the ledger of `decisions` decisions about as many people, five minutes apart, all of which have their
    rewards, to a new file; the file. Of those who see nothing 10 % order, of those who get a reminder 16 %, with a
    discount 20 %, and 1 % more for each item. A file that holds these very decisions stays as it is. Raises LedgerError
    if it holds another app's ledger, InvalidRequest if it holds other decisions.
    """
    path, catalogue, rng = Path(file), parse(CATALOGUE), np.random.default_rng(seed)
    live = prepare(Snapshot.untrained(catalogue, "cart"))
    items = rng.integers(0, 11, decisions)
    made = [
        decide(
            live,
            DecisionQuery(id=UUID(int=i + 1), user_id=f"person {i}", context={"items": int(n)}),
            now=_BEGIN + i * _PAUSE,
            salt=b"example",
        )
        for i, n in enumerate(items)
    ]
    ordered = rng.random(decisions) < np.array([_RATES[one.arm] for one in made]) + 0.01 * items
    store = open_store(f"sqlite:///{path}")
    try:
        audit.claim(store, catalogue, "example")
        if store.last().decision:
            _check_same(path, made, [row.decision for row in store.decisions("cart")])
        else:
            with store.atomic():  # a file that was written by half would pass as whole
                store.record(made, [], 0, store.specs())
                store.settle(_settlements(made, ordered))
    finally:
        store.close()
    return path


def _check_same(path: Path, made: list[Decision], found: list[Decision]) -> None:
    """Raise InvalidRequest unless the ledger holds these decisions and no others."""
    one, other = ([(each.id, each.arm, each.x.tobytes()) for each in rows] for rows in (made, found))
    if one != other:
        raise InvalidRequest(Problem("file", f"{path} holds other decisions already", "give a new file"))


def _settlements(made: list[Decision], ordered: Mask) -> list[Settlement]:
    return [
        Settlement(
            decision_seq=seq,
            stage="cart",
            arm=one.arm,
            reward=float(reward),
            at=one.expires,
            why="reward" if reward else "silence",
            learned=True,
            tau=1.0,
            nu=0.0,
        )
        for seq, (one, reward) in enumerate(zip(made, ordered, strict=True), 1)
    ]
