"""Makes a built-in model from nothing, in minutes."""

from collections.abc import Sequence
from pathlib import Path

from egrsd_jax.command_line import SettingsParser, exit_for, exit_with
from egrsd_jax.compilation import CompilationNotices, keep_programs, listening
from egrsd_jax.warmup.settings import WarmupSettings


def main(argv: Sequence[str], program: str) -> None:
    """Arguments to settings to one call."""
    parser = SettingsParser(program, __doc__, WarmupSettings, usage="--folder DIR [--FIELD VALUE ...]")
    parser.add_argument("--folder", type=Path, required=True, help="where the model's folder is written")
    try:
        fields = vars(parser.parse_args([*argv]))
        folder = fields.pop("folder")
        settings = WarmupSettings(**fields)
    except ValueError as error:
        exit_with(program, str(error))
    from egrsd_jax.warmup.run import warm_up  # imported late: --help and mistakes need no jax

    def say(line: str) -> None:
        print(line, flush=True)

    try:
        say(keep_programs())
        with listening(CompilationNotices(say)):
            warm_up(settings, folder, say=say)
    except (RuntimeError, ValueError, OSError) as error:
        exit_for(program, error)
