"""Evaluation: commands that estimate from logs what policies earn, and monitor what a live stage earns."""
