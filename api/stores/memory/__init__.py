"""Memory store: a ledger in dicts and lists, for tests and trials. It ends with the process."""
