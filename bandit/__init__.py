"""The core: pure functions and immutable values. No I/O, no clock, no random generator of its own."""

JOURNEY_BANDIT = True
"""Tells this package from others of its name: see `journey_bandit.own_packages`."""
