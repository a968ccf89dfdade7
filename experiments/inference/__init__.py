"""Statistical inference on logs: intervals at a fixed sample size, confidence sequences for any time, effects by
segment, diagnostics with reasons to refuse, and tests of assignment.
"""
