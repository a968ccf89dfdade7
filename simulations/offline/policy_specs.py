"""Policy specifications: who plays in a simulation, a policy of the service by its name with settings, or the oracle.

default              what the catalogue declares for each stage
hierarchical         any policy by its tag, with the prior mean that the stage declares
linear:alpha=0.3     with settings; `scales=learned` where a policy has it
default:loss=1%      with another declared loss, or `loss_rule=expected`
mine                 a policy of an installed package, by its tag
peer:lints           a bandit of another library (`simulations.contenders.peers`), as a contender
python:rules.py:mine Python of one's own (`simulations.contenders.own_code`), as a contender
fixed:discount_10    always one arm, where a stage has it and it may be shown; no nudge elsewhere. fixed:none
oracle               the arm of the largest exact net value, given what can be seen
…:price=0.4          any of them with a price for every nudge, in the app's currency: what later visits lose
"""

import importlib.metadata
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

import msgspec

from bandit.catalogue.checks import is_percentage
from bandit.catalogue.decoding import closest
from bandit.catalogue.model import Stage
from bandit.errors import InvalidRequest, Problem
from bandit.learning.loss_account import LossRule
from bandit.policies import Fixed, registry
from simulations.contenders import playing
from simulations.datasets.classification import policy_class


class PolicySpec(NamedTuple):
    """A parsed policy specification. `label`: as it was written; `name` and `settings`: the policy's tag and
    parameters; `price`: currency for every nudge, on top of what the stage declares; `oracle`: it knows the truth;
    `declared`: the stage's loss and loss rule where they are not the catalogue's; `contender`: it is no policy of the
    service, whose own then shows nothing.
    """

    label: str
    oracle: bool
    price: float
    name: str
    settings: dict[str, Any]
    declared: tuple[tuple[str, str], ...] = ()
    contender: bool = False

    def stage(self, declared: Stage, holdout: float) -> Stage:
        """The stage as this policy plays it, with the share `holdout` of users left alone. Raises InvalidRequest for
        settings that the policy does not have or cannot take.
        """
        declared = msgspec.structs.replace(declared, **dict(self.declared))
        declared = msgspec.structs.replace(
            declared, holdout=holdout, price=declared.price if not self.price else (declared.price or 0.0) + self.price
        )
        if self.oracle or self.contender:
            return msgspec.structs.replace(declared, policy=Fixed("none"), floor=0.0)
        if self.name == "default":
            return declared
        if self.name == "fixed":
            arm = self.settings["arm"] if self.settings["arm"] in declared.arms else "none"
            return msgspec.structs.replace(declared, policy=Fixed(arm), floor=0.0)
        made = policy_class(self.name)
        prior = getattr(declared.policy, "prior_mean", None)
        start = {"prior_mean": prior} if prior is not None and "prior_mean" in made.__struct_fields__ else {}
        try:
            policy = msgspec.convert({"name": self.name} | start | self.settings, made)
        except msgspec.ValidationError as error:
            raise InvalidRequest(Problem(f"policy {self.label}", str(error), "another value")) from None
        return msgspec.structs.replace(declared, policy=policy)


def policy_spec(text: str, arms: set[str]) -> PolicySpec:
    """Parse a policy specification (see the module). `arms`: all arms of the app. Raises InvalidRequest for a policy,
    arm or setting that is not known, a setting that is no number, or a price below 0.
    """
    if playing.is_contender(text):
        playing.resolved(text)
        return contender_spec(text)
    registry.search(importlib.metadata.entry_points)
    name, _, rest = text.partition(":")
    known = {"default", "oracle", *registry.names()} - {"shared"}
    if name not in known:
        fix = f"{closest(name, known)}; or peer:NAME, python:FILE.py:NAME"
        raise InvalidRequest(Problem("policy", f"{name!r} is not a policy", fix))
    if name == "fixed":
        arm = rest or "none"
        if arm not in arms:
            raise InvalidRequest(Problem("policy", f"no stage of this app has the arm {arm!r}", closest(arm, arms)))
        return PolicySpec(f"fixed:{arm}", False, 0.0, name, {"arm": arm})
    pairs = _pairs(text, rest)
    declared = {key: value for key, value in pairs if key in _DECLARED}
    _check_declared(text, declared)
    settings: dict[str, Any] = {
        key: value if key in _WORDS else _number(text, key, value) for key, value in pairs if key not in _DECLARED
    }
    allowed = {
        "price",
        *(_DECLARED if name != "oracle" else ()),
        *(policy_class(name).__struct_fields__ if name not in ("default", "oracle") else ()),
    }
    for key in settings.keys() - allowed:
        raise InvalidRequest(Problem(f"policy {text}", f"{name} has no setting {key!r}", closest(key, allowed)))
    price = settings.pop("price", 0.0)
    if price < 0.0:
        raise InvalidRequest(Problem(f"policy {text}", "a price below 0", "0 or more, in the app's currency"))
    return PolicySpec(text, name == "oracle", price, name, settings, tuple(declared.items()))


def contender_spec(label: str) -> PolicySpec:
    """The specification of a contender under this label."""
    return PolicySpec(label, False, 0.0, "fixed", {}, contender=True)


_DECLARED, _WORDS = ("loss", "loss_rule"), ("scales",)  # settings of the stage; settings that are words


def _check_declared(text: str, declared: Mapping[str, str]) -> None:
    rule, loss = declared.get("loss_rule", "kept"), declared.get("loss", "none")
    if rule not in get_args(LossRule):
        raise InvalidRequest(Problem(f"policy {text}", f"{rule!r} is no loss_rule", "kept or expected"))
    if loss != "none" and not is_percentage(loss):
        raise InvalidRequest(Problem(f"policy {text}", f"{loss!r} is no percentage above 0 and up to 100", "loss=2%"))


def _pairs(text: str, rest: str) -> list[tuple[str, str]]:
    found = [part.partition("=") for part in rest.split(",") if part]
    for key, equals, _ in found:
        if not equals:
            raise InvalidRequest(Problem(f"policy {text}", f"{key!r} is not NAME=NUMBER", "e.g. linear:alpha=0.3"))
    return [(key.strip(), value) for key, _, value in found]


def _number(text: str, key: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise InvalidRequest(Problem(f"policy {text}", f"{key}={value!r} is no number", "e.g. alpha=0.3")) from None
