"""SQLite store: a ledger in one file, with its tables, migrations and backups."""
