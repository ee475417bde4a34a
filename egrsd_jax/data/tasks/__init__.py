"""The built-in tasks: problems, references and answers that need no files."""
