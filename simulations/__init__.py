"""Invented users, so that the truth is known; and real ones, replayed. The service never sees this package."""
