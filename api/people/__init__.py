"""People: what is known of a person is told, and erased."""
