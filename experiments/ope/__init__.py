"""Off-policy evaluation: evaluation policies (what to evaluate), estimators and reward models (how), and one pass over
a log that merges (`accumulate`, `evaluate`).
"""
