"""Probabilities that each arm is drawn, and the draw."""
