"""Simulation in a notebook: people and policies in plain Python, compared with no nudge on the same people.

from journey_bandit.comparison import EnvironmentVisits, compare, paired
"""

from simulations.contenders.environment import Environment, EnvironmentVisits
from simulations.contenders.own_code import Rule
from simulations.contenders.protocol import Contender, DecisionStage
from simulations.offline.paired import PairedRuns, paired
from simulations.offline.study import compare

__all__ = [
    "Contender",
    "DecisionStage",
    "Environment",
    "EnvironmentVisits",
    "PairedRuns",
    "Rule",
    "compare",
    "paired",
]
