"""Logged rounds, and files that hold them."""
