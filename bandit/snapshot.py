"""Snapshot: policy + belief + arms + schema + version of one stage as one immutable value, and its bytes.

Two files, no pickle: `policy.json` (what a person reads, with the SHA-256 of both) and `posterior.npz` (arrays). The
service makes one for each learning batch; the registry keeps the same bytes as a version.
"""

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from bandit.arrays import Array
from bandit.belief import Belief, add, empty
from bandit.catalogue.loading import read_stage
from bandit.catalogue.model import Catalogue, Stage
from bandit.errors import PolicyError, SnapshotError
from bandit.features import of
from bandit.learning.loss_account import LossAccount
from bandit.learning.nudge_price import NudgePrice
from bandit.policies import Centred, hierarchy
from bandit.policies.protocol import ArmEconomics, CoefficientFactor, RetiredArms
from bandit.records import PendingBasis

FORMAT = 3
_EPOCH = (1980, 1, 1, 0, 0, 0)
_SEAL = b',\n "sha256": "%64s"\n}'
_UNREADABLE = (  # what json, zipfile, numpy and msgspec raise when given what they did not write
    *(ValueError, KeyError, TypeError, OSError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, struct.error, msgspec.ValidationError, MemoryError),
)


class Snapshot(msgspec.Struct, frozen=True):
    """Snapshot: what decides at one stage. `version` counts the settlements of the ledger it has learned from.

    Guarantees: immutable, so publishing is one assignment and any thread may read it; `unpack(pack(s))` decides as `s`
    to the bit; the same ledger, version and basis give the same snapshot.

    Fields: `stage_spec` the stage as declared; `belief` is settled and exact, (k, …) over `stage_spec.belief_rows`;
    `cross_stage_factor` what the app's other stages have learned about types of nudges; `retired` what nudges have
    taught that are not declared any more; `pending` is what open decisions said at `pending_basis`, computed anew for
    each snapshot; `undiscounted` the belief with every epoch at full weight, by which the loss account judges what was
    (None: no alarm of drift discounted any); `nudge_price` what showing a nudge costs later rewards, as learned (None:
    the stage learns none); `loss_account` what learning may have cost, and the share of traffic it may decide (None:
    all).

        files = pack(snapshot)            # {"policy.json": …, "posterior.npz": …}
        live = engine.prepare(unpack(files))
    """

    app: str
    stage: str
    stage_spec: Stage
    version: int
    belief: Belief
    cross_stage_factor: CoefficientFactor | None = (
        None  # what the app's other stages have learned about types of nudges
    )
    retired: RetiredArms | None = None
    pending: Belief | None = None
    pending_basis: PendingBasis = PendingBasis()
    loss_account: LossAccount | None = None
    nudge_price: NudgePrice | None = None
    undiscounted: Belief | None = None

    @classmethod
    def untrained(cls, catalogue: Catalogue, stage: str) -> "Snapshot":
        """Snapshot of a stage that has learned nothing yet: version 0, all sums 0. NotFound for an unknown stage."""
        spec = catalogue.stage(stage)
        belief = empty(len(spec.belief_rows(spec.arms)), len(of(spec).columns))
        return cls(catalogue.app, stage, spec, 0, belief)

    @property
    def arms(self) -> ArmEconomics:
        """Economics of the arms as the policy gets them: the stage's, with column names (d,), cross-stage factor,
        retired arms, and the learned price of a nudge where the stage declares none. Computed anew on each access.
        """
        columns, own = of(self.stage_spec).keys, self.stage_spec.arm_economics
        policy, found = self.stage_spec.learner, self.nudge_price
        if (
            found is not None
            and self.stage_spec.price is None
            and isinstance(policy, Centred)
            and own.price is not None
        ):
            more = np.where(np.arange(len(own.names)) > 0, found.price - policy.price, 0.0)
            own = own._replace(cost=own.cost + more, price=own.price + more)
        return own._replace(columns=columns, cross_stage_factor=self.cross_stage_factor, retired=self.retired)

    @property
    def evidence(self) -> Belief:
        """Belief that decides: all that has settled, and what is open for what it is worth."""
        return self.belief if self.pending is None else add(self.belief, self.pending)

    @property
    def undiscounted_evidence(self) -> Belief:
        """Belief that judges what was: as `evidence`, with what was learned before an alarm of drift at full weight."""
        if self.undiscounted is None:
            return self.evidence
        return self.undiscounted if self.pending is None else add(self.undiscounted, self.pending)


def pooled(snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    """Snapshots of an app's stages, in the same order, each with what the others have learned about types of nudges.
    All that share get the latest version among them, so that a version names one state of the ledger.
    """
    said = [s.stage_spec.learner.message(s.evidence, s.arms) for s in snapshots]
    latest = max((s.version for s, m in zip(snapshots, said, strict=True) if m), default=0)
    result = []
    for i, snapshot in enumerate(snapshots):
        others = [m for j, m in enumerate(said) if m and j != i] if said[i] else []
        version = latest if said[i] else snapshot.version
        result.append(msgspec.structs.replace(snapshot, version=version, cross_stage_factor=hierarchy.combined(others)))
    return result


def pack(snapshot: Snapshot) -> dict[str, bytes]:
    """Files of a snapshot, {file name: bytes}: policy.json, which a person can read, and posterior.npz, arrays as
    float64.

    The same snapshot gives the same bytes on every machine; `unpack` reads them. Raises nothing for a snapshot that
    `Snapshot.untrained`, a service or `unpack` made.
    """
    arrays = io.BytesIO()
    with zipfile.ZipFile(arrays, "w", zipfile.ZIP_STORED) as archive:
        for name, values in _arrays(snapshot).items():
            data = io.BytesIO()
            np.lib.format.write_array(data, np.ascontiguousarray(values, dtype="<f8"), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), data.getvalue())
    posterior = arrays.getvalue()
    retired = snapshot.retired
    policy = {
        "format": FORMAT,
        "app": snapshot.app,
        "stage": snapshot.stage,
        "version": snapshot.version,
        "arms": snapshot.stage_spec.arms,
        "columns": of(snapshot.stage_spec).columns,
        "belief_sha256": snapshot.belief.digest(),
        "posterior_sha256": hashlib.sha256(posterior).hexdigest(),
        "elsewhere": snapshot.cross_stage_factor.keys if snapshot.cross_stage_factor else (),
        "retired": dict(zip(retired.names, retired.kinds, strict=True)) if retired else {},
        "pending": snapshot.pending is not None,
        "basis": snapshot.pending_basis._asdict(),
        "spec": msgspec.to_builtins(snapshot.stage_spec),
    }
    if snapshot.loss_account is not None:
        policy["loss_account"] = msgspec.to_builtins(snapshot.loss_account)
    if snapshot.nudge_price is not None:
        policy["nudge_price"] = msgspec.to_builtins(snapshot.nudge_price)
    return {"policy.json": _sealed(json.dumps(policy, indent=1).encode()), "posterior.npz": posterior}


def _arrays(snapshot: Snapshot) -> dict[str, Array]:
    parts = snapshot.belief._asdict()
    for name, part, fields in (
        ("elsewhere", snapshot.cross_stage_factor, ("precision", "shift")),
        ("retired", snapshot.retired, ("precision", "shift")),
        ("pending", snapshot.pending, Belief._fields),
        ("undiscounted", snapshot.undiscounted, Belief._fields),
    ):
        parts |= {f"{name}_{field}": getattr(part, field) for field in fields} if part else {}
    return parts


def _sealed(body: bytes) -> bytes:
    """A JSON object with the SHA-256 of its bytes added as its last field."""
    return body.removesuffix(b"\n}") + _SEAL % hashlib.sha256(body).hexdigest().encode()


def _unsealed(text: bytes) -> bytes:
    """What `_sealed` made `text` of. SnapshotError if it did not."""
    body = text[: -len(_SEAL % b"")] + b"\n}"
    if _sealed(body) != text:
        raise SnapshotError("policy.json is not as it was written (sha256 differs)")
    return body


def unpack(files: dict[str, bytes]) -> Snapshot:
    """Snapshot in the two files of `pack`. Raises SnapshotError if they are not whole, not of this FORMAT, or not what
    their digests, shapes and numbers say.
    """
    if not {"policy.json", "posterior.npz"} <= files.keys():
        raise SnapshotError(f"policy.json and posterior.npz are both needed, got {sorted(files)}")
    body, posterior = _unsealed(files["policy.json"]), files["posterior.npz"]
    try:
        policy: dict[str, Any] = json.loads(body)
        if policy["format"] != FORMAT:
            raise SnapshotError(f"format {policy['format']!r} is not {FORMAT}: written by another version")
        if hashlib.sha256(posterior).hexdigest() != policy["posterior_sha256"]:
            raise SnapshotError("posterior.npz is not the file that policy.json was written with (sha256 differs)")
        with zipfile.ZipFile(io.BytesIO(posterior)) as archive:
            _check_size(archive, len(posterior), "posterior.npz")
        with np.load(io.BytesIO(posterior), allow_pickle=False) as arrays:
            found = {name: arrays[name].astype(np.float64, copy=False) for name in arrays.files}
        snapshot = _built(policy, found)
    except PolicyError as error:
        raise SnapshotError(f"the snapshot of {policy['app']}/{policy['stage']} cannot be used: {error}") from error
    except _UNREADABLE as error:
        raise SnapshotError(f"not a snapshot: {error!r}") from error
    _check(snapshot, policy)
    return snapshot


def _check_size(archive: zipfile.ZipFile, size: int, name: str) -> None:
    """SnapshotError for an archive whose entries are together larger than it is: ours are stored, and what is packed
    may fill the memory.
    """
    unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > size:
        problem = f"{name}: {size:,} bytes that unpack to {unpacked:,}; entries are stored, {size:,} bytes at most"
        raise SnapshotError(problem, field="posterior")


def _built(policy: dict[str, Any], found: dict[str, Array]) -> Snapshot:
    keys = tuple((str(kind), str(column)) for kind, column in policy["elsewhere"])
    names, kinds = tuple(policy["retired"]), tuple(policy["retired"].values())
    return Snapshot(
        app=str(policy["app"]),
        stage=str(policy["stage"]),
        stage_spec=read_stage(policy["spec"]),
        version=int(policy["version"]),
        belief=Belief(*(found[name] for name in Belief._fields)),
        cross_stage_factor=CoefficientFactor(keys, found["elsewhere_precision"], found["elsewhere_shift"])
        if keys
        else None,
        retired=RetiredArms(names, kinds, found["retired_precision"], found["retired_shift"]) if names else None,
        pending=_belief("pending", found) if policy["pending"] else None,
        pending_basis=PendingBasis(**policy["basis"]),
        loss_account=msgspec.convert(policy["loss_account"], LossAccount) if "loss_account" in policy else None,
        nudge_price=msgspec.convert(policy["nudge_price"], NudgePrice) if "nudge_price" in policy else None,
        undiscounted=_belief("undiscounted", found) if "undiscounted_n" in found else None,
    )


def _belief(prefix: str, found: dict[str, Array]) -> Belief:
    return Belief(*(found[f"{prefix}_{name}"] for name in Belief._fields))


def _check(snapshot: Snapshot, policy: dict[str, Any]) -> None:
    """SnapshotError unless every array has its shape and is finite, and the belief is the one described."""
    spec = snapshot.stage_spec
    k, d = len(spec.belief_rows(spec.arms)), len(of(spec).columns)
    belief = {"n": (k,), "reward": (k,), "square": (k,), "precision": (k, d, d), "shift": (k, d)}
    n, r = len(snapshot.cross_stage_factor.keys if snapshot.cross_stage_factor else ()), len(policy["retired"])
    wanted: dict[str, tuple[int, ...]] = {
        **belief,
        **{f"{prefix}_{name}": shape for prefix in ("pending", "undiscounted") for name, shape in belief.items()},
        "elsewhere_precision": (n, n),
        "elsewhere_shift": (n,),
        "retired_precision": (r, d, d),
        "retired_shift": (r, d),
    }
    for name, values in _arrays(snapshot).items():
        if values.shape != wanted[name]:
            raise SnapshotError(f"{name}: shape {values.shape} does not fit {k} arms and {d} features")
        if not np.isfinite(values).all():
            raise SnapshotError(f"{name} has values that are not finite")
    price = snapshot.nudge_price
    if price is not None and not (0.0 <= price.low <= price.price <= price.high < np.inf):  # also false for NaN
        raise SnapshotError("nudge_price is no price within its interval")
    if snapshot.belief.digest() != policy.get("belief_sha256"):
        raise SnapshotError("the belief is not the one that policy.json describes (digest differs)")


def to_zip(snapshot: Snapshot) -> bytes:
    """Archive (bytes) of both files, for transport. The same snapshot gives the same bytes: entries are stored, with a
    fixed time.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in pack(snapshot).items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)
    return buffer.getvalue()


def from_zip(data: bytes) -> Snapshot:
    """Snapshot in an archive of `to_zip`. Raises SnapshotError for bytes that are no archive, and as `unpack`."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_size(archive, len(data), "the archive")
            files = {name: archive.read(name) for name in archive.namelist()}
    except _UNREADABLE as error:
        raise SnapshotError(f"not an archive: {error!r}") from error
    return unpack(files)
