"""Logged rounds as arrays (`rounds`), and the readers of files that hold them: text tables and Parquet (`files`,
`column_types`, `rounding`), and the Open Bandit Dataset (`obd`).
"""
