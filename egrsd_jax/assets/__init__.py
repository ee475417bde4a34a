"""Files that ship with the package: the built-in model and its tokenizer."""
