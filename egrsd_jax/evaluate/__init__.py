"""Accuracy and length of a policy on held-out problems, with their standard errors."""
