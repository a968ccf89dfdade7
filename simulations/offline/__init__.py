"""Offline simulation, without a service: runs (`runner`), many runs (`study`, `parallel`), their sums (`run_summary`)
and logs (`parquet_log`, `log_files`, `segment_events`).
"""
