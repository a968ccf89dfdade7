"""What stages of an app share: the type coefficients, by one exact Gaussian factor for each stage."""

import msgspec
import numpy as np
import pytest
from scipy import special

from bandit.belief import Belief, empty, sites
from bandit.catalogue.loading import parse
from bandit.catalogue.model import Catalogue
from bandit.policies import Hierarchical, Linear, assumed_density, hierarchy
from bandit.policies.hierarchical import LogitPosterior
from bandit.snapshot import Snapshot, from_zip, pooled, to_zip

APP = """
app = "shop"
currency = "EUR"
[stages.cart]
policy = { name = "hierarchical" }
reward = { kind = "binary", window = "1d" }
[stages.cart.features]
price = { type = "number", min = 0, max = 100, default = 10 }
mobile = { type = "boolean", default = true }
[stages.cart.nudges]
five = { type = "discount", format = "banner" }
ten = { type = "discount", format = "popup" }
mail = { type = "reminder", format = "mail" }
[stages.checkout]
policy = { name = "hierarchical", prior_mean = 0.4 }
reward = { kind = "binary", window = "1d" }
[stages.checkout.features]
seconds = { type = "number", min = 0, max = 60, default = 5 }
price = { type = "number", min = 0, max = 100, default = 10 }
[stages.checkout.nudges]
cash = { type = "discount", format = "banner" }
help = { type = "help", format = "chat" }
[stages.shelf]
policy = { name = "linear" }
reward = { kind = "binary", window = "1d" }
[stages.shelf.features]
price = { type = "number", min = 0, max = 100, default = 10 }
[stages.shelf.nudges]
few = { type = "discount", format = "banner" }
"""


def learned(k: int, d: int, seed: int, rows: int = 60) -> Belief:
    """Arbitrary sites."""
    rng = np.random.default_rng(seed)
    x = np.rint(rng.uniform(-1, 1, (rows, d)) * 4096) / 4096
    x[:, 0] = 1.0
    tau, nu = rng.uniform(0.05, 0.25, rows), rng.uniform(-0.5, 0.5, rows)
    return sites(k, x, rng.integers(0, k, rows), tau, nu, (nu > 0).astype(float))


def snapshots(catalogue: Catalogue) -> list[Snapshot]:
    result = []
    for i, (name, stage) in enumerate(catalogue.stages.items()):
        bare = Snapshot("shop", name, stage, 10 + i, empty(1, 1))
        d = len(bare.arms.columns)
        result.append(msgspec.structs.replace(bare, belief=learned(len(stage.arms), d, i)))
    return result


@pytest.fixture(scope="module")
def shop() -> list[Snapshot]:
    return snapshots(parse(APP))


def joint(shop: list[Snapshot]) -> tuple[np.ndarray, np.ndarray, dict[tuple[str, str, str], int]]:
    """The posterior of both hierarchical stages in one matrix, written down from the model: the oracle."""
    place: dict[tuple[str, str, str], int] = {}
    prior: list[float] = []
    mean: list[float] = []

    def coefficient(key: tuple[str, str, str], sd: float, start: float = 0.0) -> int:
        if key not in place:
            place[key] = len(place)
            prior.append(sd**-2.0)
            mean.append(start)
        return place[key]

    def reads(s: Snapshot, arm: str) -> list[list[int]]:
        policy = s.stage_spec.policy
        assert isinstance(policy, Hierarchical)
        rows = []
        for i, column in enumerate(s.arms.columns):
            base = policy.base_sd if i == 0 else policy.base_slope_sd
            effect = policy.effect_sd if i == 0 else policy.effect_slope_sd
            start = float(special.logit(policy.prior_mean)) if i == 0 else 0.0
            row = [coefficient((s.stage, "base", column), base, start)]
            if arm != "none":
                row.append(coefficient(("", s.stage_spec.nudges[arm].type, column), effect))
                row.append(coefficient((s.stage, arm, column), effect))
            rows.append(row)
        return rows

    known = [(s, a, reads(s, arm)) for s in shop[:2] for a, arm in enumerate(s.stage_spec.arms)]
    precision, shift = np.diag(prior), np.array(prior) * np.array(mean)
    for s, a, rows in known:
        reading = np.zeros((len(rows), len(prior)))
        for i, row in enumerate(rows):
            reading[i, row] = 1.0
        shift += reading.T @ s.belief.shift[a]
        precision += reading.T @ s.belief.precision[a] @ reading
    covariance = np.linalg.inv(precision)
    return covariance @ shift, covariance, place


@pytest.mark.parametrize("which", [0, 1])
def test_a_stage_knows_of_the_others_exactly_what_the_joint_posterior_says(shop: list[Snapshot], which: int) -> None:
    mean, covariance, place = joint(shop)
    mine = pooled(shop)[which]
    policy = mine.stage_spec.policy
    assert isinstance(policy, Hierarchical)
    layout = policy.layout(mine.arms, len(mine.arms.columns))
    found = hierarchy.posterior(layout, mine.belief)
    names = [
        (mine.stage, "base"),
        *(("", t) for t in layout.types),
        *((mine.stage, arm) for arm in mine.stage_spec.nudges),
    ]
    at = [place[*name, column] for name in names for column in mine.arms.columns]
    np.testing.assert_allclose(found.mean, mean[at], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.covariance, covariance[np.ix_(at, at)], rtol=0, atol=1e-9)


def test_a_new_stage_starts_with_what_others_know_of_its_types(shop: list[Snapshot]) -> None:
    cart, checkout, shelf = shop
    new = msgspec.structs.replace(checkout, belief=empty(*checkout.belief.shift.shape))

    def says(snapshot: Snapshot) -> np.ndarray:
        posterior = snapshot.stage_spec.policy.posterior(snapshot.belief, snapshot.arms)
        assert isinstance(posterior, LogitPosterior)
        x = np.zeros(posterior.forms.d)
        x[0] = 1.0
        return posterior.choose(x, np.ones(3, dtype=bool)).mean

    alone, among = says(new), says(pooled([cart, new, shelf])[1])
    assert among[0] == pytest.approx(alone[0], abs=1e-12), "no other stage speaks of its baseline"
    assert abs(among[1] - alone[1]) > 1e-3, "its discount starts where the cart's discounts are"
    assert among[2] == pytest.approx(alone[2], abs=1e-12), "nobody knows help"


def test_stages_that_share_have_one_version_and_the_others_their_own(shop: list[Snapshot]) -> None:
    assert [s.version for s in pooled(shop)] == [11, 11, 12]


def test_a_policy_that_shares_nothing_neither_speaks_nor_listens(shop: list[Snapshot]) -> None:
    assert isinstance(shop[2].stage_spec.policy, Linear)
    assert pooled(shop)[2].cross_stage_factor is None
    without = pooled(shop[:2])
    for mine, other in zip(pooled(shop), without, strict=False):
        assert mine.cross_stage_factor is not None
        assert other.cross_stage_factor is not None
        assert np.array_equal(mine.cross_stage_factor.precision, other.cross_stage_factor.precision)


def test_equal_names_of_other_meaning_are_not_shared(shop: list[Snapshot]) -> None:
    other = parse(APP.replace("max = 100", "max = 999", 1))
    keys = {column for _, column in pooled(snapshots(other))[1].cross_stage_factor.keys}  # type: ignore[union-attr]
    assert not keys & {c for c in shop[1].arms.columns if c.startswith("price:")}
    assert {"1", "price missing"} <= keys & set(shop[1].arms.columns)


def test_what_others_said_travels_with_the_snapshot(shop: list[Snapshot]) -> None:
    mine = pooled(shop)[0]
    back = from_zip(to_zip(mine))
    assert mine.cross_stage_factor is not None
    assert back.cross_stage_factor is not None
    assert back.cross_stage_factor.keys == mine.cross_stage_factor.keys
    assert np.array_equal(back.cross_stage_factor.precision, mine.cross_stage_factor.precision)
    assert np.array_equal(back.cross_stage_factor.shift, mine.cross_stage_factor.shift)
    assert to_zip(back) == to_zip(mine)


def test_filtering_scores_gives_what_filtering_coefficients_gives() -> None:
    """The oracle updates mean and covariance of the coefficients by the rank-one formulas, row by row."""
    rng = np.random.default_rng(3)
    n, d = 40, 7
    root = rng.normal(size=(d, d))
    mean, covariance = rng.normal(size=d), root @ root.T
    phi, reward = rng.uniform(-1, 1, (n, d)), (rng.random(n) < 0.4).astype(float)
    tau, nu = assumed_density.sequence(phi @ mean, phi @ covariance @ phi.T, reward)
    for i, row in enumerate(phi):
        s2, mu = float(row @ covariance @ row), float(row @ mean)
        t, v = assumed_density.site(mu, s2, float(reward[i]))
        assert (tau[i], nu[i]) == pytest.approx((t, v), rel=1e-9, abs=1e-12)
        precision = np.linalg.inv(covariance)
        shift = precision @ mean + v * row
        covariance = np.linalg.inv(precision + t * np.multiply.outer(row, row))
        mean = covariance @ shift


def test_long_logs_are_filtered_in_pieces_with_the_same_result() -> None:
    """300 rows are three pieces; the sums of a piece are rounded to the grid, so sites differ by rounding only."""
    stage = parse(APP).stages["cart"]
    snapshot = Snapshot("shop", "cart", stage, 0, empty(4, 5))
    policy = stage.policy
    assert isinstance(policy, Hierarchical)
    rng = np.random.default_rng(8)
    x = np.rint(rng.uniform(-1, 1, (300, 5)) * 4096) / 4096
    arm, reward = rng.integers(0, 4, 300), (rng.random(300) < 0.3).astype(float)
    tau, nu = policy.sites(snapshot.belief, snapshot.arms, x, arm, reward)
    layout = policy.layout(snapshot.arms, 5)
    found, phi = hierarchy.posterior(layout, snapshot.belief), hierarchy.design(layout, x, arm)
    whole = assumed_density.sequence(phi @ found.mean, phi @ found.covariance @ phi.T, reward)
    np.testing.assert_allclose(tau, whole[0], atol=1e-5)
    np.testing.assert_allclose(nu, whole[1], atol=1e-5)
