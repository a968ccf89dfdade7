"""Intervals, confidence sequences, diagnostics and tests of assignment."""
