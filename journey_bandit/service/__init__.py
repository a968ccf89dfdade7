"""Service commands: serve, keys, webhooks, catalogue, backup and restore, warm start, and proofs from the ledger."""
