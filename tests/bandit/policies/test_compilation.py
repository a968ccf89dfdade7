"""Compiled kernels: the bits of what they stand for, in every law, and nothing of what differs is used."""

import importlib.metadata
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from bandit import engine
from bandit.arrays import Array, Mask
from bandit.catalogue.loading import parse, read_shipped
from bandit.errors import PropensityError
from bandit.numerics import arithmetic, compiled, versions
from bandit.numerics.compiled import CompiledKernels
from bandit.policies import Centred, Hierarchical, compilation
from bandit.policies.centred import CentredPosterior
from bandit.policies.protocol import ArmEconomics
from bandit.propensity import correlated, floor, nearly_independent
from bandit.propensity import kernels as propensity_kernels
from bandit.propensity.floor import apportioned
from bandit.snapshot import Snapshot
from benchmarks.comparison.decide import facts, learn, untaught, world

pytest.importorskip("numba", reason="no numba: what it compiles is not tested; pip install 'journey-bandit[fast]'")


@pytest.fixture(scope="module")
def kernels() -> CompiledKernels:
    tried = compilation.start(os.environ["NUMBA_CACHE_DIR"])
    assert (tried.unused, tried.unread) == ("", "")
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
    around = (np.full(3, 0.1), np.ones(3), np.zeros(3), 0.5, 0.1, np.ones(3, dtype=np.bool_))
    assert not kernels.afforded(mean, *around, p)


def test_elimination_of_many_matrices_has_the_bits_of_each(kernels: CompiledKernels) -> None:
    root = np.random.default_rng(2).normal(size=(5, 40, 90))
    many = root @ root.transpose(0, 2, 1)
    plain = arithmetic.complement(many, 37)
    compiled.use(kernels)
    for ours, theirs in zip(arithmetic.complement(many, 37), plain, strict=True):
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("name", ["choice", "wins", "drawable", "afforded", "swept"])
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


def test_the_check_gives_no_chance_to_what_may_not_be_shown(
    kernels: CompiledKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a chance would be handed out again unit by unit, millions of them, at each start of a service."""
    apportion, asked = floor.apportioned, []

    def checked(p: Array, least: float | Array, eligible: Mask) -> Array:
        asked.append(float(p[~eligible].sum()))
        return apportion(p, least, eligible)

    monkeypatch.setattr(floor, "apportioned", checked)
    monkeypatch.setattr(compilation, "apportioned", checked)
    assert compilation.differing(kernels) == ""
    assert len(asked) > 300
    assert set(asked) == {0.0}


def test_what_differs_is_not_used(kernels: CompiledKernels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "_compiled", lambda _: kernels._replace(swept=lambda *_: None))
    tried = compilation.start()
    assert tried.unused.startswith("it gives other numbers here: elimination")
    assert compiled.kernels() is None


def test_without_a_compiler_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert compilation.start().unused.startswith("it fails: PackageNotFoundError")
    assert compiled.kernels() is None


def test_a_compiler_that_fails_is_told_of_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)  # installed, and cannot be imported
    tried = compilation.start("/nowhere")
    assert tried.unused.startswith("it fails: ModuleNotFoundError")
    assert compiled.kernels() is None


def test_what_is_kept_and_damaged_is_told_of_and_compiled_anew(
    kernels: CompiledKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(folder: str) -> CompiledKernels:
        if folder:
            raise EOFError("Ran out of input")
        return kernels

    monkeypatch.setattr(compilation, "_compiled", damaged)
    tried = compilation.start("/kept")
    assert (tried.unused, tried.unread) == ("", "EOFError: Ran out of input")
    assert compiled.kernels() is kernels


def test_what_is_kept_is_of_these_numbers_and_this_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that is compiled into the kernels may come from another file."""
    before = compilation._meaning("0.1")
    assert compilation._meaning("0.1") == before != compilation._meaning("0.2")
    monkeypatch.setattr(propensity_kernels, "_LONGEST", 300)
    assert compilation._meaning("0.1") != before


@pytest.mark.parametrize("number", [versions.SAME_BITS, versions.OPEN_EVERYWHERE, versions.NEARLY_INDEPENDENT])
@pytest.mark.parametrize("policy", [Centred(), Hierarchical()], ids=lambda policy: policy.__struct_config__.tag)
def test_earlier_arithmetics_are_recomputed_as_they_were(
    kernels: CompiledKernels, policy: Centred | Hierarchical, number: int
) -> None:
    with versions.recorded_in(number):
        belief = learn(policy, untaught(policy, 4, 5), world(4, 5)(400, 1)[0])
        plain = policy.posterior(belief, facts(4))
        compiled.use(kernels)
        ours = policy.posterior(learn(policy, untaught(policy, 4, 5), world(4, 5)(400, 1)[0]), facts(4))
        for x in world(4, 5)(30, 2)[0].x:
            compiled.use(kernels)
            found = ours.choose(x, np.ones(4, dtype=np.bool_))
            compiled.use(None)
            same = plain.choose(x, np.ones(4, dtype=np.bool_))
            assert [part.tobytes() for part in found] == [part.tobytes() for part in same]


def test_many_arms_of_which_few_can_win_have_one_answer(kernels: CompiledKernels) -> None:
    mean = np.concatenate([[0.0, 0.1], np.full(70, -50.0)])
    plain = correlated.correlated(mean, np.eye(72))
    compiled.use(kernels)
    assert correlated.correlated(mean, np.eye(72)).tobytes() == plain.tobytes()
    with pytest.raises(PropensityError, match="72 correlated arms"):
        correlated.correlated(np.zeros(72), np.eye(72))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e308])
def test_a_posterior_that_is_no_law_is_left_to_be_refused(kernels: CompiledKernels, bad: float) -> None:
    policy, arms = Centred(), ArmEconomics(("none", "a", "b"), ("none", "a", "b"), np.ones(3), np.zeros(3))
    posterior = policy.posterior(untaught(policy, 3, 2), arms)
    stacked = posterior.forms.stacked.copy()
    stacked[-2:] = bad
    posterior = posterior._replace(forms=posterior.forms._replace(stacked=stacked))  # sums of 1e308 are infinite
    with np.errstate(all="ignore"):
        assert posterior.compiled(kernels, np.array([1.0, 1.0]), np.ones(3, dtype=np.bool_)) is None


def test_numbers_of_other_types_are_taken(kernels: CompiledKernels) -> None:
    compiled.use(kernels)
    may = np.ones(4, dtype=np.bool_)
    assert apportioned(np.array([1, 0, 0, 0]), 0, may).tolist() == [1.0, 0.0, 0.0, 0.0]
    assert correlated.correlated(np.arange(3.0, dtype=np.float32), np.eye(3)).sum() == pytest.approx(1.0)
    assert arithmetic.sweep(np.eye(3, dtype=np.float32)).tolist() == np.eye(3).tolist()


def test_arms_of_a_read_only_context_are_chosen_too(kernels: CompiledKernels) -> None:
    """A context that was read from the ledger is a part of a row's bytes."""
    policy, arms = Centred(), ArmEconomics(("none", "a"), ("none", "a"), np.ones(2), np.zeros(2))
    posterior = policy.posterior(untaught(policy, 2, 3), arms)
    x = np.frombuffer(np.array([1.0, 0.5, -0.25]).tobytes())
    compiled.use(kernels)
    assert posterior.choose(x, np.ones(2, dtype=np.bool_)).propensity.sum() == pytest.approx(1.0)
