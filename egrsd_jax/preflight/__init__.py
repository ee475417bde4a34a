"""What a run is worth before it is paid for: a few problems with and without the privilege, and a verdict per check."""
