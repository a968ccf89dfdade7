"""Command line of Journey Bandit: the only package that may import all others. Each command imports what it needs when
it runs.
"""
