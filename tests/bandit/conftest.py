"""What the tests of the core share: a small stage, beliefs, decisions and outcomes to build on."""

import uuid
from collections.abc import Callable
from functools import partial

import msgspec
import numpy as np
import pytest
from hypothesis import settings

from bandit import features
from bandit.belief import Belief, sites
from bandit.catalogue import loading
from bandit.catalogue.model import Stage
from bandit.records import Decision, MaturedDecision, Outcome

settings.register_profile("core", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("core")

CATALOGUE = """
app = "shop"
currency = "EUR"

[stages.checkout]
policy = { name = "linear", prior_mean = 0.3 }
floor = 0.02
reward = { kind = "binary", window = "24h" }

[stages.checkout.features]
seconds = { type = "number", min = 0, max = 600, default = 60, scale = "log" }
visits = { type = "number", min = -5, max = 5, default = 0 }
returning = { type = "boolean", default = false }
device = { type = "category", values = ["mobile", "desktop", "other"], default = "mobile" }

[stages.checkout.nudges]
reminder = { type = "reminder", format = "banner" }
discount = { type = "discount", format = "popup", cost_when_rewarded = 0.2 }
low_stock = { type = "scarcity", format = "badge", evidence = { kind = "stock", at_most = 5 } }
countdown = { type = "urgency", format = "badge", evidence = { kind = "deadline" } }
"""


@pytest.fixture(scope="session")
def make_stage() -> Callable[..., Stage]:
    """A checkout stage with four nudges; any field may be replaced: make_stage(floor=0.1)."""
    return partial(msgspec.structs.replace, loading.parse(CATALOGUE).stages["checkout"])


@pytest.fixture(scope="session")
def make_belief() -> Callable[..., Belief]:
    """What `rows` random decisions have taught `k` arms of `d` features."""

    def make(k: int, d: int, rows: int, seed: int) -> Belief:
        rng = np.random.default_rng(seed)
        x = np.rint(rng.uniform(-1, 1, (rows, d)) * 2**12) / 2**12
        x[:, 0] = 1.0
        reward = (rng.random(rows) < rng.uniform(0, 1, k)[(arm := rng.integers(0, k, rows))]).astype(float)
        return sites(k, x, arm, np.ones(rows), reward, reward)

    return make


@pytest.fixture(scope="session")
def make_matured(make_stage: Callable[..., Stage]) -> Callable[..., MaturedDecision]:
    """A matured decision about `arm` with (kind, value) outcomes; `late` and other fields may be given."""

    def make(
        seq: int, arm: str, *outcomes: tuple[str, float | None], late: bool = False, **fields: object
    ) -> MaturedDecision:
        k = len(make_stage().arms)
        x = features.encode(features.schema(make_stage().features), {"seconds": seq % 600, "visits": seq % 11 - 5}).x
        decision = Decision(
            id=(id_ := uuid.UUID(int=seq)),
            at=0,
            expires=1,
            stage="checkout",
            stage_digest="",
            settlement_version=0,
            user=b"",
            request=b"",
            x=x,
            propensity=np.full(k, 1.0 / k),
            mean=np.full(k, 0.1),
            sd=np.full(k, 0.1),
            u=0.0,
            arm=arm,
            holdout=False,
            excluded={},
            evidence={},
            notes=(),
        )
        reported = tuple(
            msgspec.convert(
                {"decision": id_, "id": str(i), "kind": k, "value": v, "occurred": 0, "received": 0, "late": late},
                Outcome,
            )
            for i, (k, v) in enumerate(outcomes)
        )
        return MaturedDecision(seq, msgspec.structs.replace(decision, **fields), reported)

    return make
