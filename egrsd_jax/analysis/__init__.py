"""What the update does token by token: completions scored under student and teacher, as numbers and plots."""
