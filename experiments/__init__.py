"""What happened, what would have happened, and how sure we are."""
