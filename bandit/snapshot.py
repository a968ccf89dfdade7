"""A snapshot: policy + belief + arms + schema + version, one immutable value, and its bytes.

Two files, no pickle: `policy.json` (what a person reads, with the SHA-256 of both) and `posterior.npz` (arrays).
"""

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from bandit.belief import Belief
from bandit.catalogue import Stage
from bandit.errors import SnapshotError
from bandit.features import schema
from bandit.policies import blocks
from bandit.policies.protocol import Arms, Factor

FORMAT = 2
_EPOCH = (1980, 1, 1, 0, 0, 0)
_SEAL = b',\n "sha256": "%64s"\n}'
_UNREADABLE = (  # what json, zipfile, numpy and msgspec raise when given what they did not write
    *(ValueError, KeyError, TypeError, OSError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, struct.error, msgspec.ValidationError),
)


class Snapshot(msgspec.Struct, frozen=True):
    """What decides at one stage. `version` counts the settlements of the ledger it has learned from."""

    app: str
    stage: str
    spec: Stage
    version: int
    belief: Belief
    elsewhere: Factor | None = None  # what the app's other stages have learned about types of nudges

    @property
    def arms(self) -> Arms:
        """What the policy knows of the arms."""
        return self.spec.facts._replace(columns=schema(self.spec.features).keys, elsewhere=self.elsewhere)


def pooled(snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    """The snapshots of an app's stages, each with what the others have learned; all that share have one version."""
    said = [s.spec.learner.message(s.belief, s.arms) for s in snapshots]
    latest = max((s.version for s, m in zip(snapshots, said, strict=True) if m), default=0)
    result = []
    for i, snapshot in enumerate(snapshots):
        others = [m for j, m in enumerate(said) if m and j != i] if said[i] else []
        version = latest if said[i] else snapshot.version
        result.append(msgspec.structs.replace(snapshot, version=version, elsewhere=blocks.combined(others)))
    return result


def pack(snapshot: Snapshot) -> dict[str, bytes]:
    """{file name: bytes}. The same snapshot gives the same bytes."""
    arrays = io.BytesIO()
    with zipfile.ZipFile(arrays, "w", zipfile.ZIP_STORED) as archive:
        parts = snapshot.belief._asdict()
        if snapshot.elsewhere:
            parts |= {
                "elsewhere_precision": snapshot.elsewhere.precision,
                "elsewhere_shift": snapshot.elsewhere.shift,
            }
        for name, values in parts.items():
            data = io.BytesIO()
            np.lib.format.write_array(data, np.ascontiguousarray(values, dtype="<f8"), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), data.getvalue())
    posterior = arrays.getvalue()
    policy = {
        "format": FORMAT,
        "app": snapshot.app,
        "stage": snapshot.stage,
        "version": snapshot.version,
        "arms": snapshot.spec.arms,
        "columns": schema(snapshot.spec.features).columns,
        "belief_sha256": snapshot.belief.digest(),
        "posterior_sha256": hashlib.sha256(posterior).hexdigest(),
        "elsewhere": snapshot.elsewhere.keys if snapshot.elsewhere else (),
        "spec": msgspec.to_builtins(snapshot.spec),
    }
    return {"policy.json": _sealed(json.dumps(policy, indent=1).encode()), "posterior.npz": posterior}


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
    """The snapshot in the two files. SnapshotError if they are not whole, not ours, or not what they say."""
    if not {"policy.json", "posterior.npz"} <= files.keys():
        raise SnapshotError(f"policy.json and posterior.npz are both needed, got {sorted(files)}")
    body, posterior = _unsealed(files["policy.json"]), files["posterior.npz"]
    try:
        policy: dict[str, Any] = json.loads(body)
        if policy["format"] != FORMAT:
            raise SnapshotError(f"format {policy['format']!r} is not {FORMAT}: written by another version")
        if hashlib.sha256(posterior).hexdigest() != policy["posterior_sha256"]:
            raise SnapshotError("posterior.npz is not the file that policy.json was written with (sha256 differs)")
        with np.load(io.BytesIO(posterior), allow_pickle=False) as arrays:
            belief = Belief(*(arrays[name].astype(np.float64) for name in Belief._fields))
            elsewhere = _elsewhere(policy["elsewhere"], arrays)
        spec = msgspec.convert(policy["spec"], Stage)
        app, stage, version = str(policy["app"]), str(policy["stage"]), int(policy["version"])
    except _UNREADABLE as error:
        raise SnapshotError(f"not a snapshot: {error!r}") from error
    k, d = len(spec.arms), len(schema(spec.features).columns)
    shapes = [part.shape for part in belief]
    if shapes != [(k,), (k,), (k,), (k, d, d), (k, d)]:
        raise SnapshotError(f"shapes {shapes} do not fit {k} arms and {d} features")
    if not all(np.isfinite(part).all() for part in belief):
        raise SnapshotError("the belief has values that are not finite")
    if belief.digest() != policy.get("belief_sha256"):
        raise SnapshotError("the belief is not the one that policy.json describes (digest differs)")
    return Snapshot(app, stage, spec, version, belief, elsewhere)


def _elsewhere(keys: list[list[str]], arrays: Mapping[str, Any]) -> Factor | None:
    """SnapshotError unless the arrays are there, finite, and of the keys' number."""
    if not keys:
        return None
    n = len(keys)
    precision, shift = arrays["elsewhere_precision"].astype(np.float64), arrays["elsewhere_shift"].astype(np.float64)
    if (precision.shape, shift.shape) != ((n, n), (n,)) or not (
        np.isfinite(precision).all() & np.isfinite(shift).all()
    ):
        raise SnapshotError(f"what other stages have learned does not fit its {n} coefficients")
    return Factor(tuple((str(kind), str(column)) for kind, column in keys), precision, shift)


def to_zip(snapshot: Snapshot) -> bytes:
    """Both files in one archive, for transport. The same snapshot gives the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in pack(snapshot).items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)
    return buffer.getvalue()


def from_zip(data: bytes) -> Snapshot:
    """The snapshot in an archive of `to_zip`. SnapshotError as `unpack`."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
    except _UNREADABLE as error:
        raise SnapshotError(f"not an archive: {error!r}") from error
    return unpack(files)
