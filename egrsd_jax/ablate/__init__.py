"""A grid of training runs: its file, its cells, who is working on which, and the processes that run them."""
