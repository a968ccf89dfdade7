"""Off-policy evaluation: evaluation policies, estimators, reward models."""
