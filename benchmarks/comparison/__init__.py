"""Comparison with other libraries: time of a decision, and regret on the same streams of people."""
