"""Commands for operators of a running service."""
