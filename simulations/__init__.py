"""Simulations: invented users, so that the truth is known (offline and against a running service), and real ones,
replayed. The service and the policies never import this package; a test says so.
"""

JOURNEY_BANDIT = True
"""Tells this package from others of its name: see `journey_bandit.own_packages`."""
