"""Guardrail declarations: how often, when, for how much and with what evidence nudges may be shown.

`limits` stands in three places: of the app (every nudge counts), of a stage (its nudges), of a nudge (itself). A day is
any 24 hours, a week any seven days. `contribution` bounds what is learned, not what is shown. `bandit.guardrails` and
`bandit.budgets` carry the declarations out. Guardrails and alarms say what is watched, by `bandit.alarms`, and what is
done then.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

from bandit.catalogue import durations
from bandit.errors import Problem

_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
Often = Annotated[int, msgspec.Meta(ge=1, le=100)]


class EvidenceRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Evidence rule of a nudge whose text makes a claim: what must come with the request before it may be shown.

    Fields: `kind` "stock": `{"stock": 3}` with 1 ≤ stock ≤ `at_most` units. "deadline": `{"deadline":
    "2026-01-31T18:00:00Z"}` in the future. `fresh` (a duration): evidence that says when it was looked up (`as_of`) may
    not be older.
    """

    kind: Literal["stock", "deadline"]
    at_most: Annotated[int, msgspec.Meta(ge=1)] | None = None
    fresh: str = ""


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Budget of a nudge: the most (`amount`, in the app's currency) that it may cost in each period of length `per` (a
    duration). Never overspent: see `bandit.budgets`.
    """

    amount: Annotated[float, msgspec.Meta(gt=0, le=1e9)]
    per: str

    @property
    def seconds(self) -> float:
        """Length of the period in seconds, on an uncompressed clock."""
        return durations.seconds(self.per)


class QuietHours(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"begin": "from", "end": "to"}
):
    """Quiet hours: a daily span without nudges, "22:00" to "07:00" (`from`, `to` in TOML).

    The clock is the user's own if `journey.timezone` tells it, else that of `timezone` (an IANA name). `formats`: only
    these formats rest; all if empty.
    """

    begin: str
    end: str
    timezone: str = "UTC"
    formats: list[str] = []

    def covers(self, minute: int) -> bool:
        """Whether the minute of the local day, 0 to 1439, is a quiet one. Hours that end before they begin go past
        midnight.
        """
        begin, end = minute_of(self.begin), minute_of(self.end)
        return begin <= minute < end if begin < end else minute >= begin or minute < end


class GlobalCap(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Frequency cap over all users together: at most `most` exposures in each period of length `per` (a duration)."""

    most: Annotated[int, msgspec.Meta(ge=1, le=10**9)]
    per: str


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Frequency caps for one user: exposures for each visit, day and week and in `total`; `cool_down` (a duration) is
    the least time between two. `everyone`: a cap over all users. `quiet`: quiet hours. None or "" is no limit.
    """

    per_visit: Often | None = None
    per_day: Often | None = None
    per_week: Often | None = None
    total: Often | None = None
    cool_down: str = ""
    everyone: GlobalCap | None = None
    quiet: QuietHours | None = None

    @property
    def of_one(self) -> tuple[int | None, int | None, int | None, int | None]:
        """Exposures of one user for each visit, day and week, and in total."""
        return self.per_visit, self.per_day, self.per_week, self.total


class ContributionLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Contribution limit of one user: of their decisions at the stage, `most` are learned within any `per` (a
    duration); those beyond are made and answered as any, and teach nothing.

    What counts is how many were made before, never which arm was drawn or what came of it, so the arms that are
    compared lose the same people. A request that itself chooses among the nudges (`include`, `exclude`) can aim at one
    of them, and takes the whole limit. Bounds on one person's contribution: Amin et al. 2019, "Bounding User
    Contributions", there for privacy.
    """

    most: Annotated[int, msgspec.Meta(ge=1, le=10**6)]
    per: str

    @property
    def seconds(self) -> float:
        """Length of the period in seconds, on an uncompressed clock."""
        return durations.seconds(self.per)


BadEvent = Literal["retraction", "opt_out"]
"""Kind of outcome that a guardrail can count."""


class GuardrailRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Guardrail of a stage's nudges: of the decisions that show a nudge, `bad` events (retractions of what was
    reported, such as refunds, or opt-outs, or either) may follow a share of `most`. A nudge that is above it is stopped
    (`then`): "pause" pauses it, "pause_stage" all of the stage's, "tell" none, but says so.

    `after`: so many decisions of a nudge have to mature before it is accused. `alpha`: chance that a nudge within its
    bound is ever accused, however often one looks (`bandit.alarms.guardrail_metric`).
    """

    most: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    after: Annotated[int, msgspec.Meta(ge=1, le=10**6)] = 100
    alpha: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.05
    then: Literal["pause", "pause_stage", "tell"] = "pause"
    bad: Annotated[tuple[BadEvent, ...], msgspec.Meta(min_length=1)] | msgspec.UnsetType = msgspec.UNSET

    @property
    def kinds(self) -> tuple[BadEvent, ...]:
        """Kinds of bad events that count: retractions, where none are declared (and no digest names them)."""
        return ("retraction",) if isinstance(self.bad, msgspec.UnsetType) else self.bad


AlarmAction = Literal["tell", "pause_stage", "roll_back"]
"""What is done at an alarm, besides telling it: nothing, no nudge to anybody, or a rollback of the approved release
that decides (where none does, nothing).
"""

_Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]
_Decisions = Annotated[int, msgspec.Meta(ge=100, le=10_000)]


class CollapseAlarm(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Alarm of exploration: of the arms beyond the first that could be drawn in the newest `after` decisions, less than
    a `share` is (`bandit.alarms.exploration`).
    """

    share: _Share = 0.05
    after: _Decisions = 1000
    then: AlarmAction = "tell"


class SilenceAlarm(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Alarm of outcomes: none has come for so many matured decisions that the earlier rate gives it a `chance` of at
    most this (`bandit.alarms.silence`).
    """

    chance: Annotated[float, msgspec.Meta(gt=0, le=0.01)] = 1e-6
    then: AlarmAction = "tell"


class EligibleAlarm(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Alarm of eligibility: of the newest `after` people for whom a decision came to a nudge's evidence and consents,
    they had arrived for a share below `fall` times that of the `after` before, beyond chance
    (`bandit.alarms.eligible_share`).
    """

    fall: _Share = 0.5
    after: _Decisions = 500
    then: AlarmAction = "tell"


class StageAlarms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Alarms of a stage, each None if it is not declared; `{}` declares one with its defaults."""

    collapse: CollapseAlarm | None = None
    silence: SilenceAlarm | None = None
    eligible: EligibleAlarm | None = None

    def __bool__(self) -> bool:
        """Whether any is declared."""
        return any(one is not None for one in (self.collapse, self.silence, self.eligible))


class AbandonmentLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Abandonment limit: not for users who abandoned more than `most` visits within `within` (a duration), because they
    may be waiting for the nudge.
    """

    most: Annotated[int, msgspec.Meta(ge=0, le=30)]
    within: str


class ExclusionRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Exclusion group: a user sees one of its members within `within` (a duration). `among`: types of nudges, or
    "stage.nudge".
    """

    among: Annotated[list[str], msgspec.Meta(min_length=1)]
    within: str


def minute_of(clock: str) -> int:
    """Minutes since midnight, 0 to 1439, of a checked "HH:MM"."""
    return int(clock[:2]) * 60 + int(clock[3:])


def check(path: str, declared: msgspec.Struct) -> Iterator[Problem]:
    """Problems of one of the tables above, by itself; `path` is where it stands. Structs of other types have none."""
    match declared:
        case QuietHours():
            for key, clock in (("from", declared.begin), ("to", declared.end)):
                if not _CLOCK.fullmatch(clock):
                    yield Problem(f"{path}.{key}", f"{clock!r} is not a time of day", 'hours and minutes, e.g. "22:00"')
            if declared.begin == declared.end:
                yield Problem(f"{path}.to", "the quiet hours are empty", "another time than `from`")
        case Limits() if declared.cool_down:
            yield from durations.check(f"{path}.cool_down", declared.cool_down, zero=True)
        case EvidenceRule():
            yield from _check_evidence(path, declared)
        case GlobalCap() | Budget() | ContributionLimit():
            yield from durations.check(f"{path}.per", declared.per)
        case AbandonmentLimit():
            yield from durations.check(f"{path}.within", declared.within)


def _check_evidence(path: str, evidence: EvidenceRule) -> Iterator[Problem]:
    if evidence.kind == "stock" and evidence.at_most is None:
        yield Problem(f"{path}.at_most", "missing", "the largest stock that is scarce, e.g. 5")
    if evidence.fresh:
        yield from durations.check(f"{path}.fresh", evidence.fresh)
