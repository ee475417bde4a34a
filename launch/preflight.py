"""`egrsd preflight` of this checkout, installed or not: `python launch/preflight.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from egrsd_jax.cli.main import main

if __name__ == "__main__":
    main(["preflight", *sys.argv[1:]], program="preflight.py")
