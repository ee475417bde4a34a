"""Shows completions token by token in one HTML file: `python launch/view.py SCORED_OR_RUN [--to FILE]`."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the checkout that this file stands in, installed or not
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # quantiles of a few numbers: no accelerator has to be free for it

from egrsd_jax.command_line import OneLineParser, exit_with  # noqa: E402

PROGRAM = "view.py"


def main() -> None:
    """Arguments to one call."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "source", type=Path, metavar="SCORED_OR_RUN", help="a scored.jsonl, or the folder that launch/train.py left"
    )
    parser.add_argument(
        "--to", type=Path, metavar="FILE", help="by default viewer.html in the run's folder, or beside the file"
    )
    parser.add_argument("--step", type=int, help="the completions of this step alone; by default all")
    parser.add_argument(
        "--lookahead",
        action="store_true",
        help="token advantage with the gate of CL-EGRSD; a run's folder says itself which it has",
    )
    arguments = parser.parse_args()
    from egrsd_jax.viewer.page import viewer_html
    from egrsd_jax.viewer.rows import read_completions  # imported late: --help needs none of it

    source: Path = arguments.source
    to = arguments.to or (source / "viewer.html" if source.is_dir() else source.with_suffix(".html"))
    try:
        found = read_completions(source, step=arguments.step, lookahead=arguments.lookahead)
        page = viewer_html(found.rows, title=found.title, lookahead=found.lookahead)
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(page, encoding="utf-8")
    except (ValueError, OSError) as error:
        exit_with(PROGRAM, str(error))
    tokens = sum(len(row["tokens"]) for row in found.rows)
    print(f"{to}: {len(found.rows):,} completions, {tokens:,} tokens, {len(page) / 1e6:,.1f} MB; open it in a browser")


if __name__ == "__main__":
    main()
