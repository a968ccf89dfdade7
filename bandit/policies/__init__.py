"""Policies: frozen hyperparameters that turn a belief into a posterior, and a posterior into probabilities.

`AnyPolicy` is the union that a catalogue decodes by its `name`; `protocol` says what each one promises.

Policies: `hierarchical` (Hierarchical, Logistic), `linear` (Linear), `beta` (Beta), `greedy` (Greedy, EpsilonGreedy,
LinUCB), `uniform` (Uniform), `fixed` (Fixed). Forms of them for other stages: `gaussian` and `hurdle` for rewards that
are numbers or amounts, `shared` for actions that come with each request. Helpers: `hierarchy`, `assumed_density` and
`quadratic_forms` compute posteriors, `registry` finds policies by tag, those of installed packages too.

A built-in policy is named here, in `registry` (its tag), in `catalogue.checks` where it cannot serve every stage, and
in the contract `tests/bandit/policies/test_policy_contract.py`.
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
