"""Scenarios as data, one TOML file for each app."""
