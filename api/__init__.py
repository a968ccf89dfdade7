"""The HTTP service: decode, call the engine, save, encode."""

JOURNEY_BANDIT = True
"""Tells this package from others of its name: see `journey_bandit.own_packages`."""
