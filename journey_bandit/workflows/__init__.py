"""Workflows: steps that several commands share, from a ledger to evidence, verdict and a published version."""
