"""Real data whose outcomes are known, to be replayed: classification tables as bandits, and the Hillstrom e-mail
experiment.
"""
