"""Rows of a SQL ledger: records to rows and back, table by table, within a transaction that the caller holds."""
