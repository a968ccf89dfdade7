"""Policies: frozen hyperparameters that turn a belief into a posterior, and a posterior into probabilities.

One file for each policy; `AnyPolicy` is the union that a catalogue decodes by its `name`.
"""

from bandit.policies.beta import Beta
from bandit.policies.fixed import Fixed
from bandit.policies.hierarchical import Hierarchical, Logistic
from bandit.policies.linear import Linear
from bandit.policies.uniform import Uniform

AnyPolicy = Hierarchical | Logistic | Linear | Beta | Uniform | Fixed

__all__ = ["AnyPolicy", "Beta", "Fixed", "Hierarchical", "Linear", "Logistic", "Uniform"]
