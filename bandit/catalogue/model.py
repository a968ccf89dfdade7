"""The catalogue: what one app can show at each stage, what it knows, and what it wants. Written as TOML.

`parse` decodes strictly and reports every mistake at once; what it returns is checked and never changes.
"""

from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from bandit.catalogue import durations
from bandit.catalogue.decoding import closest
from bandit.catalogue.digest import digest_of
from bandit.catalogue.drift_rule import DriftRule
from bandit.catalogue.journey_rules import Credit, Fact, JourneyRules, Moment
from bandit.catalogue.limits import AbandonmentLimit, Budget, EvidenceRule, ExclusionRule, Limits
from bandit.catalogue.promotion_rule import PromotionRule
from bandit.errors import NotFound
from bandit.policies import AnyPolicy, Hierarchical
from bandit.policies.hurdle import HierarchicalHurdle
from bandit.policies.protocol import ArmEconomics, Policy
from bandit.policies.shared import ONE, Shared

NONE = "none"
"""The arm that shows nothing: always there, always first, the baseline."""

Value = str | float | bool

Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Rate = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
Bounded = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One thing known at decision time. Numbers declare a range, categories their values, all a default.

    `scale = "log"` maps a number by log(1 + v − min) before it is scaled to [−1, 1]. A category that lists
    "other" takes unknown values as "other"; one that does not refuses them.
    """

    type: Literal["number", "boolean", "category"]
    default: Value
    min: Bounded | None = None
    max: Bounded | None = None
    scale: Literal["linear", "log"] = "linear"
    values: list[str] = []
    description: str = ""


class Nudge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One arm. `cost` is paid each time it is shown, `cost_when_rewarded` for each unit of reward it brings.

    `price` is what showing it shall be worth at least, on top of its cost: nobody pays it, the choice counts it
    (fatigue). `paused`: not shown to anybody, what it has taught is kept. `consent`: flags without which it is not
    shown. `abandoned`: not for repeat abandoners.
    """

    type: str
    format: str
    payload: dict[str, Any] = {}
    cost: NotNegative = 0.0
    cost_when_rewarded: NotNegative = 0.0
    price: NotNegative = 0.0
    paused: bool = False
    evidence: EvidenceRule | None = None
    budget: Budget | None = None
    limits: Limits = Limits()
    consent: list[str] = []
    abandoned: AbandonmentLimit | None = None
    description: str = ""


class Loop(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How rewards of a ranking add up. Personalizer gives them no id: with "sum", the same value again within `retry`
    of the last one is taken for a repeated request.
    """

    rewards: Literal["first", "sum"] = "first"
    retry: str = "2m"


class Reward(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What success is. `value` is what one unit of reward is worth, in the app's currency. "revenue" is nothing for
    most people and any amount up to `max` for some; larger ones count as `max`.

    Outcomes count for `window` after the decision; then silence is `default`. `settle = "reward"` is for apps that
    report every outcome, zeros included: a decision is then learned as soon as its reward is known.
    `delay`: how long an answer takes on average. Without it open decisions wait for their window to end.
    """

    kind: Literal["binary", "continuous", "revenue"]
    window: str
    min: Bounded = 0.0
    max: Bounded = 1.0
    default: Bounded = 0.0
    value: Annotated[float, msgspec.Meta(ge=1e-6, le=1e9)] = 1.0
    settle: Literal["window", "reward"] = "window"
    delay: str | None = None
    description: str = ""

    @property
    def seconds(self) -> float:
        """The attribution window in seconds."""
        return durations.seconds(self.window)

    @property
    def typical(self) -> float | None:
        """The average delay of an answer, as a share of the window; None if it is not declared."""
        return durations.seconds(self.delay) / self.seconds if self.delay else None

    def scaled(self, value: float) -> float:
        """`value` clipped to the declared range and mapped to [0, 1]."""
        return (min(max(value, self.min), self.max) - self.min) / (self.max - self.min)


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A step of the journey with its own policy.

    `activation = "required"`: a decision is learned only if an activation (it was really shown) was reported.
    `price`: as a nudge's, for every nudge of the stage. `top_two`: the β of top-two sampling, to find the best arm
    rather than to earn. `ramp`: share of the traffic that the policy decides, the rest gets no nudge.
    `schema`: raise it when features, or the reward's kind or range, change: learning begins anew, old rows are kept.
    `moments`: when to ask, from the user's events; `derived`: features that they give; `outcomes`: what they report.
    `promotion`: when a policy may replace the one that is live. `loop`: for actions that come with the request.
    """

    reward: Reward
    features: dict[str, Feature] = {}
    nudges: dict[str, Nudge] = {}
    policy: AnyPolicy | Shared = Hierarchical()
    floor: Share = 0.01
    price: NotNegative = 0.0
    top_two: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    ramp: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    holdout: Share = 0.0
    activation: Literal["assumed", "required"] = "assumed"
    drift: DriftRule = DriftRule()
    promotion: PromotionRule = PromotionRule()
    schema: Annotated[int, msgspec.Meta(ge=1, le=9999)] = 1
    moments: dict[str, Moment] = {}
    derived: dict[str, Fact] = {}
    outcomes: dict[str, Credit] = {}
    limits: Limits = Limits()
    loop: Loop = Loop()
    description: str = ""

    @property
    def has_request_actions(self) -> bool:
        """Whether actions come with each request. The stage then has one arm to learn of: the one that was taken."""
        return isinstance(self.policy, Shared)

    def belief_row(self, arm: str) -> str:
        """Where a belief keeps what an arm has taught."""
        return ONE.names[0] if self.has_request_actions else arm

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm, no nudge first; arrays over arms are in this order."""
        return ONE.names if self.has_request_actions else (NONE, *self.nudges)

    @property
    def learner(self) -> Policy:
        """The policy that learns this kind of reward."""
        if not isinstance(self.policy, Hierarchical) or self.reward.kind == "binary":
            return self.policy
        return self.policy.gaussian() if self.reward.kind == "continuous" else hurdle_of(self.policy)

    def belief_rows(self, arms: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the rows of a belief over `arms`: revenue has two for each, whether and how much."""
        return (*arms, *(f"{arm}$" for arm in arms)) if self.hurdle else arms

    @property
    def hurdle(self) -> bool:
        """Whether amounts are learned apart."""
        return isinstance(self.learner, HierarchicalHurdle)

    @property
    def arm_economics(self) -> ArmEconomics:
        """What the policy knows of the arms; gain and cost in units of the reward range."""
        if self.has_request_actions:
            return ONE
        span = self.reward.max - self.reward.min
        base = np.array([0.0] + [n.cost_when_rewarded for n in self.nudges.values()])
        shown = np.array([0.0] + [n.cost + n.price + self.price for n in self.nudges.values()])
        # utility in currency = (value − cwr)·r − cost, r = min + span·r̃; divided by value·span
        gain = (self.reward.value - base) / self.reward.value
        kinds = (NONE, *(n.type for n in self.nudges.values()))
        cost = (shown - (self.reward.value - base) * self.reward.min) / (self.reward.value * span)
        return ArmEconomics(self.arms, kinds, gain, cost)

    def learning_digest(self) -> str:
        """Changes when old statistics stop meaning what they meant: features, or the reward and its range."""
        reward = (self.reward.kind, self.reward.min, self.reward.max)
        features = {name: (f.type, f.min, f.max, f.scale, f.values) for name, f in self.features.items()}
        anew = () if self.schema == 1 else (self.schema,)
        hashed = self.policy.meaning if isinstance(self.policy, Shared) else ()
        return digest_of((list(features.items()), reward, self.learner.link, *hashed, *anew))

    def digest(self) -> str:
        """Changes with anything declared for this stage."""
        return digest_of(self)


def hurdle_of(policy: Hierarchical) -> HierarchicalHurdle:
    """The same hierarchy for revenue."""
    return HierarchicalHurdle(policy.prior_mean, *policy.widths, policy.alpha, policy.scales)


class Catalogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One app: its stages by name. `rates`: what one unit of another currency is worth in `currency`."""

    app: str
    currency: str
    stages: dict[str, Stage]
    journey: JourneyRules = JourneyRules()
    rates: dict[str, Rate] = {}
    limits: Limits = Limits()
    exclusive: list[ExclusionRule] = []
    title: str = ""
    description: str = ""

    def stage(self, name: str) -> Stage:
        """The stage of that name; NotFound names the known ones."""
        try:
            return self.stages[name]
        except KeyError:
            problem = f"this app has no stage {name!r}"
            raise NotFound("stage", problem, closest(name, self.stages)) from None
