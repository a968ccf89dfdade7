"""Sensitivity: what if an assumption is wrong? Knobs that turn one parameter of a scenario, and a box of all of them.

A knob has a low and a high end. `swings` turns one at a time: the scenarios of a tornado plot. `box` draws every knob
at once, uniformly between its ends: a claim about policies must hold over the whole box, not at one setting.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np

from simulations.scenario import Scenario, times

Turn = Callable[[Scenario, float], Scenario]


class ScenarioKnob(NamedTuple):
    """A knob: `turn(scenario, value)` returns the scenario with one parameter changed, for values from `low` to `high`;
    `unit` says what the values are ("×" is a factor of the scenario's own).
    """

    name: str
    low: float
    high: float
    unit: str
    turn: Turn


class KnobSwing(NamedTuple):
    """The scenarios with one knob at its low and its high end. The knob traffic leaves the scenario as it is: its ends
    are factors of the run's users, which the caller applies.
    """

    knob: ScenarioKnob
    low: Scenario
    high: Scenario


def _with(scenario: Scenario, part: str, **fields: Any) -> Scenario:
    inner = msgspec.structs.replace(getattr(scenario, part), **fields)
    return msgspec.structs.replace(scenario, **{part: inner})


def _effects(scenario: Scenario, factor: float) -> Scenario:
    personas = {
        name: msgspec.structs.replace(p, effects={arm: factor * e for arm, e in p.effects.items()})
        for name, p in scenario.personas.items()
    }
    slopes = {arm: times(own, factor) for arm, own in scenario.slopes.items()}
    return msgspec.structs.replace(scenario, personas=personas, slopes=slopes)


def _delay(scenario: Scenario, factor: float) -> Scenario:
    hours = {arm: factor * h for arm, h in scenario.delay_hours.items()}
    return msgspec.structs.replace(scenario, delay_hours=hours)


def _fatigue(scenario: Scenario, factor: float) -> Scenario:
    own = scenario.fatigue
    return _with(scenario, "fatigue", tires=factor * own.tires, dulls=factor * own.dulls)


def _opt_out(scenario: Scenario, logits: float) -> Scenario:
    return _with(scenario, "fatigue", opt_out=scenario.fatigue.opt_out + logits)


def _drift(scenario: Scenario, sd: float) -> Scenario:
    return _with(scenario, "drift", kind="redraw" if sd > 0.0 else "none", sd=sd, day=10.0)


def _base(scenario: Scenario, factor: float) -> Scenario:
    return msgspec.structs.replace(scenario, base=min(factor * scenario.base, 0.95))


def _intent(scenario: Scenario, factor: float) -> Scenario:
    personas = {n: msgspec.structs.replace(p, intent=factor * p.intent) for n, p in scenario.personas.items()}
    return msgspec.structs.replace(scenario, personas=personas)


def _field(name: str) -> Turn:
    def turn(scenario: Scenario, value: float) -> Scenario:
        return msgspec.structs.replace(scenario, **{name: value})

    return turn


TRAFFIC = "traffic"
KNOBS = (
    ScenarioKnob("effect size", 0.5, 1.5, "×", _effects),
    ScenarioKnob("base rate", 0.7, 1.3, "×", _base),
    ScenarioKnob("delay", 0.5, 3.0, "×", _delay),
    ScenarioKnob("drift", 0.0, 0.3, "logits, all effects redrawn on day 10", _drift),
    ScenarioKnob("fatigue", 0.0, 5.0, "×", _fatigue),
    ScenarioKnob("opt-out", -2.0, 1.0, "logits", _opt_out),
    ScenarioKnob("personas apart", 0.5, 1.5, "×", _intent),
    ScenarioKnob("user effect", 0.0, 1.0, "logits", _field("user_sd")),
    ScenarioKnob("correlation", 0.0, 0.6, "", _field("correlation")),
    ScenarioKnob(TRAFFIC, 0.25, 4.0, "× users", lambda scenario, _: scenario),
)


def swings(scenario: Scenario) -> list[KnobSwing]:
    """A swing of each of `KNOBS`, the others where the scenario has them."""
    return [KnobSwing(knob, knob.turn(scenario, knob.low), knob.turn(scenario, knob.high)) for knob in KNOBS]


def box(scenario: Scenario, number: int, seed: int = 0) -> Scenario:
    """Draw `number` from the box of all knobs but traffic: a scenario with every parameter uniform between its ends, a
    function of (seed, number).
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
    for knob in KNOBS:
        scenario = knob.turn(scenario, float(rng.uniform(knob.low, knob.high)))
    return scenario


def kendall(left: list[float], right: list[float]) -> float:
    """Kendall's τ in [−1, 1] of two rankings of the same policies, given as scores without ties."""
    a, b = np.array(left), np.array(right)
    upper = np.triu_indices(len(a), 1)
    agree = np.sign(a[upper[0]] - a[upper[1]]) * np.sign(b[upper[0]] - b[upper[1]])
    return float(agree.mean())
