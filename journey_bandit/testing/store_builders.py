"""Values that the contract of stores is tested with: a small catalogue, decisions of the real engine, outcomes."""

import copy
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from api.stores.decision_log import OutcomeReceipt
from api.stores.protocol import Store
from bandit import engine
from bandit.catalogue.model import Catalogue
from bandit.engine import DecisionQuery
from bandit.records import Decision, Outcome
from bandit.snapshot import Snapshot

Decide = Callable[..., Decision]
Report = Callable[..., Outcome]

START = 1_760_000_000_000_000  # µs; 2025-10-09T08:53:20Z
HOUR = 3_600_000_000
STAGES = ("signup", "basket", "instant", "shown")

CATALOGUE = """
app = "shop"
currency = "EUR"

[stages.signup]
policy = { name = "linear", prior_mean = 0.2 }
floor = 0.02
reward = { kind = "binary", window = "1h", value = 10.0 }
[stages.signup.features]
age = { type = "number", min = 0, max = 100, default = 30 }
plan = { type = "category", values = ["free", "pro", "other"], default = "free" }
returning = { type = "boolean", default = false }
[stages.signup.nudges.tip]
type = "help"
format = "tooltip"
payload = { title = "Tip" }
[stages.signup.nudges.call]
type = "help"
format = "popup"
cost = 0.5
[stages.signup.nudges.offer]
type = "discount"
format = "banner"
cost_when_rewarded = 2.0
evidence = { kind = "deadline" }
[stages.signup.nudges.last_units]
type = "scarcity"
format = "banner"
evidence = { kind = "stock", at_most = 5 }

[stages.basket]
policy = { name = "beta" }
holdout = 0.3
reward = { kind = "binary", window = "30m", value = 5.0 }
[stages.basket.features]
items = { type = "number", min = 0, max = 20, default = 1, scale = "log" }
[stages.basket.nudges.reminder]
type = "reminder"
format = "push"

[stages.instant]
policy = { name = "uniform" }
reward = { kind = "continuous", window = "2h", min = -10.0, max = 100.0, default = 0.0, settle = "reward" }
[stages.instant.features]
country = { type = "category", values = ["de", "fr"], default = "de" }
[stages.instant.nudges.bonus]
type = "bonus"
format = "banner"

[stages.shown]
policy = { name = "linear" }
activation = "required"
reward = { kind = "continuous", window = "1h", max = 50.0, default = 5.0 }
[stages.shown.features]
score = { type = "number", min = -1, max = 1, default = 0 }
[stages.shown.nudges.card]
type = "help"
format = "banner"
"""


def decisions_of(catalogue: Catalogue) -> Decide:
    """Factory decide(n, stage, at=, user=, salt=, **context) for a catalogue: decision number n, made by the real
    engine before anything was learned. `at` in µs since 1970; the context is feature by feature.
    """
    lives = {name: engine.prepare(Snapshot.untrained(catalogue, name)) for name in catalogue.stages}

    def build(
        n: int, stage: str = "signup", *, at: int = START, user: str = "u", salt: bytes = b"s", **context: Any
    ) -> Decision:
        ask = DecisionQuery(id=uuid.UUID(int=n), user_id=user, context=context, request=b"%016d" % n)
        return engine.decide(lives[stage], ask, now=at, salt=salt)

    return build


def reported(
    n: int,
    kind: Any = "reward",
    value: float | None = 1.0,
    *,
    at: int = START,
    name: str = "",
    occurred: int = 0,
    reporter: str = "",
) -> Outcome:
    """Outcome reported about decision number n, at `at` (µs since 1970), under `name` or, without one, its kind, by the
    key `reporter`.
    """
    return Outcome(
        decision=uuid.UUID(int=n),
        id=name or kind,
        kind=kind,
        value=value,
        occurred=occurred or at,
        received=at,
        reporter=reporter,
    )


class ContractLedger:
    """Ledger for the contract: a store in which the stages of `catalogue` are registered, called as the service's
    worker calls it. `store` is the store itself.
    """

    def __init__(self, store: Store, catalogue: Catalogue):
        self.store = store
        store.register(catalogue.stages)
        self.specs = store.specs()

    def decided(self, *decisions: Decision, now: int = START) -> list[Decision]:
        """Decisions as the store holds them after recording, at `now` (µs since 1970), in the order given."""
        return [kept.decision for kept in self.store.record(decisions, [], now, self.specs)[0]]

    def reported(self, *outcomes: Outcome, now: int = START) -> list[OutcomeReceipt]:
        """Receipts of the outcomes, one each and in the order given, as the store answers a report at `now` (µs since
        1970).
        """
        return self.store.record([], outcomes, now, self.specs)[1]

    def due(self, now: int, limit: int = 4000, stages: Sequence[str] = STAGES) -> list[int]:
        """Numbers of the decisions whose reward is final at `now` (µs since 1970), as a learner would settle them."""
        return [matured.seq for matured in self.store.matured(now, limit, stages)]

    def everything(self) -> Any:
        """Everything that can be read of the store, as values that compare equal exactly if nothing has changed."""
        found = [(f.seq, self.bits(f.decision), f.outcomes, f.settlement) for f in self.store.decisions()]
        settled = [(s, x.tobytes()) for name in STAGES for s, x, _ in self.store.settled(name)]
        return self.store.meta(), dict(self.store.specs()), found, settled, self.store.counts()

    @staticmethod
    def bits(decision: Decision) -> dict[str, Any]:
        """Copy of every field of a decision by name, arrays as (dtype, bytes): two decisions with equal copies are
        equal to the bit.
        """
        fields = msgspec.structs.asdict(decision)
        return {k: (v.dtype.str, v.tobytes()) if isinstance(v, np.ndarray) else copy.copy(v) for k, v in fields.items()}
