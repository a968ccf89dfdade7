"""Worlds: one scenario under other assumptions about what nudges do, so that harm can be measured where they help less.

Each is a function of a scenario; people, features, base rate and random numbers stay, so runs with the same seed meet
the same people in every world. `WORLDS` names those that are compared.

    effects           what a nudge does to the logit of a reward, times a factor, at every stage
    constant_effects  the same number of logits for every nudge and everybody
    no_fatigue        nobody tires, nothing is dulled, nobody opts out or leaves
    strong_fatigue    people tire, opt out and leave
    no_delay          every reward comes at once

The coupon habit (harvesters lose logits from arms that are no coupon) and demand pulled forward are harms of another
kind, and stay as declared in every world. So do costs, and the delays of all worlds but `no_delay`: with effects of 0
a nudge whose rewards come earlier than no nudge's still has more of them within the window.
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from simulations.scenario import EffectDrift, FurtherStage, Novelty, Scenario
from simulations.scenario import times as slopes_times

ScenarioChange = Callable[[Scenario], Scenario]

AT_ONCE = 1e-6
"""Hours from a decision to its reward where every reward comes at once: 3.6 milliseconds, before any later visit."""

TIRES, OPT_OUT, LEAVES = 0.1, -3.5, 0.3
"""Strong fatigue. Logits that one past nudge takes from every arm; logits of opting out at the first nudge (a chance of
.029); share of those who leave the app. `dulls` and `keeps` stay as declared.
"""


class World(NamedTuple):
    """World of a comparison. `name`: for command lines; `title`: for tables; `change`: makes the scenario of this world
    from the declared one, which it leaves untouched.
    """

    name: str
    title: str
    change: ScenarioChange


def declared(scenario: Scenario) -> Scenario:
    """The scenario itself."""
    return scenario


def effects(scenario: Scenario, factor: float) -> Scenario:
    """Scenario with everything that a nudge does to the logit of a reward times `factor`, at every stage: effects and
    slopes, and the sd of their drift.

    A factor of 1 gives an equal scenario, 0 nudges that do nothing, −1 those that harm whom they helped. Novelty and
    dulling keep their shape: they are factors of the effect. A drift keeps its path where the factor is negative (its
    law is the same in both directions).
    """

    def times(logits: dict[str, float]) -> dict[str, float]:
        return {name: factor * value for name, value in logits.items()}

    replace = msgspec.structs.replace
    return replace(
        scenario,
        personas={
            name: replace(persona, effects=times(persona.effects)) for name, persona in scenario.personas.items()
        },
        slopes={nudge: slopes_times(own, factor) for nudge, own in scenario.slopes.items()},
        journey=_further(scenario, lambda logits: factor * logits, factor),
        drift=replace(scenario.drift, sd=abs(factor) * scenario.drift.sd),
    )


def constant_effects(scenario: Scenario, logits: float) -> Scenario:
    """Scenario in which every nudge adds exactly `logits` to the logit of a reward, for everybody, at every stage and
    on every day.

    So there are no slopes, no drift, no novelty and no dulling in it. People tire and opt out as declared.
    """
    replace = msgspec.structs.replace
    personas = {
        name: replace(persona, effects=dict.fromkeys(persona.effects, logits))
        for name, persona in scenario.personas.items()
    }
    return replace(
        scenario,
        personas=personas,
        slopes={},
        journey=_further(scenario, lambda _: logits, 0.0),
        drift=EffectDrift(),
        novelty=Novelty(),
        fatigue=replace(scenario.fatigue, dulls=0.0),
    )


def no_fatigue(scenario: Scenario) -> Scenario:
    """Scenario in which past nudges change nothing: nobody tires, no effect is dulled, nobody opts out or leaves."""
    never = msgspec.structs.replace(scenario.fatigue, tires=0.0, dulls=0.0, opt_out=-50.0, leaves=0.0)
    return msgspec.structs.replace(scenario, fatigue=never)


def strong_fatigue(scenario: Scenario) -> Scenario:
    """Scenario in which nudging costs most: `TIRES`, `OPT_OUT` and `LEAVES` in place of what it declares."""
    strong = msgspec.structs.replace(scenario.fatigue, tires=TIRES, opt_out=OPT_OUT, leaves=LEAVES)
    return msgspec.structs.replace(scenario, fatigue=strong)


def no_delay(scenario: Scenario) -> Scenario:
    """Scenario in which every reward comes `AT_ONCE` hours after its decision, at every stage."""
    replace = msgspec.structs.replace
    journey = {name: replace(leg, delay_hours=AT_ONCE) for name, leg in scenario.journey.items()}
    return replace(scenario, delay_hours=dict.fromkeys(scenario.delay_hours, AT_ONCE), journey=journey)


def _further(scenario: Scenario, change: Callable[[float], float], factor: float) -> dict[str, FurtherStage]:
    """The journey with every effect of its stages changed, and their slopes times `factor`."""
    return {
        name: msgspec.structs.replace(
            leg,
            effects={nudge: [change(value) for value in values] for nudge, values in leg.effects.items()},
            slopes={nudge: slopes_times(own, factor) for nudge, own in leg.slopes.items()},
        )
        for name, leg in scenario.journey.items()
    }


WORLDS = {
    world.name: world
    for world in (
        World("declared", "as declared, × 1", declared),
        World("x-1", "effects × −1", lambda scenario: effects(scenario, -1.0)),
        World("x0", "effects × 0", lambda scenario: effects(scenario, 0.0)),
        World("x0.5", "effects × 0.5", lambda scenario: effects(scenario, 0.5)),
        World("x2", "effects × 2", lambda scenario: effects(scenario, 2.0)),
        World("all-0.1", "every effect −0.1 logit", lambda scenario: constant_effects(scenario, -0.1)),
        World("all-0.4", "every effect −0.4 logit", lambda scenario: constant_effects(scenario, -0.4)),
        World("no-fatigue", "no fatigue", no_fatigue),
        World("strong-fatigue", "strong fatigue", strong_fatigue),
        World("no-delay", "rewards at once", no_delay),
    )
}
"""World by name. `declared` is also effects × 1, and the world with delays."""
