"""Actions that come with the request: one model for all of them, joint propensities, features without declaration."""

import hashlib
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy import special

from bandit.belief import Belief, add, empty, sites
from bandit.errors import InvalidRequest
from bandit.policies import hierarchy
from bandit.policies.shared import ONE, Action, Shared, taken

POLICY = Shared(columns=64)
PERSONAL = Shared(columns=64, personal=True)
SALT = b"s"
CONTEXT: list[dict[str, Any]] = [{"user": {"plan": "free", "age": 31}}, {"stage": "checkout"}]
ACTIONS = [Action("none", ({"kind": "none"},)), Action("ten", ({"kind": "discount", "percent": 10},)), Action("bare")]


def learned(policy: Shared, phi: np.ndarray, reward: np.ndarray, before: Belief | None = None) -> Belief:
    belief = before or empty(1, policy.columns)
    tau, nu = policy.sites(belief, ONE, phi, taken(len(phi)), reward)
    return add(belief, sites(1, phi, taken(len(phi)), tau, nu, reward))


def all_of(actions: list[Action]) -> np.ndarray:
    return np.ones(len(actions), dtype=np.bool_)


def test_encoding_is_on_the_grid_bounded_and_the_same_everywhere() -> None:
    phi = POLICY.encode(CONTEXT, ACTIONS, SALT)
    assert phi.shape == (3, 64)
    assert np.abs(phi).max() <= 1.0
    assert np.array_equal(np.rint(phi * 4096), phi * 4096)
    assert (phi[:, 0] == 1.0).all()
    assert phi.tobytes() == POLICY.encode([*CONTEXT], list(ACTIONS), SALT).tobytes()
    assert not np.array_equal(phi[0], phi[1])


def by_hand(
    context: list[tuple[str, float]], own: list[tuple[str, float]], columns: int, key: bytes = b""
) -> np.ndarray:
    """φ as the docstring of `HashedFeatures` says it, in plain integers; a `key` hashes names that are personal."""
    person = b"feature" if key else b""
    low = 2**64 - 1

    def mix(v: int) -> int:
        v = ((v ^ (v >> 30)) * 0xBF58476D1CE4E5B9) & low
        v = ((v ^ (v >> 27)) * 0x94D049BB133111EB) & low
        return v ^ (v >> 31)

    def number(name: str) -> int:
        return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8, key=key, person=person).digest(), "big")

    phi = np.zeros(columns)
    pairs = [(mix((mix(number(a)) + number(c)) & low), v * w) for a, v in own for c, w in context]
    for sd, features in (
        (0.5, [(mix((number(c) + 1) & low), w) for c, w in context]),
        (0.7, [(mix((number(a) + 2) & low), v) for a, v in own]),
        (0.5, pairs),
    ):
        for hashed, value in features:
            phi[1 + (hashed >> 1) % (columns - 1)] += (1 if hashed & 1 else -1) * value * sd / len(features) ** 0.5
    phi[0] = 1.0
    return phi


def test_the_hash_is_the_one_that_is_specified_and_stays_it() -> None:
    context = [("user.age", 31 / 32), ("user.plan=free", 1.0), ("stage=checkout", 1.0)]
    ten = [("id=ten", 1.0), ("kind=discount", 1.0), ("percent", 10 / 11)]
    phi = POLICY.encode(CONTEXT, ACTIONS, SALT)
    np.testing.assert_allclose(phi[1], by_hand(context, ten, 64), atol=0.5 / 4096 + 1e-12)
    np.testing.assert_allclose(phi[2], by_hand(context, [("id=bare", 1.0)], 64), atol=0.5 / 4096 + 1e-12)
    digest = hashlib.sha256((phi * 4096).astype("<i2").tobytes()).hexdigest()
    assert digest[:16] == "a14f33f7a1261656"  # a ledger's rows mean nothing under another one


def test_personal_features_are_hashed_by_the_key_and_others_are_not() -> None:
    """Without the salt no guess of a text can be checked against its column; what was recorded under the same salt is
    found again, and a declaration that does not say `personal` has the columns that it had under any salt.
    """
    context = [("user.age", 31 / 32), ("user.plan=free", 1.0), ("stage=checkout", 1.0)]
    ten = [("id=ten", 1.0), ("kind=discount", 1.0), ("percent", 10 / 11)]
    phi = PERSONAL.encode(CONTEXT, ACTIONS, SALT)
    np.testing.assert_allclose(phi[1], by_hand(context, ten, 64, SALT), atol=0.5 / 4096 + 1e-12)
    assert phi.tobytes() == PERSONAL.encode(CONTEXT, ACTIONS, SALT).tobytes()
    assert phi.tobytes() != PERSONAL.encode(CONTEXT, ACTIONS, b"t").tobytes()
    assert phi.tobytes() != POLICY.encode(CONTEXT, ACTIONS, SALT).tobytes()
    assert POLICY.encode(CONTEXT, ACTIONS, b"t").tobytes() == POLICY.encode(CONTEXT, ACTIONS, SALT).tobytes()


def test_the_order_of_keys_and_of_actions_does_not_matter() -> None:
    turned: list[dict[str, Any]] = [{"user": {"age": 31, "plan": "free"}}, {"stage": "checkout"}]
    assert POLICY.encode(turned, ACTIONS, SALT).tobytes() == POLICY.encode(CONTEXT, ACTIONS, SALT).tobytes()
    back = POLICY.encode(CONTEXT, ACTIONS[::-1], SALT)[::-1]
    assert back.tobytes() == POLICY.encode(CONTEXT, ACTIONS, SALT).tobytes()


@pytest.mark.parametrize(
    ("context", "actions", "field", "problem"),
    [
        ([], [], "actions", "0 actions"),
        ([], [Action("a"), Action("a")], "actions", "there twice"),
        ([{"x": float("nan")}], [Action("a")], "contextFeatures.x", "not a finite number"),
        ([{"x": object()}], [Action("a")], "contextFeatures.x", "object is no feature"),
        ([3], [Action("a")], "contextFeatures", "int is no object"),
        ([], [Action("a", ({"y": {"z": float("inf")}},))], "actions[a].features.y.z", "not a finite number"),
    ],
)
def test_what_is_no_feature_is_refused_by_name(
    context: list[Any], actions: list[Action], field: str, problem: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        POLICY.encode(context, actions, SALT)
    (found,) = refused.value.problems
    assert found.field == field
    assert problem in found.problem


def test_a_feature_nested_without_end_is_refused() -> None:
    deep: dict[str, Any] = {}
    inner = deep
    for _ in range(30):
        inner["a"] = inner = {}
    with pytest.raises(InvalidRequest, match="nested too deep"):
        POLICY.encode([deep], ACTIONS, SALT)


def test_propensities_are_a_distribution_with_a_floor_and_nothing_for_the_excluded() -> None:
    rng = np.random.default_rng(0)
    phi = POLICY.encode(CONTEXT, ACTIONS, SALT)
    belief = learned(POLICY, phi[rng.integers(0, 3, 50)], rng.integers(0, 2, 50).astype(float))
    scores = POLICY.posterior(belief).choose(phi, np.array([True, False, True]))
    assert scores.propensity.sum() == pytest.approx(1.0, abs=1e-12)
    assert scores.propensity[1] == 0.0
    assert (scores.propensity[[0, 2]] >= 0.01).all()
    every = POLICY.posterior(belief).choose(phi, all_of(ACTIONS))
    np.testing.assert_array_equal(every.mean, scores.mean)
    turned = POLICY.posterior(belief).choose(phi[::-1], all_of(ACTIONS))
    np.testing.assert_allclose(turned.propensity[::-1], every.propensity, atol=5e-3)


def test_propensities_are_those_of_a_joint_draw_of_theta() -> None:
    """Oracle: 200,000 draws; their sd is at most 0.0012, the orthant integral adds 0.003 at most: bound 0.01."""
    rng = np.random.default_rng(1)
    phi = POLICY.encode(CONTEXT, ACTIONS, SALT)
    belief = learned(POLICY, phi[rng.integers(0, 3, 80)], rng.integers(0, 2, 80).astype(float))
    found = hierarchy.posterior(POLICY.layout(ONE, 64), belief)
    theta = found.mean + POLICY.alpha * rng.multivariate_normal(np.zeros(64), found.covariance, 200_000)
    wins = np.bincount((theta @ phi.T).argmax(axis=1), minlength=3) / 200_000
    scores = POLICY.posterior(belief).choose(phi, all_of(ACTIONS))
    np.testing.assert_allclose(scores.propensity, wins, atol=0.01)


def test_an_action_never_seen_is_known_by_its_features() -> None:
    """Discounts convert four times as often; a new one is expected above a new reminder, by more than 0.1."""
    rng = np.random.default_rng(2)
    belief = empty(1, POLICY.columns)
    for start in range(0, 600, 100):
        kinds = rng.choice(["discount", "reminder"], 100)
        names = [Action(f"{kind}-{rng.integers(5)}", ({"kind": kind},)) for kind in kinds]
        phi = np.concatenate([POLICY.encode(CONTEXT, [action], SALT) for action in names])
        belief = learned(POLICY, phi, (rng.random(100) < np.where(kinds == "discount", 0.4, 0.1)).astype(float), belief)
        assert belief.n[0] == start + 100
    new = [Action("brand new", ({"kind": "discount"},)), Action("also new", ({"kind": "reminder"},))]
    scores = POLICY.posterior(belief).choose(POLICY.encode(CONTEXT, new, SALT), all_of(new))
    assert scores.mean[0] > scores.mean[1] + 0.1
    assert scores.propensity[0] > 0.8


def test_which_action_is_better_may_depend_on_the_context() -> None:
    """Hashed pairs: 1,500 rows, red is right for a and blue for b; the share of right ones gets above 0.8."""
    rng, belief, right = np.random.default_rng(3), empty(1, POLICY.columns), list[bool]()
    actions = [Action("red"), Action("blue")]
    for _ in range(30):
        posterior, rows, rewards = POLICY.posterior(belief), list[np.ndarray](), list[float]()
        for _ in range(50):
            group = str(rng.choice(["a", "b"]))
            phi = POLICY.encode([{"group": group}], actions, SALT)
            chosen = int(rng.random() > posterior.choose(phi, all_of(actions)).propensity[0])
            good = (chosen == 0) == (group == "a")
            rows.append(phi[chosen])
            rewards.append(float(rng.random() < (0.6 if good else 0.2)))
            right.append(good)
        belief = learned(POLICY, np.array(rows), np.array(rewards), belief)
    assert np.mean(right[-500:]) > 0.8


def test_taking_a_row_out_is_exact_and_the_policy_survives_its_bytes() -> None:
    rng = np.random.default_rng(4)
    phi = POLICY.encode(CONTEXT, ACTIONS, SALT)[rng.integers(0, 3, 30)]
    tau, nu = POLICY.sites(empty(1, 64), ONE, phi, taken(30), np.ones(30))
    whole = sites(1, phi, taken(30), tau, nu, np.ones(30))
    part = add(
        sites(1, phi[:9], taken(9), tau[:9], nu[:9], np.ones(9)),
        sites(1, phi[9:], taken(21), tau[9:], nu[9:], np.ones(21)),
    )
    assert whole.digest() == part.digest()
    assert msgspec.json.decode(msgspec.json.encode(POLICY), type=Shared) == POLICY


def test_before_any_data_every_action_is_expected_to_do_as_declared() -> None:
    scores = POLICY.posterior(empty(1, 64)).choose(POLICY.encode([], ACTIONS, SALT), all_of(ACTIONS))
    np.testing.assert_allclose(scores.propensity, 1 / 3, atol=0.02)
    assert (np.abs(special.logit(scores.mean) - special.logit(0.1)) < 1.0).all()
