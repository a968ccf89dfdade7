"""SQL stores: what SQLite and PostgreSQL have in common, which is all of the statements and tables."""
