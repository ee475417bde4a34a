"""Training: state, optimizer, the jitted step, the loop around it, and its checkpoints."""
