"""`python -m egrsd_jax COMMAND ...` is `egrsd COMMAND ...`."""

from egrsd_jax.cli.main import main

if __name__ == "__main__":
    main()
