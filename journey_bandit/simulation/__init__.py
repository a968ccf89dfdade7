"""Commands for simulation."""
