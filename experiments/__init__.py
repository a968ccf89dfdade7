"""What happened, what would have happened, and how sure we are."""

JOURNEY_BANDIT = True
"""Tells this package from others of its name: see `journey_bandit.own_packages`."""
