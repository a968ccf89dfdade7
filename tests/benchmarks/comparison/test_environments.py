"""The benchmark's environments: reproducible, exact, and what their description says."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bandit.arrays import Array
from bandit.belief import X_GRID
from bandit.policies import Hierarchical, Linear, Uniform
from benchmarks.comparison import environments, our_policies, regret, regret_peers
from benchmarks.comparison.environments import ENVIRONMENTS, Stream, delay, drift, env5, launch
from benchmarks.comparison.harness import Actions, PendingOutcomes, run
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_seed_is_a_stream(name: str) -> None:
    for first, again, other in zip(*(ENVIRONMENTS[name](seed, 400) for seed in (1, 1, 2)), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(first[3:], again[3:], strict=True))
        assert not np.array_equal(first.reward, other.reward)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_contexts_are_what_a_belief_takes_and_no_nudge_is_always_possible(name: str) -> None:
    for stream in ENVIRONMENTS[name](3, 300):
        assert (stream.x[:, 0] == 1.0).all()
        assert np.abs(stream.x).max() <= 1.0
        assert np.array_equal(np.rint(stream.x * X_GRID), stream.x * X_GRID)
        assert stream.eligible[:, 0].all()
        assert np.array_equal(np.isfinite(stream.value), stream.eligible)


@pytest.mark.parametrize("make", [env5, delay], ids=["at once", "late"])
def test_rewards_have_the_stated_rates(make: Callable[..., list[Stream]]) -> None:
    """Per arm position, summed over 300,000 decisions: |z| ≤ 5.2 for 8 arms, false alarm ≤ 2e-6.

    Detects a rate off by 0.009 on average with probability > 1 − 1e-6 where a fifth of the rows have the arm (standard
    error ≤ 0.0009), by 0.005 where all have.
    """
    (stream,) = make(5, 300_000)
    p = np.where(stream.eligible, stream.value, 0.0)
    z = (stream.reward * stream.eligible - p).sum(axis=0) / np.sqrt((p * (1.0 - p)).sum(axis=0))
    assert np.abs(z).max() < 5.2


def test_env5_has_five_stages_and_28_arms_that_share_types() -> None:
    (stream,) = env5(0, 100)
    assert [len(arms.names) for arms in stream.arms] == [4, 5, 5, 6, 8]
    assert all(arms.kinds[0] == "none" for arms in stream.arms)
    shared = [set(arms.kinds[1:]) for arms in stream.arms]
    assert set.union(*shared) == set(environments.TYPES)
    assert all(a & b for a in shared for b in shared)


def test_env5_is_about_as_hard_as_its_description_says() -> None:
    """Regret of uniform and of no nudge, a decision, over 200 worlds: 0.12 and 0.135, standard error 0.003 each."""
    found = []
    for seed in range(200):
        (stream,) = env5(seed, 400)
        best, may = stream.value.max(axis=1), stream.eligible
        uniform = np.where(may, stream.value, 0.0).sum(axis=1) / may.sum(axis=1)
        found.append([(best - uniform).mean(), (best - stream.value[:, 0]).mean()])
    assert np.allclose(np.mean(found, axis=0), [0.12, 0.135], atol=0.015)


def test_drift_draws_all_effects_again_halfway() -> None:
    (stream,) = drift(1, 2000)
    rates = [stream.value[part][stream.stage[part] == 2].mean(axis=0)[:5] for part in (slice(1000), slice(1000, 2000))]
    assert np.abs(rates[0] - rates[1]).max() > 0.02


def test_the_last_stage_is_launched_halfway() -> None:
    (stream,) = launch(1, 2000)
    assert stream.stage[:1000].max() == 3
    assert 120 < (stream.stage[1000:] == 4).sum() < 280


def test_late_rewards_are_learned_when_their_window_ends() -> None:
    (stream,) = delay(1, 4000)

    class Watch(our_policies.StagePolicies):
        learned, told = 0, 0

        def learn(self, stage: int, x: Array, arm: Actions, reward: Array) -> None:  # noqa: ARG002
            Watch.learned += len(x)

        def overlay(self, pending: PendingOutcomes) -> None:
            Watch.told = len(pending.arm)
            assert (pending.age <= environments.WINDOW_HOURS).all()

    run(Watch(Uniform(), stream, 1), stream)
    last = stream.hours[3900]
    assert Watch.learned == (stream.hours[:3900] <= last - environments.WINDOW_HOURS).sum() > 0
    assert Watch.learned + Watch.told == 3900


def test_ours_beats_chance_and_hindsight_beats_no_nudge() -> None:
    """One fixed seed, 2,000 decisions: margins of 20 % where the standard error is about 5 %."""
    (stream,) = env5(1, 2000)
    made = {
        "uniform": our_policies.policy(Uniform()),
        "linear": our_policies.policy(Linear()),
        "ours": our_policies.policy(Hierarchical()),
    }
    lost = {
        name: stream.regret(run(make(stream, 1), stream)).sum()
        for name, make in (made | our_policies.REFERENCES).items()
    }
    assert lost["linear"] < 0.85 * lost["uniform"]
    assert lost["ours"] < 0.8 * lost["uniform"]
    assert lost["best fixed (hindsight)"] <= lost["no nudge"]


@pytest.mark.parametrize("name", ["textbook LinTS (v 1.0)", "diagonal logistic TS (alpha 1.0)"])
def test_textbook_peers_play_only_eligible_arms(name: str) -> None:
    stream = environments.journey(2, 600)[0]
    assert not stream.eligible.all(), "claims need a proof that is not always there"
    arm = run(regret_peers.DEFAULTS[name](stream, 2), stream)
    assert stream.eligible[np.arange(600), arm].all()


def test_quick_runs_and_names_what_is_skipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(regret_peers, "PACKAGES", {"MABWiser": "no_such_package", "Vowpal Wabbit": "nor_this_one"})
    playing = regret.contestants("env5", [], tuned=True)
    assert not any(name.startswith(("MABWiser", "Vowpal")) for name in playing)
    command = [
        sys.executable,
        "-m",
        "benchmarks.comparison.regret",
        "--quick",
        "--only",
        "ours: linear",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert "ours: linear" in done.stdout
    assert (tmp_path / "env5.json").is_file()
