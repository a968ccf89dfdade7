"""Promotion rule: when a policy may replace another, the terms that an app declares, `[stages.cart.promotion]` in its
catalogue.

The verdict by them is `experiments.promotion.verdict`.
"""

from typing import Annotated

import msgspec

NotNegative = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class PromotionRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Promotion rule of a stage. Lifts are in what a decision is worth: the unit in which the policies were evaluated.

    Fields: `min_lift`: the whole interval must lie above it. `max_regression`: how much worse a policy may be, overall
    and in any segment, before it is rejected or held. `min_n`: rounds before anything is decided. `guardrails`: for
    each metric (cost, opt_outs, refunds …) the largest increase for a decision that is tolerated; each must be
    measured.
    """

    min_lift: NotNegative = 0.0
    max_regression: NotNegative = 0.0
    min_n: Annotated[int, msgspec.Meta(ge=2, le=10**9)] = 1000
    guardrails: dict[str, NotNegative] = {}
