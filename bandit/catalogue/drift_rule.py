"""Drift rule: the declaration of how a stage watches for change; `bandit.learning.drift` carries it out."""

from typing import Annotated

import msgspec


class DriftRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Drift rule of a stage, `[stages.cart.drift]`.

    Fields: `watch` false does not look. `threshold`: log likelihood ratio at which a CUSUM raises the alarm. `shift`:
    size of the change that is looked for, in logits. `keep`: weight of what was learned before an alarm; 1 only raises
    the alarm.
    """

    watch: bool = True
    threshold: Annotated[float, msgspec.Meta(ge=2, le=100)] = 10.0
    shift: Annotated[float, msgspec.Meta(ge=0.05, le=3)] = 0.8
    keep: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.02
