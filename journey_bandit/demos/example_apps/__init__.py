"""Example apps of `journey-bandit try`: five pages with their backends, and the panel that shows what a service knows
and did.
"""
