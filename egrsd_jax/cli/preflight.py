"""Says what a run is worth before it is paid for, in minutes.

Samples the run's first problems with the privilege and without it, scores the student's completions as training would,
and checks prompts, templates and noise: one line per check, go, look or stop, each with its reason. Takes every option
of training, and: --problems N (64), --samples K (completions of each under either prompt; 4), --privileged_cap N
(tokens of a completion with the privilege at most; rollout.max_new_tokens), --strict (a look ends as a stop does),
--to FILE (the table as JSON; RUN_DIR/preflight-NAME.json). Exit code 0: go, or look; 1: stop, or look with --strict;
2: a mistake in the options.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from egrsd_jax.command_line import OneLineParser, exit_for, exit_with, parse_config
from egrsd_jax.compilation import keep_programs
from egrsd_jax.preflight.settings import Settings

STOPPED = 1


def main(argv: Sequence[str], program: str) -> None:
    """Arguments to settings and configuration to one call, and the verdict as exit code."""
    own, rest = _own_options(program).parse_known_args(argv)
    try:
        settings = Settings(**vars(own))
    except ValueError as error:
        exit_with(program, str(error))
    config = parse_config(rest, program=program, description=__doc__)
    try:
        settings.check_advantage(config.reward.advantage)
    except ValueError as error:
        exit_with(program, str(error))
    from egrsd_jax.preflight.write import write_preflight  # imported late: --help and mistakes need no jax
    from egrsd_jax.verify.process import WorkerCannotStart

    try:
        print(keep_programs(config.run.compilation_cache), file=sys.stderr)
        verdict = write_preflight(settings, config)
    except (ValueError, OSError, WorkerCannotStart) as error:
        exit_for(program, error)
    if verdict == "stop" or (settings.strict and verdict == "look"):
        raise SystemExit(STOPPED)


def _own_options(program: str) -> OneLineParser:
    """Without --help, which is the training parser's; only what is given, since `Settings` has the defaults."""
    parser = OneLineParser(prog=program, add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    parser.add_argument("--problems", type=int)
    parser.add_argument("--samples", type=int)
    parser.add_argument("--privileged_cap", type=int)
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--to", type=Path)
    return parser
