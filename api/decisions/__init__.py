"""Decisions: from a request to a reply, for native calls, feature flags and rankings."""
