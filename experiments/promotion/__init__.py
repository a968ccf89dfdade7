"""Promotion: whether a policy may replace the one that is live (`verdict`), and what the live policy earns over the
holdout (`lift_monitor`).
"""
