"""Exports over HTTP: a stage's decisions as `journey-bandit export` writes them, kept while they are sent."""
