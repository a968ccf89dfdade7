"""Shadows: a challenger scored on live traffic without being shown to anybody.

Everything that a decision was made from is in the ledger, to the bit: the context, what was eligible, and the number u
that drew the arm. So what the challenger would have drawn is computed from there, beside the service, and no decision
waits for it. Its value is the off-policy estimate on decisions made after the last one that taught it.
"""

from itertools import islice
from typing import NamedTuple

import numpy as np

from bandit import engine
from bandit.errors import PropensityError
from bandit.learning.recoding import contexts
from bandit.propensity.draw import draw_many
from bandit.snapshot import Snapshot
from experiments.inference.wording import against
from journey_bandit.workflows.policy_evidence import PolicyEvidence, gather
from journey_bandit.workflows.verdicts import NONE

_BATCH = 2000


class ShadowComparison(NamedTuple):
    """Comparison of a challenger with what was shown, over `n` decisions.

    `match`: share of decisions where it would have drawn the same nudge with the same u. `moved`: mean total variation
    between both policies, in [0, 1]. `failed`: decisions it could not have made. `evidence`: the off-policy estimate of
    its value.
    """

    version: str
    n: int
    match: float
    moved: float
    failed: int
    evidence: PolicyEvidence

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics for the MLflow run by name, to four digits: number of decisions, agreement and moved probability in
        per cent, and value and lift where the log can tell them.
        """
        net, lift = self.evidence.net, self.evidence.net.contrasts.get(self.evidence.champion)
        none, first = net.contrasts.get(NONE), next(iter(net.estimates.values()), None)
        found = {"shadow_n": float(self.n), "shadow_match": 100.0 * self.match, "shadow_moved": 100.0 * self.moved}
        found |= {"shadow_failed": float(self.failed)}
        if none:
            low, high = none.sequence or none.interval
            found |= {"shadow_none": none.value, "shadow_none_lcb": low, "shadow_none_ucb": high}
        if first:
            found |= {"shadow_net": first.value}
        if lift:
            low, high = lift.sequence or lift.interval
            found |= {"shadow_lift": lift.value, "shadow_lcb": low, "shadow_ucb": high}
        return {k: float(f"{v:.4g}") for k, v in found.items() if np.isfinite(v)}

    @property
    def sentence(self) -> str:
        """Sentence that sums the comparison up for a terminal: money against no nudge, number of decisions, agreement
        and moved probability in per cent, and the verdict with its reasons.
        """
        verdict, gain = self.evidence.judged.verdict, self.evidence.gain
        why = "; ".join(f"{one.reason}: {one.detail}" for one in self.evidence.monitored.silent)
        money = gain.sentence if gain else f"{against(None, 'no nudge', '')}{f', {why}' if why else ''}"
        return (
            f"version {self.version} on {self.n:,} decisions it was not shown in: {money}; draws the same nudge in "
            f"{100 * self.match:.1f} %, {100 * self.moved:.1f} % of probability elsewhere; {verdict.decision}: "
            f"{'; '.join(verdict.reasons)}"
        )


def score(
    ledger: str, stage: str, version: str, challenger: Snapshot, champion: tuple[str, Snapshot] | None = None
) -> ShadowComparison:
    """Comparison of a challenger with the log, on every decision after those that taught it. `champion`: what its value
    is compared with.

    Raises LedgerError if the ledger cannot be read, NotFound if it has no such stage, InvalidRequest if the snapshot
    reads other contexts.
    """
    evidence = gather(ledger, stage, challenger, champion, segments=False)
    live, log = engine.prepare(challenger), evidence.log
    arms = challenger.stage_spec.arms
    rows = (f for f in log.store.decisions(stage) if f.seq > log.after)
    decisions = (f.decision for f in rows if f.decision.is_actionable and not f.decision.holdout)
    n, same, moved, failed = 0, 0, 0.0, 0
    while batch := list(islice(decisions, _BATCH)):
        specs = log.store.specs()
        known = [d for d in batch if specs[d.stage_digest].arms == arms]
        x = contexts(np.array([d.x for d in known]), [d.stage_digest for d in known], specs, challenger.stage_spec)
        may = np.array([[arm not in d.excluded for arm in arms] for d in known])
        try:
            p = engine.choose_many(live, x, may).propensity
        except PropensityError:
            failed += len(known)
            continue
        drawn = draw_many(p, np.array([d.u for d in known]))
        n += len(known)
        same += int((drawn == np.array([arms.index(d.arm) for d in known])).sum())
        moved += float(0.5 * np.abs(p - np.array([d.propensity for d in known])).sum())
        failed += len(batch) - len(known)
    return ShadowComparison(version, n, same / max(n, 1), moved / max(n, 1), failed, evidence)
