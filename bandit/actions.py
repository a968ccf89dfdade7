"""Actions that come with the request: each brings features of its own, and one model is shared by all of them.

    z(x, a) = θ·φ(x, a),   φ = (1, context features, action features, action × context)

Features are hashed (Weinberger et al. 2009): names need no declaration, actions may be new in every request, and what
one action taught speaks of every action like it. Scores of one request share θ, so propensities are joint (`orthant`).
The likelihood is logistic, also for rewards between 0 and 1 (Papke & Wooldridge 1996), learned by assumed density
filtering: `Belief` has one arm here, whose x is the φ of the action that was taken.

Shapes: K actions of one request, D hashed columns.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import special

from bandit import propensity
from bandit.belief import X_GRID, Belief
from bandit.errors import InvalidRequest, Problem
from bandit.orthant import correlated
from bandit.policies import blocks
from bandit.policies.blocks import Layout
from bandit.policies.hierarchical import Alpha, Filtered, Positive, Rate
from bandit.policies.protocol import Arms, Array, Mask, Scores

Objects = Sequence[Mapping[str, Any]]

MOST = 50
"""Actions of one request."""

_DEEPEST = 8
_PROBIT = np.pi / 8.0


class Action(NamedTuple):
    """One thing that may be shown, and what is known of it: feature objects, nested as the caller likes."""

    id: str
    features: Objects = ()


class Shared(msgspec.Struct, Filtered, frozen=True, tag="shared", tag_field="name", forbid_unknown_fields=True):
    """Sds are in logits: of the common rate, and of what all features of a context, or of an action, or all pairs of
    them do together. columns: D. alpha: scale of the posterior sd.
    """

    prior_mean: Rate = 0.1
    base_sd: Positive = 1.4
    context_sd: Positive = 0.5
    action_sd: Positive = 0.7
    pair_sd: Positive = 0.5
    columns: Annotated[int, msgspec.Meta(ge=8, le=1024)] = 128
    alpha: Alpha = 0.5

    def layout(self, arms: Arms, d: int) -> Layout:  # noqa: ARG002
        """One block that every action reads; the scales of feature groups are in φ."""
        precision, mean = np.ones(d), np.zeros(d)
        precision[0], mean[0] = self.base_sd**-2.0, special.logit(self.prior_mean)
        return Layout(d, ((0,),), precision, mean)

    def encode(self, context: Objects, actions: Sequence[Action]) -> Array:
        """φ (K, D) on the 2⁻¹² grid, within [−1, 1]. InvalidRequest for what is no feature, naming it."""
        _check(actions)
        about = list(_flat(context, "contextFeatures"))
        phi = np.zeros((len(actions), self.columns))
        for row, action in zip(phi, actions, strict=True):
            own = [(f"id={action.id}", 1.0), *_flat(action.features, f"actions[{action.id}].features")]
            pairs = [(f"{a}×{c}", v * w) for a, v in own for c, w in about]
            named = ((self.context_sd, about, "c"), (self.action_sd, own, "a"), (self.pair_sd, pairs, "p"))
            for sd, features, group in named:
                self._add(row, features, sd, group)
        phi[:, 0] = 1.0
        return np.asarray(np.rint(np.clip(phi, -1.0, 1.0) * X_GRID) / X_GRID, dtype=np.float64)

    def _add(self, row: Array, features: list[tuple[str, float]], sd: float, group: str) -> None:
        """Their prior sd together is `sd`, however many there are."""
        for name, value in features:
            at, sign = _bucket(f"{group}:{name}", self.columns)
            row[at] += sign * value * sd / np.sqrt(len(features))

    def ready(self, belief: Belief) -> "SharedPosterior":
        """The posterior of θ."""
        found = blocks.posterior(self.layout(ONE, belief.shift.shape[1]), belief)
        return SharedPosterior(found.mean, found.covariance, self.alpha)


class SharedPosterior(NamedTuple):
    """N(mean (D,), covariance (D, D)); α scales its sd."""

    mean: Array
    covariance: Array
    alpha: float

    def choose(self, phi: Array, eligible: Mask, floor: float) -> Scores:
        """Final propensities of K actions φ (K, D): joint, then the floor, 0.2 / K at most; exactly 0 if ineligible."""
        z, spread = phi @ self.mean, phi @ self.covariance @ phi.T
        variance = np.maximum(spread.diagonal(), 1e-18)
        at = special.expit(z)
        p = np.zeros(len(z))
        p[eligible] = correlated(z[eligible], self.alpha**2 * spread[np.ix_(eligible, eligible)])
        p = propensity.floored(p, min(floor, 0.2 / np.count_nonzero(eligible)), eligible)
        mean = special.expit(z / np.sqrt(1.0 + _PROBIT * variance))
        return Scores(mean, at * (1.0 - at) * self.alpha * np.sqrt(variance), p)


ONE = Arms(("taken",), ("none",), np.ones(1), np.zeros(1))
"""What the belief of a shared model is about."""


def taken(n: int) -> NDArray[np.intp]:
    """The arm of n learned rows."""
    return np.zeros(n, dtype=np.intp)


def _check(actions: Sequence[Action]) -> None:
    names = [action.id for action in actions]
    if not 1 <= len(actions) <= MOST:
        raise InvalidRequest(Problem("actions", f"{len(actions)} actions", f"send 1 to {MOST}"))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(Problem("actions", f"{twice!r} is there twice", "give every action an id of its own"))


def _flat(objects: Objects, path: str) -> Iterator[tuple[str, float]]:
    """(name, value in [−1, 1]) of everything in feature objects; numbers are squashed by v / (1 + |v|)."""
    for found in objects:
        if not isinstance(found, Mapping):
            raise InvalidRequest(Problem(path, f"{type(found).__name__} is no object", "send a list of objects"))
        yield from _leaves(found, "", path, 0)


def _leaves(value: Any, name: str, path: str, depth: int) -> Iterator[tuple[str, float]]:
    if depth > _DEEPEST:
        raise InvalidRequest(Problem(f"{path}.{name}", "nested too deep", f"at most {_DEEPEST} levels"))
    if isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from _leaves(value[key], f"{name}.{key}" if name else str(key), path, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item, name, path, depth + 1)
    elif isinstance(value, bool | str):
        yield f"{name}={value}", 1.0
    elif isinstance(value, int | float):
        number = float(value)
        if not np.isfinite(number):
            raise InvalidRequest(Problem(f"{path}.{name}", "not a finite number", "send a number"))
        yield name, number / (1.0 + abs(number))
    elif value is not None:
        fix = "send numbers, texts, booleans, lists and objects"
        raise InvalidRequest(Problem(f"{path}.{name}", f"{type(value).__name__} is no feature", fix))


@lru_cache(maxsize=65_536)
def _bucket(name: str, columns: int) -> tuple[int, float]:
    """Column (never the first) and sign of a feature, the same in every process."""
    number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
    return 1 + (number >> 1) % (columns - 1), 1.0 if number & 1 else -1.0
