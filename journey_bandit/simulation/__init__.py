"""Simulation commands: policies on simulated people or on data with known outcomes, and checks of scenarios."""
