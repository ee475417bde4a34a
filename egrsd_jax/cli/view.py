"""Shows completions token by token in one HTML file."""

import os
from collections.abc import Sequence
from pathlib import Path

from egrsd_jax.command_line import OneLineParser, exit_for


def main(argv: Sequence[str], program: str) -> None:
    """Arguments to one call."""
    parser = OneLineParser(prog=program, description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "source", type=Path, metavar="SCORED_OR_RUN", help="a scored.jsonl, or the folder of a training run"
    )
    parser.add_argument(
        "--to", type=Path, metavar="FILE", help="by default viewer.html in the run's folder, or next to the file"
    )
    parser.add_argument("--base", metavar="FOLDER", help="where the run's model is now, if it was moved")
    parser.add_argument("--step", type=int, help="the completions of this step alone; by default all")
    parser.add_argument(
        "--lookahead",
        action="store_true",
        help="token advantage with the gate of CL-EGRSD; of a run's folder it is read from its configuration",
    )
    arguments = parser.parse_args(argv)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # quantiles of a few numbers: no accelerator has to be free for it
    from egrsd_jax.viewer.page import viewer_html  # imported late: --help needs none of it
    from egrsd_jax.viewer.rows import read_completions

    source: Path = arguments.source
    to = arguments.to or (source / "viewer.html" if source.is_dir() else source.with_suffix(".html"))
    try:
        completions = read_completions(source, step=arguments.step, lookahead=arguments.lookahead, base=arguments.base)
        page = viewer_html(completions.rows, title=completions.title, lookahead=completions.lookahead)
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(page, encoding="utf-8")
    except (ValueError, OSError) as error:
        exit_for(program, error)
    tokens = sum(len(row["tokens"]) for row in completions.rows)
    count, megabytes = len(completions.rows), len(page) / 1e6
    print(f"{to}: {count:,} completions, {tokens:,} tokens, {megabytes:,.1f} MB; open it in a browser")
