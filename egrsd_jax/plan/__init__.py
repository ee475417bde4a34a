"""Whether a run fits a machine and what bounds it, from programs that are compiled for it and never run."""
