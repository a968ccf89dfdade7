"""Off-policy evaluation of policies on a log: estimates with intervals, contrasts, diagnostics, and refusals where the
log cannot answer.

    evaluate(sources, ask)   passes over the log → one `Evaluation` for each policy
    report(evaluations, ask) → the JSON object that `journey-bandit evaluate --json` prints

A log may come in several sources, its parts in order; `run` then spreads them over workers. Each gives sums, which are
added in the order of the log, whichever worker ended first: all runners give the same bits.
"""

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial, reduce
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np

from bandit.errors import InvalidRequest, Problem
from experiments.data.rounds import RewardRange, Source, in_parts
from experiments.inference.assignment import ShareTest
from experiments.inference.diagnostics import LogDiagnostics, Refusal, refusals, warnings
from experiments.inference.dispersion import Dispersion
from experiments.inference.intervals import LEVEL, Interval, Moments, UserSums, interval, side_error, standard_error
from experiments.inference.money import NetGain
from experiments.inference.segments import SegmentEffects, effects
from experiments.inference.support import ArmSupport
from experiments.ope.accumulate import EvaluationConfig, LogSummary, PolicySummary, Total, matured, summarise
from experiments.ope.estimators import BIASED
from experiments.ope.reward_model import GramSums, RewardModel, fitted
from experiments.ope.sequence_adapter import bounds_of

Bounds = tuple[float, float]
T = TypeVar("T")


class PartRunner(Protocol):
    """Runs tasks, in this process or in others, and gives their results in the order of the tasks. `run_serially` is
    the one for this process; tasks are picklable if the policies are.
    """

    def __call__(self, tasks: Sequence[Callable[[], T]], /) -> Generator[T, None, None]:
        """The results, as (task() for task in tasks), whichever ends first; few of them wait in memory for the caller
        to take them. What a task raises is raised to the caller.
        """
        ...


def run_serially(tasks: Sequence[Callable[[], T]], /) -> Generator[T, None, None]:
    """The part runner of this process: one task after the other, when its result is asked for."""
    return (task() for task in tasks)


class Estimate(NamedTuple):
    """An estimated value with its interval at this n, and with the confidence sequence's interval, which covers at
    every n (None where there is none). All are in units of rewards, or of currency if a worth was given.

    `biased`: the estimator is biased by design, and the interval is widened by that of the unbiased estimate, which
    says how large the bias may be. `error`: standard error, in the same unit, by the longer side
    of the interval (`intervals.side_error`); None where the log gives none.
    """

    value: float
    interval: Bounds
    sequence: Bounds | None = None
    biased: bool = False
    error: float | None = None

    def over(self, n: int) -> Interval:
        """The estimate from n rounds with the bounds that may be looked at always, where there are such, else those at
        this n: what a promotion rule goes by.
        """
        return Interval(self.value, *(self.sequence or self.interval), n)


def net_gain(over_none: Estimate | None, n: int, daily: float | None, currency: str) -> NetGain | None:
    """Net gain over no nudge, from the contrast with it in currency, of n rounds; None if the log cannot say. `daily`:
    decisions a day outside the control group, None if that is not known.
    """
    if over_none is None:
        return None
    return NetGain(over_none.over(n), over_none.error, daily, currency, over_none.sequence is not None)


class Evaluation(NamedTuple):
    """What the log says of one policy: estimates with intervals, or the reasons why the log cannot answer.

    With reasons (`refused`) there are estimates only if `EvaluationConfig.force` asked for them. Values are in units of
    rewards, or of currency if a worth was given. The first of `estimates` is the one that counts: dr, or ips without a
    model of rewards. `contrasts` has this policy less each other one by name, the logging policy as "logged".
    """

    policy: str
    n: int  # rounds used
    units: int  # what the intervals count: rounds, or groups of users
    estimates: dict[str, Estimate]
    contrasts: dict[str, Estimate]  # this policy less another
    chosen: dict[str, float]  # thresholds that SLOPE chose
    segments: SegmentEffects | None  # of the contrast with the champion
    control: Estimate | None  # the holdout's mean reward
    rows: int  # of the log
    holdout: int  # rounds of the holdout whose reward is known
    diagnostics: dict[str, float]  # of `LogDiagnostics.summary`
    refused: tuple[Refusal, ...]
    notes: tuple[str, ...]  # reasons to look twice, in sentences
    shares: ShareTest | None = None  # of the arms, observed and declared
    by_user: bool = False  # units are groups of users
    support: tuple[ArmSupport, ...] = ()  # of each arm: whether the log can say what the policy's choices of it bring
    daily: float | None = None  # decisions a day outside the holdout; None: the log is too short to tell

    @property
    def forced(self) -> bool:
        """Whether there are estimates although the log cannot answer. Reports have to say so wherever they show
        them.
        """
        return bool(self.refused and self.estimates)

    def without(self, other: str) -> "Evaluation":
        """The evaluation without the contrast with the policy called `other`."""
        return self._replace(contrasts={name: one for name, one in self.contrasts.items() if name != other})


def evaluate(
    sources: Sequence[Source], ask: EvaluationConfig, level: float = LEVEL, run: PartRunner = run_serially
) -> list[Evaluation]:
    """An evaluation of each of `ask.targets` on the log, in their order.

    `sources`: the parts of the log, in order. `level`: coverage of all intervals. `run`: where the parts are read. A
    log without q̂ is read twice: first to fit a model of rewards, cross-fitted by user.

    What a log cannot answer is refused in the result. Raises InvalidRequest for rows or policies that cannot be used,
    and if a reward lies outside the declared range.

        first, *others = evaluate([log.source()], EvaluationConfig((EvaluationPolicy("uniform", UniformChoice()),)))
    """
    model = _reward_model(sources, run)
    with closing(run([partial(summarise, source, ask, model) for source in sources])) as summaries:
        whole = reduce(LogSummary.__add__, summaries, LogSummary())
    if not whole.policies:
        return [_diagnosed(target.name, whole, LogDiagnostics(rows=whole.rows)) for target in ask.targets]
    seen = zip(ask.targets, whole.policies, strict=True)
    return [_conclude(target.name, part, whole, ask, level) for target, part in seen]


def _reward_model(sources: Sequence[Source], run: PartRunner) -> RewardModel | None:
    """The fitted reward model, where the log has no q̂ but says how many arms there are; else None."""
    first = next((chunk for source in sources for chunk in source()), None)
    if first is None or first.arms is None or first.q_hat is not None or first.q is not None:
        return None
    with closing(run([partial(_gram_sums, source, first.arms) for source in sources])) as found:
        return fitted(_until_the_end(found))


def _until_the_end(found: Iterable[tuple[list[GramSums], bool]]) -> Iterator[GramSums]:
    """The sums of the parts up to the first unknown reward of the whole log, whoever summed what comes later."""
    for sums, ended in found:
        yield from sums
        if ended:
            return


def _gram_sums(source: Source, k: int) -> tuple[list[GramSums], bool]:
    """The sums of each part of a source, up to the first unknown reward, and whether there is one."""
    found = list[GramSums]()
    for part in in_parts(source()):
        total: GramSums | None = None
        for chunk in part:
            (rounds,) = matured(iter([chunk]))
            if len(rounds.reward):
                sums = GramSums.of(rounds, k)
                total = sums if total is None else total + sums
            if np.isnan(chunk.reward).any():
                return found + ([total] if total else []), True
        found += [total] if total else []
    return found, False


def _conclude(name: str, seen: PolicySummary, whole: LogSummary, ask: EvaluationConfig, level: float) -> Evaluation:
    later = 0 if ask.prefix else whole.rows - whole.used - whole.holdout  # whose rewards are not known
    found = _diagnosed(name, whole, replace(seen.evidence, rows=whole.used + later))
    if found.refused and not ask.force:
        return found
    bounds, notes = _value_bounds(whole, ask)
    value = _guarded_moments(seen.value, bounds, whole.dispersion)
    estimates, chosen = _estimates(seen, value, level, bounds)
    span = None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])
    contrasts = {
        other: Estimate(0.0, (0.0, 0.0), bounds and (0.0, 0.0), error=0.0)
        if seen.same[other]
        else _estimate(_guarded_moments(total, bounds, whole.dispersion), level, span)._replace(
            sequence=bounds and bounds_of(seen.sequences[other], bounds, level)
        )
        for other, total in seen.contrasts.items()
    }
    gap = value.mean - estimates["snips"].value if "snips" in estimates else None
    by_segment = {name: _guarded_moments(part, bounds, whole.dispersion) for name, part in seen.segments.items()}
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


def _diagnosed(name: str, whole: LogSummary, evidence: LogDiagnostics) -> Evaluation:
    """The evaluation with diagnostics and refusals only, without estimates."""
    shares = evidence.shares
    note = shares.note(evidence.propensity_e_value) if shares else None
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
        support=evidence.support.arms(),
        daily=whole.times.daily,
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


def _value_bounds(whole: LogSummary, ask: EvaluationConfig) -> tuple[Bounds | None, tuple[str, ...]]:
    """The bounds that values cannot leave, None if no range was declared and rewards leave [0, 1]; and notes on that.
    Raises InvalidRequest if a reward lies outside the declared range.
    """
    rewards = ask.rewards or RewardRange(0.0, 1.0)
    if whole.low < rewards.low or whole.high > rewards.high:
        if ask.rewards is None:
            return None, ("the range of rewards was not declared: values have no bounds, and there is no sequence",)
        problem = f"the log holds {whole.low:g} to {whole.high:g}, outside {rewards.low:g} to {rewards.high:g}"
        raise InvalidRequest(Problem("reward", problem, "declare the range that rewards can take"))
    return ask.bounds, ()


def _guarded_moments(total: Total, bounds: Bounds | None, dispersion: Dispersion) -> Moments:
    """Moments guarded as the kind of reward asks; where no range was declared, by what varies around the model
    alone.
    """
    return dispersion.guarded(total, ranged=bounds is not None)


def _estimate(moments: Moments, level: float, bounds: Bounds | None) -> Estimate:
    found = interval(moments, level, bounds)
    return Estimate(found.value, (found.low, found.high), error=side_error(moments, level))


def report(evaluations: Sequence[Evaluation], ask: EvaluationConfig, level: float = LEVEL) -> dict[str, Any]:
    """The JSON object that `evaluate --json` prints: the first policy at the top, the others under `others`, then the
    settings of the estimators; null for numbers that are not finite. `evaluations` has one entry at least.

    `digest` is the SHA-256 of all the rest: equal for two evaluations only if all their numbers have the same bits.
    """
    first, *rest = [evaluation_json(evaluation) for evaluation in evaluations]
    settings = {"level": level, **ask.knobs._asdict()}
    body = {**first, **({"others": rest} if rest else {}), "settings": settings}
    return {**body, "digest": hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()}


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """The JSON object of one evaluation. Keys that would be empty (slope, holdout, notes, segments, assignment, forced)
    are left out; numbers that are not finite are null.
    """
    optional = {
        "slope": {family: _finite(t) for family, t in evaluation.chosen.items()} or None,
        "holdout": evaluation.control and {**_estimate_json(evaluation.control), "n": evaluation.holdout},
        "notes": list(evaluation.notes) or None,
        "segments": evaluation.segments and _segments_json(evaluation.segments),
        "assignment": evaluation.shares and _shares_json(evaluation),
        "forced": True if evaluation.forced else None,
    }
    return {
        "policy": evaluation.policy,
        "n": evaluation.n,
        "units": evaluation.units,
        "unit": "groups of users" if evaluation.by_user else "rounds",
        "rows": evaluation.rows,
        "estimates": {name: _estimate_json(e) for name, e in evaluation.estimates.items()},
        "contrasts": {name: _estimate_json(e) for name, e in evaluation.contrasts.items()},
        "diagnostics": {name: _finite(value) for name, value in evaluation.diagnostics.items()},
        "support": [_support_json(arm) for arm in evaluation.support],
        "refused": [refusal._asdict() for refusal in evaluation.refused],
        **{name: value for name, value in optional.items() if value is not None},
    }


def _shares_json(evaluation: Evaluation) -> dict[str, Any]:
    shares = evaluation.shares
    assert shares is not None  # noqa: S101 - the caller looked
    e_value = _finite(evaluation.diagnostics["propensity_evidence"])
    noted = shares.note(evaluation.diagnostics["propensity_evidence"]) is not None
    return {**shares._asdict(), "e_value": e_value, "noted": noted}


def _support_json(arm: ArmSupport) -> dict[str, Any]:
    return {**arm._asdict(), "least": _finite(arm.least)}


def _segments_json(found: SegmentEffects) -> dict[str, Any]:
    each = [
        {"segment": s.name, "n": s.joint.n, "joint": _interval_json(s.joint), "shrunk": _interval_json(s.shrunk)}
        for s in found.segments
    ]
    hurt = [segment.name for segment in found.hurt]
    return {"mean": found.mean, "spread": found.spread, "worst": found.worst.name, "hurt": hurt, "each": each}


def _interval_json(found: Interval) -> dict[str, Any]:
    return {"value": _finite(found.value), "interval": [_finite(found.low), _finite(found.high)]}


def _estimate_json(estimate: Estimate) -> dict[str, Any]:
    body: dict[str, Any] = {"value": _finite(estimate.value), "interval": [_finite(end) for end in estimate.interval]}
    if estimate.biased:
        body["biased"] = True
    return body if estimate.sequence is None else {**body, "sequence": [_finite(end) for end in estimate.sequence]}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
