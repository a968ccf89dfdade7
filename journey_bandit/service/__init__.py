"""Commands for a service: serve, keys, backup, proofs."""
