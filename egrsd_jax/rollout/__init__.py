"""Sampling rules and the loop that draws completions from the policy."""
