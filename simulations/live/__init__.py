"""Simulated people against a running service."""
