"""Decisions: from a request to a reply, for native calls, feature flags and rankings. `maker` decides and reserves,
`writer` makes it durable, `service`, `flags` and `ranking` translate three protocols' questions.
"""
