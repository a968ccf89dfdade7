"""Price of a nudge as policies learned it, and beside it, as an audit, totals of people in and outside the holdout."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from bandit.catalogue.model import Catalogue
from bandit.learning.holdout_audit import HoldoutAudit, PersonTotals, audit
from simulations.offline.runner import CellOutcome

if TYPE_CHECKING:
    from experiments.reports.report import ReportTable


def learned(done: Sequence[CellOutcome], stage: str) -> dict[str, CellOutcome]:
    """First run of each policy that learned a price at the stage, by the policy's label."""
    return {one.label: one for one in reversed(done) if stage in one.prices}


def table(done: Sequence[CellOutcome], catalogue: Catalogue, stage: str) -> "ReportTable":
    """Table of the learned prices at a stage, of each policy's first seed, in the app's currency, with what they rest
    on.
    """
    from experiments.inference.wording import bounds
    from experiments.reports.report import ReportRow, ReportTable

    reward, rows = catalogue.stage(stage).reward, []
    unit = reward.value * (reward.max - reward.min)
    for label, one in learned(done, stage).items():
        found = one.prices[stage]
        ends = bounds(unit * found.low, unit * found.high, ".2f")
        logits = "–" if found.tired is None else f"{found.tired:.3f} ± {found.sd:.3f}"
        counts = f"{found.decisions:,} / {found.people:,} / {found.opt_outs:,}"
        rows.append(ReportRow(label, (f"{unit * found.price:.2f} {ends}", logits, f"{found.felt:.1f}", counts)))
    head = (
        f"price of a nudge, {catalogue.currency} [95 %]",
        "logits a recent nudge takes",
        "visits that feel it",
        "decisions / people / opt-outs",
    )
    note = "Of the first seed, from recent nudges less those that the propensities expected, and from opt-outs."
    return ReportTable(f"{catalogue.app}/{stage}: what showing a nudge costs later", head, tuple(rows), note)


def audits(done: Sequence[CellOutcome]) -> dict[str, HoldoutAudit]:
    """Audit of each policy by its holdout, people of all seeds together; empty where there was no holdout."""
    found = {}
    for label in dict.fromkeys(one.label for one in done):
        mine = [one for one in done if one.label == label]
        nudged, alone = PersonTotals(), PersonTotals()
        for one in mine:
            nudged, alone = nudged + one.nudged, alone + one.holdout
        made = audit(nudged, alone)
        if made is not None:
            found[label] = made
    return found


def audit_table(found: dict[str, HoldoutAudit], app: str, currency: str) -> "ReportTable":
    """Table of the audits, in `currency` a person."""
    from experiments.inference.wording import bounds
    from experiments.reports.report import ReportRow, ReportTable

    rows = []
    for label, one in found.items():
        ends = "" if one.low is None or one.high is None else bounds(one.low, one.high, "+.2f")
        people = f"{one.people:,} / {one.holdout:,}"
        cells = (f"{one.difference:+.2f} {ends}".rstrip(), f"{one.with_nudges:.2f}", f"{one.without:.2f}", people)
        rows.append(ReportRow(label, cells))
    head = (f"difference, {currency}/person [95 %]", "with nudges", "holdout", "people / holdout")
    note = "Realised totals of people: all that nudges do is in them. An audit; nothing is decided by it."
    return ReportTable(f"{app}: audit by the holdout", head, tuple(rows), note)


def as_json(done: Sequence[CellOutcome], stage: str) -> dict[str, Any]:
    """Learned prices at a stage by policy, in units of the reward's range, with what they rest on in words."""
    found = {label: one.prices[stage] for label, one in learned(done, stage).items()}
    return {label: msgspec.to_builtins(one) | {"evidence": one.evidence} for label, one in found.items()}
