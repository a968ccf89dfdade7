"""A log that cannot answer is refused with its own reason; a sound one is not; parts add up."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bandit.arrays import Array
from experiments.inference.diagnostics import LogDiagnostics, refusals, warnings

K, N = 4, 4000


def log(seed: int = 1, n: int = N, p: Array | None = None) -> dict[str, Any]:
    """A sound log: `p` (n, k) or at random with a floor of 5 %; π is uniform, rewards come at 20 %."""
    rng = np.random.default_rng(seed)
    p = 0.8 * rng.dirichlet(np.ones(K), n) + 0.05 if p is None else np.broadcast_to(p, (n, K))
    action = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=K - 1)
    reward = (rng.random(n) < 0.2).astype(float)
    pi = np.full((n, K), 1.0 / K)
    return {"action": action, "reward": reward, "propensity": p, "pi": pi} | weighed(action, p, pi)


def weighed(action: NDArray[np.integer], p: Array, pi: Array) -> dict[str, Array]:
    each = np.arange(len(action))
    pscore = p[each, action]
    return {"pscore": pscore, "weight": pi[each, action] / pscore}


def narrow(rows: dict[str, Any]) -> dict[str, Any]:
    """As a log that holds only the drawn arm's columns."""
    return {name: column for name, column in rows.items() if name not in ("propensity", "pi")}


def cutout(rows: dict[str, Any], part: slice) -> dict[str, Any]:
    return {name: column[part] for name, column in rows.items()}


def only_arm(a: int, rows: dict[str, Any]) -> dict[str, Any]:
    """The same log, asked for the policy that always shows arm a."""
    pi = np.zeros((len(rows["action"]), K))
    pi[:, a] = 1.0
    return rows | {"pi": pi} | weighed(rows["action"], rows["propensity"], pi)


def reasons(rows: dict[str, Any]) -> list[str]:
    return [refusal.reason for refusal in refusals(LogDiagnostics.of(**rows))]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("view", [dict, narrow])
def test_a_sound_log_is_answered(view: Callable[[dict[str, Any]], dict[str, Any]], seed: int) -> None:
    assert reasons(view(log(seed))) == []


def test_an_arm_that_was_never_possible_is_refused() -> None:
    rows = only_arm(3, log(p=np.array([0.3, 0.3, 0.4, 0.0])))
    assert reasons(rows) == ["support"]
    assert reasons(narrow(rows)) == ["support"]


def test_a_policy_partly_outside_of_the_support_is_refused() -> None:
    rows = log(p=np.array([0.3, 0.3, 0.4, 0.0]))
    (refusal,) = refusals(LogDiagnostics.of(**rows))
    assert (refusal.reason, refusal.detail) == ("support", "25.0% of the policy's choices could never be drawn")
    assert reasons(narrow(rows)) == ["weights"], "without the columns, the mean weight gives it away"


def test_an_effective_sample_of_two_is_refused_and_says_how_much_is_enough() -> None:
    rows = log()
    weight = np.zeros(N)
    weight[:2] = N / 2
    (refusal,) = [r for r in refusals(LogDiagnostics.of(**rows | {"weight": weight})) if r.reason == "ess"]
    assert "worth 2.0 rounds of 4,000" in refusal.detail
    assert refusal.needed.startswith("about 100,000 such rounds")


def test_an_unmatured_tail_is_refused() -> None:
    assert reasons(log() | {"unmatured": 1000}) == ["unmatured"]
    assert reasons(log() | {"unmatured": 100}) == []


def test_propensities_that_are_all_one_are_refused() -> None:
    rows = log()
    one = np.ones(N)
    assert reasons(narrow(rows) | {"pscore": one, "weight": one / K}) == ["deterministic"]


@pytest.mark.parametrize("view", [dict, narrow])
def test_propensities_that_do_not_match_what_was_drawn_are_refused(
    view: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    rows = log()
    claimed = rows["propensity"][:, ::-1]  # as if columns had been mixed up
    assert reasons(view(rows | {"propensity": claimed} | weighed(rows["action"], claimed, rows["pi"]))) == [
        "propensities"
    ]


def test_propensities_that_are_too_large_are_refused() -> None:
    """Uniform draws logged with p = ½ among four arms: mean 1/p is 2."""
    half = np.full(N, 0.5)
    rows = narrow(log(p=np.full(K, 1 / K))) | {"pscore": half, "weight": 0.25 / half}
    (refusal,) = refusals(LogDiagnostics.of(**rows))
    assert refusal.reason == "propensities"
    assert refusal.detail == "mean 1/p is 2, but 4 arms were drawn: it should be 4"


def test_a_propensity_that_is_not_its_columns_is_refused() -> None:
    rows = log()
    pscore = rows["pscore"].copy()
    pscore[7] *= 0.5
    (refusal,) = refusals(LogDiagnostics.of(**rows | {"pscore": pscore}))
    assert refusal.detail.startswith("in 1 rounds")


def test_too_few_rewards_are_refused() -> None:
    rows = log()
    (refusal,) = refusals(LogDiagnostics.of(**rows | {"reward": np.arange(N) < 4}))
    assert refusal.reason == "conversions"
    assert refusal.needed == "about 10,000 rounds like these, or more"


def test_an_empty_log_is_refused() -> None:
    assert [r.reason for r in refusals(LogDiagnostics())] == ["empty"]
    assert "none of 5 rounds" in refusals(LogDiagnostics(rows=5))[0].detail


@given(st.integers(0, 2**32), st.integers(0, 300), st.booleans())
def test_parts_add_up(seed: int, cut: int, wide: bool) -> None:
    rows = log(seed, 300) if wide else narrow(log(seed, 300))
    extra: dict[str, Any] = {"q_hat": np.random.default_rng(seed).random(300), "version": np.arange(300) // 70}
    parts = [LogDiagnostics.of(**cutout(rows | extra, part)) for part in (slice(0, cut), slice(cut, 300))]
    whole, merged = LogDiagnostics.of(**rows, **extra).summary(), (parts[0] + parts[1]).summary()
    assert merged == pytest.approx(whole, rel=1e-6, abs=1e-9)


def test_the_effective_sample_is_kishs() -> None:
    assert LogDiagnostics.of(**narrow(log()) | {"weight": np.repeat([0.0, 2.0], N // 2)}).ess == pytest.approx(N / 2)


def test_warnings_say_what_to_look_at() -> None:
    rows = log() | {"q_hat": np.full(N, 0.5), "version": np.arange(N) // 3000}
    weight = np.full(N, 0.01)
    weight[:60] = 60.0
    weight[0] = 2000.0
    found = " | ".join(warnings(LogDiagnostics.of(**rows | {"weight": weight}), gap=0.1, error=0.01))
    for part in (
        "worth 7 rounds",
        "one round has 36% of all weight",
        "q̂ is off",
        "dr and snips differ by 10.0",
        "2 policy versions made the log, the most frequent 75%",
    ):
        assert part in found, (part, found)


def test_a_sound_log_warns_of_nothing() -> None:
    assert warnings(LogDiagnostics.of(**log(), q_hat=np.full(N, 0.2)), gap=0.001, error=0.01) == []
