"""Exports: the decisions of a stage of a ledger as a folder of Parquet files, begun and continued."""
