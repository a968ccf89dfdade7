"""Releases: approved policies that the service serves in place of what it learns."""
