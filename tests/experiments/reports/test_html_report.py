"""A report says what its arrays say, and its page needs nothing but itself."""

import re

import numpy as np
import pytest

from bandit.arrays import LoggedDecisions
from experiments.inference.wording import capital
from experiments.reports import html_report, report
from experiments.reports.colours import NONE, colours
from experiments.reports.report import POINTS, ReplayPrices, Report, ReportRow, ReportSubject, ReportTable

ARMS = ("none", "a", "b")


def subject(kind: str = "simulation") -> ReportSubject:
    return ReportSubject(
        app="travel",
        stage="cart",
        policy={"name": "linear", "alpha": 0.5},
        floor=0.01,
        version=7,
        seed=1,
        command="journey-bandit simulate <again>",
        belief_sha256="f" * 64,
        kind=kind,
        data="made up",
    )


def made_up(gain: float, n: int = 3000) -> Report:
    """Arm 1 is worth `gain` more than nothing, arm 2 a lot less; the policy shows arm 1 nine times of ten."""
    rng = np.random.default_rng(5)
    p = np.tile([0.05, 0.9, 0.05], (n, 1))
    arm = rng.choice(3, size=n, p=p[0])
    utility = np.tile([1.0, 1.0 + gain, -1.0], (n, 1)) + rng.normal(0, 0.1, (n, 1))
    reward = (rng.random(n) < 0.2).astype(float)
    log = LoggedDecisions(ARMS, arm.astype(np.intp), p, reward, rng.random(n) < 0.1)
    net = utility[np.arange(n), arm]
    return report.simulated(subject(), log, utility, net, "EUR")


@pytest.mark.parametrize(
    ("gain", "words"),
    [(0.5, "Better than no nudge"), (-0.5, "Worse than no nudge"), (0.115, "Not distinguishable from")],
)
def test_the_verdict_follows_the_interval(gain: float, words: str) -> None:
    assert made_up(gain).verdict.startswith(words)


def test_the_metrics_are_the_arithmetic_of_the_arrays() -> None:
    n, arm = 3000, np.tile([0, 1, 2], 1000).astype(np.intp)
    utility = np.tile([1.0, 2.0, 0.0], (n, 1))
    log = LoggedDecisions(ARMS, arm, np.full((n, 3), 1 / 3), np.zeros(n), np.zeros(n, dtype=bool))
    found = report.simulated(subject(), log, utility, utility[np.arange(n), arm], "EUR").metrics
    assert found["regret_end"] == 3000.0  # 0 + 1 + 2 for each three
    assert found["regret_unif"] == 3000.0
    assert found["net_gain"] == 0.0
    assert found["min_prop"] == pytest.approx(1 / 3, rel=1e-4)
    assert found["n"] == 3000


def test_a_conversion_is_a_reward_of_any_amount() -> None:
    """One decision in three brings 9.93: 33.3 % convert, and the mean reward of 3.31 is no share."""
    reward, arm = np.where(np.arange(3000) % 3 == 0, 9.93, 0.0), np.zeros(3000, dtype=np.intp)
    log = LoggedDecisions(ARMS, arm, np.full((3000, 3), 1 / 3), reward, np.zeros(3000, dtype=bool))
    found = report.simulated(subject(), log, np.ones((3000, 3)), np.ones(3000), "EUR")
    assert found.metrics["conv_pct"] == pytest.approx(100 / 3, rel=1e-3)
    (nudges,) = [table for table in found.tables if table.title == "Nudges"]
    assert nudges.rows[0].cells[1].startswith("+3.31")
    assert all("%" not in cell for cell in nudges.rows[0].cells)


def test_holdout_decisions_are_not_the_policys() -> None:
    assert made_up(0.5).metrics["n"] + made_up(0.5).metrics["n_holdout"] == 3000


def test_series_are_short_and_shares_sum_to_one() -> None:
    found = made_up(0.5, n=20_000)
    lines = [line for curve in found.curves for line in curve.lines]
    assert all(len(line.step) <= POINTS for line in (*lines, *found.shares))
    assert np.allclose(sum(s.value for s in found.shares), 1.0)


def test_a_replay_counts_only_what_agreed() -> None:
    n = 3000
    rng = np.random.default_rng(6)
    sent = rng.choice(ARMS, size=n)
    arm = np.full(n, 1, dtype=np.intp)
    agreed = sent == "a"
    visit = np.where(sent == "a", 1.0, 0.0)
    log = LoggedDecisions(ARMS, arm, np.full((n, 3), 1 / 3), np.where(agreed, visit, np.nan), np.zeros(n, dtype=bool))
    prices = ReplayPrices("EUR", np.full(3, 2.0), np.zeros(3), "A visit counts 2 EUR.")
    found = report.replayed(subject("replay"), log, agreed, sent, visit, "Visit rate", prices)
    assert found.metrics["conv_pct"] == 100.0
    assert found.metrics["agreed"] == agreed.sum()
    assert found.metrics["lift_pp"] == 100.0
    assert "Better than no nudge" in found.verdict
    assert "not distinguishable from the best fixed arm (a)" in found.verdict
    assert found.metrics["net_gain"] == 2.0


def test_a_replay_that_gains_visits_and_loses_money_is_called_worse() -> None:
    """Arm a brings 30 points more visits, worth 1 EUR each, and costs 0.80 EUR a mail: −0.50 EUR for each decision."""
    n, rng = 6000, np.random.default_rng(7)
    sent = rng.choice(ARMS, size=n)
    agreed, arm = sent == "a", np.full(n, 1, dtype=np.intp)
    visit = (rng.random(n) < np.where(agreed, 0.5, 0.2)).astype(float)
    log = LoggedDecisions(ARMS, arm, np.full((n, 3), 1 / 3), np.where(agreed, visit, np.nan), np.zeros(n, dtype=bool))
    prices = ReplayPrices("EUR", np.ones(3), np.array([0.0, 0.8, 0.8]), "A mail costs 0.80 EUR.")
    found = report.replayed(subject("replay"), log, agreed, sent, visit, "Visit rate", prices)
    assert found.verdict.startswith("Worse than no nudge: -0.")
    assert "points" not in found.verdict
    assert "points" in found.conversions
    assert list(found.metrics)[:3] == ["net_gain", "net_low", "net_high"]
    assert found.metrics["lift_lcb"] > 0 > found.metrics["net_high"]
    text = html_report.render(found)
    assert text.index("Worse than no nudge") < text.index("Visit rate: ")
    assert f'<p class="note">{found.conversions}</p>' in text


def test_the_page_is_self_contained_and_reproducible() -> None:
    found = made_up(0.5)
    text = html_report.render(found)
    assert html_report.render(found) == text
    assert text.count("<svg") == 4
    loaded = re.findall(r"""(?:src|href)\s*=\s*["'](?!#)([^"']+)""", text)
    assert loaded == []
    assert "<script" not in text
    lines = [f"<span>{capital(part)}.</span>" for part in found.verdict.rstrip(".").split("; ")]
    assert all(line in text.replace("&#x27;", "'") for line in lines)
    assert "&lt;again&gt;" in text
    heads = re.findall(r'<td data-head="([^"]*)">', text)
    assert heads.count("") == text.count("<tr>") > 0, "on a phone each row is a list, with its name on top"
    assert len(set(heads)) > 3, "and the heads beside the cells"


def test_a_short_value_and_its_interval_stand_in_one_line() -> None:
    """A wide cell may break between them, and nowhere inside; so may a short one where the page is narrow."""
    cells = ("-17.6 [-18.1, -17.1]", "+123,456.78 [-123,456.78, +123,456.78]")
    rows = tuple(ReportRow(name, (cell,)) for name, cell in zip("ab", cells, strict=True))
    text = html_report.render(made_up(0.5)._replace(tables=(ReportTable("t", ("value [95 %]",), rows),)))
    assert '<span class="one">-17.6 <span class="iv">[-18.1, -17.1]</span></span>' in text
    assert '+123,456.78 <span class="iv">[-123,456.78, +123,456.78]</span>' in text
    assert 'data-head="value [95\u00a0%]"' in text


@pytest.mark.parametrize("names", [("default", "fixed:none", "oracle", "uniform", "peer:lints", "peer:vw", "linear")])
def test_a_policy_has_one_colour_wherever_it_is_drawn(names: tuple[str, ...]) -> None:
    known = colours(names)
    assert len(set(known.values())) == len(names)
    assert colours(reversed(names)) == known, "whatever the order"
    assert colours(("default", "fixed:none"))["default"] == known["default"]
    assert colours(("fixed:none",))["fixed:none"] == colours(("none",))["none"] == NONE


def test_text_in_a_drawing_is_large_enough_on_a_phone() -> None:
    """A drawing is scaled to the width of the page, 358 pixels or more where the window has 390."""
    for width, sizes in drawings(html_report.render(made_up(0.5))):
        assert sizes
        assert min(sizes) * 358.0 / width >= 12.0


def drawings(text: str) -> list[tuple[float, list[float]]]:
    """Width of each drawing in its own units, and the sizes of its texts in them."""
    found = re.findall(r'viewBox="0 0 ([\d.]+) [\d.]+"(.*?)</svg>', text, re.DOTALL)
    return [(float(width), [float(v) for v in re.findall(r"font-size: ([\d.]+)px", inside)]) for width, inside in found]
