"""Shared policy, for actions that come with the request: each brings features of its own, and one model is shared by
all of them.

    z(x, a) = θ·φ(x, a),   φ = (1, context features, action features, action × context)

Features are hashed (Weinberger et al. 2009), the same in every process and version: see `HashedFeatures`. Names need no
declaration, actions may be new in every request, and what one action taught speaks of every action like it. Scores of
one request share θ, so propensities are joint (`bandit.propensity.correlated`). The likelihood is logistic, also for
rewards between 0 and 1 (Papke & Wooldridge 1996), learned by assumed density filtering: `Belief` has one arm here,
whose x is the φ of the action that was taken.

Shapes: K actions of one request, D hashed columns.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array, Mask
from bandit.belief import X_GRID, Belief
from bandit.errors import InvalidRequest, Problem
from bandit.numerics import arithmetic
from bandit.numerics.logistic import PROBIT
from bandit.policies import hierarchy, quadratic_forms
from bandit.policies.hierarchical import Alpha, AssumedDensityPolicy, Positive, Rate
from bandit.policies.hierarchy import Layout
from bandit.policies.protocol import ArmEconomics, Scores
from bandit.propensity.correlated import correlated

Objects = Sequence[Mapping[str, Any]]

MOST = 50
"""Actions of one request."""
MOST_CELLS = 500
"""Actions × slots of one request: the propensities of fifty actions take about a tenth of a second for each slot."""
MOST_PAIRS = 2_000_000
"""Pairs of a feature of an action with one of the context and slot, in one request: ten million take a second."""

_DEEPEST = 8
_FEATURES = 500  # of a context, or of an action


ONE = ArmEconomics(("taken",), ("none",), np.ones(1), np.zeros(1))
"""Economics of the single arm that the belief of a shared model is about: every action that was taken."""


class Action(NamedTuple):
    """Action that came with a request: its id, and what is known of it as feature objects, nested as
    the caller likes.
    """

    id: str
    features: Objects = ()


class Shared(
    msgspec.Struct, AssumedDensityPolicy, frozen=True, tag="shared", tag_field="name", forbid_unknown_fields=True
):
    """Shared logistic Thompson sampling, `policy = { name = "shared" }`, for rankings (`api.decisions.ranking`).

    Fields: sds are in logits: of the common rate, and of what all features of a context, or of an action, or all pairs
    of them do together. `prior_mean`: expected reward before any data. `columns`: D. `alpha`: scale of the posterior
    sd. `personal`: features say something of a person, so that their columns are found by a keyed hash.
    """

    prior_mean: Rate = 0.1
    base_sd: Positive = 1.4
    context_sd: Positive = 0.5
    action_sd: Positive = 0.7
    pair_sd: Positive = 0.5
    columns: Annotated[int, msgspec.Meta(ge=8, le=1024)] = 128
    alpha: Alpha = 0.5
    personal: bool | msgspec.UnsetType = msgspec.UNSET  # left out, it is no part of a digest

    @property
    def meaning(self) -> tuple[float | str, ...]:
        """Parameters that the columns of φ depend on: old sums say nothing under another value, so
        `Stage.learning_digest` holds it.
        """
        keyed = ("personal",) if self.personal is True else ()
        return (self.columns, self.context_sd, self.action_sd, self.pair_sd, *keyed)

    def layout(self, arms: ArmEconomics, d: int) -> Layout:  # noqa: ARG002
        """Layout of one block that every action reads; the scales of feature groups are in φ."""
        precision, mean = np.ones(d), np.zeros(d)
        precision[0], mean[0] = 1.0 / (self.base_sd * self.base_sd), arithmetic.logit(self.prior_mean)
        return Layout(d, ((0,),), precision, mean)

    def encode(self, context: Objects, actions: Sequence[Action], salt: bytes) -> Array:
        """Features φ (K, D) of K actions on the 2⁻¹² grid, within [−1, 1]. `salt`: secret of the ledger, by which
        features are hashed that are declared `personal`; others do not depend on it. Raises InvalidRequest for no or
        too many actions, for an id that is there twice, and for what is no feature, naming it.
        """
        _check(actions)
        key = salt if self.personal is True else b""
        about = _hashed(list(_flat(context, "contextFeatures")), "contextFeatures", key)
        phi = np.zeros((len(actions), self.columns))
        for row, action in zip(phi, actions, strict=True):
            path = f"actions[{action.id}].features"
            own = _hashed([(f"id={action.id}", 1.0), *_flat(action.features, path)], path, key)
            groups = (about.of(_CONTEXT), own.of(_ACTION), own.paired(about))
            for sd, features in zip((self.context_sd, self.action_sd, self.pair_sd), groups, strict=True):
                features.add(row, sd)
        phi[:, 0] = 1.0
        return np.asarray(np.rint(np.clip(phi, -1.0, 1.0) * X_GRID) / X_GRID, dtype=np.float64)

    def posterior(self, belief: Belief, arms: ArmEconomics = ONE) -> "SharedPosterior":  # noqa: ARG002
        """Posterior of θ given a belief of one row; `arms` is ignored."""
        found = hierarchy.posterior(self.layout(ONE, belief.shift.shape[1]), belief)
        return shared(found.mean, found.covariance, self.alpha)


class SharedPosterior(NamedTuple):
    """Posterior N(mean (D,), covariance (D, D)) of θ on the grids of `quadratic_forms`; α scales its sd."""

    mean: Array
    covariance: Array
    sharp: float  # adding and subtracting it rounds φΣ
    alpha: float

    def choose(self, x: Array, eligible: Mask) -> Scores:
        """Scores of K actions, x their φ (K, D), with joint propensities (K,); exactly 0 if ineligible. Raises
        PropensityError as `correlated`.
        """
        z, half = x @ self.mean, x @ self.covariance
        spread = ((half + self.sharp) - self.sharp) @ x.T
        spread = 0.5 * (spread + spread.T)
        variance = np.maximum(spread.diagonal(), 1e-18)
        at = arithmetic.expit(z)
        p = np.zeros(len(z))
        p[eligible] = correlated(z[eligible], self.alpha * self.alpha * spread[np.ix_(eligible, eligible)])
        mean = arithmetic.expit(z / np.sqrt(1.0 + PROBIT * variance))
        return Scores(mean, at * (1.0 - at) * self.alpha * np.sqrt(variance), p)

    def choose_many(self, x: Array, eligible: Mask) -> Scores:
        """Scores of n requests of K actions each, x (n, K, D): `choose` for each; every part is (n, K). Raises
        PropensityError as `correlated`.
        """
        rows = [self.choose(phi, may) for phi, may in zip(x, eligible, strict=True)]
        return Scores(*(np.array([row[i] for row in rows]) for i in range(3)))


def shared(mean: Array, covariance: Array, alpha: float) -> SharedPosterior:
    """Posterior of θ from mean (D,) and covariance (D, D), made ready: rounded so that every product
    with φ is exact.
    """
    bits = quadratic_forms.digits(len(mean))
    grid = quadratic_forms.on_grid(covariance, bits, (0, 1))
    sharp = float(quadratic_forms.rounder(np.abs(grid).sum(axis=1)[None], bits)[0])
    return SharedPosterior(quadratic_forms.on_grid(mean, bits, (0,)), grid, sharp, alpha)


def least(floor: float, eligible: Mask) -> float:
    """Floor for each of the eligible actions: as declared, but together a fifth of the probability at most."""
    return min(floor, 0.2 / int(np.count_nonzero(eligible)))


def taken(n: int) -> NDArray[np.intp]:
    """Arm indices (n,) of n learned rows: all 0, because a shared belief has one row."""
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


def features(objects: Objects) -> int:
    """Number of features in feature objects; what is no feature, or is nested too deep, counts as none."""
    return _count(list(objects), -1)


def _count(value: Any, depth: int) -> int:
    if depth > _DEEPEST or value is None:
        return 0
    if isinstance(value, Mapping):
        return sum(_count(one, depth + 1) for one in value.values())
    return sum(_count(one, depth + 1) for one in value) if isinstance(value, list | tuple) else 1


class HashedFeatures(NamedTuple):
    """Hashed features: n features as numbers of 64 bits, and their values.

    A name is hashed by BLAKE2b (8 bytes, big-endian), with a key where features are personal. The number h of a feature
    in its group g, and of the pair of an action's a with a context's c, is

        mix(h + g),   mix(mix(a) + c),   mix(v): v ^= v>>30; v *= 0xbf58476d1ce4e5b9; v ^= v>>27;
                                                 v *= 0x94d049bb133111eb; v ^= v>>31    (splitmix64, modulo 2⁶⁴)

    Its lowest bit is the sign (1: plus), the rest modulo D − 1 the column after the first.
    """

    number: NDArray[np.uint64]  # (n,)
    value: Array  # (n,)

    def of(self, group: np.uint64) -> "HashedFeatures":
        """Features with their numbers mixed with a group's, so that they differ from those of other groups."""
        return HashedFeatures(_mixed(self.number + group), self.value)

    def paired(self, other: "HashedFeatures") -> "HashedFeatures":
        """Features of every pair with another's features, (n·m,): numbers mixed, values multiplied."""
        pairs = _mixed(_mixed(self.number)[:, None] + other.number)
        return HashedFeatures(pairs.ravel(), np.outer(self.value, other.value).ravel())

    def add(self, row: Array, sd: float) -> None:
        """Add the features to one row φ (D,), in place: their prior sd together is `sd` (logits), however many there
        are.
        """
        at = 1 + ((self.number >> np.uint64(1)) % np.uint64(len(row) - 1)).astype(np.intp)
        sign = np.where(self.number & np.uint64(1), 1.0, -1.0)
        np.add.at(row, at, sign * self.value * (sd / np.sqrt(max(len(at), 1))))


_CONTEXT, _ACTION = np.uint64(1), np.uint64(2)


def _hashed(features: list[tuple[str, float]], path: str, key: bytes) -> HashedFeatures:
    if len(features) > _FEATURES:
        raise InvalidRequest(Problem(path, f"{len(features)} features", f"send {_FEATURES} at most"))
    numbers = np.array([_number(name, key) for name, _ in features], dtype=np.uint64)
    return HashedFeatures(numbers, np.array([value for _, value in features], dtype=np.float64))


@lru_cache(maxsize=65_536)
def _number(name: str, key: bytes) -> int:
    person = b"feature" if key else b""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8, key=key, person=person).digest(), "big")


def _mixed(v: NDArray[np.uint64]) -> NDArray[np.uint64]:
    v = (v ^ (v >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    v = (v ^ (v >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return v ^ (v >> np.uint64(31))
