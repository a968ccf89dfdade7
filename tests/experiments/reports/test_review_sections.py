"""A review marks what must not be relied on, and its figures are what their names say. No service: arrays only."""

import numpy as np
import pytest

from bandit.catalogue.net_value import ArmWorth
from experiments.data.rounds import LoggedRounds, RewardRange, chunked
from experiments.inference.diagnostics import Refusal
from experiments.ope import evaluate as core
from experiments.ope.accumulate import EvaluationConfig
from experiments.ope.evaluation_policies import EvaluationPolicy, FixedArm
from experiments.promotion.lift_monitor import monitor
from experiments.promotion.verdict import PromotionVerdict
from experiments.reports import html_report, review
from experiments.reports import review_sections as parts
from experiments.reports.report import Report, ReportSeries
from experiments.reports.review import ReviewFindings, ReviewSubject

N = 1500
ABOUT = ReviewSubject(
    app="shop", stage="cart", currency="EUR", kind="candidate", algorithm="linear", settings="", arms=("none", "hint"),
    floor=0.1, version=1, belief_sha256="b", policy_sha256="p", salt_id="s", champion="none", rule="", data="",
    window="", data_sha256="d", alarms=(), live="", rollback="", command="", git="", binary=True,
)  # fmt: skip


def rounds(amount: float, *, unequal: bool) -> LoggedRounds:
    """Two arms drawn half and half, a tenth held out; or 60 to 40, and 15 %, though the same was declared."""
    rng, half = np.random.default_rng(2), np.full((N, 2), 0.5)
    action = (rng.random(N) < (0.4 if unequal else 0.5)).astype(np.intp)
    bought = rng.random(N) < 0.3 + 0.1 * action
    return LoggedRounds(
        action, amount * bought.astype(np.float64), half[:, 0], propensities=half, q_hat=np.full((N, 2), 0.35 * amount),
        holdout=rng.random(N) < (0.15 if unequal else 0.1), holdout_share=np.full(N, 0.1), at=np.arange(N),
        user=np.arange(N), version=np.ones(N, np.int64),
    )  # fmt: skip


def reviewed(
    amount: float = 1.0, *, unequal: bool = False, cost: float = 0.0, silent: tuple[Refusal, ...] = ()
) -> Report:
    """Of a policy that always takes the second arm, for rewards of that amount, which may cost something; `silent`: on
    no nudge.
    """
    log, span = rounds(amount, unequal=unequal), RewardRange(0.0, amount)
    ask = EvaluationConfig(
        (EvaluationPolicy("second", FixedArm(1)),), (EvaluationPolicy("none", FixedArm(0)),), rewards=span
    )
    (found,) = core.evaluate([chunked(log)], ask)
    worth = ArmWorth(np.ones(2), np.array([0.0, cost]))
    (net,) = core.evaluate([chunked(log)], ask._replace(worth=worth))
    assert log.holdout is not None
    live = log.only(~log.holdout)
    may, pi = np.ones((len(live.reward), 2), dtype=np.bool_), np.tile([0.0, 1.0], (len(live.reward), 1))
    watched, verdict = monitor(chunked(log), span)._replace(silent=silent), PromotionVerdict("hold", ("too few",))
    if silent:
        found, net = found.without("none"), net.without("none")
    gathered = ReviewFindings(live, may, pi, np.full(pi.shape, 0.3), found, net, watched, {}, verdict, None)
    return review.build(ABOUT._replace(binary=amount == 1.0), gathered)


def test_biased_estimators_are_marked_in_table_drawing_and_note() -> None:
    report = reviewed()
    answer = report.answers[4]
    (table,) = answer.tables
    names = [row.name for row in table.rows]
    marked = [name.endswith(", biased") for name in names]
    assert names[0] == "dr"
    assert {"dm, biased", "clipped, biased", "dros, biased"} <= set(names)
    assert marked == sorted(marked), "those that may be relied on come first"
    assert "the interval includes the bias" in table.note
    assert {bar.name for bar in answer.forest} >= {"dr", "dm, biased"}
    assert answer.answer.startswith(f"{marked.count(False)} estimators without a bias by design")
    text = html_report.render(report)
    for said in ("dm, biased", "the interval includes the bias"):
        assert said in text


def test_unequal_shares_of_nudges_and_of_the_holdout_are_noted_and_equal_ones_are_not() -> None:
    noted, clean = reviewed(unequal=True), reviewed()
    note = noted.answers[5].note
    for said in ("declared are 50.00, 50.00 %", "holdout: arms came in shares of 8", "declared are 90.00, 10.00 %"):
        assert said in note
        assert said in html_report.render(noted)
    assert "shares" not in clean.answers[5].note


@pytest.mark.parametrize("amount", [1.0, 9.5])
def test_a_conversion_is_a_share_whatever_a_reward_is_worth(amount: float) -> None:
    """About 35 % of decisions bring a reward; of 9.5 each, their mean is 3.3, and that is no per cent."""
    found = reviewed(amount).metrics
    assert 30.0 < found["conv_pct"] < 40.0
    if amount == 1.0:
        assert "mean_reward" not in found
        assert {"lift_pp", "lift_lcb", "lift_ucb", "dr_pct", "dr_lcb", "dr_ucb"} <= found.keys()
    else:
        assert found["mean_reward"] == pytest.approx(found["conv_pct"] * amount / 100.0, rel=1e-3)
        assert {"lift", "lift_lcb", "lift_ucb", "dr", "dr_lcb", "dr_ucb"} <= found.keys()
        assert not {"lift_pp", "dr_pct"} & found.keys(), "they are in the reward's units"


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        (0.0, "better than no nudge, +0."),
        (0.8, "worse than no nudge, -0."),
        (0.1, "not distinguishable from no nudge, "),
    ],
)
def test_the_headline_is_money_against_no_nudge_and_conversions_are_small_print(cost: float, words: str) -> None:
    """The second arm brings about 10 points more conversions, each worth 1 EUR, whatever it costs."""
    found = reviewed(cost=cost)
    start = f"linear at shop/cart, candidate: {words}"
    assert found.verdict.startswith(start)
    assert "EUR per decision net of costs [" in found.verdict
    assert found.verdict.endswith("gate: hold.")
    assert "points" not in found.verdict
    split = "More people convert (+" if cost > 0.5 else "Conversions, costs left out: +"
    assert found.conversions.startswith(split)
    assert (", and each decision loses 0." in found.conversions) is (cost > 0.5)
    assert " points [" in found.conversions
    assert not {"better", "worse"} & set(found.conversions.split()), "one verdict, and it is about money"
    text = html_report.render(found)
    assert text.index("net of costs") < text.index(found.conversions)
    assert found.answers[1].answer.lower().startswith(f"net of costs: {words}")
    assert list(found.metrics)[:3] == ["net_gain", "net_low", "net_high"]


def test_a_review_claims_no_gain_where_the_log_cannot_say_what_no_nudge_earns() -> None:
    why = (Refusal("support", "no nudge was never shown outside the holdout", "a floor"),)
    found = reviewed(silent=why)
    said = "the log cannot say, support: no nudge was never shown outside the holdout; gate: hold."
    assert found.verdict == f"linear at shop/cart, candidate: not compared with no nudge: {said}"
    assert not {"net_gain", "net_low", "p_loss", "lift_pp", "lift_lcb"} & found.metrics.keys()
    earns = "The log cannot say what no nudge earns: support: no nudge was never shown outside the holdout."
    assert found.answers[1].answer == earns
    assert found.answers[2].answer == f"Compared with none. {earns}"
    harmed = next(one for one in found.answers if one.question == "Is any segment harmed?")
    assert harmed.answer == earns
    assert found.conversions == ""


def test_a_log_that_cannot_answer_has_a_headline_without_conversions() -> None:
    assert parts.conversion_sentence(ABOUT, None) == ""
    assert "the log cannot say" in parts.first_sentence(ABOUT, None, None, 0)


def series(**arms: list[float]) -> tuple[ReportSeries, ...]:
    step = np.arange(1.0, len(next(iter(arms.values()))) + 1.0)
    return tuple(ReportSeries(name, step, np.array(value)) for name, value in arms.items())


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        (
            series(none=[0.9] * 20, mail=[0.1] * 20),
            "In the last tenth of the log it shows no nudge most, in 90.0 % of decisions. It is steady: no share moves "
            "by 5 points from the first tenth to the last.",
        ),
        (
            series(none=[0.8] + [0.5] * 8 + [0.2], mail=[0.2] + [0.5] * 8 + [0.8]),
            "In the last tenth of the log it shows mail most, in 80.0 % of decisions. The share of no nudge moves "
            "most, from 80.0 % in the first tenth to 20.0 %.",
        ),
        (
            series(none=[0.2, 0.1], mail=[0.4, 0.1], call=[0.4, 0.8]),
            "In the last tenth of the log it shows call most, in 80.0 % of decisions. That share moves most, from "
            "40.0 % in the first tenth to 80.0 %.",
        ),
        ((), "The log has no decision to say it of."),
        (series(none=[]), "The log has no decision to say it of."),
    ],
)
def test_what_a_policy_does_over_time_is_said_in_words(shares: tuple[ReportSeries, ...], said: str) -> None:
    assert parts.over_time(shares) == said


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.0, "each of its choices could"), (1e-6, "below 0.01 % of its choices could never"), (0.25, "25.00 % of its")],
)
def test_what_the_log_could_never_show_is_a_sentence(share: float, said: str) -> None:
    log = rounds(1.0, unequal=False)
    (found,) = core.evaluate([chunked(log)], EvaluationConfig((EvaluationPolicy("second", FixedArm(1)),)))
    told = found._replace(diagnostics={**found.diagnostics, "unsupported": share})
    assert parts.never_drawn(told).startswith(said)


def test_a_nudge_that_the_log_never_shows_counts_as_never_drawn() -> None:
    """Whatever the weights of the rounds say, which know only what was shown."""
    log = rounds(1.0, unequal=False)
    none = log._replace(action=np.zeros(N, dtype=np.intp), propensities=np.tile([1.0, 0.0], (N, 1)), pscore=np.ones(N))
    half = EvaluationPolicy("half", lambda rows: np.full((len(rows.action), 2), 0.5))
    (found,) = core.evaluate([chunked(none)], EvaluationConfig((half,)))
    assert parts.never_drawn(found).startswith("50.00 % of its choices could never be drawn")
