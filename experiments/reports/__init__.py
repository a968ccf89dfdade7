"""Reports: reviews, comparisons, figures, pages."""
