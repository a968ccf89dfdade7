"""Journey rules: declarations of which events an app sends, and which moments, facts and outcomes follow from them.

They are tables of the catalogue. Names on the left of a table are ours, names in `names` and the right side of
`properties` are the app's. Durations are texts such as "30m". The rules are read by `bandit.journey.folding` and
`bandit.journey.attribution`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

import msgspec

Times = Annotated[int, msgspec.Meta(ge=1, le=30)]
Names = Annotated[list[Annotated[str, msgspec.Meta(min_length=1, max_length=100)]], msgspec.Meta(min_length=1)]


class PropertyRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Property rule: what is kept of one property of an event, where more is to be said than its name.

    Fields: `name`: what the app calls it (a dotted path). `personal`: its texts and numbers say something of a person
    (an order number, an address): what is kept is their hash, by the same key as a user's, never the value. It can be
    an event's `key`; a feature, an amount, a consent or a time zone cannot be read from it.
    """

    name: str
    personal: bool = False


class EventRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Event rule: one kind of event, and what is kept of it.

    Fields: `names`: how the app calls it, older names too. `properties`: what is kept of it, ours → theirs (a dotted
    path, or a table with `name` and `personal`); nothing else is stored. `key`: the kept property that says what the
    event is about, such as a product or an order: two events with one key are one fact. `currency`: where the app puts
    the currency of amounts (a dotted path). `stage`: where the user is after it.
    """

    names: Names
    properties: dict[str, str | PropertyRule] = {}
    key: str = ""
    currency: str = "currency"
    stage: str = ""
    description: str = ""

    def path(self, ours: str) -> str:
        """Dotted path of a kept property, by our name, as the app calls it; the name itself if it is not kept."""
        declared = self.properties.get(ours, ours)
        return declared if isinstance(declared, str) else declared.name

    def is_personal(self, ours: str) -> bool:
        """Whether a kept property, by our name, is declared personal."""
        declared = self.properties.get(ours)
        return isinstance(declared, PropertyRule) and declared.personal


DECLINED = "nudge_declined"
"""Event by which a user says that they do not want to see a nudge again; its key is the nudge, as "stage.nudge"."""

STANDARD_EVENTS: Mapping[str, EventRule] = MappingProxyType(
    {DECLINED: EventRule(names=["Nudge Declined"], properties={"nudge": "nudge"}, key="nudge")}
)
"""Events that every app has without declaring them."""


class Repeated(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="repeated"):
    """Moment "repeated": `event` came `times` times about the same key (within the duration `within`), and none of
    `without` about that key since.
    """

    event: str
    times: Times
    within: str = ""
    without: list[str] = []
    description: str = ""


class Since(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="since"):
    """Moment "since": the last `event` is `after` ago or longer (and not longer than `until`; both durations), and none
    of `without` came since.
    """

    event: str
    after: str
    until: str = ""
    without: list[str] = []
    description: str = ""


class Idle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="idle"):
    """Moment "idle": as `Since`, and the user did nothing at all for the duration `after`."""

    event: str
    after: str
    until: str = ""
    without: list[str] = []
    description: str = ""


class Back(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="back"):
    """Moment "back": the user is here now, and left in an earlier visit after `event`, at least `after` (a duration)
    before this visit began; `until` bounds that time from above.

    None of `without` came since that event.
    """

    event: str
    after: str
    until: str = ""
    without: list[str] = []
    description: str = ""


Moment = Repeated | Since | Idle | Back


class Count(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="count"):
    """Fact "count": how often `event` came. `same`: only about the key of the last one; `within` (a duration): only
    lately (counts up to 32).
    """

    event: str
    same: bool = False
    within: str = ""


class Age(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="age"):
    """Fact "age": time since the last `event`, in `unit` (s, m, h or d); a number feature."""

    event: str
    unit: Literal["s", "m", "h", "d"]


class LastValue(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="last"):
    """Fact "last": the kept `property` of the last `event` that had it; fits a feature of the same type."""

    event: str
    property: str


class Ever(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="ever"):
    """Fact "ever": whether `event` ever came; a boolean feature."""

    event: str


class VisitLength(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="visit"):
    """Fact "visit": how long this visit has lasted, in `unit` (s, m, h or d); a number feature."""

    unit: Literal["s", "m", "h", "d"]


class VisitCount(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="visits"):
    """Fact "visits": how many visits there were, this one included; a number feature."""


Fact = Count | Age | LastValue | Ever | VisitLength | VisitCount


class Credit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Outcome rule: what an event says about a decision of the stage.

    Fields: `kind` reward, activation, retraction, or opt_out: the person wants no more of this. `value`: the kept
    property with the reward or what is taken back, in the reward's own units; 1, or everything, if left out. `by`:
    the kept property that names the nudge or the decision. `of`: for a retraction, the event whose reward is taken
    back; both have a key. `repeatable`: for a reward, the same key may come again as a new fact (a product can be
    added twice, an order cannot).
    """

    kind: Literal["reward", "activation", "retraction", "opt_out"]
    value: str = ""
    by: str = ""
    of: str = ""
    repeatable: bool = False


class KeptProperty(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Reference to a kept property of the last event of a kind: for consents and the user's time zone."""

    event: str
    property: str


class Abandonment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Abandonment rule: a visit with `event`, and none of `without` after it, was abandoned. `AbandonmentLimit` counts
    such visits.
    """

    event: str
    without: list[str] = []


class JourneyRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Journey rules of an app, `[journey]`: what its events mean.

    Fields: `visit`: a longer pause (a duration) begins a new visit. `start`: the stage before any event has said
    another; the first declared one if left out. `events` by our names. `consent`: flags that events carry.
    `placeholders`: ids that this app's clients send where an id is missing, beside the usual ones ("undefined", "null",
    "0", zero UUIDs). `timezone`: the kept property that names the user's own time zone, for quiet hours. `abandoned`:
    what an abandoned visit is.
    """

    visit: str = "30m"
    start: str = ""
    events: dict[str, EventRule] = {}
    consent: dict[str, KeptProperty] = {}
    placeholders: list[str] = []
    timezone: KeptProperty | None = None
    abandoned: Abandonment | None = None
