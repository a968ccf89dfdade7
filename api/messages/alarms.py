"""Messages of the native protocol about alarms that keys raised. Docstrings of these types are texts of the OpenAPI
document.
"""

import datetime as dt
from typing import Annotated

import msgspec

from bandit.records import AlarmVerdict

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=250)]
_Reason = Annotated[str, msgspec.Meta(max_length=2000)]


class AlarmAcknowledgementRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was found out about a key that was accused at a stage. `verdict`: "honest" lets what was held of it be
    learned; "forged" leaves that out for good.
    """

    reporter: _Name
    verdict: AlarmVerdict
    acknowledged_by: _Name
    reason: _Reason = ""


class AlarmAcknowledgementReply(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about a key, as the ledger keeps it: by whom, when and why."""

    number: int
    verdict: AlarmVerdict
    acknowledged_by: str
    acknowledged_at: dt.datetime
    reason: str


class RewardAlarmReply(msgspec.Struct, frozen=True, kw_only=True):
    """Alarm that a key reported more rewards for an arm than were usual: of `decisions` since it was first heard of, so
    many were rewarded by it, in `rate`; `usual_at_most` is what an honest key may bring. Rewards on [0, 1].
    `acknowledged`: null while nobody has. `held`: what the key reports at the stage teaches nothing now.
    """

    reporter: str
    arm: str
    raised_at: dt.datetime
    through_version: int
    decisions: int
    rate: float
    usual_at_most: float
    acknowledged: AlarmAcknowledgementReply | None
    held: bool
