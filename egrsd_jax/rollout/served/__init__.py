"""A run's completions from servers: weights given to them version by version, completions sampled with one version."""
