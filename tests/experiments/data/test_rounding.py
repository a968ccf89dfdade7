"""Probabilities that files have rounded are read; those that are wrong are refused."""

import numpy as np
import pytest

from bandit.errors import InvalidRequest
from experiments.data.rounding import digits_of, scaled_to_one
from experiments.data.rounds import LoggedRounds, rounds_of


def log(row: tuple[float, ...], pscore: float | None = None) -> LoggedRounds:
    columns = {f"p_{a}": np.array([p]) for a, p in enumerate(row)}
    own = row[0] if pscore is None else pscore
    return rounds_of({"action": np.array([0]), "reward": np.array([1.0]), "pscore": np.array([own]), **columns})


THIRDS, SIXTHS, SEVENTHS = (0.333333,) * 3, (0.1667,) * 6, (0.14286,) * 7


@pytest.mark.parametrize("row", [THIRDS, (0.333,) * 3, SIXTHS, SEVENTHS, (0.5, 0.3, 0.2), (1.0, 0.0)])
def test_rounded_probabilities_are_read_and_sum_to_one(row: tuple[float, ...]) -> None:
    found = log(row)
    assert found.propensities is not None
    assert found.propensities.sum() == pytest.approx(1.0, abs=1e-9)
    assert found.pscore[0] == found.propensities[0, 0]


@pytest.mark.parametrize("row", [(0.5, 0.3, 0.1), (0.5, 0.3, 0.199), (0.33,) * 3, (0.33333, 0.33333, 0.33), (0.6, 0.6)])
def test_real_errors_are_refused(row: tuple[float, ...]) -> None:
    with pytest.raises(InvalidRequest, match="p_0 …"):
        log(row)


def test_only_rows_that_need_it_are_scaled() -> None:
    table = np.array([[0.25, 0.75], [0.3333, 0.6666]])
    scaled, which = scaled_to_one(table)
    assert which.tolist() == [False, True]
    assert scaled[0].tolist() == [0.25, 0.75]
    assert scaled[1].sum() == pytest.approx(1.0)
    assert table[1].tolist() == [0.3333, 0.6666], "the input is not touched"


def test_digits_are_counted() -> None:
    assert digits_of(np.array([1.0, 0.5, 0.25, 0.333333, 1 / 3])).tolist() == [0, 1, 2, 6, 13]
