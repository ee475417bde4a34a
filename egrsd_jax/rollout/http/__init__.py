"""Completions from a serving engine over HTTP: the engine, the servers and their dialects."""
