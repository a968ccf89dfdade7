"""Evaluate policies on a log: estimates with intervals, contrasts, diagnostics, refusals where the log cannot answer.

    evaluate(sources, ask)   passes over the log → one `Evaluation` for each policy
    report(evaluations)      → the JSON object that `journey-bandit evaluate --json` prints

A log may come in several sources, its parts in order; `run` then spreads them over workers.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from bandit.errors import InvalidRequest, Problem
from experiments.data.rounds import RewardRange, Source
from experiments.inference.assignment import ShareTest
from experiments.inference.diagnostics import LogDiagnostics, Refusal, refusals, warnings
from experiments.inference.dispersion import Dispersion
from experiments.inference.intervals import LEVEL, Interval, Moments, UserSums, interval, standard_error
from experiments.inference.segments import SegmentSums, effects
from experiments.ope.accumulate import EvaluationConfig, LogSummary, PolicySummary, Total, matured, tally
from experiments.ope.estimators import BIASED
from experiments.ope.reward_model import GramSums, RewardModel, fitted
from experiments.ope.sequence_adapter import bounds_of

Bounds = tuple[float, float]
T = TypeVar("T")


class PartRunner(Protocol):
    """Does tasks, in this process or in others, and gives their results in order."""

    def __call__(self, tasks: Sequence[Callable[[], T]], /) -> list[T]:
        """[task() for task in tasks]"""
        ...


def here(tasks: Sequence[Callable[[], T]], /) -> list[T]:
    """One after the other, in this process."""
    return [task() for task in tasks]


class Estimate(NamedTuple):
    """A value, its interval at this n, and a sequence that covers at every n (None where there is none).

    `biased` by design: the interval is widened by that of the unbiased estimate, which says how large the bias may be.
    """

    value: float
    interval: Bounds
    sequence: Bounds | None = None
    biased: bool = False


class Evaluation(NamedTuple):
    """What the log says of one policy: estimates in the reward's units, or the reasons why it cannot answer.

    With reasons there are estimates only if `EvaluationConfig.force` asked for them.
    """

    policy: str
    n: int  # rounds used
    units: int  # what the intervals count: rounds, or groups of users
    estimates: dict[str, Estimate]
    contrasts: dict[str, Estimate]  # this policy less another
    chosen: dict[str, float]  # thresholds that SLOPE chose
    segments: SegmentSums | None  # of the contrast with the champion
    control: Estimate | None  # the holdout's mean reward
    rows: int  # of the log
    holdout: int
    diagnostics: dict[str, float]
    refused: tuple[Refusal, ...]
    notes: tuple[str, ...]
    shares: ShareTest | None = None  # of the arms, observed and declared
    by_user: bool = False  # units are groups of users

    @property
    def forced(self) -> bool:
        """Whether there are estimates although the log cannot answer."""
        return bool(self.refused and self.estimates)


def evaluate(
    sources: Sequence[Source], ask: EvaluationConfig, level: float = LEVEL, run: PartRunner = here
) -> list[Evaluation]:
    """Each of `ask.targets` on the log. A log without q̂ is read twice: first to fit a model of rewards."""
    model = _model(sources, run)
    whole = reduce(LogSummary.__add__, run([partial(tally, source, ask, model) for source in sources]), LogSummary())
    if not whole.seen:
        return [_unanswered(target.name, whole, LogDiagnostics(rows=whole.rows)) for target in ask.targets]
    seen = zip(ask.targets, whole.seen, strict=True)
    return [_conclude(target.name, part, whole, ask, level) for target, part in seen]


def _model(sources: Sequence[Source], run: PartRunner) -> RewardModel | None:
    """Fitted where the log has no q̂ but says how many arms there are."""
    first = next((chunk for source in sources for chunk in source()), None)
    if first is None or first.arms is None or first.q_hat is not None or first.q is not None:
        return None
    return fitted(g for g in run([partial(_gram, source, first.arms) for source in sources]) if g is not None)


def _gram(source: Source, k: int) -> GramSums | None:
    total: GramSums | None = None
    for rounds in matured(source()):
        if len(rounds.reward):
            part = GramSums.of(rounds, k)
            total = part if total is None else total + part
    return total


def _conclude(name: str, seen: PolicySummary, whole: LogSummary, ask: EvaluationConfig, level: float) -> Evaluation:
    later = 0 if ask.prefix else whole.rows - whole.used - whole.holdout  # whose rewards are not known
    found = _unanswered(name, whole, replace(seen.evidence, rows=whole.used + later))
    if found.refused and not ask.force:
        return found
    bounds, notes = _range(whole, ask)
    value = _moments(seen.value, bounds, whole.dispersion)
    estimates, chosen = _estimates(seen, value, level, bounds)
    span = None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])
    contrasts = {
        other: Estimate(0.0, (0.0, 0.0), bounds and (0.0, 0.0))
        if seen.same[other]
        else _estimate(_moments(total, bounds, whole.dispersion), level, span)._replace(
            sequence=bounds and bounds_of(seen.sequences[other], bounds, level)
        )
        for other, total in seen.contrasts.items()
    }
    gap = value.mean - estimates["snips"].value if "snips" in estimates else None
    by_segment = {name: _moments(part, bounds, whole.dispersion) for name, part in seen.segments.items()}
    return found._replace(
        units=value.n,
        estimates=estimates,
        contrasts=contrasts,
        chosen=chosen,
        segments=effects(by_segment, level, span),
        control=_estimate(whole.control, level, bounds) if whole.holdout else None,
        notes=(*found.notes, *warnings(seen.evidence, gap, standard_error(value)), *notes),
        by_user=isinstance(seen.value, UserSums),
    )


def _unanswered(name: str, whole: LogSummary, evidence: LogDiagnostics) -> Evaluation:
    """Diagnostics and reasons only."""
    shares = evidence.shares
    note = shares.note(evidence.against_propensities) if shares else None
    return Evaluation(
        policy=name,
        n=whole.used,
        units=0,
        estimates={},
        contrasts={},
        chosen={},
        segments=None,
        control=None,
        rows=whole.rows,
        holdout=whole.holdout,
        diagnostics=evidence.summary(),
        refused=tuple(refusals(evidence)),
        notes=(note,) if note else (),
        shares=shares,
    )


def _estimates(
    seen: PolicySummary, value: Moments, level: float, bounds: Bounds | None
) -> tuple[dict[str, Estimate], dict[str, float]]:
    """Estimates, the default one first, and the thresholds that SLOPE chose."""
    first = "dr" if seen.tally.modelled else "ips"
    sequence = bounds and bounds_of(seen.sequence, bounds, level)
    found = {first: _estimate(value, level, bounds)._replace(sequence=sequence)}
    found |= {k: _estimate(m, level, bounds) for k, m in seen.tally.estimates().items() if k != first}
    chosen = seen.ladder.chosen(level) if seen.ladder else {}
    found |= {f"{family}_slope": _estimate(c.moments, level, bounds) for family, c in chosen.items()}
    found |= {name: _widened(e, found[first]) for name, e in found.items() if name.removesuffix("_slope") in BIASED}
    return found, {family: c.threshold for family, c in chosen.items()}


def _widened(estimate: Estimate, unbiased: Estimate) -> Estimate:
    """A biased estimate, with an interval that covers what the unbiased one's covers: the gap between both is an
    unbiased estimate of the bias.
    """
    (low, high), (least, most) = estimate.interval, unbiased.interval
    return estimate._replace(interval=(min(low, least), max(high, most)), biased=True)


def _range(whole: LogSummary, ask: EvaluationConfig) -> tuple[Bounds | None, tuple[str, ...]]:
    """What values cannot leave. InvalidRequest if a reward lies outside the declared range."""
    rewards = ask.rewards or RewardRange(0.0, 1.0)
    if whole.low < rewards.low or whole.high > rewards.high:
        if ask.rewards is None:
            return None, ("the range of rewards was not declared: values have no bounds, and there is no sequence",)
        problem = f"the log holds {whole.low:g} to {whole.high:g}, outside {rewards.low:g} to {rewards.high:g}"
        raise InvalidRequest(Problem("reward", problem, "declare the range that rewards can take"))
    return ask.bounds, ()


def _moments(total: Total, bounds: Bounds | None, dispersion: Dispersion) -> Moments:
    """Guarded as the kind of reward asks, and by what varies around the model alone where no range was declared."""
    return dispersion.guarded(total, ranged=bounds is not None)


def _estimate(moments: Moments, level: float, bounds: Bounds | None) -> Estimate:
    found = interval(moments, level, bounds)
    return Estimate(found.value, (found.low, found.high))


def report(evaluations: Sequence[Evaluation], ask: EvaluationConfig, level: float = LEVEL) -> dict[str, Any]:
    """What `--json` prints: the first policy at the top, the others under `others`; null for what is not finite."""
    first, *rest = [body(evaluation) for evaluation in evaluations]
    settings = {"level": level, **ask.knobs._asdict()}
    return {**first, **({"others": rest} if rest else {}), "settings": settings}


def body(evaluation: Evaluation) -> dict[str, Any]:
    """One evaluation, as JSON."""
    optional = {
        "slope": {family: _finite(t) for family, t in evaluation.chosen.items()} or None,
        "holdout": evaluation.control and {**_written(evaluation.control), "n": evaluation.holdout},
        "notes": list(evaluation.notes) or None,
        "segments": evaluation.segments and _segments(evaluation.segments),
        "assignment": evaluation.shares and _shares(evaluation),
        "forced": True if evaluation.forced else None,
    }
    return {
        "policy": evaluation.policy,
        "n": evaluation.n,
        "units": evaluation.units,
        "unit": "groups of users" if evaluation.by_user else "rounds",
        "rows": evaluation.rows,
        "estimates": {name: _written(e) for name, e in evaluation.estimates.items()},
        "contrasts": {name: _written(e) for name, e in evaluation.contrasts.items()},
        "diagnostics": {name: _finite(value) for name, value in evaluation.diagnostics.items()},
        "refused": [refusal._asdict() for refusal in evaluation.refused],
        **{name: value for name, value in optional.items() if value is not None},
    }


def _shares(evaluation: Evaluation) -> dict[str, Any]:
    shares = evaluation.shares
    assert shares is not None  # noqa: S101 - the caller looked
    e_value = _finite(evaluation.diagnostics["propensity_evidence"])
    noted = shares.note(evaluation.diagnostics["propensity_evidence"]) is not None
    return {**shares._asdict(), "e_value": e_value, "noted": noted}


def _segments(found: SegmentSums) -> dict[str, Any]:
    each = [
        {"segment": s.name, "n": s.joint.n, "joint": _ends(s.joint), "shrunk": _ends(s.shrunk)} for s in found.segments
    ]
    hurt = [segment.name for segment in found.hurt]
    return {"mean": found.mean, "spread": found.spread, "worst": found.worst.name, "hurt": hurt, "each": each}


def _ends(found: Interval) -> dict[str, Any]:
    return {"value": _finite(found.value), "interval": [_finite(found.low), _finite(found.high)]}


def _written(estimate: Estimate) -> dict[str, Any]:
    body: dict[str, Any] = {"value": _finite(estimate.value), "interval": [_finite(end) for end in estimate.interval]}
    if estimate.biased:
        body["biased"] = True
    return body if estimate.sequence is None else {**body, "sequence": [_finite(end) for end in estimate.sequence]}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
