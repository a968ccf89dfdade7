"""The review: fifteen answers in order, self-contained, and honest where the log cannot answer."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from api.ledger import candidates
from api.stores import open_store
from bandit.catalogue.net_value import ArmWorth
from bandit.snapshot import Snapshot
from experiments.inference.assignment import ShareTest
from experiments.reports import html_report, review
from experiments.reports.policy_diff import diff
from experiments.reports.report import POINTS, Report
from journey_bandit.registry.publish import learned
from journey_bandit.workflows import publishing
from journey_bandit.workflows.policy_evidence import gather
from journey_bandit.workflows.publishing import PublishRequest
from tests.registry.conftest import STAGE, Shop


def build(shop: Shop, stage: str, snapshot: Snapshot, kind: str) -> Report:
    found = gather(shop.store, stage, snapshot if kind == "candidate" else None)
    wanted = PublishRequest(shop.store, stage, snapshot, kind)
    return review.build(publishing._about(wanted, found, "nothing is live", "by the command"), publishing._found(found))


@pytest.mark.parametrize("kind", ["candidate", "live"])
def test_fifteen_answers_in_order_on_one_page_that_loads_nothing(shop: Shop, kind: str) -> None:
    report = build(shop, STAGE, learned(shop.store, STAGE, None, 0.3), kind)
    text = html_report.render(report)
    assert re.findall(r'<li id="q(\d+)">', text) == [str(i) for i in range(1, 16)]
    assert all(answer.question and answer.answer for answer in report.answers)
    outside = re.findall(r'(?:src|href)="(?!#)([^"]+)"', text)
    assert not [target for target in outside if not target.startswith("#")]
    assert text.count("<svg") >= 5
    series = [*report.shares, *(line for curve in report.curves for line in curve.lines), *(s for _, s in report.extra)]
    assert all(0 < len(s.step) <= POINTS for s in series)
    assert all(len(name) <= 12 for name in report.metrics)
    assert np.isfinite(list(report.metrics.values())).all()
    assert len(report.verdict) < 400


@pytest.mark.parametrize("binary", [True, False])
def test_a_conversion_is_a_share_of_decisions_whatever_a_reward_is_worth(shop: Shop, binary: bool) -> None:
    """Two of four had a reward: 50 %, also where the rewards are amounts, whose mean has a name of its own."""
    snapshot = learned(shop.store, STAGE, None, 0.3)
    found = gather(shop.store, STAGE, snapshot)
    about = publishing._about(PublishRequest(shop.store, STAGE, snapshot, "candidate"), found, "nothing", "nothing")
    reward = np.array([0.0, 9.5, 3.5, 0.0])
    earned = review._reward_metrics(about._replace(binary=binary), np.sign(reward) if binary else reward)
    assert earned == {"conv_pct": 50.0} | ({} if binary else {"mean_reward": 3.25})


def test_what_must_not_be_relied_on_is_marked_on_the_page(shop: Shop) -> None:
    """Biased estimators, unequal shares of nudges, and a holdout of another size than declared."""
    snapshot = learned(shop.store, STAGE, None, 0.3)
    gathered = gather(shop.store, STAGE, snapshot)
    unequal = ShareTest((0.6, 0.4), (0.5, 0.5), 1e-6, copied=False)
    lift = gathered.monitored.lift._replace(shares=unequal)
    note = unequal.note(5.0)
    found = publishing._found(gathered)._replace(
        monitored=gathered.monitored._replace(lift=lift),
        reward=gathered.reward._replace(notes=(f"nudges: {note}",)),
    )
    wanted = PublishRequest(shop.store, STAGE, snapshot, "candidate")
    about = publishing._about(wanted, gathered, "nothing is live", "by the command")
    text = html_report.render(review.build(about, found))
    assert f"Nudges: {note}" in text
    assert "holdout: arms came in shares of 60.00, 40.00 %" in text
    if gathered.reward.estimates:
        assert "dm, biased" in text
        assert "the interval includes the bias" in text
        assert "groups of users" in text


def test_a_log_that_cannot_answer_says_so_in_every_answer_that_needs_it(shop: Shop) -> None:
    """A stage that nobody asked."""
    opened = open_store(shop.store, read_only=True)
    snapshot = candidates.candidate(opened, "browsing", 0)
    opened.close()
    report = build(shop, "browsing", snapshot, "candidate")
    for number in (2, 3, 5, 10):
        assert "cannot say" in report.answers[number - 1].answer, number
    assert "hold" in report.answers[11].answer
    assert re.findall(r'<li id="q(\d+)">', html_report.render(report)) == [str(i) for i in range(1, 16)]


def test_a_candidate_is_judged_by_no_decision_that_taught_it(shop: Shop) -> None:
    snapshot = learned(shop.store, STAGE, None, 0.3)
    found = gather(shop.store, STAGE, snapshot, segments=False)
    opened = open_store(shop.store, read_only=True)
    taught = [f.seq for f in opened.decisions(STAGE) if f.settlement and f.settlement.seq <= snapshot.version]
    assert found.log.after == max(taught)
    opened.close()
    assert 0.2 * len(taught) < found.reward.n < 0.6 * len(taught)


def test_a_live_run_counts_every_decision_of_its_release_and_no_other(shop: Shop) -> None:
    snapshot = learned(shop.store, STAGE, None, 0.3)
    opened = open_store(shop.store, read_only=True)
    mine = [f for f in opened.decisions(STAGE) if f.decision.release == 0 and not f.decision.holdout]
    opened.close()
    found = gather(shop.store, STAGE, None, ("champion", snapshot), release=0, segments=False)
    assert found.reward.n == len([f for f in mine if f.settlement])
    assert found.champion == "none"
    assert gather(shop.store, STAGE, None, release=10**6, segments=False).reward.n == 0


def test_the_stages_own_candidate_is_what_the_service_had_learned(shop: Shop) -> None:
    """To the bit; and another policy of the same algorithm learns the same sums anew."""
    opened = open_store(shop.store, read_only=True)
    (mine,) = [p for p in shop.get("/v1/policies")["policies"] if p["stage"] == STAGE and p["release"] is None] or [
        None
    ]
    own = candidates.candidate(opened, STAGE, opened.last().settlement)
    if mine is not None:
        assert own.belief.digest() == mine["belief_sha256"]
    again = learned(shop.store, STAGE, "linear:alpha=0.9", 0.0)
    opened.close()
    assert again.stage_spec.policy != own.stage_spec.policy
    assert again.belief.digest() == own.belief.digest()


@pytest.fixture
def two() -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    def make() -> tuple[np.ndarray, np.ndarray]:
        was = np.tile([0.8, 0.1, 0.1], (40, 1))
        now = was.copy()
        now[20:] = [0.1, 0.1, 0.8]
        return was, now

    return make


def test_a_diff_says_where_draws_change_and_at_what_cost(two: Callable[[], tuple[np.ndarray, np.ndarray]]) -> None:
    was, now = two()
    labels = {"device": np.array(["a"] * 20 + ["b"] * 20)}
    q_hat = np.full((40, 3), 0.5)
    worth = ArmWorth(np.array([10.0, 10.0, 6.0]), np.array([0.0, 1.0, 0.0]))  # arm 2 gives 4 of 10 away
    found = diff("v1", ("none", "x", "y"), was, now, q_hat, worth, 10.0, labels)
    assert found.moved == pytest.approx(0.35)
    assert found.leader == 0.5
    assert found.cost == pytest.approx(0.5 * 0.7 * 4.0 * 0.5)
    assert [(name, n) for name, n, _, _ in found.segments] == [("b", 20), ("a", 20)]
