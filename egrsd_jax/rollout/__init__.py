"""Sampling rules and the loop that samples completions from the policy."""
