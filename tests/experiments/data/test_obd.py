"""The Open Bandit Dataset in its real layouts, and what the Thompson-sampling policy would have done."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from bandit.errors import InvalidRequest
from experiments.data import obd
from journey_bandit.main import group

Shared = Callable[[str], Path]


def test_rounds_are_those_of_the_file(shared: Shared) -> None:
    """Against the reference rows of the same log; rows of one timestamp may stand in another order."""
    rounds = obd.read(shared("open_bandit_men"), "random", "men")
    with gzip.open(shared("open_bandit_men/per_round_random_to_bts.csv.gz"), "rt", encoding="utf-8") as text:
        reference = np.genfromtxt(text, delimiter=",", names=True)
    agree = (rounds.action == reference["action"]) & (rounds.position == reference["position"])
    assert np.count_nonzero(~agree) <= 4
    assert rounds.reward.sum() == reference["reward"].sum() == 46
    assert rounds.pscore == pytest.approx(np.full(10_000, 1 / 34))
    assert rounds.x is not None
    assert set(np.unique(rounds.x)) == {0.0, 1.0}


def test_the_published_layout_is_read_too(shared: Shared, tmp_path: Path) -> None:
    flat = shared("open_bandit_men")
    for policy in obd.POLICIES:
        folder = tmp_path / policy / "men"
        folder.mkdir(parents=True)
        with gzip.open(flat / f"{policy}.csv.gz") as packed, (folder / "men.csv").open("wb") as plain:
            shutil.copyfileobj(packed, plain)
        first, second = obd.read(flat, policy, "men"), obd.read(tmp_path, policy, "men")
        assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None)


def test_priors_give_the_action_distribution_that_was_published(shared: Shared, tmp_path: Path) -> None:
    """Each of 102 shares is a binomial of 1e6 draws in both: false alarm ≤ 1e-6; an error of 0.4 points is found."""
    folder = shared("open_bandit_men")
    shutil.copy(folder / "prior_bts.yaml", tmp_path)
    drawn, published = obd.bts(tmp_path, "men", 3).probabilities, obd.bts(folder, "men", 3).probabilities
    z = stats.norm.isf(0.5e-6 / drawn.size)
    error = np.sqrt(2.0 * published * (1.0 - published) / 1e6) + 1e-9
    assert (np.abs(drawn - published) < z * error).all()
    assert drawn.sum(axis=1) == pytest.approx([1.0] * 3)


def test_ranks_of_two_beta_draws_have_their_closed_form() -> None:
    """P(Beta(2, 1) > Beta(1, 1)) = 2/3. 200,000 draws: false alarm ≤ 1e-6 at 4.9 standard errors."""
    found = obd.ranked(np.array([2.0, 1.0]), np.array([1.0, 1.0]), 2, draws=200_000)
    assert found[0, 0] == pytest.approx(2 / 3, abs=4.9 * np.sqrt(2 / 9 / 200_000))
    assert found[1].tolist() == found[0][::-1].tolist()


def test_what_is_missing_is_named(shared: Shared, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"no log of policy random: none of .*random/men/men\.csv"):
        obd.read(tmp_path, "random", "men")
    with pytest.raises(InvalidRequest, match=r"bts_action_dist\.csv or prior_bts\.yaml"):
        obd.bts(tmp_path, "men", 3)
    shutil.copy(shared("open_bandit_men") / "prior_bts.yaml", tmp_path)
    with pytest.raises(InvalidRequest, match="has no 'children'"):
        obd.bts(tmp_path, "children", 3)
    (tmp_path / "bts.csv").write_text("timestamp,item_id\n2019,3\n", encoding="utf-8")
    with pytest.raises(InvalidRequest, match="is not a log of the Open Bandit Dataset"):
        obd.read(tmp_path, "bts", "men")


def test_a_log_from_a_spreadsheet_is_the_same_log(tmp_path: Path) -> None:
    names = ["timestamp", "item_id", "position", "click", "propensity_score", *obd.FEATURES]
    rows = [
        [f"2019-11-2{i % 4}", str(i % 3), "1", str(i % 2), f"{0.1 + i / 100:.3f}", "a", "b", "c", "d"] for i in range(9)
    ]
    for folder, mark, encoding in (("plain", ",", "utf-8"), ("excel", ";", "utf-16")):
        (tmp_path / folder).mkdir()
        cells = [[c.replace(".", ",") if mark == ";" else c for c in row] for row in rows]
        text = "\r\n".join(mark.join(row) for row in [names, *cells])
        (tmp_path / folder / "bts.csv").write_bytes(text.encode(encoding))
    first, second = (obd.read(tmp_path / folder, "bts", "men") for folder in ("plain", "excel"))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None)
    (tmp_path / "plain" / "bts.csv").write_text(",".join(names) + "\n2019,x,1,0,0.1,a,b,c,d\n")
    with pytest.raises(InvalidRequest, match=r"bts\.csv:2: item_id: 'x' is not a number"):
        obd.read(tmp_path / "plain", "bts", "men")


def test_both_directions_hold_what_was_really_earned(shared: Shared) -> None:
    """Published: bts earns 0.0069, random 0.0046 on their own logs. Weights alone are those of the reference."""
    done = CliRunner().invoke(group, ["evaluate", "obd", str(shared("open_bandit_men")), "--campaign", "men", "--json"])
    assert done.exit_code == 0
    found = {body["policy"]: body for body in json.loads(done.stdout)["directions"]}
    reference = json.loads(shared("open_bandit_men/reference.json").read_text())["men"]
    for policy, earned, direction in (("bts", 0.0069, "random->bts"), ("random", 0.0046, "bts->random")):
        body, values = found[policy], reference[direction]["values"]
        assert body["on_policy"]["value"] == pytest.approx(earned)
        low, high = body["estimates"]["dr"]["interval"]
        assert low < earned < high
        for ours, theirs in (("ips", "ipw"), ("snips", "snipw")):
            assert body["estimates"][ours]["value"] == pytest.approx(values[theirs], abs=1e-9)


def test_hillstrom_gains_nothing_that_can_be_told() -> None:
    done = CliRunner().invoke(group, ["evaluate", "hillstrom", "--json"])
    assert done.exit_code == 0
    body = json.loads(done.stdout)
    assert body["best_fixed"] == "always mens"
    low, high = body["contrasts"]["always mens"]["interval"]
    assert low < 0.0 < high
    assert high - low < 0.02
    assert "not distinguishable from zero" in body["verdict"]
    assert body["n"] + body["taught"] == 32_000


def test_a_file_with_decimal_commas_gives_the_same_rounds(shared: Shared, tmp_path: Path) -> None:
    """As a spreadsheet of a country that writes 0,029 saves it again: semicolons between cells, every mark a comma."""
    flat = shared("open_bandit_men")
    shutil.copytree(flat, tmp_path, dirs_exist_ok=True)
    with gzip.open(flat / "random.csv.gz", "rt", encoding="utf-8") as text:
        head, *rows = text.read().splitlines()
    column = head.split(",").index("propensity_score")
    written = [head.replace(",", ";")]
    for row in rows:
        cells = row.split(",")
        cells[column] = cells[column].replace(".", ",")
        written.append(";".join(cells))
    with gzip.open(tmp_path / "random.csv.gz", "wt", encoding="utf-8") as text:
        text.write("\n".join(written) + "\n")
    first, second = obd.read(flat, "random", "men"), obd.read(tmp_path, "random", "men")
    assert second.pscore == pytest.approx(np.full(10_000, 1 / 34))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None)
