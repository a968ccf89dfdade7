"""The declaration of how a stage watches for change; `bandit.learning.drift` carries it out."""

from typing import Annotated

import msgspec


class DriftRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a stage watches for change. keep = 1 only raises the alarm; watch = false does not look."""

    watch: bool = True
    threshold: Annotated[float, msgspec.Meta(ge=2, le=100)] = 10.0
    shift: Annotated[float, msgspec.Meta(ge=0.05, le=3)] = 0.8
    keep: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.02
