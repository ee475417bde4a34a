"""Files that ship with the package: the built-in models, each with its tokenizer."""
