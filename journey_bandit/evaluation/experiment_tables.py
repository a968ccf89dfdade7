"""Experiment tables: an A/B test as a person reads it: a sentence for each comparison, then what to look at twice, then
the differences, other intervals, and the means.
"""

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table

from experiments.ab_tests.analysis import ArmComparison, ArmSummary, ExperimentResult, OutcomeResult
from experiments.ab_tests.experiment_plan import NET
from experiments.inference.intervals import Interval
from experiments.inference.wording import bounds, in_words, number
from journey_bandit import console


def show(name: str, found: ExperimentResult) -> None:
    """Print the result of a test of the file `name` to standard output, what is in money first."""
    people = ", ".join(f"{arm} {n:,}" for arm, n in zip(found.arms, found.people, strict=True))
    _say(f"{name}: {people} people; control is {found.control}")
    for refusal in found.refused:
        _say(f"refused: {refusal.reason}: {refusal.detail}. Needed: {refusal.needed}")
    if found.forced:
        _say("FORCED: the table cannot answer; the numbers below must not be relied on")
    outcomes = in_order(found)
    for outcome in outcomes:
        for line in sentences(outcome, found):
            _say(line)
    for note in found.notes:
        _say(f"note: {note}")
    for outcome in outcomes:
        _show_outcome(outcome, found)
    if found.family > 1 and found.outcomes:
        corrected = "p of tables by Holm; p of sentences, intervals to quote and sequences by Bonferroni"
        _say(f"{found.family} comparisons are one family: {corrected}")


def in_order(found: ExperimentResult) -> list[OutcomeResult]:
    """The outcomes as they are shown: the one in money first."""
    return sorted(found.outcomes, key=lambda outcome: outcome.name != NET)


def sentences(outcome: OutcomeResult, found: ExperimentResult) -> Iterator[str]:
    """A plain sentence for each arm of an outcome less the control, with the interval to quote and the p that goes with
    it: by Bonferroni where there are several comparisons.
    """
    means, said = {arm.arm: arm for arm in outcome.arms}, ", adjusted" if adjusted(outcome) else ""
    control = means[found.control]
    for one in outcome.comparisons:
        low, high = quoted(one, found)
        says = "higher" if low > 0.0 else "lower" if high < 0.0 else ""
        verdict = f"{one.arm} is {says} than {found.control}" if says else "not distinguishable from no difference"
        scale, unit = (100.0, "points") if outcome.kind == "yes or no" else (1.0, "a person")
        unit = "in money a person" if outcome.name == NET else unit
        gap = in_words(Interval(one.difference, low, high, control.n), "+.3g", scale=scale, unit=unit)
        each = f"{_mean(outcome, means[one.arm])} in {one.arm}, {_mean(outcome, control)} in {found.control}{said}"
        yield f"{outcome.name}: {gap}, {verdict} (p {_p(min(found.family * one.p, 1.0))}): {each}"


def quoted(one: ArmComparison, found: ExperimentResult) -> tuple[float, float]:
    """The interval to quote: of this comparison where it is the only one, else the one that holds for all together."""
    return one.together if found.family > 1 else one.interval


def _show_outcome(outcome: OutcomeResult, found: ExperimentResult) -> None:
    level, many = f"{100 * found.level:g} %", found.family > 1
    console.out.rule(f"[bold]{escape(outcome.name)}")
    title = escape(f"Less {found.control}: {outcome.method}")
    quote, p = (f"{level}, all together: quote this", "p, Holm") if many else (f"{level}: quote this", "p")
    gaps = Table("arm", "less control", quote, p, "lift", f"{level}, alone", title=title, title_justify="left")
    others = Table("arm", f"{level}, alone", "at any time", "p, alone", title="Other intervals", title_justify="left")
    for one in outcome.comparisons:
        difference, ends = number(one.difference, "+.4g"), _bounds(quoted(one, found))
        gaps.add_row(escape(one.arm), difference, ends, _p(one.p_holm), *_lift_cells(one))
        sequence = _bounds(one.sequence) if one.sequence else "–"
        others.add_row(escape(one.arm), _bounds(one.interval), sequence, _p(one.p))
    console.out.print(gaps)
    console.out.print(others)
    for line in remarks(outcome, found):
        _say(line)
    mean, title = mean_heads(outcome)
    title = escape(title)
    arms = Table("arm", "people", mean, level, title=title, title_justify="left")
    for arm in outcome.arms:
        arms.add_row(escape(arm.arm), f"{arm.n:,}", number(arm.mean, ".5g"), _bounds(arm.interval, ".4g"))
    console.out.print(arms)


def remarks(outcome: OutcomeResult, found: ExperimentResult) -> Iterator[str]:
    """What is to be said below the differences of an outcome: how its sequence is made, why a lift is not known, and
    the difference without the covariates.
    """
    yield f"at any time: {outcome.sequence}"
    for one in outcome.comparisons:
        if one.no_lift:
            yield f"{one.arm}: {one.no_lift}"
        if one.plain:
            without = f"{number(one.plain[0], '+.4g')} {bounds(*one.plain[1:], '+.4g')}"
            yield f"{one.arm}: without the covariates {without} ({100 * found.level:g} %, alone)"


def mean_heads(outcome: OutcomeResult) -> tuple[str, str]:
    """Heads of the means of an outcome: of their column, and of their table."""
    if adjusted(outcome):
        return "mean, adjusted", f"Means: {outcome.kind}, adjusted by the covariates"
    return "mean", f"Means: {outcome.kind}"


def adjusted(outcome: OutcomeResult) -> bool:
    """Whether means and differences of an outcome are adjusted by covariates."""
    return any(one.plain for one in outcome.comparisons)


def _mean(outcome: OutcomeResult, arm: ArmSummary) -> str:
    return f"{number(100.0 * arm.mean, '.3g')} %" if outcome.kind == "yes or no" else number(arm.mean, ".4g")


def _say(text: str) -> None:
    """Print a line that may hold names of the file: none of it is markup."""
    console.out.print(text, soft_wrap=True, markup=False)


def _bounds(ends: tuple[float, float], digits: str = "+.4g") -> str:
    return escape(bounds(*ends, digits))


def _lift_cells(one: ArmComparison) -> tuple[str, str]:
    if one.lift is None or one.lift_interval is None:
        return "–", "–"
    low, high = (100.0 * end for end in one.lift_interval)
    return f"{number(100.0 * one.lift, '+.3g')} %", _bounds((low, high), "+.3g")


def _p(value: float) -> str:
    return "below 0.0001" if value < 0.0001 else number(value, ".2g")
