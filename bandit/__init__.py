"""Core of Journey Bandit: pure functions and immutable values. No I/O, no clock, no random generator of its own: `now`,
keys and arrays are arguments.
"""

JOURNEY_BANDIT = True
"""Tells this package from others of its name: see `journey_bandit.own_packages`."""
