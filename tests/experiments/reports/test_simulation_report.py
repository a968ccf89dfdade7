"""The report of a simulated policy: what its page says first, and what its axes are."""

import re

import numpy as np

from experiments.reports import html_report, simulation_report
from experiments.reports.simulation_report import ComparisonSubject, PolicyResult

SUBJECT = ComparisonSubject("course", "plan", "CHF", (1, 2, 3), 100, 5, "journey-bandit simulate --app course.toml")


def result(policy: str, over: float, *, nudged: float = 0.0) -> PolicyResult:
    """Three seeds of five days, ten decisions on each; `over`: CHF a day over 20, spread a little over seeds."""
    shape = (3, 5)
    each = np.full(shape, 20.0 + over) + (0.01 * over * np.arange(3.0))[:, None]
    return PolicyResult(
        policy=policy, arms=("none", "hint"), personas=("everybody",), users=100, decisions=np.full(shape, 10.0),
        regret=np.full(shape, 1.0), value=each, none=np.full(shape, 20.0), conversions=np.full(shape, 2.0),
        nudged=np.full(shape, nudged), fatigue=np.zeros(shape), opted_out=np.zeros(shape),
        by_day=np.tile([30.0 - nudged, nudged], (5, 1)), shown=np.array([[150.0, 0.0]]), ages=np.ones(4),
        propensities=np.full(50, 0.5), floor=0.0,
    )  # fmt: skip


NOTHING, HINT = result("fixed:none", 0.0), result("fixed:hint", -4.0, nudged=10.0)


def headline(page: str) -> list[str]:
    (verdict,) = re.findall(r'<p class="verdict">(.*?)</p>', page, re.DOTALL)
    return re.findall(r"<span>(.*?)</span>", verdict)


def test_shares_of_arms_are_drawn_by_day() -> None:
    page = html_report.render(simulation_report.report(SUBJECT, HINT, [HINT, NOTHING], NOTHING, {}))
    (drawn,) = re.findall(r"Arm shares over time</h2>(.*?)</section>", page, re.DOTALL)
    assert ">day</text>" in drawn
    assert ">decisions</text>" not in drawn


def test_the_risk_of_choosing_it_is_said_in_money() -> None:
    page = html_report.render(simulation_report.report(SUBJECT, HINT, [HINT, NOTHING], NOTHING, {}))
    first, second = headline(page)
    assert first.startswith("Worse than no nudge: -0.2020 CHF net of costs a user over 5 days")
    assert second == "It loses money with probability above 99.9 % (expected loss 0.20 CHF a user)."
    better = result("fixed:hint", 4.0)
    told = headline(html_report.render(simulation_report.study(SUBJECT, [better, NOTHING], NOTHING, {})))
    assert told[1] == "It loses money with probability below 0.1 % (expected loss below 0.01 CHF a user)."


def test_no_nudge_itself_is_not_compared_with_no_nudge() -> None:
    page = html_report.render(simulation_report.report(SUBJECT, NOTHING, [HINT, NOTHING], NOTHING, {}))
    said = "This is no nudge itself, what the others are measured by: 1.00 CHF a user over 5 days, 3 seed(s)."
    assert headline(page) == [said]
    assert "distinguishable" not in page
    assert "against no nudge" not in page


def test_what_the_catalogue_declares_is_called_both_ways() -> None:
    """`default` on the command line is the policy that versions are named after."""
    declared, ours = SUBJECT._replace(declared="centred"), result("default", 4.0)
    made = simulation_report.study(declared, [ours, NOTHING], NOTHING, {})
    assert made.verdict.startswith("default (centred) earns most")
    assert [row.name for row in made.tables[0].rows] == ["default (centred)", "fixed:none"]
    assert simulation_report.report(declared, ours, [ours, NOTHING], NOTHING, {}).title.startswith(
        "default (centred) at"
    )
