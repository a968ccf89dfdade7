"""Effects by segment: shrunk towards each other as far as they agree, the worst named, claims shared among all."""

import numpy as np
import pytest

from experiments.inference.intervals import Interval, Moments, interval, standard_error
from experiments.inference.segments import SegmentEffects, _shrink, by_segment, effects, merged


def made(seed: int, effect: dict[str, float], n: int = 400, sd: float = 1.0) -> dict[str, Moments]:
    rng = np.random.default_rng(seed)
    return {name: Moments.of(rng.normal(mean, sd, n)) for name, mean in effect.items()}


def found(moments: dict[str, Moments]) -> SegmentEffects:
    segments = effects(moments)
    assert segments is not None
    return segments


def test_equal_effects_are_shrunk_most_of_the_way_to_their_mean() -> None:
    segments = found(made(1, dict.fromkeys("abcdefgh", 0.3)))
    own = np.array([s.joint.value for s in segments.segments])
    shrunk = np.array([s.shrunk.value for s in segments.segments])
    assert shrunk.std() < 0.5 * own.std()
    assert segments.mean == pytest.approx(own.mean(), abs=0.005)


def test_effects_that_differ_stay_apart() -> None:
    segments = found(made(2, {name: float(i) for i, name in enumerate("abcdef")}))
    assert all(s.shrunk.value == pytest.approx(s.joint.value, abs=0.02) for s in segments.segments)
    assert segments.spread == pytest.approx(2.2, abs=0.9)


def test_the_posterior_is_that_of_the_hierarchical_model() -> None:
    """Against brute force: 3 million draws from the flat-prior model, weighted by the likelihood."""
    m, e = np.array([0.5, -0.2, 1.4]), np.array([0.4, 0.6, 0.5])
    _, _, value, sd = _shrink(m, e)
    rng = np.random.default_rng(3)
    most = 3.0 * (m.std() + np.median(e))
    tau, mu = rng.uniform(0, most, 3_000_000), rng.uniform(-8, 9, 3_000_000)
    theta = mu[:, None] + tau[:, None] * rng.standard_normal((3_000_000, 3))
    log_like = -0.5 * (((theta - m) / e) ** 2).sum(axis=1)
    weight = np.exp(log_like - log_like.max())
    weight /= weight.sum()
    mean = weight @ theta
    assert value == pytest.approx(mean, abs=0.02)
    assert sd == pytest.approx(np.sqrt(weight @ (theta - mean) ** 2), abs=0.02)


@pytest.mark.parametrize(("count", "tau"), [(4, 0.0), (4, 1.0), (8, 0.5), (8, 3.0), (20, 1.0)])
def test_shrunk_intervals_cover_on_average(count: int, tau: float) -> None:
    """1,000 populations; coverage is 93–99.9 %: below 90 % has chance < 1e-6. Their error is less than the means'."""
    rng = np.random.default_rng(4)
    covered, errors = [], []
    for _ in range(1000):
        e = rng.uniform(0.5, 2.0, count)
        theta = 1.0 + tau * rng.standard_normal(count)
        m = theta + e * rng.standard_normal(count)
        _, _, value, sd = _shrink(m, e)
        covered.append((np.abs(value - theta) <= 1.96 * sd).mean())
        errors.append((((value - theta) ** 2).mean(), ((m - theta) ** 2).mean()))
    assert np.mean(covered) > 0.9
    shrunk, plain = np.mean(errors, axis=0)
    assert shrunk < plain


def test_the_worst_segment_is_named_and_whoever_is_hurt() -> None:
    segments = found(made(5, {"new": 0.4, "loyal": 0.3, "lapsed": -0.5, "guest": 0.2}))
    assert segments.worst.name == "lapsed"
    assert [s.name for s in segments.hurt] == ["lapsed"]


def test_a_small_segment_with_bad_luck_is_not_the_worst() -> None:
    moments = made(6, {"a": 0.3, "b": 0.32, "c": 0.28, "d": 0.05}, n=5000)
    moments["tiny"] = Moments.of(np.array([-3.0, 2.4, -0.3, 0.5, -0.1]))
    segments = found(moments)
    assert min(segments.segments, key=lambda s: s.joint.value).name == "tiny"
    assert segments.worst.name == "d"


def test_no_segment_is_called_hurt_by_luck() -> None:
    """2,000 reports of 10 segments without any effect, at 5 %: 144 or more false ones have chance < 1e-6 at 5 %.

    One-sided claims of a two-sided family: 2.5 % are expected.
    """
    rng = np.random.default_rng(7)
    false = 0
    for _ in range(2000):
        phi = rng.standard_normal((10, 100))
        segments = found({str(i): Moments.of(row) for i, row in enumerate(phi)})
        false += bool(segments.hurt)
    assert false < 144


def test_joint_intervals_share_the_level() -> None:
    moments = made(8, dict.fromkeys("abcde", 0.0))
    assert found(moments).segments[0].joint == interval(moments["a"], 0.99)


def test_one_segment_is_itself() -> None:
    (only,) = found(made(9, {"all": 0.2})).segments
    assert only.shrunk.value == only.joint.value
    assert effects({"none": Moments()}) is None


def test_parts_of_a_log_merge() -> None:
    rng = np.random.default_rng(10)
    phi, names = rng.standard_normal(300), rng.choice(["a", "b", "c"], 300)
    names[:150] = np.where(names[:150] == "c", "a", names[:150])  # c is in the second part only
    parts = merged(by_segment(names[:150], phi[:150]), by_segment(names[150:], phi[150:]))
    whole = by_segment(names, phi)
    assert parts.keys() == whole.keys()
    assert all(interval(parts[name]) == pytest.approx(interval(whole[name])) for name in whole)
    assert isinstance(interval(parts["c"]), Interval)
    assert standard_error(parts["c"]) > 0.0
