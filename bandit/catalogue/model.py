"""The catalogue: what one app can show at each stage, what it knows, and what it wants. Written as TOML.

`parse` decodes strictly and reports every mistake at once; what it returns is checked and never changes.
"""

import hashlib
import importlib.resources
import re
import tomllib
from collections.abc import Iterator
from typing import Annotated, Any, Literal, cast

import msgspec
import numpy as np

from bandit.catalogue import durations, limits, references
from bandit.catalogue.decoding import OpenUnion, closest, decode
from bandit.catalogue.drift_rule import DriftRule
from bandit.catalogue.journey_rules import Credit, Fact, JourneyRules, Moment
from bandit.catalogue.limits import AbandonmentLimit, Budget, EvidenceRule, ExclusionRule, Limits
from bandit.catalogue.promotion_rule import PromotionRule
from bandit.errors import CatalogueError, NotFound, PolicyError, Problem
from bandit.policies import AnyPolicy, Beta, Fixed, Hierarchical, Logistic, registry
from bandit.policies.hurdle import HierarchicalHurdle
from bandit.policies.protocol import ArmEconomics, Policy
from bandit.policies.shared import ONE, Shared

NONE = "none"
"""The arm that shows nothing: always there, always first, the baseline."""

_ID = re.compile(r"[a-z][a-z0-9_]{0,39}")

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
    `policy`: a built-in one, or one of an installed package (`bandit.policies.registry`).
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
        return _digest((list(features.items()), reward, self.learner.link, *hashed, *anew))

    def digest(self) -> str:
        """Changes with anything declared for this stage."""
        return _digest(self)


def hurdle_of(policy: Hierarchical) -> HierarchicalHurdle:
    """The same hierarchy for revenue."""
    return HierarchicalHurdle(policy.prior_mean, *policy.widths, policy.alpha, policy.scales)


class Catalogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One app: its stages by name, the rules of its journey, and limits that hold for all stages together.

    `parse` makes it from TOML and is the only way to a checked one. `rates`: what one unit of another currency is worth
    in `currency`, in which all costs and values are. `exclusive`: nudges of which a user gets one at most.
    """

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


def shipped() -> list[str]:
    """Names of the catalogues that come with the package."""
    files = importlib.resources.files("bandit.catalogue.apps").iterdir()
    return sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))


def read_shipped(app: str) -> str:
    """The TOML text of a catalogue that comes with the package; NotFound names the known ones."""
    if app not in shipped():
        raise NotFound("app", f"no shipped catalogue {app!r}", f"{closest(app, shipped())}; or give a FILE.toml")
    return importlib.resources.files("bandit.catalogue.apps").joinpath(f"{app}.toml").read_text(encoding="utf-8")


_INSTALLED = OpenUnion(registry.names, registry.named, "or install the package that provides it")


def read_stage(value: Any) -> Stage:
    """A stage from what `msgspec.to_builtins` made of it: how ledgers and snapshots are read.

    PolicyError if its policy is not installed, or is installed in a version that has other fields;
    msgspec.ValidationError if `value` is no stage.
    """
    declared = _table(value, "policy")
    name = declared.get("name")
    if not isinstance(name, str) or name in registry.BUILT_IN:
        return msgspec.convert(value, Stage)
    try:
        policy = msgspec.convert(declared, registry.named(name))
    except msgspec.ValidationError as error:
        problem = f"what was stored does not fit the policy {name!r} that is installed: {error}"
        raise PolicyError("policy", problem, "install the version of its package that it was stored with") from error
    stage = msgspec.convert({key: part for key, part in value.items() if key != "policy"}, Stage)
    return msgspec.structs.replace(stage, policy=policy)


def parse(text: str, file: str = "catalogue.toml") -> Catalogue:
    """The catalogue in a TOML text: decoded strictly (unknown keys are mistakes), then checked for what it means.

    Raises CatalogueError with every mistake at once, each with its path, the problem and a fix; `file` is for the
    message. Policies may be those of installed packages.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CatalogueError(file, [Problem("(file)", f"not TOML: {error}", "mend the syntax there")]) from None
    form, meaning = list[Problem](), list[Problem]()
    catalogue = decode(
        raw,
        Catalogue,
        "",
        form,
        lambda struct, path: meaning.extend(_check(struct, path)),
        {AnyPolicy | Shared: _INSTALLED},
    )
    mistakes = [*form, *meaning, *_check_names(raw)]
    if mistakes:
        raise CatalogueError(file, mistakes)
    return cast(Catalogue, catalogue)


def _check(struct: msgspec.Struct, path: str) -> Iterator[Problem]:
    """What is wrong with the meaning of a table whose form is right."""
    match struct:
        case Feature():
            yield from _check_feature(path, struct)
        case Reward():
            yield from _check_reward(path, struct)
        case Stage():
            yield from _check_stage(path, struct)
        case Catalogue():
            yield from references.check(struct.journey, {n: _refers(s) for n, s in struct.stages.items()})
            yield from _check_rates(struct)
            yield from references.exclusive(struct.exclusive, {n: _refers(s) for n, s in struct.stages.items()})
        case _:
            yield from limits.check(path, struct)


def _check_rates(catalogue: "Catalogue") -> Iterator[Problem]:
    for code in catalogue.rates:
        if code != code.upper() or len(code) > 8:
            yield Problem(f"rates.{code}", "not the code of a currency", f"capitals, e.g. {code.upper()[:8]}")
        elif code == catalogue.currency.upper():
            yield Problem(f"rates.{code}", "this is the app's own currency", "remove it")


def _refers(stage: Stage) -> references.Refers:
    types = {name: nudge.type for name, nudge in stage.nudges.items()}
    continuous = stage.reward.kind == "continuous"
    features = {name: feature.type for name, feature in stage.features.items()}
    return references.Refers(types, features, continuous, stage.moments, stage.derived, stage.outcomes)


def _check_names(raw: dict[str, Any]) -> Iterator[Problem]:
    """Names are keys: they are checked where they stand, whatever is wrong with the tables under them."""
    named = [("app", raw["app"])] if isinstance(raw.get("app"), str) else []
    if raw.get("stages") == {}:
        yield Problem("stages", "no stage declared", "add a table [stages.checkout]")
    named += [(f"journey.events.{name}", name) for name in _table(_table(raw, "journey"), "events")]
    for stage, table in _table(raw, "stages").items():
        named.append((f"stages.{stage}", stage))
        policy = _table(table, "policy").get("name") if isinstance(table, dict) else None
        missing = [part for part in ("features", "nudges") if isinstance(table, dict) and part not in table]
        if policy != "shared":
            yield from (Problem(f"stages.{stage}.{part}", "missing", "add it: a table") for part in missing)
        for part in ("features", "nudges", "moments"):
            named += [(f"stages.{stage}.{part}.{name}", name) for name in _table(table, part)]
        if NONE in _table(table, "nudges"):
            yield Problem(f"stages.{stage}.nudges.none", "`none` is there already", "remove it or rename it")
    fix = "lower-case letters, digits and _, starting with a letter"
    yield from (Problem(path, f"{name!r} is not a usable id", fix) for path, name in named if not _ID.fullmatch(name))


def _table(value: Any, key: str) -> dict[str, Any]:
    """The table at `key` of a table; empty if either is none."""
    inner = value.get(key) if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else {}


def _check_dynamic(path: str, stage: Stage) -> Iterator[Problem]:
    """What cannot be declared for actions that come with the request."""
    usual = Stage(reward=stage.reward)
    for part in ("features", "nudges", "moments", "derived", "outcomes", "limits", "price", "top_two", "ramp"):
        if getattr(stage, part) != getattr(usual, part):
            problem = "the actions of this stage come with each request, from people it does not know"
            yield Problem(f"{path}.{part}", problem, "remove it, or choose another policy")
    if stage.reward.kind == "revenue":
        yield Problem(f"{path}.reward.kind", "shared learns no amounts", 'kind = "continuous"')
    yield from durations.check(f"{path}.loop.retry", stage.loop.retry, zero=True)
    if stage.loop.rewards == "sum" and stage.reward.settle == "reward":
        yield Problem(f"{path}.loop.rewards", "the first reward settles here", 'settle = "window"')


def _check_stage(path: str, stage: Stage) -> Iterator[Problem]:
    if stage.has_request_actions:
        yield from _check_dynamic(path, stage)
    elif stage.loop != Loop():
        yield Problem(f"{path}.loop", "for actions that come with the request", 'policy = { name = "shared" }')
    for key, nudge in stage.nudges.items():
        if nudge.cost_when_rewarded >= stage.reward.value:
            fix = f"below the reward's value of {stage.reward.value:g}"
            yield Problem(f"{path}.nudges.{key}.cost_when_rewarded", "a reward would never pay", fix)
        yield from _check_budget(f"{path}.nudges.{key}", stage, nudge)
    if stage.floor * len(stage.arms) >= 1.0:
        fix = f"below {1 / len(stage.arms):.3g} for {len(stage.arms)} arms (0.01 is usual)"
        yield Problem(f"{path}.floor", "the floors of all arms reach 1", fix)
    if isinstance(stage.policy, Beta | Logistic) and stage.reward.kind != "binary":
        name = stage.policy.__struct_config__.tag
        fix = 'use name = "hierarchical" or "linear"'
        yield Problem(f"{path}.policy.name", f"{name} needs a binary reward", fix)
    if isinstance(stage.policy, Fixed) and stage.policy.arm not in stage.arms:
        yield Problem(f"{path}.policy.arm", "no such arm", closest(stage.policy.arm, stage.arms))


def _check_feature(path: str, feature: Feature) -> Iterator[Problem]:
    default = feature.default
    if feature.type == "number":
        if feature.min is None or feature.max is None or not feature.min < feature.max:
            yield Problem(path, "a number needs min < max", "declare both; values outside are clipped")
        elif isinstance(default, bool | str) or not feature.min <= default <= feature.max:
            fix = f"a number in [{feature.min:g}, {feature.max:g}]"
            yield Problem(f"{path}.default", f"{default!r} is not in the declared range", fix)
    if feature.type == "boolean" and not isinstance(default, bool):
        yield Problem(f"{path}.default", f"{default!r} is not a boolean", "write true or false")
    if feature.type == "category":
        if len(feature.values) < 2 or len(set(feature.values)) < len(feature.values):
            yield Problem(f"{path}.values", "needs two or more distinct values", "list them all")
        elif default not in feature.values:
            fix = closest(str(default), feature.values)
            yield Problem(f"{path}.default", f"{default!r} is not one of the values", fix)
    if feature.type != "number" and (feature.min, feature.max, feature.scale) != (None, None, "linear"):
        yield Problem(path, "min, max and scale are for numbers", "remove them")
    if feature.type != "category" and feature.values:
        yield Problem(f"{path}.values", "values are for categories", "remove them")


def _check_reward(path: str, reward: Reward) -> Iterator[Problem]:
    yield from durations.check(f"{path}.window", reward.window)
    if reward.delay is not None:
        yield from durations.check(f"{path}.delay", reward.delay)
    if not reward.min < reward.max:
        yield Problem(f"{path}.max", "the range is empty", "min < max")
    elif reward.max - reward.min < 1e-9 * max(abs(reward.min), abs(reward.max), 1.0):
        yield Problem(f"{path}.max", "the range is too narrow for its numbers", "scale the reward, or widen the range")
    elif not reward.min <= reward.default <= reward.max:
        fix = f"a number in [{reward.min:g}, {reward.max:g}]"
        yield Problem(f"{path}.default", "outside the reward's range", fix)
    if reward.kind == "revenue" and (reward.min, reward.default) != (0.0, 0.0):
        yield Problem(f"{path}.kind", "revenue starts at 0", 'remove min and default, or kind = "continuous"')
    if reward.kind == "binary" and (reward.min, reward.max) != (0.0, 1.0):
        fix = 'remove min and max, or kind = "continuous"'
        yield Problem(f"{path}.kind", "a binary reward is 0 or 1", fix)


def _check_budget(path: str, stage: Stage, nudge: Nudge) -> Iterator[Problem]:
    """A budget needs something to spend, and must reach for one."""
    once = nudge.cost + nudge.cost_when_rewarded * max(stage.reward.max, 0.0)
    if nudge.budget and once == 0.0:
        yield Problem(f"{path}.budget", "this nudge costs nothing", "declare cost or cost_when_rewarded, or remove it")
    elif nudge.budget and nudge.budget.amount < once:
        yield Problem(f"{path}.budget.amount", f"showing it once can cost {once:g}", f"{once:g} or more")


def _digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:32]
