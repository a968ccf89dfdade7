"""The catalogue: what one app can show at each stage, what it knows, and what it wants. Written as TOML.

`parse` decodes strictly and reports every mistake at once; what it returns is checked and never changes.
"""

import hashlib
import importlib.resources
import re
import tomllib
from typing import Annotated, Any, Literal, cast

import msgspec
import numpy as np

from bandit.decoding import closest, decode
from bandit.errors import CatalogueError, NotFound, Problem
from bandit.policies import AnyPolicy, Beta, Fixed
from bandit.policies.protocol import Utility

NONE = "none"
"""The arm that shows nothing: always there, always first, the baseline."""

_ID = re.compile(r"[a-z][a-z0-9_]{0,39}")
_WINDOW = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

Value = str | float | bool
Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One thing known at decision time. Numbers declare a range, categories their values, all a default.

    `scale = "log"` maps a number by log(1 + v − min) before it is scaled to [−1, 1]. A category that lists
    "other" takes unknown values as "other"; one that does not refuses them.
    """

    type: Literal["number", "boolean", "category"]
    default: Value
    min: float | None = None
    max: float | None = None
    scale: Literal["linear", "log"] = "linear"
    values: list[str] = []
    description: str = ""


class Evidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What must come with the request before a claim may be shown.

    stock: `{"stock": 3}` with 1 ≤ stock ≤ `at_most`. deadline: `{"deadline": "2026-01-31T18:00:00Z"}` in the future.
    """

    kind: Literal["stock", "deadline"]
    at_most: Annotated[int, msgspec.Meta(ge=1)] | None = None


class Nudge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One arm. `cost` is paid each time it is shown, `cost_when_rewarded` for each unit of reward it brings."""

    type: str
    format: str
    payload: dict[str, Any] = {}
    cost: NotNegative = 0.0
    cost_when_rewarded: NotNegative = 0.0
    evidence: Evidence | None = None
    description: str = ""


class Reward(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What success is. `value` is what one unit of reward is worth, in the app's currency.

    Outcomes count for `window` after the decision; then silence is `default`. `settle = "reward"` is for apps that
    report every outcome, zeros included: a decision is then learned as soon as its reward is known.
    """

    kind: Literal["binary", "continuous"]
    window: str
    min: float = 0.0
    max: float = 1.0
    default: float = 0.0
    value: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    settle: Literal["window", "reward"] = "window"
    description: str = ""

    @property
    def seconds(self) -> float:
        """The attribution window in seconds."""
        match = cast(re.Match[str], _WINDOW.fullmatch(self.window))
        return float(match[1]) * _SECONDS[match[2]]

    def scaled(self, value: float) -> float:
        """`value` clipped to the declared range and mapped to [0, 1]."""
        return (min(max(value, self.min), self.max) - self.min) / (self.max - self.min)


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A step of the journey with its own policy.

    `activation = "required"`: a decision is learned only if an activation (it was really shown) was reported.
    """

    features: dict[str, Feature]
    nudges: dict[str, Nudge]
    reward: Reward
    policy: AnyPolicy
    floor: Share = 0.01
    holdout: Share = 0.0
    activation: Literal["assumed", "required"] = "assumed"
    description: str = ""

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm, no nudge first; arrays over arms are in this order."""
        return (NONE, *self.nudges)

    @property
    def utility(self) -> Utility:
        """Gain and cost of each arm in units of the reward range, the default value of no reward left out."""
        span = self.reward.max - self.reward.min
        base = np.array([0.0] + [n.cost_when_rewarded for n in self.nudges.values()])
        shown = np.array([0.0] + [n.cost for n in self.nudges.values()])
        # utility in currency = (value − cwr)·r − cost, r = min + span·r̃; divided by value·span
        gain = (self.reward.value - base) / self.reward.value
        return Utility(gain, (shown - (self.reward.value - base) * self.reward.min) / (self.reward.value * span))

    def learning_digest(self) -> str:
        """Changes when old statistics stop meaning what they meant: features, or the reward and its range."""
        reward = (self.reward.kind, self.reward.min, self.reward.max)
        features = {name: (f.type, f.min, f.max, f.scale, f.values) for name, f in self.features.items()}
        return _digest((list(features.items()), reward))

    def digest(self) -> str:
        """Changes with anything declared for this stage."""
        return _digest(self)


class Catalogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One app: its stages by name."""

    app: str
    currency: str
    stages: dict[str, Stage]
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
    files = importlib.resources.files("bandit.catalogues").iterdir()
    return sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))


def read_shipped(app: str) -> str:
    """The TOML text of a catalogue that comes with the package; NotFound names the known ones."""
    if app not in shipped():
        raise NotFound("app", f"no shipped catalogue {app!r}", f"{closest(app, shipped())}; or give a FILE.toml")
    return importlib.resources.files("bandit.catalogues").joinpath(f"{app}.toml").read_text(encoding="utf-8")


def parse(text: str, file: str = "catalogue.toml") -> Catalogue:
    """The catalogue in `text`. CatalogueError lists every mistake with its path and fix; `file` is for the message."""
    mistakes: list[Problem] = []
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CatalogueError(file, [Problem("(file)", f"not TOML: {error}", "mend the syntax there")]) from None
    catalogue = decode(raw, Catalogue, "", mistakes)
    if mistakes:
        raise CatalogueError(file, [_without_dot(m) for m in mistakes])
    if not _ID.fullmatch(catalogue.app):
        mistakes.append(_bad_id("app", catalogue.app))
    if not catalogue.stages:
        mistakes.append(Problem("stages", "no stage declared", "add a table [stages.checkout]"))
    for name, stage in catalogue.stages.items():
        _check_stage(name, stage, mistakes)
    if mistakes:
        raise CatalogueError(file, mistakes)
    return cast(Catalogue, catalogue)


def _check_stage(name: str, stage: Stage, mistakes: list[Problem]) -> None:
    path = f"stages.{name}"
    mistakes.extend(_bad_id(f"{path}", i) for i in (name, *stage.features, *stage.nudges) if not _ID.fullmatch(i))
    if NONE in stage.nudges:
        mistakes.append(Problem(f"{path}.nudges.none", "`none` is there already", "remove it or rename it"))
    for key, feature in stage.features.items():
        _check_feature(f"{path}.features.{key}", feature, mistakes)
    _check_reward(f"{path}.reward", stage.reward, mistakes)
    for key, nudge in stage.nudges.items():
        where = f"{path}.nudges.{key}"
        if nudge.cost_when_rewarded >= stage.reward.value:
            fix = f"below the reward's value of {stage.reward.value:g}"
            mistakes.append(Problem(f"{where}.cost_when_rewarded", "a reward would never pay", fix))
        if nudge.evidence and nudge.evidence.kind == "stock" and nudge.evidence.at_most is None:
            mistakes.append(Problem(f"{where}.evidence.at_most", "missing", "the largest stock that is scarce, e.g. 5"))
    if stage.floor * len(stage.arms) >= 1.0:
        fix = f"below {1 / len(stage.arms):.3g} for {len(stage.arms)} arms (0.01 is usual)"
        mistakes.append(Problem(f"{path}.floor", "the floors of all arms reach 1", fix))
    if isinstance(stage.policy, Beta) and stage.reward.kind != "binary":
        mistakes.append(Problem(f"{path}.policy.name", "beta needs a binary reward", 'use name = "linear"'))
    if isinstance(stage.policy, Fixed) and stage.policy.arm not in stage.arms:
        mistakes.append(Problem(f"{path}.policy.arm", "no such arm", closest(stage.policy.arm, stage.arms)))


def _check_feature(path: str, feature: Feature, mistakes: list[Problem]) -> None:
    default = feature.default
    if feature.type == "number":
        if feature.min is None or feature.max is None or not feature.min < feature.max:
            mistakes.append(Problem(path, "a number needs min < max", "declare both; values outside are clipped"))
        elif isinstance(default, bool | str) or not feature.min <= default <= feature.max:
            fix = f"a number in [{feature.min:g}, {feature.max:g}]"
            mistakes.append(Problem(f"{path}.default", f"{default!r} is not in the declared range", fix))
    if feature.type == "boolean" and not isinstance(default, bool):
        mistakes.append(Problem(f"{path}.default", f"{default!r} is not a boolean", "write true or false"))
    if feature.type == "category":
        if len(feature.values) < 2 or len(set(feature.values)) < len(feature.values):
            mistakes.append(Problem(f"{path}.values", "needs two or more distinct values", "list them all"))
        elif default not in feature.values:
            fix = closest(str(default), feature.values)
            mistakes.append(Problem(f"{path}.default", f"{default!r} is not one of the values", fix))
    if feature.type != "number" and (feature.min, feature.max, feature.scale) != (None, None, "linear"):
        mistakes.append(Problem(path, "min, max and scale are for numbers", "remove them"))
    if feature.type != "category" and feature.values:
        mistakes.append(Problem(f"{path}.values", "values are for categories", "remove them"))


def _check_reward(path: str, reward: Reward, mistakes: list[Problem]) -> None:
    match = _WINDOW.fullmatch(reward.window)
    if not match or float(match[1]) <= 0:
        fix = 'a number and a unit, e.g. "30m", "72h", "14d"'
        mistakes.append(Problem(f"{path}.window", f"{reward.window!r} is not a duration", fix))
    if not reward.min < reward.max:
        mistakes.append(Problem(f"{path}.max", "the range is empty", "min < max"))
    elif not reward.min <= reward.default <= reward.max:
        fix = f"a number in [{reward.min:g}, {reward.max:g}]"
        mistakes.append(Problem(f"{path}.default", "outside the reward's range", fix))
    if reward.kind == "binary" and (reward.min, reward.max) != (0.0, 1.0):
        mistakes.append(
            Problem(f"{path}.kind", "a binary reward is 0 or 1", 'remove min and max, or kind = "continuous"')
        )


def _bad_id(path: str, name: str) -> Problem:
    return Problem(path, f"{name!r} is not a usable id", "lower-case letters, digits and _, starting with a letter")


def _without_dot(mistake: Problem) -> Problem:
    return Problem(mistake.field.lstrip(".") or "(file)", mistake.problem, mistake.fix)


def _digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:32]
