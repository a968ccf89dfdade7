"""What operators do to a running app, and what follows from it for decisions."""
