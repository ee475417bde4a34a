"""The commands, one module each: arguments to settings to one call. Only `main` finds and runs them."""
