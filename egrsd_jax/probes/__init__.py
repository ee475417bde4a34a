"""Probes of what training changes in completions besides their rewards: statistics, limits, alarms. No model and no
files."""
