"""Completions of a user's own prompts: streamed to the terminal, or of a whole file into another."""
