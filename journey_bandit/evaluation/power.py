"""Command `journey-bandit power`: how many people an A/B test needs, or which difference so many people find."""

from typing import Any

import click

from bandit.errors import InvalidRequest, Problem
from experiments.ab_tests.power import PowerPlan
from journey_bandit import console
from journey_bandit.evaluation import presentation
from journey_bandit.fractions import FRACTION, fraction


@click.command()
@click.option("--rate", type=FRACTION, help="Rate of the control, for yes or no, e.g. .05, 5% or 1/20.")
@click.option("--mean", type=float, help="Mean of the control, for amounts; for lifts in per cent.")
@click.option("--sd", type=float, help="Standard deviation of amounts among people.")
@click.option("--lift", help="Least difference to find: .01, or in per cent of the control: 20%.")
@click.option("--people", type=click.FloatRange(min=4), help="People in all arms: say what they find instead.")
@click.option("--arms", default=2, show_default=True, type=click.IntRange(min=2), help="With the control.")
@click.option("--share", type=FRACTION, help="Of the control.  [default: as each other arm]")
@click.option("--alpha", default=0.05, show_default=True, type=FRACTION, help="Chance of any false alarm, two-sided.")
@click.option("--power", default=0.8, show_default=True, type=FRACTION, help="Chance to find the difference.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def power(lift: str | None, people: float | None, as_json: bool, **given: Any) -> None:
    """Say how many people each arm needs to find a lift; with --people, the least lift that so many find; with both,
    the chance to find it.

    It is for one look at the end. Each arm is compared with the control.
    """
    if lift is None and people is None:
        raise click.UsageError("give --lift, the least difference that matters, or --people")
    plan = PowerPlan(**given)
    absolute = None if lift is None else _absolute(lift, plan)
    body: dict[str, Any] = {**given, "share": plan.control_share, "lift": absolute, "people": people}
    if people is None:
        control, arm = plan.per_arm(absolute or 0.0)
        body |= {"control": control, "arm": arm, "people": control + arm * (plan.arms - 1)}
        each = (
            f"{control:,} in each arm" if control == arm else f"{control:,} in the control, {arm:,} in each other arm"
        )
        said = f"{body['people']:,} people: {each}, to find a lift of {absolute:+g} with a chance of {plan.power:.0%}"
    elif absolute is None:
        body |= {"lift": plan.lift_for(people)}
        base = plan.mean if plan.rate is None else plan.rate
        relative = f" ({body['lift'] / base:+.3g} of the control)" if base else ""
        said = f"{people:,.0f} people find a lift of {body['lift']:+.4g}{relative} with a chance of {plan.power:.0%}"
    else:
        body |= {"power": plan.power_of(absolute, people)}
        said = f"{people:,.0f} people find a lift of {absolute:+g} with a chance of {body['power']:.1%}"
    if as_json:
        presentation.write(body)
        return
    console.out.print(said, soft_wrap=True)
    alone = f", {plan.each_alpha:.3g} for each of {plan.arms - 1}" if plan.arms > 2 else ""
    console.out.print(f"at one look, two-sided, α = {plan.alpha:g}{alone}", soft_wrap=True)


def _absolute(lift: str, plan: PowerPlan) -> float:
    """The lift in the unit of the outcome. Raises InvalidRequest if it is no number, or per cent of nothing."""
    value = fraction("lift", lift)
    if not lift.strip().endswith("%"):
        return value
    base = plan.mean if plan.rate is None else plan.rate
    if not base:
        raise InvalidRequest(Problem("lift", "nothing says what the per cent are of", "give --mean, above 0"))
    return value * base
