"""Declarations of the journey: which events an app sends, and which moments, facts and outcomes follow from them.

They are tables of the catalogue. Names on the left of a table are ours, names in `names` and the right side of
`properties` are the app's. The rules are read by `bandit.journey.folding` and `bandit.journey.attribution`.
"""

from typing import Annotated, Literal

import msgspec

Times = Annotated[int, msgspec.Meta(ge=1, le=30)]
Names = Annotated[list[Annotated[str, msgspec.Meta(min_length=1, max_length=100)]], msgspec.Meta(min_length=1)]


class EventRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One kind of event. `names`: how the app calls it, older names too.

    properties: what is kept of it, ours → theirs (a dotted path); nothing else is stored. key: the kept property that
    says what the event is about, such as a product or an order: two events with one key are one fact. currency: where
    the app puts the currency of amounts (a dotted path). stage: where the user is after it.
    """

    names: Names
    properties: dict[str, str] = {}
    key: str = ""
    currency: str = "currency"
    stage: str = ""
    description: str = ""


class Repeated(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="repeated"):
    """`event` came `times` times about the same key (within `within`), and none of `without` about it since."""

    event: str
    times: Times
    within: str = ""
    without: list[str] = []
    description: str = ""


class Since(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="since"):
    """The last `event` is `after` ago or longer (and not longer than `until`), and none of `without` came since."""

    event: str
    after: str
    until: str = ""
    without: list[str] = []
    description: str = ""


class Idle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="idle"):
    """As `since`, and the user did nothing at all for `after`."""

    event: str
    after: str
    until: str = ""
    without: list[str] = []
    description: str = ""


class Back(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="back"):
    """The user is here now, and left in an earlier visit after `event`, at least `after` before this one began.

    None of `without` came since that event.
    """

    event: str
    after: str
    until: str = ""
    without: list[str] = []
    description: str = ""


Moment = Repeated | Since | Idle | Back


class Count(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="count"):
    """How often `event` came; `same`: about the key of the last one; `within`: lately (counts up to 32)."""

    event: str
    same: bool = False
    within: str = ""


class Age(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="age"):
    """Time since the last `event`, in `unit`."""

    event: str
    unit: Literal["s", "m", "h", "d"]


class LastValue(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="last"):
    """A kept property of the last `event` that had it."""

    event: str
    property: str


class Ever(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="ever"):
    """Whether `event` ever came."""

    event: str


class VisitLength(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="visit"):
    """How long this visit has lasted, in `unit`."""

    unit: Literal["s", "m", "h", "d"]


class VisitCount(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="visits"):
    """How many visits there were, this one included."""


Fact = Count | Age | LastValue | Ever | VisitLength | VisitCount


class Credit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an event says about a decision of the stage.

    value: the kept property with the reward or what is taken back; 1, or everything, if left out. by: the kept property
    that names the nudge or the decision. of: for a retraction, the event whose reward is taken back; both have a key.
    repeatable: for a reward, the same key may come again as a new fact (a product can be added twice, an order cannot).
    """

    kind: Literal["reward", "activation", "retraction"]
    value: str = ""
    by: str = ""
    of: str = ""
    repeatable: bool = False


class KeptProperty(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A kept property of the last event of a kind."""

    event: str
    property: str


class Abandonment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A visit with `event`, and none of `without` after it, was abandoned."""

    event: str
    without: list[str] = []


class JourneyRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the app's events mean. `visit`: a longer pause begins a new visit. `start`: the stage before any event has
    said another; the first declared one if left out. `consent`: flags that events carry. `placeholders`: ids that this
    app's clients send where an id is missing, beside the usual ones ("undefined", "null", "0", zero UUIDs). `timezone`:
    the kept property that names the user's own time zone, for quiet hours.
    """

    visit: str = "30m"
    start: str = ""
    events: dict[str, EventRule] = {}
    consent: dict[str, KeptProperty] = {}
    placeholders: list[str] = []
    timezone: KeptProperty | None = None
    abandoned: Abandonment | None = None
