"""Probes of what training does to completions beside their rewards: numbers, limits, alarms. No model and no files."""
