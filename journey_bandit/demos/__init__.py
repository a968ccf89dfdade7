"""Demonstrations: the commands demo, stories and review show the system at work on made-up or public data."""
