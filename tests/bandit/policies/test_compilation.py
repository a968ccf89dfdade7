"""Compiled kernels: the bits of what they stand for, in every law, and nothing of what differs is used."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from bandit import engine
from bandit.catalogue.loading import parse, read_shipped
from bandit.numerics import arithmetic, compiled
from bandit.numerics.compiled import CompiledKernels
from bandit.policies import Centred, Hierarchical, compilation
from bandit.policies.centred import CentredPosterior
from bandit.policies.protocol import ArmEconomics
from bandit.propensity import correlated, nearly_independent
from bandit.propensity.floor import apportioned
from bandit.snapshot import Snapshot
from benchmarks.comparison.decide import facts, learn, untaught, world

pytest.importorskip("numba", reason="no numba: what it compiles is not tested; pip install 'journey-bandit[fast]'")


@pytest.fixture(scope="module")
def kernels() -> CompiledKernels:
    tried = compilation.start()
    assert tried is not None
    assert tried.differing == ""
    found = compiled.kernels()
    assert found is not None
    compiled.use(None)
    return found


@pytest.fixture(autouse=True)
def _used_by_no_other_test() -> Iterator[None]:
    yield
    compiled.use(None)


@pytest.mark.parametrize(("k", "d", "rows"), [(2, 3, 300), (3, 9, 900), (6, 16, 2000), (11, 5, 4000), (14, 4, 2000)])
@pytest.mark.parametrize("policy", [Centred(), Hierarchical()], ids=lambda policy: policy.__struct_config__.tag)
def test_decisions_have_the_same_bits(
    kernels: CompiledKernels, policy: Centred | Hierarchical, k: int, d: int, rows: int
) -> None:
    rng = np.random.default_rng([k, d])
    arms, log = facts(k), world(k, d)(rows, 1)[0]
    arms = arms._replace(cost=np.where(np.arange(k) > 0, rng.uniform(0.0, 0.02, k), 0.0))
    belief = learn(policy, untaught(policy, k, d), log)
    compiled.use(kernels)
    assert all(np.array_equal(a, b) for a, b in zip(learn(policy, untaught(policy, k, d), log), belief, strict=True))
    posterior, left = policy.posterior(belief, arms), 0
    for i, x in enumerate(world(k, d)(200, 2)[0].x):
        may = rng.random(k) < (0.6 if i % 2 else 1.1)
        may[i % k] = True
        compiled.use(kernels)
        ours = posterior.choose(x, may)
        drawn = apportioned(ours.propensity, 0.01, may)
        if isinstance(posterior, CentredPosterior):
            left += posterior.compiled(kernels, x, may) is None
        compiled.use(None)
        assert [part.tobytes() for part in ours] == [part.tobytes() for part in posterior.choose(x, may)]
        assert drawn.tobytes() == apportioned(ours.propensity, 0.01, may).tobytes()
    assert left <= (200 if k > 12 else 10)  # or nothing was compared


@pytest.mark.parametrize("app", ["fintech", "fashion", "travel", "subscription", "gaming"])
def test_shipped_stages_prepare_and_choose_the_same(kernels: CompiledKernels, app: str) -> None:
    catalogue, rng = parse(read_shipped(app), app), np.random.default_rng(3)
    for stage, spec in catalogue.stages.items():
        compiled.use(None)
        plain = engine.prepare(Snapshot.untrained(catalogue, stage))
        compiled.use(kernels)
        live = engine.prepare(Snapshot.untrained(catalogue, stage))
        for _ in range(20):
            x = np.rint(rng.uniform(-1, 1, len(live.schema.columns)) * 4096) / 4096
            may = rng.random(len(spec.arms)) < 0.7
            may[0] = True
            compiled.use(kernels)
            ours = engine.choose(live, x, may)
            compiled.use(None)
            assert [part.tobytes() for part in ours] == [part.tobytes() for part in engine.choose(plain, x, may)]


def test_every_way_to_a_probability_is_compiled_or_left(kernels: CompiledKernels) -> None:
    """Laws of two arms, nearly independent ones, those given one factor, and those that only points integrate."""
    rng, ways = np.random.default_rng(11), {"compiled": 0, "left": 0, "factor": 0}
    for i in range(600):
        k = 2 + i % 9
        root = rng.normal(size=(k, k)) * (0.05 if i % 3 else 1.0) + np.eye(k) * rng.uniform(0.2, 1.0)
        load = rng.normal(size=(k, 1)) * (i % 2)
        mean, covariance = rng.normal(size=k) * rng.uniform(0.1, 3.0), root @ root.T + load @ load.T
        p = np.empty(k)
        if not kernels.wins(mean, covariance, kernels.normal, p):
            ways["left"] += 1
            continue
        ways["compiled"] += 1
        found = nearly_independent.split(covariance.tolist()) if k > 2 else None
        ways["factor"] += found is not None and found.largest > nearly_independent.MOST
        assert p.tolist() == correlated.wins(mean.tolist(), covariance.tolist())
    assert min(ways.values()) >= 40, ways


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_law_is_left_to_be_refused(kernels: CompiledKernels, bad: float) -> None:
    mean, p = np.array([0.0, bad, 0.0]), np.empty(3)
    assert not kernels.wins(mean, np.eye(3), kernels.normal, p)
    assert not kernels.drawable(mean, np.zeros(3), np.ones(3, dtype=np.bool_), p)
    assert not kernels.drawable(np.full(3, 1 / 3), np.full(3, 0.5), np.ones(3, dtype=np.bool_), p)  # floors do not fit


def test_elimination_of_many_matrices_has_the_bits_of_each(kernels: CompiledKernels) -> None:
    root = np.random.default_rng(2).normal(size=(5, 40, 90))
    many = root @ root.transpose(0, 2, 1)
    plain = arithmetic.complement(many, 37)
    compiled.use(kernels)
    for ours, theirs in zip(arithmetic.complement(many, 37), plain, strict=True):
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("name", ["choice", "wins", "drawable", "swept"])
def test_a_kernel_that_gives_other_numbers_is_found_out(kernels: CompiledKernels, name: str) -> None:
    right = getattr(kernels, name)

    def wrong(*given: object) -> object:
        done = right(*given)
        last = given[-1] if name != "swept" else given[0]
        assert isinstance(last, np.ndarray)
        last.flat[-1] = np.nextafter(last.flat[-1], 2.0)  # one bit
        return done

    changed: dict[str, Any] = {name: wrong}
    assert compilation.differing(kernels._replace(**changed)) != ""


def test_what_differs_is_not_used(kernels: CompiledKernels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "_compiled", lambda: kernels._replace(swept=lambda *_: None))
    tried = compilation.start()
    assert tried is not None
    assert tried.differing.startswith("elimination")
    assert compiled.kernels() is None


def test_without_a_compiler_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "numba", None)
    assert compilation.start() is None
    assert compiled.kernels() is None


def test_arms_of_a_read_only_context_are_chosen_too(kernels: CompiledKernels) -> None:
    """A context that was read from the ledger is a part of a row's bytes."""
    policy, arms = Centred(), ArmEconomics(("none", "a"), ("none", "a"), np.ones(2), np.zeros(2))
    posterior = policy.posterior(untaught(policy, 2, 3), arms)
    x = np.frombuffer(np.array([1.0, 0.5, -0.25]).tobytes())
    compiled.use(kernels)
    assert posterior.choose(x, np.ones(2, dtype=np.bool_)).propensity.sum() == pytest.approx(1.0)
