"""Decisions of the travel app's cart for tests of exports, with whatever an export has to keep apart."""

import uuid
from typing import Any

import numpy as np

from bandit.catalogue.loading import parse, read_shipped
from bandit.features import schema
from bandit.records import Decision

TRAVEL = parse(read_shipped("travel"))
STAGE = TRAVEL.stage("cart")
K, D = len(STAGE.arms), len(schema(STAGE.features).columns)


def decided(seq: int, rng: np.random.Generator) -> Decision:
    """A decision whose second arm is eligible and never drawn, and whose last one is not eligible. It was made `seq`
    seconds after the epoch.
    """
    p = np.array([2, 0, *rng.multinomial(2**24 - 2, np.full(K - 3, 1.0 / (K - 3))), 0]) / 2.0**24
    p[1], p[0] = (p[0], 0.0) if seq % 7 == 0 else (p[2] / 2, p[0])
    p[2] = 1.0 - p[0] - p[1] - p[3:].sum()
    values: dict[str, Any] = {
        "id": uuid.UUID(int=seq),
        "at": 1_000_000 * seq,
        "expires": 1_000_000 * seq + 1,
        "stage": "cart",
        "stage_digest": STAGE.digest(),
        "settlement_version": seq // 100,
        "user": rng.integers(0, 2**63, 2, dtype=np.int64).tobytes() if seq % 3 else (5).to_bytes(16, "little"),
        "request": b"asked",
        "x": rng.integers(-4096, 4097, D) / 4096.0,
        "propensity": p,
        "mean": rng.random(K) / 4.0,
        "sd": np.full(K, 0.1),
        "u": 0.5,
        "arm": STAGE.arms[int(rng.choice(K, p=p))],
        "holdout": seq % 20 == 0,
        "excluded": {STAGE.arms[-1]: "cap"},
        "evidence": {},
        "notes": (),
    }
    return Decision(**values)
