"""The checks of a preflight: of its completions, of the chat template, and of the scores."""
