"""Simulations: invented users, so that the truth is known (offline and against a running service), and real ones,
replayed. The service and the policies never import this package; a test says so.
"""
