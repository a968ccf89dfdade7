"""What operators do to a running service."""
