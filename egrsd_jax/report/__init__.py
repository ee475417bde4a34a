"""Reports for people: plots and tables."""
