"""Judgements of a ledger: how far a candidate that is judged, or was, has come, and what the promotion rule says."""

from typing import NamedTuple

from bandit.errors import NotFound
from bandit.records import Release
from experiments.inference.intervals import LEVEL
from experiments.ope.accumulate import EvaluationConfig
from experiments.ope.evaluation_policies import EvaluationPolicy, JudgedCandidate, JudgedLive
from experiments.promotion import judgement as core
from experiments.promotion.judgement import CANDIDATE, LIVE, Judgement
from experiments.promotion.verdict import PromotionVerdict
from journey_bandit.workflows import ledger_log, verdicts
from journey_bandit.workflows.ledger_log import LedgerLog


class JudgedRelease(NamedTuple):
    """Judged release of a ledger: the release as it is kept, the judgement by its decisions, and the verdict of the
    stage's promotion rule. Money is net of costs, in the app's `currency`, per decision.
    """

    release: Release
    judgement: Judgement
    verdict: PromotionVerdict
    currency: str


def judged_release(ledger: str, stage: str, number: int | None = None, sha256: str = "") -> JudgedRelease:
    """Judged release of a stage, by its number or by the digest of its policy, else the newest.

    Before the declared number the verdict is *hold*, unless the confidence sequence says that the candidate is surely
    worse: stopping then makes no promotion more likely. Raises NotFound if there is no such release, and as
    `ledger_log.open_log`.
    """
    log = ledger_log.open_log(ledger, stage)
    found = [one for one in log.store.releases(stage) if one.judge]
    found = [one for one in found if number in (None, one.seq) and sha256 in ("", one.sha256)]
    if not found:
        what = f"release {number} of {stage}" if number else f"no candidate of {stage}"
        problem = f"{what} {'judges nothing' if number else 'was judged'} in this ledger"
        raise NotFound("release", problem, "`journey-bandit judge` begins it")
    release = found[-1]
    log = log._replace(release=release.seq, first=release.decisions)
    made = _made(log)
    judgement = core.judgement(log.source(), release.decisions, made, log.rewards, log.worth)
    return JudgedRelease(release, judgement, _verdict(log, judgement), log.currency)


def _made(log: LedgerLog) -> int:
    """How many of the declared decisions were made: outside the control group, when a moment held."""
    made = (f.decision for f in log.store.decisions(log.stage) if f.decision.release == log.release)
    return min(sum(d.is_actionable and not d.holdout for d in made), log.first)


def _verdict(log: LedgerLog, judgement: Judgement) -> PromotionVerdict:
    found = judgement.verdict or judgement.sequence
    if found is None:
        return PromotionVerdict("hold", (judgement.progress,))
    targets = (EvaluationPolicy(CANDIDATE, JudgedCandidate()),), (
        EvaluationPolicy(LIVE, JudgedLive()), verdicts.no_nudge(),
    )  # fmt: skip
    ask = EvaluationConfig(*targets, rewards=log.rewards, worth=log.worth, prefix=True)
    (judged,) = verdicts.judged(log, ask, [found], LEVEL)
    if judgement.verdict is not None or judged.verdict.decision == "reject":
        return judged.verdict
    return PromotionVerdict("hold", (judgement.progress,))
