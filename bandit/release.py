"""Releases: an approved snapshot, fit to serve under the stage that is declared now, and where a rollback leads.

What a release fixes is its probabilities: policy, belief, floor, top-two, ramp, prices. What may be shown, to whom, and
for how long outcomes count stays with the catalogue: a claim that is withdrawn today is not shown because somebody
approved a policy yesterday. So a release fits only while the catalogue gives the same arms, features and worth.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from bandit import engine, features
from bandit.belief import GRID, Belief, empty
from bandit.catalogue.model import NONE, Stage
from bandit.engine import PreparedPolicy
from bandit.errors import PropensityError, SnapshotError
from bandit.policies import Centred, Fixed
from bandit.policies.protocol import Policy
from bandit.records import Release
from bandit.snapshot import Snapshot

NO_NUDGE = "none"
"""Version of a release that shows nothing to anybody. No registry has such a version; a ledger keeps no bytes of it."""

_CHOICE = ("policy", "floor", "top_two", "ramp", "price")  # what a release brings; the rest is the catalogue's
_SUM = 1e-9


def leads_back(kind: str, version: str, replaces: str, known: Mapping[str, str]) -> str:
    """Version that a rollback from `version` leads to, "" for what is learned live: what decided before it was
    promoted, never what was taken back. `known`: the same of every version that was approved before.

    kind: promote or rollback, how `version` came to decide instead of `replaces`.
    """
    return known.get(version, "") if kind == "rollback" or version == replaces else replaces


def rolls_back_to(history: Sequence[Release]) -> list[str]:
    """Rollback targets: for each of a stage's releases, in order, the version that a rollback from it leads to (see
    `leads_back`).
    """
    known, decides, found = dict[str, str](), "", list[str]()
    for kept in history:
        # rows of earlier versions do not say what they were: going to a version that decided before was a rollback
        kind = kept.kind or ("rollback" if kept.version in known or not kept.version else "promote")
        known[kept.version] = leads_back(kind, kept.version, decides, known)
        if not kept.judge:  # who is judged decides beside it, not instead
            decides = kept.version
        found.append(known[kept.version])
    return found


def judged_beside(history: Sequence[Release], number: int | None = None) -> Release | None:
    """Release that decides one half while the candidate of release `number` is judged: the stage's last one before it
    that judged nothing; None for what is learned live. `history`: the stage's releases in order. Without `number` the
    candidate is the next release.
    """
    before = [kept for kept in history if (number is None or kept.seq < number) and not kept.judge]
    return before[-1] if before and before[-1].version else None


def no_nudge(app: str, stage: str, spec: Stage) -> Snapshot:
    """Snapshot that shows nothing to anybody at a stage as it is declared: no nudge with probability 1, no floor. It is
    the version `NO_NUDGE`, and needs no bytes: it follows from the declaration, so it fits whatever the catalogue
    declares later.
    """
    own = msgspec.structs.replace(spec, policy=Fixed(NONE), floor=0.0, top_two=None, ramp=1.0, price=None)
    belief = empty(len(own.belief_rows(own.arms)), len(features.of(own).columns))
    return Snapshot(app, stage, own, 0, belief)


def prepare(snapshot: Snapshot, stage: Stage) -> PreparedPolicy:
    """Prepared policy of a released snapshot under `stage`, the declaration in force. The service calls it before a
    release decides.

    The snapshot brings policy, floor, top-two, ramp and price; the rest is the catalogue's. Raises SnapshotError if it
    does not fit the stage's arms, features or worth, if its belief has no definite precision, or if a probe of
    decisions gives no probabilities above the floor.
    """
    spec = msgspec.structs.replace(stage, **{name: getattr(snapshot.stage_spec, name) for name in _CHOICE})
    _check_fit(snapshot.stage_spec, spec)
    for name, belief in (("belief", snapshot.belief), ("pending", snapshot.pending)):
        if belief is not None:
            check_definite(name, belief, spec.learner, len(spec.arms))
    try:
        live = engine.prepare(msgspec.structs.replace(snapshot, stage_spec=spec))
        _probe(live)
    except (np.linalg.LinAlgError, FloatingPointError, ValueError, PropensityError) as error:
        raise SnapshotError(f"the snapshot cannot decide: {error}") from error
    return live


def _check_fit(was: Stage, spec: Stage) -> None:
    mine, theirs = was.arm_economics, spec.arm_economics
    parts = {
        "nudges": (mine.names, theirs.names),
        "types of nudges": (mine.kinds, theirs.kinds),
        "gains": (mine.gain.tolist(), theirs.gain.tolist()),
        "costs": (mine.cost.tolist(), theirs.cost.tolist()),
        "features": (was.features, spec.features),
        "reward": (_reward(was), _reward(spec)),
        "schema": (was.schema, spec.schema),
    }
    changed = [name for name, (before, now) in parts.items() if before != now]
    if changed:
        raise SnapshotError(
            f"the catalogue declares other {', '.join(changed)} than the release was made for: publish and promote anew"
        )


def _reward(stage: Stage) -> tuple[object, ...]:
    reward = stage.reward
    return reward.kind, reward.min, reward.max, reward.value


def check_definite(name: str, belief: Belief, learner: Policy, k: int) -> None:
    """Check that a belief over k arms can have been learned: every Λ that is a sum of τxxᵀ, τ ≥ 0, is symmetric, and no
    eigenvalue of it is further below 0 than the grid explains. Raises SnapshotError, which begins with `name`.
    """
    if not np.array_equal(belief.precision, belief.precision.transpose(0, 2, 1)):
        raise SnapshotError(f"{name}: a precision is not symmetric")
    sums = learner.squares(k, belief) if isinstance(learner, Centred) else [belief.precision]
    for part in sums:
        least = np.linalg.eigvalsh(part).min(axis=-1)
        slack = (belief.n.sum() + 1.0) * part.shape[-1] / GRID + 1e-9 * np.abs(part).max(axis=(1, 2))
        if (least < -slack).any():
            raise SnapshotError(
                f"{name}: a precision has the eigenvalue {least.min():.3g}, which no sum of what was learned has: the "
                "snapshot was changed after it was published; publish it anew"
            )


def _probe(live: PreparedPolicy) -> None:
    """Decide at the defaults and at both ends of every feature, with all arms and with each alone beside no nudge."""
    spec, k, d = live.snapshot.stage_spec, len(live.snapshot.stage_spec.arms), len(live.schema.columns)
    start, _ = features.encode(live.schema, {})
    ends = np.repeat(start[None], 2 * d - 1, axis=0)
    for column in range(1, d):
        ends[2 * column - 1 : 2 * column + 1, column] = (-1.0, 1.0)
    masks = np.vstack([np.ones(k, dtype=np.bool_), np.eye(k, dtype=np.bool_)])
    masks[:, 0] = True
    for x in ends:
        for mask in masks:
            p = engine.choose(live, x, mask).propensity
            whole = np.isfinite(p).all() and abs(p.sum() - 1.0) <= _SUM and (p[~mask] == 0.0).all()
            if not whole or (p[mask] < min(spec.common_floor, 1.0 / mask.sum()) - _SUM).any():
                raise SnapshotError(
                    f"a probe gave {p.tolist()}: not probabilities above the floor of {spec.common_floor:g}"
                )
