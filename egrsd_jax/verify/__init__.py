"""Answers: how they are extracted from a completion and how they are graded. Imports no jax."""
