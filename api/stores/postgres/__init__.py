"""PostgreSQL store: a ledger in a database that several machines reach."""
