"""Catalogue of one app as types: what can be shown at each stage, what is known of a user, and what counts as success.

Types only: frozen structs that `bandit.catalogue.loading.parse` decodes from TOML (or JSON) and checks, so that code
which holds a `Catalogue` may rely on every rule of `bandit.catalogue.checks`. Money is in the app's currency, durations
are texts such as "72h" (`bandit.catalogue.durations`).
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np

from bandit.arrays import Array
from bandit.catalogue import durations
from bandit.catalogue.content.model import Content, PagesRule
from bandit.catalogue.decoding import closest
from bandit.catalogue.digest import digest_of, digest_without
from bandit.catalogue.drift_rule import DriftRule
from bandit.catalogue.journey_rules import Credit, Fact, JourneyRules, Moment
from bandit.catalogue.limits import (
    AbandonmentLimit,
    Budget,
    ContributionLimit,
    EvidenceRule,
    ExclusionRule,
    GuardrailRule,
    Limits,
    StageAlarms,
)
from bandit.catalogue.promotion_rule import PromotionRule
from bandit.errors import NotFound
from bandit.policies import AnyPolicy, Centred, Hierarchical
from bandit.policies.hurdle import HierarchicalHurdle
from bandit.policies.protocol import ArmEconomics, Policy
from bandit.policies.shared import ONE, Shared

NONE = "none"
"""The arm that shows nothing: always there, always first, the baseline."""

STANDARD_FLOOR = 0.01
"""Floor of each eligible arm where a stage declares none and its policy has none of its own."""

WINDOW = "window"
"""The `delay` of a reward whose open decisions wait for the end of their window."""

Value = str | float | bool

Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Rate = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
Bounded = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]


_READABLE = (
    "a feature is learned from, so the ledger keeps numbers that its value can be read from",
    "remove the feature, or declare ranges or categories so coarse that they say nothing of one person",
)


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Feature: one thing known of the user or the situation at decision time; a column of the context.

    Fields: `type` number, boolean or category; `default` stands in for a missing value; `min`, `max` the range of a
    number (values outside are clipped), in the feature's own unit; `scale` linear or log; `values` those of a category.

    `scale = "log"` maps a number by log(1 + v − min) before it is scaled to [−1, 1]. A category that lists "other"
    takes unknown values as "other"; one that does not refuses them with InvalidRequest (`bandit.features.encode`).
    """

    refused_keys: ClassVar[Mapping[str, tuple[str, str]]] = MappingProxyType({"personal": _READABLE})

    type: Literal["number", "boolean", "category"]
    default: Value
    min: Bounded | None = None
    max: Bounded | None = None
    scale: Literal["linear", "log"] = "linear"
    values: list[str] = []
    description: str = ""


class Nudge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Nudge: one arm of a stage, something that may be shown to a user.

    Fields: `type` is what hierarchical policies share across nudges and stages; `format` and `payload` go to the client
    as they are. `content`: the words, picture and link that a page shows. `cost` is paid each time it is shown,
    `cost_when_rewarded` for each unit of reward it brings, both in the app's currency. `price` is what showing it shall
    be worth at least, on top of its cost: nobody pays it, the choice counts it (fatigue). `paused`: not shown to
    anybody, what it has taught is kept. `evidence`: what must come with a request before its claim may be made.
    `budget` and `limits`: how much and how often. `consent`: flags without which it is not shown. `abandoned`: not for
    repeat abandoners.
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
    content: Content | msgspec.UnsetType = msgspec.UNSET  # left out, it is no part of a digest

    def spending(self, reward: float) -> float:
        """Money that showing the nudge costs, in currency, where it brings `reward` units: negative ones cost nothing
        more.
        """
        return self.cost + self.cost_when_rewarded * max(reward, 0.0)


class Loop(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Reward rule of a ranking, whose actions come with the request (`policy = "shared"`): how several rewards of one
    event add up.

    `rewards`: "first" keeps the first, "sum" adds them. Personalizer gives rewards no id: with "sum", the same value
    again within `retry` (a duration) of the last one is taken for a repeated request.
    """

    rewards: Literal["first", "sum"] = "first"
    retry: str = "2m"


class Reward(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Reward definition of a stage: what success is, its range, its worth, and how long to wait for it.

    Fields: `kind` binary, continuous, or revenue (nothing for most people and any amount up to `max` for some; larger
    ones count as `max`). `min`, `max`, `default` in the reward's own units. `value` is what one unit of reward is
    worth, in the app's currency. Outcomes count for `window` after the decision; then silence is `default`. What comes
    within `grace` of the window's end corrects what was learned; without one, nothing does. `settle = "reward"` is for
    apps that report every outcome, zeros included: a decision is then learned as soon as its reward is known. `delay`:
    how long an answer takes on average. Open decisions count by how surely an answer would have come by now; without
    `delay` that is learned from the answers, and what is open counts little until about ten have come. `delay =
    "window"`: open decisions wait for their window to end.
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
    grace: str | msgspec.UnsetType = msgspec.UNSET  # left out, it is no part of a digest

    @property
    def seconds(self) -> float:
        """Attribution window in seconds, on an uncompressed clock."""
        return durations.seconds(self.window)

    @property
    def seconds_and_grace(self) -> float:
        """Seconds after a decision, on an uncompressed clock, in which an outcome can still teach something."""
        return self.seconds + (durations.seconds(self.grace) if isinstance(self.grace, str) else 0.0)

    @property
    def grace_share(self) -> float:
        """How long after its window an outcome still corrects a settled decision, as a share of the window; 0: never.
        Used by the admission of outcomes, whose clock may be compressed.
        """
        return durations.seconds(self.grace) / self.seconds if isinstance(self.grace, str) else 0.0

    @property
    def typical(self) -> float | None:
        """Average delay of an answer, as a share of the window (no unit); None if no duration is declared. Used by
        `bandit.learning.delay`.
        """
        return None if self.delay is None or self.waits else durations.seconds(self.delay) / self.seconds

    @property
    def waits(self) -> bool:
        """Whether open decisions teach nothing before their window ends (`delay = "window"`)."""
        return self.delay == WINDOW

    def scaled(self, value: float) -> float:
        """Reward `value`, in its own units, clipped to [min, max] and mapped to [0, 1]: the unit in which policies
        learn.
        """
        return (min(max(value, self.min), self.max) - self.min) / (self.max - self.min)

    def all_scaled(self, values: Sequence[float]) -> Array:
        """Rewards (n,), each as `scaled`; what is alike, as most are, is computed once."""
        known = {value: self.scaled(value) for value in set(values)}
        return np.array([known[value] for value in values])


DEFAULT, EARLIER_DEFAULT = Centred(), Hierarchical()
"""Policy of a stage that declares none, and what it was in versions before `centred`."""


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """Stage: a step of the journey with its own nudges, reward and policy, as declared in the catalogue.

    Guarantees: immutable (what follows from the fields may be kept once it was asked for) and checked when it comes
    from `parse`; `arms` and all arrays over arms are in declaration order, no nudge first; `digest()` changes with
    anything declared, `learning_digest()` only when old statistics lose their meaning.

    Fields: `activation = "required"`: a decision is learned only if an activation (it was really shown) was reported.
    `floor`: least probability of each eligible arm; without one 0.01, and under `centred` what each arm may cost.
    `price`: as a nudge's, in currency, for every nudge of the stage; without one 0, and under `centred` what
    the app learned. `loss`: what learning may cost against no nudge, in percent of what a month earns with none
    ("none": no bound), under `centred` with a binary reward. `loss_rule`: whether that loss is `kept`, the
    default, or `expected` at most where nudges do nothing, so that more may be lost where they harm.
    `top_two`: the β of top-two sampling, to find the best arm rather than to earn. `ramp`: share of the traffic that
    the policy decides, the rest gets no nudge. `holdout`: share of users in the control group. `drift`: how the stage
    watches for change. `schema`: raise it when features, or the reward's kind or range, change: learning begins anew,
    old rows are kept. `moments`: when to ask, from the user's events; `derived`: features that they give; `outcomes`:
    what they report. `promotion`: when a policy may replace the one that is live. `limits`: caps and quiet hours.
    `contribution`: how many decisions of one user are learned; all, without one. `reward_alarm`: whether it is told
    that a key reports more rewards than were usual, and whether that pauses what the key teaches. `guardrail`: how
    often bad events may follow a nudge, and what is done then. `alarms`: what is told, or done,
    when exploration collapses, outcomes stay away, or suddenly no nudge is eligible. `loop`: for actions that come with
    the request. `live_ramp`: the ramp that an operator has set while the service runs; no catalogue declares it.
    """

    reward: Reward
    features: dict[str, Feature] = {}
    nudges: dict[str, Nudge] = {}
    policy: AnyPolicy | Shared = DEFAULT
    floor: Share | None = None
    price: NotNegative | None = None
    top_two: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    loss: Annotated[str, msgspec.Meta(examples=["2%", "none"])] = "2%"
    loss_rule: Literal["kept", "expected"] = "kept"
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
    contribution: ContributionLimit | None = None
    reward_alarm: Literal["tell", "pause", "none"] = "tell"
    guardrail: GuardrailRule | None = None
    alarms: StageAlarms = StageAlarms()
    loop: Loop = Loop()
    description: str = ""
    live_ramp: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None

    @property
    def traffic(self) -> float:
        """Share of the traffic that the policy decides, in (0, 1]: what an operator has set, else the declared
        `ramp`.
        """
        return self.ramp if self.live_ramp is None else self.live_ramp

    @cached_property
    def has_request_actions(self) -> bool:
        """Whether actions come with each request (policy `shared`). The stage then has one arm to learn of: the action
        that was taken.
        """
        return isinstance(self.policy, Shared)

    def belief_row(self, arm: str) -> str:
        """Name of the row of the belief that keeps what `arm` has taught: the arm itself, or the single row of a shared
        model.
        """
        return ONE.names[0] if self.has_request_actions else arm

    @cached_property
    def arms(self) -> tuple[str, ...]:
        """Arm names (k,), no nudge first, then nudges as declared; every array over arms is in this order."""
        return ONE.names if self.has_request_actions else (NONE, *self.nudges)

    @cached_property
    def learner(self) -> Policy:
        """Policy that learns this kind of reward: the declared one, or for `hierarchical` its Gaussian (continuous) or
        hurdle (revenue) form.
        """
        if not isinstance(self.policy, Hierarchical | Centred) or self.reward.kind == "binary":
            return self.policy
        policy = self.policy if isinstance(self.policy, Hierarchical) else Hierarchical(self.policy.prior_mean)
        return policy.gaussian() if self.reward.kind == "continuous" else hurdle_of(policy)

    @property
    def common_floor(self) -> float:
        """Floor that every eligible arm has: the declared one; without one 0.01, and 0 under `centred`, whose floors
        differ by arm.
        """
        if self.floor is not None:
            return self.floor
        return 0.0 if isinstance(self.policy, Centred) else STANDARD_FLOOR

    @property
    def loss_share(self) -> float | None:
        """Declared loss as a share in (0, 1]; None where the stage has no loss account."""
        if self.loss == "none" or not isinstance(self.learner, Centred):
            return None
        return float(self.loss.removesuffix("%")) / 100.0

    def belief_rows(self, arms: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the rows of a belief over `arms`: (k,), or (2k,) for revenue, which has two for each arm, whether
        and how much.
        """
        return self.learner.rows(arms)

    @property
    def arm_economics(self) -> ArmEconomics:
        """Economics of the arms as a policy needs them: names, types, gain (k,) and cost (k,), in units of the reward
        range.

        Money is divided by `reward.value · (max − min)`, so that utility = gain · reward − cost with reward in [0, 1].
        Prices (fatigue) are part of the cost. Computed anew on each access; callers keep it with the snapshot.
        """
        if self.has_request_actions:
            return ONE
        span = self.reward.max - self.reward.min
        base = np.array([0.0] + [n.cost_when_rewarded for n in self.nudges.values()])
        unit, nudges = self.reward.value * span, self.nudges.values()
        default = self.policy.price * unit if isinstance(self.policy, Centred) else 0.0
        price = np.array([0.0] + [n.price + (default if self.price is None else self.price) for n in nudges])
        shown = np.array([0.0] + [n.cost for n in nudges]) + price
        # utility in currency = (value − cwr)·r − cost, r = min + span·r̃; divided by value·span
        gain = (self.reward.value - base) / self.reward.value
        kinds = (NONE, *(n.type for n in self.nudges.values()))
        cost = (shown - (self.reward.value - base) * self.reward.min) / unit
        return ArmEconomics(self.arms, kinds, gain, cost, price=price / unit)

    def learning_digest(self) -> str:
        """Digest (32 hex digits) of what statistics depend on. It changes when old statistics stop meaning what they
        meant: features, or the reward and its range, the link of the policy, or `schema`. The learner compares it and
        begins anew.
        """
        reward = (self.reward.kind, self.reward.min, self.reward.max)
        features = {name: (f.type, f.min, f.max, f.scale, f.values) for name, f in self.features.items()}
        anew = () if self.schema == 1 else (self.schema,)
        own: tuple[float | str, ...] = self.policy.meaning if isinstance(self.policy, Shared) else ()
        own = ("centred",) if isinstance(self.learner, Centred) else own
        return digest_of((list(features.items()), reward, self.learner.link, *own, *anew))

    def digest(self) -> str:
        """Digest (32 hex digits) of the whole declaration; it changes with anything declared for this stage. Decisions
        record it.
        """
        new = {
            "contribution": self.contribution is None,
            "reward_alarm": self.reward_alarm == "tell",
            "guardrail": self.guardrail is None,
            "alarms": not self.alarms,
            "live_ramp": self.live_ramp is None,
        }
        usual = [name for name, unused in new.items() if unused]
        if isinstance(self.policy, Centred):
            return digest_without(self, usual, {})
        given = {"floor": self.common_floor, "price": self.price or 0.0}
        return digest_without(self, ("loss", "loss_rule", *usual), given)  # losses bound nothing under other policies


def hurdle_of(policy: Hierarchical) -> HierarchicalHurdle:
    """Hurdle policy for revenue with the hyperparameters of a hierarchical one: the same widths, α and scales."""
    return HierarchicalHurdle(policy.prior_mean, *policy.widths, policy.alpha, policy.scales)


class Catalogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Catalogue of one app: its stages by name, and what holds for all of them.

    Guarantees when it comes from `bandit.catalogue.loading.parse`: every rule of `bandit.catalogue.checks` holds, every
    name leads somewhere, and the value never changes.

    Fields: `app` its id; `currency` the code in which all money is given; `stages` by name, in declaration order;
    `journey` what the app's events mean; `rates` what one unit of another currency is worth in `currency`; `limits`
    that count every nudge of the app; `exclusive` groups of which a user sees one; `locale` that of the texts in
    payloads, and where content has none in the reader's; `pages` on which nothing is shown, and hosts of pictures;
    `personal_ids`: ids that clients choose for events and outcomes are kept as hashes, by the same key as a user's;
    `rewards_of = "decider"`: an outcome must bring the token that came with its decision; without it, who has the scope
    may report. `retention`: after so long without a decision or an event a person is erased, such as "400d"; nobody
    without one.

        catalogue = parse(text)
        catalogue.stage("cart").arms  # ("none", "discount", …)
    """

    app: str
    currency: str
    stages: dict[str, Stage]
    journey: JourneyRules = JourneyRules()
    rates: dict[str, Rate] = {}
    limits: Limits = Limits()
    exclusive: list[ExclusionRule] = []
    locale: str = "en"
    pages: PagesRule = PagesRule()
    personal_ids: bool | msgspec.UnsetType = msgspec.UNSET  # left out, it is no part of a digest
    rewards_of: Literal["reporter", "decider"] | msgspec.UnsetType = msgspec.UNSET  # as personal_ids
    retention: str | None = None
    title: str = ""
    description: str = ""

    def stage(self, name: str) -> Stage:
        """Stage of that name. Raises NotFound, which names the known ones, for any other name."""
        try:
            return self.stages[name]
        except KeyError:
            problem = f"this app has no stage {name!r}"
            raise NotFound("stage", problem, closest(name, self.stages)) from None
