"""Report pages: pages of the documentation whose figures are made anew by their commands."""
