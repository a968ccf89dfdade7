"""Real data whose outcomes are known, replayed."""
