"""Makes a built-in model from nothing, with supervised steps on worked completions."""
