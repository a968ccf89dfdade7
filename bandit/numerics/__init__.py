"""Numerics: arithmetic whose bits are the same on every processor, in any order of summation."""
