"""Invented users, so that the truth is known; and real ones, replayed. The service never sees this package."""

JOURNEY_BANDIT = True
"""Tells this package from others of its name: see `journey_bandit.own_packages`."""
