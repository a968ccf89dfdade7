"""Whether estimates and intervals keep their promises."""
