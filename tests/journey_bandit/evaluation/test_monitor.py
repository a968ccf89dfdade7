"""`monitor`: one figure first, what it rests on, how many decisions count, and what cannot be said."""

import re
from pathlib import Path

import numpy as np
import pytest

from bandit.catalogue.net_value import ArmWorth
from bandit.learning.holdout_audit import HoldoutAudit
from experiments.data.rounds import LoggedRounds, RewardRange, chunked
from experiments.ope import evaluate as core
from experiments.ope.accumulate import EvaluationConfig
from experiments.ope.evaluation_policies import EvaluationPolicy, FixedArm, LoggedProbabilities
from experiments.promotion.lift_monitor import LiftReport, monitor
from journey_bandit.evaluation import monitor as command
from journey_bandit.evaluation.policy_table import print_policies
from journey_bandit.workflows import verdicts

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "evaluation.md"

N, DAY = 4000, 86_400_000_000
WORTH = ArmWorth(np.full(3, 20.0), np.array([0.0, 1.0, 1.0]))


def rounds(p_none: float = 0.5, open_from: int = N) -> LoggedRounds:
    """A tenth held out; no nudge is drawn with `p_none` elsewhere and converts 20 %, two nudges for 1 EUR each
    40 %. Rewards are known up to `open_from`; a thousand decisions a day.
    """
    rng = np.random.default_rng(3)
    held = rng.random(N) < 0.1
    live = np.array([p_none, 0.5 - 0.5 * p_none, 0.5 - 0.5 * p_none])
    action = np.where(held, 0, rng.choice(3, N, p=live))
    p = np.where(held[:, None], [1.0, 0.0, 0.0], live)
    reward = (rng.random(N) < np.where(action > 0, 0.4, 0.2)).astype(np.float64)
    reward[open_from:] = np.nan
    return LoggedRounds(
        action, reward, p[np.arange(N), action], propensities=p, q_hat=np.full((N, 3), 0.3), holdout=held,
        holdout_share=np.full(N, 0.1), at=np.arange(N) * (DAY // 1000), user=np.arange(N),
        version=np.ones(N, np.int64),
    )  # fmt: skip


def watched(log: LoggedRounds) -> LiftReport:
    return monitor(chunked(log), RewardRange(0.0, 1.0), WORTH)


def lines(found: LiftReport) -> list[str]:
    return list(command._lines(found, "shop/cart", "EUR", 0.95))


def test_the_first_line_is_one_figure_with_the_bounds_that_hold_at_every_look() -> None:
    """Live less no nudge is 0.5 · (0.2 · 20 − 1) = 1.5 EUR."""
    found = watched(rounds())
    first, basis, month, look, more, counted = lines(found)
    over = found.over_none.contrasts["none"]
    assert over.sequence is not None
    assert over.sequence[0] < 1.5 < over.sequence[1]
    assert first.startswith("shop/cart: live less no nudge: +1.")
    ends = f"[+{over.sequence[0]:.2f}, +{over.sequence[1]:.2f}]"
    assert f"{ends} (95 % confidence sequence: holds at every look)" in first
    assert first.endswith("better than no nudge; above 0, nudges earn more than they cost")
    assert "probability" not in first
    assert basis.startswith("measured by the propensities of 3,")
    assert month.startswith("a month, with the same bounds: +")
    assert look.startswith("by this look alone, whatever was looked at before: it loses money with probability")
    assert more.startswith("more data: one more week of data")
    assert counted == "counted: all 4,000 decisions, their rewards are final"


def test_a_floor_gives_the_sequence_that_an_evaluation_has() -> None:
    """Without one both expect weights of 100 at most."""
    found = {floor: monitor(chunked(rounds()), RewardRange(0.0, 1.0), WORTH, floor=floor) for floor in (0.0, 0.1)}
    target = EvaluationPolicy("logged", LoggedProbabilities())
    ask = verdicts.with_no_nudge(EvaluationConfig((target,), rewards=RewardRange(0.0, 1.0), worth=WORTH, prefix=True))
    sequences = list[tuple[float, float] | None]()
    for floor, heaviest in ((0.0, 100.0), (0.1, 10.0)):
        (evaluated,) = core.evaluate([chunked(rounds())], ask._replace(heaviest=heaviest))
        sequences.append(evaluated.contrasts["none"].sequence)
        assert found[floor].over_none.contrasts["none"].sequence == sequences[-1]
    assert sequences[0] != sequences[1]


def test_the_guide_shows_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    log, hint = rounds(), EvaluationPolicy("fixed:hint", FixedArm(1))
    targets = (EvaluationPolicy("logged", LoggedProbabilities()), hint)
    ask = verdicts.with_no_nudge(EvaluationConfig(targets, rewards=RewardRange(0.0, 1.0), worth=WORTH, heaviest=10.0))
    found = core.evaluate([chunked(log)], ask)
    print_policies(found, "none", "net value, EUR,", 0.95, {})
    table = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())
    shown = re.findall(r"^```text\n(.*?)\n```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert shown == [table, "\n".join(lines(watched(log)))]


def test_no_nudge_that_was_never_shown_leaves_the_holdout_alone_to_answer() -> None:
    """Predictions of no nudge are no answer: where it was never drawn, only the holdout knows what it earns."""
    found = watched(rounds(p_none=0.0))
    assert "none" not in found.over_none.contrasts
    assert [refusal.detail for refusal in found.silent] == ["no nudge was never shown outside the holdout"]
    first, basis = lines(found)[:2]
    held = found.lift.contrasts["holdout"]
    assert held.sequence is not None
    assert found.gain("EUR") is not None
    assert f"{held.value:+.1f} EUR per decision" in first
    assert basis.endswith(
        "decisions of the holdout alone, because support: no nudge was never shown outside the holdout"
    )


def test_without_either_the_log_cannot_say_and_says_why() -> None:
    log = rounds(p_none=0.0)
    assert log.holdout is not None
    found = watched(log.only(~log.holdout)._replace(holdout_share=np.zeros(int((~log.holdout).sum()))))
    first, basis = lines(found)[:2]
    assert first == "shop/cart: live less no nudge: the log cannot say"
    assert "no nudge was never shown outside the holdout" in basis


def test_decisions_of_before_there_was_a_holdout_are_not_compared_with_it() -> None:
    """A holdout that is switched on half-way: the comparison is the one of the second half alone."""
    log, half = rounds(), np.arange(N) < N // 2
    assert log.holdout is not None
    kept = ~(half & log.holdout)
    mixed = log._replace(holdout_share=np.where(half, 0.0, 0.1)).only(kept)
    first, second = watched(mixed), watched(log.only(~half))
    assert first.lift.contrasts["holdout"] == second.lift.contrasts["holdout"]
    assert first.lift.estimates == second.lift.estimates
    assert first.over_none.n > second.over_none.n
    left = f"leaves out {int((half & kept).sum()):,} decisions that were made while the holdout had no share"
    assert [note for note in command.notes(first) if left in note]
    assert not [note for note in command.notes(second) if "leaves out" in note]
    assert first.uncounted == 0


def test_both_answers_end_at_the_first_open_decision_though_it_is_of_before_the_holdout() -> None:
    """The holdout gets its share at 1000, is without it for some decisions, one of which is open, and has it again."""
    log = rounds(p_none=0.0)
    assert log.holdout is not None
    certain = np.arange(N) < 1000
    certain[3000:3200] = True
    share, reward = np.where(certain, 0.0, 0.1), log.reward.copy()
    first_open = 3100 + int(np.argmin(log.holdout[3100:]))
    reward[first_open] = np.nan
    kept = ~(certain & log.holdout)
    mixed = log._replace(holdout_share=share, reward=reward).only(kept)
    ended = (np.arange(N) < first_open) & kept
    for size in (N, 700):  # in one chunk and in several
        found = monitor(chunked(mixed, size), RewardRange(0.0, 1.0), WORTH)
        assert found.over_none.n + found.over_none.holdout == ended.sum()
        assert found.lift.n == (ended & ~certain).sum() == 2000
        assert found.held == (ended & log.holdout).sum()
        assert f"by the {found.held:,} decisions of the holdout alone" in found.basis
        note = f"live less holdout leaves out {(ended & certain).sum():,} decisions that were made while"
        assert [one for one in found.lift.notes if note in one]


def test_the_holdout_that_was_compared_with_is_counted_without_those_who_were_certain_to_be_in_it() -> None:
    log = rounds(p_none=0.0)
    assert log.holdout is not None
    first = np.arange(N) < 500
    found = watched(log._replace(holdout_share=np.where(first, 1.0, 0.1)).only(~first | log.holdout))
    assert found.over_none.holdout == log.holdout.sum()
    assert found.held == log.holdout[500:].sum()
    assert f"by the {found.held:,} decisions of the holdout alone" in found.basis


def test_a_holdout_that_is_switched_on_while_a_decision_is_open_is_compared_with_nothing_yet() -> None:
    log = rounds()
    assert log.holdout is not None
    early, reward = np.arange(N) < N // 2, log.reward.copy()
    first_open = 1000 + int(np.argmin(log.holdout[1000:]))
    reward[first_open] = np.nan
    kept = ~(early & log.holdout)
    found = watched(log._replace(holdout_share=np.where(early, 0.0, 0.1), reward=reward).only(kept))
    assert found.over_none.n == kept[:first_open].sum()
    assert [refusal.reason for refusal in found.lift.refused] == ["deterministic"]
    assert "holdout" not in found.lift.contrasts
    assert not [note for note in command.notes(found) if "leaves out" in note]


@pytest.mark.parametrize(
    ("open_from", "said"),
    [
        (3900, "counted: 3,900 of 4,000 decisions: 100 (2.5%) are open, or were made after one that is"),
        (
            3000,
            "counted: 3,000 of 4,000 decisions: 1,000 (25.0%) are open, or were made after one that is; so many that "
            "this is of earlier decisions, and may not be of today's",
        ),
    ],
)
def test_decisions_that_do_not_count_are_counted(open_from: int, said: str) -> None:
    found = watched(rounds(open_from=open_from))
    assert found.uncounted == N - open_from
    assert lines(found)[-1] == said


def test_a_nudge_that_was_paid_for_is_no_conversion() -> None:
    """Conversions are rewards of decisions outside the holdout, also where values are net of costs."""
    log = rounds()
    assert log.holdout is not None
    assert watched(log).lift.diagnostics["conversions"] == np.count_nonzero(log.reward[~log.holdout])


@pytest.mark.parametrize(
    ("difference", "low", "high", "said"),
    [
        (1.5, 1.25, 1.75, "1.5 EUR more in all with nudges than one in the holdout (95 %, one look: +1.25 to +1.75,"),
        (-2.0, -4.5, 0.5, "2 EUR less in all with nudges than one in the holdout (95 %, one look: -4.5 to +0.5,"),
        (-2.0, None, None, "2 EUR less in all with nudges than one in the holdout (too few people for an interval)"),
    ],
)
def test_what_people_brought_is_more_or_less(
    difference: float, low: float | None, high: float | None, said: str
) -> None:
    people = HoldoutAudit(with_nudges=2.0, people=9, without=1.0, holdout=9, difference=difference, low=low, high=high)
    assert said in command._of_people(people, "EUR")
