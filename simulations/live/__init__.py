"""Simulated and replayed people against a running service, over its HTTP API: `client`, `driver`, `visitors`,
`replay`.
"""
