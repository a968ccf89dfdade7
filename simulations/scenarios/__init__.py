"""Scenarios as data, one TOML file for each app; read by `simulations.scenario.load`."""
