"""Releases: approved policies that the service serves."""
