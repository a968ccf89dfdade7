"""The classifier two-sample test: it finds what differs and nothing where nothing does; real sessions pass it."""

from pathlib import Path

import numpy as np
import pytest

from bandit.errors import InvalidRequest
from simulations.validation import realism

REAL = Path(__file__).parents[4] / "shared" / "data" / "online_shoppers" / "online_shoppers_intention.csv.gz"


def invented(n: int, seed: int, correlation: float = 0.8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    g = rng.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], n)
    return np.column_stack([3 + g[:, 0], 6 + 1.5 * g[:, 1], rng.random(n) < 0.8, rng.random(n) < 0.15]).astype(float)


def test_two_samples_of_one_law_cannot_be_told_apart() -> None:
    """Under the null the AUC has a standard deviation of 0.0041 for twice 10,000: five of them, false alarm 6e-7."""
    assert abs(realism.auc(invented(10_000, 1), invented(10_000, 2)) - 0.5) < 0.021


def test_another_correlation_is_found() -> None:
    assert realism.auc(invented(10_000, 1), invented(10_000, 2, correlation=0.0)) > 0.65


def test_the_area_is_the_share_of_pairs_in_order() -> None:
    """Against counting pairs, where one column alone decides."""
    left, right = invented(4000, 3, 0.0), invented(4000, 4, 0.0)
    left[:, 0] += 0.7
    exact = (left[:, 0][:, None] > right[:, 0]).mean()
    assert realism.auc(left, right) == pytest.approx(exact, abs=0.015)


def test_a_fit_has_the_moments_it_was_fitted_to() -> None:
    real = invented(20_000, 5)
    real = real[(real[:, 0] > 0.3) & (real[:, 1] > 0.3)]
    made = realism.simulated_sessions(realism.fit_shop(real), 60_000, 6)
    assert made.mean(axis=0) == pytest.approx(real.mean(axis=0), rel=0.05)
    assert np.corrcoef(made[:, 0], made[:, 1])[0, 1] == pytest.approx(
        np.corrcoef(real[:, 0], real[:, 1])[0, 1], abs=0.06
    )


@pytest.mark.skipif(not REAL.exists(), reason="../shared/data/online_shoppers is not there")
def test_real_sessions_are_hardly_told_from_simulated_ones() -> None:
    real = realism.read(REAL)
    assert len(real) == 11_575
    found = realism.two_sample(real)
    assert found.auc < 0.6
    assert found.shuffled > 0.75, "the classifier sees what permuting columns destroys"


def test_another_table_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(InvalidRequest, match="ProductRelated"):
        realism.read(file)
