"""`catalogue check` says what floors cost, against a calculation by hand and the propensities of the engine."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bandit import engine
from bandit.catalogue.loading import parse
from bandit.learning.loss import with_account
from bandit.learning.loss_account import CLOSED
from bandit.snapshot import Snapshot
from journey_bandit.main import group
from journey_bandit.service.floor_price import floor_price
from tests.bandit.learning.test_loss_account import TEXT

FLOORED = TEXT.replace("policy = {", "floor = 0.02\npolicy = {", 1)


def checked(folder: Path, text: str, *more: str) -> str:
    file = folder / "shop.toml"
    file.write_text(text, encoding="utf-8")
    done = CliRunner().invoke(group, ["catalogue", "check", str(file), *more])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_declared_floor_has_its_price_in_money(tmp_path: Path) -> None:
    """An offer costs 0.10 EUR shown and 4 EUR of each reward, of which 20 % of decisions bring one anyway: 0.90 EUR, at
    a floor of 2 % 18 EUR in 1,000 decisions; these earn 4,000 EUR with no nudge.
    """
    price = floor_price(parse(FLOORED).stages["cart"])
    assert price is not None
    assert price.each.tolist() == pytest.approx([0.0, 0.0, 0.02 * (0.1 + 0.2 * 4.0)])
    assert price.total == pytest.approx(0.018)
    said = checked(tmp_path, FLOORED, "--monthly", "50000")
    assert "cart: floor 0.02 costs EUR 18.00 in 1,000 decisions if nudges do nothing (offer 18.00)" in said
    assert "0.45% of what they earn with no nudge; EUR 900.00 a month at 50,000 decisions" in said
    assert "paid while the loss account is closed, too" in said


def test_a_declared_floor_is_indeed_paid_while_the_account_is_closed() -> None:
    live = with_account(engine.prepare(Snapshot.untrained(parse(FLOORED), "cart")), CLOSED)
    p = engine.choose(live, np.array([1.0, 0.0, 0.0]), np.ones(3, dtype=bool)).propensity
    assert p[1:] == pytest.approx([0.02, 0.02], abs=1e-6)


def test_without_one_it_says_which_floors_centred_affords(tmp_path: Path) -> None:
    """Where nudges do nothing, the floors that the engine gives: 1 % of a free tip, less of an offer that costs, which
    costs no more than 0.05 % of what no nudge earns.
    """
    stage = parse(TEXT).stages["cart"]
    price = floor_price(stage)
    assert price is not None
    assert price.floor[1] == 0.01
    gap = 0.045 + stage.learner.price  # type: ignore[attr-defined]  # of its range, and the price of showing
    assert price.floor[2] == pytest.approx(0.0005 * 0.2 / gap)
    assert price.total <= 0.0005 * 0.2 * 20.0
    said = checked(tmp_path, TEXT)
    assert f"cart: no floor declared: centred affords tip 0.0100, offer {price.floor[2]:.4f} while" in said
    assert "a month" not in said


def test_another_policy_has_the_standard_floor_and_its_price(tmp_path: Path) -> None:
    said = checked(tmp_path, TEXT.replace('{ name = "centred", prior_mean = 0.2 }', '{ name = "uniform" }'))
    assert (
        "cart: floor 0.01 (none declared) costs EUR 1.00 in 1,000 decisions if nudges do nothing (offer 1.00), and "
        in said
    )
    assert "EUR 40.00 more for each unit of reward that a decision brings" in said
    assert "loss account" not in said
