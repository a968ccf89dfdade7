"""A snapshot's bytes: the same for the same value, back to the same value, and refused when anything was touched."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.belief import Belief, empty
from bandit.catalogue.loading import parse, read_shipped, shipped
from bandit.catalogue.model import Stage
from bandit.errors import SnapshotError
from bandit.features import schema
from bandit.learning.nudge_price import NudgeSums, learned
from bandit.policies import AnyPolicy, Beta, Fixed, Linear, Uniform
from bandit.snapshot import Snapshot, from_zip, pack, to_zip, unpack

Files = dict[str, bytes]

K, D = 5, 11


@pytest.fixture(scope="module")
def snapshot(make_stage: Callable[..., Stage], make_belief: Callable[..., Belief]) -> Snapshot:
    return Snapshot("shop", "checkout", make_stage(), 400, make_belief(K, D, 400, 0))


def same(left: Snapshot, right: Snapshot) -> bool:
    meta = (left.app, left.stage, left.stage_spec, left.version) == (
        right.app,
        right.stage,
        right.stage_spec,
        right.version,
    )
    return meta and left.belief.digest() == right.belief.digest()


def resealed(files: Files, **fields: Any) -> Files:
    """The files with fields of policy.json replaced and its seal made good, as a wrong writer would leave them."""
    policy = {k: v for k, v in json.loads(files["policy.json"]).items() if k != "sha256"} | fields
    body = json.dumps(policy, indent=1)
    seal = hashlib.sha256(body.encode()).hexdigest()
    return {**files, "policy.json": f'{body[:-2]},\n "sha256": "{seal}"\n}}'.encode()}


def with_posterior(files: Files, posterior: bytes) -> Files:
    return resealed({**files, "posterior.npz": posterior}, posterior_sha256=hashlib.sha256(posterior).hexdigest())


def with_arrays(files: Files, **arrays: Any) -> Files:
    """The files with other arrays in posterior.npz, and every checksum made good."""
    with np.load(io.BytesIO(files["posterior.npz"])) as old:
        buffer = io.BytesIO()
        np.savez(buffer, **{**old, **arrays})
    return with_posterior(files, buffer.getvalue())


# -- there and back --------------------------------------------------------------------------------------------


def test_the_bytes_come_back_as_the_same_snapshot(snapshot: Snapshot) -> None:
    assert same(unpack(pack(snapshot)), snapshot)
    assert same(from_zip(to_zip(snapshot)), snapshot)


@pytest.mark.parametrize("policy", [Uniform(), Fixed("discount"), Beta(2.0, 5.5, 0.5), Linear(alpha=0.25)])
def test_every_policy_survives(snapshot: Snapshot, make_stage: Callable[..., Stage], policy: AnyPolicy) -> None:
    one = msgspec.structs.replace(snapshot, stage_spec=make_stage(policy=policy))
    assert unpack(pack(one)).stage_spec.policy == policy


@pytest.mark.parametrize("app", shipped())
def test_every_shipped_stage_survives(app: str) -> None:
    for name, stage in parse(read_shipped(app)).stages.items():
        one = Snapshot.untrained(parse(read_shipped(app)), name)
        assert same(from_zip(to_zip(one)), one)
        assert unpack(pack(one)).stage_spec.digest() == stage.digest()


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**63 - 1))
def test_any_finite_belief_survives_to_the_bit(snapshot: Snapshot, seed: int, version: int) -> None:
    rng = np.random.default_rng(seed)
    belief = Belief(*(np.ldexp(rng.normal(size=p.shape), rng.integers(-1000, 1000, p.shape)) for p in empty(K, D)))
    one = msgspec.structs.replace(snapshot, belief=belief, version=version)
    assert same(unpack(pack(one)), one)


PRICE = learned(NudgeSums(decisions=90, people=40, nudges=30, reward=9.0, weight=8.0, score=-0.5, instrument=2.0), 0.1)
CENTRED = parse(
    """
    app = "shop"
    currency = "EUR"
    [stages.cart]
    policy = { name = "centred", prior_mean = 0.1 }
    reward = { kind = "binary", window = "1h", value = 20.0 }
    [stages.cart.features]
    [stages.cart.nudges.tip]
    type = "help"
    format = "banner"
    cost = 0.5
    price = 0.1
    """
).stage("cart")


def test_a_learned_price_comes_back_and_is_charged_where_none_is_declared() -> None:
    made = Snapshot("shop", "cart", CENTRED, 90, empty(len(CENTRED.belief_rows(CENTRED.arms)), 1), nudge_price=PRICE)
    assert unpack(pack(made)).nudge_price == PRICE
    charged = made.arms.price
    assert charged is not None
    assert charged == pytest.approx([0.0, PRICE.price + 0.1 / 20.0])
    assert made.arms.cost == pytest.approx([0.0, PRICE.price + 0.6 / 20.0])
    declared = msgspec.structs.replace(CENTRED, price=0.4)
    other = msgspec.structs.replace(made, stage_spec=declared)
    assert other.arms.cost == pytest.approx([0.0, 1.0 / 20.0])


@pytest.mark.parametrize("wrong", [{"price": -0.1}, {"price": 9.0}, {"low": float("nan")}, {"high": float("inf")}])
def test_a_price_that_cannot_be_one_is_refused(wrong: dict[str, float]) -> None:
    made = Snapshot(
        "shop",
        "cart",
        CENTRED,
        90,
        empty(len(CENTRED.belief_rows(CENTRED.arms)), 1),
        nudge_price=msgspec.structs.replace(PRICE, **wrong),
    )
    with pytest.raises(SnapshotError):
        unpack(pack(made))


def test_the_same_snapshot_has_the_same_bytes(snapshot: Snapshot) -> None:
    assert pack(snapshot) == pack(unpack(pack(snapshot)))
    assert to_zip(snapshot) == to_zip(from_zip(to_zip(snapshot)))
    turned = snapshot.belief._replace(precision=np.asfortranarray(snapshot.belief.precision))
    assert pack(msgspec.structs.replace(snapshot, belief=turned)) == pack(snapshot)


def test_no_pickle_is_needed_to_read_it_and_a_person_can(snapshot: Snapshot) -> None:
    files = pack(snapshot)
    with np.load(io.BytesIO(files["posterior.npz"]), allow_pickle=False) as arrays:
        assert {name: arrays[name].dtype.str for name in arrays} == dict.fromkeys(Belief._fields, "<f8")
    policy = json.loads(files["policy.json"])
    assert policy["arms"] == list(snapshot.stage_spec.arms)
    assert policy["columns"] == list(schema(snapshot.stage_spec.features).columns)
    assert policy["belief_sha256"] == snapshot.belief.digest()
    assert (policy["app"], policy["stage"], policy["version"]) == ("shop", "checkout", 400)


# -- refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["policy.json", "posterior.npz"])
def test_one_flipped_bit_anywhere_is_refused(snapshot: Snapshot, name: str) -> None:
    """A bit of every byte, another one in each."""
    files = pack(snapshot)
    for at in range(len(files[name])):
        flipped = bytearray(files[name])
        flipped[at] ^= 1 << at * 5 % 8
        with pytest.raises(SnapshotError):
            unpack({**files, name: bytes(flipped)})


def test_one_flipped_bit_of_the_archive_is_refused_or_harmless(snapshot: Snapshot) -> None:
    """An archive has bytes that say nothing, such as times."""
    data, refused = to_zip(snapshot), 0
    for at in range(0, len(data), 3):
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        try:
            assert same(from_zip(bytes(flipped)), snapshot)
        except SnapshotError:
            refused += 1
    assert refused > 0.9 * len(data) / 3


@pytest.mark.parametrize("missing", ["policy.json", "posterior.npz"])
def test_both_files_are_needed(snapshot: Snapshot, missing: str) -> None:
    with pytest.raises(SnapshotError, match="both needed"):
        unpack({name: data for name, data in pack(snapshot).items() if name != missing})


def test_the_files_of_two_snapshots_do_not_mix(snapshot: Snapshot) -> None:
    other = pack(msgspec.structs.replace(snapshot, belief=empty(K, D)))
    with pytest.raises(SnapshotError, match="sha256 differs"):
        unpack({**pack(snapshot), "posterior.npz": other["posterior.npz"]})


def test_another_format_is_refused_by_name(snapshot: Snapshot) -> None:
    with pytest.raises(SnapshotError, match="format 4 is not 3: written by another version"):
        unpack(resealed(pack(snapshot), format=4))


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 10_000, b'{"format": 1}', b"not json"])
def test_what_is_not_our_policy_file_is_refused(snapshot: Snapshot, text: bytes) -> None:
    with pytest.raises(SnapshotError, match="not as it was written"):
        unpack({**pack(snapshot), "policy.json": text})
    body = text.removesuffix(b"}").removesuffix(b"\n") + b"\n}"
    seal = hashlib.sha256(body).hexdigest().encode()
    with pytest.raises(SnapshotError):
        unpack({**pack(snapshot), "policy.json": body.removesuffix(b"\n}") + b',\n "sha256": "' + seal + b'"\n}'})


@pytest.mark.parametrize("posterior", [b"", b"junk", b"PK\x03\x04junk", np.lib.format.magic(1, 0)])
def test_what_is_not_our_array_file_is_refused(snapshot: Snapshot, posterior: bytes) -> None:
    with pytest.raises(SnapshotError, match="not a snapshot"):
        unpack(with_posterior(pack(snapshot), posterior))


@pytest.mark.parametrize("field", ["spec", "app", "stage", "version"])
def test_a_missing_or_senseless_field_is_refused(snapshot: Snapshot, field: str) -> None:
    policy = json.loads(pack(snapshot)["policy.json"])
    without = {k: v for k, v in policy.items() if k not in (field, "sha256")}
    body = json.dumps(without, indent=1)
    seal = hashlib.sha256(body.encode()).hexdigest()
    text = f'{body[:-2]},\n "sha256": "{seal}"\n}}'.encode()
    with pytest.raises(SnapshotError, match="not a snapshot"):
        unpack({**pack(snapshot), "policy.json": text})


def test_a_stage_that_cannot_be_one_is_refused(snapshot: Snapshot) -> None:
    spec = json.loads(pack(snapshot)["policy.json"])["spec"]
    for wrong in ({**spec, "floor": 2.0}, {**spec, "unknown": 1}, {**spec, "policy": {"name": "beta", "alpha": 9.0}}):
        with pytest.raises(SnapshotError, match="not a snapshot"):
            unpack(resealed(pack(snapshot), spec=wrong))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("n", (K + 1,)), ("n", (K, 1)), ("precision", (K, D, D - 1)), ("shift", (D, K)), ("reward", ())],
)
def test_arrays_of_another_shape_are_refused(snapshot: Snapshot, name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(SnapshotError, match=f"does not fit {K} arms and {D} features"):
        unpack(with_arrays(pack(snapshot), **{name: np.zeros(shape)}))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", Belief._fields)
def test_values_that_are_not_finite_are_refused(snapshot: Snapshot, name: str, value: float) -> None:
    wrong = getattr(snapshot.belief, name).copy()
    wrong.flat[-1] = value
    with pytest.raises(SnapshotError, match="not finite"):
        unpack(with_arrays(pack(snapshot), **{name: wrong}))


def test_arrays_that_are_not_numbers_are_refused(snapshot: Snapshot) -> None:
    with pytest.raises(SnapshotError, match="not a snapshot"):
        unpack(with_arrays(pack(snapshot), n=np.array(["many"] * K)))
    with pytest.raises(SnapshotError, match="not a snapshot"):  # an object array would need pickle
        unpack(with_arrays(pack(snapshot), n=np.array([None] * K)))


def test_what_is_packed_is_refused_before_a_byte_of_it_is_unpacked(
    snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, packed, whole = pack(snapshot), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("n.npy", bytes(1_000_000))
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("policy.json", bytes(1_000_000))
    opened = list[object]()
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *given, **_: opened.append(given))
    said = r": 1,\d{3} bytes that unpack to 1,000,000; entries are stored, 1,\d{3} bytes at most"
    with pytest.raises(SnapshotError, match="posterior.npz" + said) as found:
        unpack(with_posterior(files, packed.getvalue()))
    assert found.value.field == "posterior"
    with pytest.raises(SnapshotError, match="the archive" + said):
        from_zip(whole.getvalue())
    assert opened == []


def test_an_array_that_no_memory_holds_is_refused(snapshot: Snapshot) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (%d,), }" % 10**14
    posterior = io.BytesIO()
    with zipfile.ZipFile(posterior, "w") as archive:
        archive.writestr("n.npy", np.lib.format.magic(1, 0) + b"\x76\x00" + header.ljust(117) + b"\n")
    with pytest.raises(SnapshotError, match="not a snapshot"):
        unpack(with_posterior(pack(snapshot), posterior.getvalue()))


def test_arrays_that_are_not_those_described_are_refused(snapshot: Snapshot) -> None:
    with pytest.raises(SnapshotError, match="digest"):
        unpack(with_arrays(pack(snapshot), n=snapshot.belief.n + 1))


@pytest.mark.parametrize("data", [b"", b"PK", b"not an archive"])
def test_what_is_not_an_archive_is_refused(data: bytes) -> None:
    with pytest.raises(SnapshotError):
        from_zip(data)


def test_an_archive_of_something_else_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(SnapshotError, match="both needed"):
        from_zip(buffer.getvalue())


def test_what_was_learned_before_an_alarm_comes_back_at_full_weight(snapshot: Snapshot) -> None:
    whole = Belief(*(2.0 * part for part in snapshot.belief))
    made = msgspec.structs.replace(snapshot, undiscounted=whole)
    again = unpack(pack(made))
    assert again.undiscounted is not None
    assert again.undiscounted.digest() == whole.digest()
    assert again.undiscounted_evidence.digest() == whole.digest()
    assert unpack(pack(snapshot)).undiscounted is None
    assert snapshot.undiscounted_evidence.digest() == snapshot.belief.digest()
    with pytest.raises(SnapshotError, match="undiscounted_n: shape"):
        unpack(with_arrays(pack(made), undiscounted_n=np.zeros(1)))
