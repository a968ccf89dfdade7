"""Commands for evaluation of logs."""
