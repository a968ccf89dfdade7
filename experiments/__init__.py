"""Off-policy evaluation, inference, promotion and review of policies: what happened on a log, what another policy would
have earned there, and how sure each number is.

Arrays in, frozen values out. Nothing here reads a clock; only `experiments.mlflow` talks to a server.
"""

JOURNEY_BANDIT = True
"""Tells this package from others of its name: see `journey_bandit.own_packages`."""
