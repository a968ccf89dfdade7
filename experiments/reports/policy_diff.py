"""Policy diff: what changes when one policy takes another's place, on which contexts, towards which nudge, at what
expected cost. Both policies are asked on the same contexts, those of the log.

Shapes: n contexts, k arms.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array
from bandit.catalogue.net_value import ArmWorth
from experiments.inference.wording import number
from experiments.reports.report import ReportRow, ReportTable

_SHOWN = 8  # segments of a table


class PolicyDiff(NamedTuple):
    """Differences between two policies on n contexts. `before` names the policy that is replaced.

    `moved`: mean total variation in [0, 1], the share of draws that differ. `leader`: share of contexts whose likeliest
    arm changes. `was`, `now`: (k,) mean probabilities of the arms. `cost`: change of the expected cost of a decision,
    in currency. `segments`: (name, contexts, moved, change of cost), the most moved first.
    """

    before: str
    n: int
    moved: float
    leader: float
    arms: tuple[str, ...]
    was: Array  # (k,) mean probability
    now: Array  # (k,)
    cost: float  # change of the expected cost of a decision, in currency
    segments: tuple[tuple[str, int, float, float], ...]  # (name, contexts, moved, change of cost), most moved first

    def tables(self, currency: str) -> tuple[ReportTable, ...]:
        """Two tables for the report: shares of the arms before and now, then the eight segments that move most.
        `currency`: its code.
        """
        arms = tuple(
            ReportRow(arm, (f"{100 * a:.1f} %", f"{100 * b:.1f} %", number(100 * (b - a), "+.1f")))
            for arm, a, b in zip(self.arms, self.was, self.now, strict=True)
        )
        moved = tuple(
            ReportRow(name, (f"{n:,}", f"{100 * tv:.1f} %", number(1000 * cost, "+.0f")))
            for name, n, tv, cost in self.segments[:_SHOWN]
        )
        return (
            ReportTable(f"Shares of nudges, before: {self.before}", ("before", "this policy", "points"), arms),
            ReportTable(
                "Contexts that change most", ("contexts", "draws that change", f"cost, {currency}/1,000"), moved
            ),
        )

    def sentence(self, currency: str) -> str:
        """The difference in one sentence for the report, costs in `currency` per 1,000 decisions."""
        return (
            f"Against {self.before}: {100 * self.moved:.1f} % of draws change, the likeliest nudge changes in "
            f"{100 * self.leader:.1f} % of {self.n:,} contexts; the expected cost changes by "
            f"{number(1000 * self.cost, '+.0f')} {currency} per 1,000 decisions."
        )


def diff(
    before: str, arms: tuple[str, ...], was: Array, now: Array, q_hat: Array, worth: ArmWorth, value: float,
    segments: Mapping[str, NDArray[np.str_]],
) -> PolicyDiff:  # fmt: skip
    """The policy diff of probabilities `was` and `now` (n, k), with expected rewards `q_hat` (n, k) in units of
    rewards.

    What a nudge costs is its cost and, where a reward is expected, its share of it: `value` − gain for each unit of
    reward, in currency. `segments`: {feature: label (n,) of each context}; segments of fewer than 20 contexts are left
    out.
    """
    paid = worth.spending(value).net(q_hat)
    tv = 0.5 * np.abs(now - was).sum(axis=1)
    cost = ((now - was) * paid).sum(axis=1)
    found = [
        (str(name), int(mine.sum()), float(tv[mine].mean()), float(cost[mine].mean()))
        for labels in segments.values()
        for name in np.unique(labels)
        if (mine := labels == name).sum() >= 20
    ]
    return PolicyDiff(
        before=before,
        n=len(tv),
        moved=float(tv.mean()),
        leader=float((was.argmax(axis=1) != now.argmax(axis=1)).mean()),
        arms=arms,
        was=was.mean(axis=0),
        now=now.mean(axis=0),
        cost=float(cost.mean()),
        segments=tuple(sorted(found, key=lambda s: -s[2])),
    )
