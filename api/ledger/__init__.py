"""Derived state of a ledger and proofs from it: statistics of stages, warm starts, receipts, candidate snapshots, and
the claim that a ledger belongs to an app.
"""
