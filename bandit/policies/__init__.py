"""Policies: frozen hyperparameters that turn a belief into a posterior, and a posterior into probabilities.

One file for each policy; `AnyPolicy` is the union that a catalogue decodes by its `name`. `bandit.policies.protocol`
says what each one promises.
"""

from bandit.policies.beta import Beta
from bandit.policies.centred import Centred
from bandit.policies.fixed import Fixed
from bandit.policies.greedy import EpsilonGreedy, Greedy, LinUCB
from bandit.policies.hierarchical import Hierarchical, Logistic
from bandit.policies.linear import Linear
from bandit.policies.uniform import Uniform

AnyPolicy = Centred | Hierarchical | Logistic | Linear | Beta | EpsilonGreedy | LinUCB | Greedy | Uniform | Fixed

__all__ = [
    "AnyPolicy",
    "Beta",
    "Centred",
    "EpsilonGreedy",
    "Fixed",
    "Greedy",
    "Hierarchical",
    "LinUCB",
    "Linear",
    "Logistic",
    "Uniform",
]
