"""Promotion rule: when a policy may replace another, the terms that an app declares, `[stages.cart.promotion]` in its
catalogue.

The verdict by them is `experiments.promotion.verdict`.
"""

from typing import Annotated

import msgspec

NotNegative = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class PromotionRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Promotion rule of a stage. Differences are in money, net of costs, a decision: over no nudge and over the live
    version, both from the same evidence.

    Fields: `min_lift`: both whole intervals must lie above it. `max_regression`: how much worse than the live version a
    policy may be, overall and in any segment, before it is rejected or held; one that surely loses against no nudge is
    rejected whatever it is. `min_n`: rounds before anything is decided. `guardrails`: for each metric (cost, opt_outs,
    refunds …) the largest increase for a decision that is tolerated; each must be measured.
    """

    min_lift: NotNegative = 0.0
    max_regression: NotNegative = 0.0
    min_n: Annotated[int, msgspec.Meta(ge=2, le=10**9)] = 1000
    guardrails: dict[str, NotNegative] = {}
