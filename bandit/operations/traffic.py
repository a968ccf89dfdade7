"""Traffic settings: the ramp and the holdout of a stage as operators have set them while the service runs, in place of
those that the catalogue, or an approved release, declares.
"""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from bandit.catalogue.model import Stage
from bandit.records import OperatorAction

SETTINGS = ("ramp", "holdout")
"""Verbs of actions that set a share of a stage's traffic."""


class TrafficSetting(NamedTuple):
    """Traffic setting of one stage: the actions that set its ramp and its holdout, None where the declared one
    counts.
    """

    ramp: OperatorAction | None = None
    holdout: OperatorAction | None = None

    def applied(self, stage: Stage) -> Stage:
        """Declaration under which decisions are made while this setting is in force: `stage` with these shares."""
        if self.ramp is not None:
            stage = msgspec.structs.replace(stage, live_ramp=self.ramp.share)
        if self.holdout is not None:
            assert self.holdout.share is not None  # noqa: S101 - `settings` keeps no other
            stage = msgspec.structs.replace(stage, holdout=self.holdout.share)
        return stage


UNSET = TrafficSetting()
"""Setting of a stage whose declared shares count."""


def settings(actions: Iterable[OperatorAction]) -> dict[str, TrafficSetting]:
    """Settings in force, by stage, of actions in the order of the ledger. One without a share ends what was set."""
    found = dict[str, TrafficSetting]()
    for one in actions:
        if one.verb in SETTINGS:
            found[one.stage] = found.get(one.stage, UNSET)._replace(**{one.verb: None if one.share is None else one})
    return {stage: setting for stage, setting in found.items() if setting != UNSET}


def newest(actions: Iterable[OperatorAction], stage: str, verb: str) -> OperatorAction | None:
    """Newest action that set this share of a stage, or ended that; None where nobody has."""
    return next((one for one in reversed([*actions]) if (one.stage, one.verb) == (stage, verb)), None)
