"""Simulation without a service: runs, studies, logs."""
