"""Commands that show the system at work: demo, stories, review."""
