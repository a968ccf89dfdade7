"""Pages whose figures are made anew."""
