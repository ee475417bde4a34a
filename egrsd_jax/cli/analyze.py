"""Shows what the update does token by token, in numbers and plots.

Of a run's folder it takes the completions that training recorded. For new ones it takes a model, by default the
built-in one, or with --run a run's checkpoint, and then every option of training, which set what is sampled and how it
is weighted.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from egrsd_jax.analysis.settings import Settings
from egrsd_jax.cli.options import settings_parser
from egrsd_jax.command_line import OneLineParser, exit_for, exit_with, load_config, parse_config
from egrsd_jax.compilation import keep_programs
from egrsd_jax.config import Config
from egrsd_jax.data.tasks.registry import MODELLED_TASKS
from egrsd_jax.presets import training_file

FOR_OTHER_MODELS = "qwen3_4b_egrsd"  # the preset whose sampling and method a model without one of its own gets


def main(argv: Sequence[str], program: str) -> None:
    """Arguments to settings and configuration to one call."""
    own, rest = _own_options(program).parse_known_args(_with_values(argv))
    given = vars(own)
    for name in ("model", "data"):
        if name in given:
            rest.append(f"--{name}.path={given.pop(name)}")
    if "checkpoint_of" in given:
        if given["run"] is not None:
            exit_with(program, "give a run's folder alone for what it recorded, or as --run for new completions")
        given |= {"run": given.pop("checkpoint_of"), "draw": True}
    base = given.pop("base", None)
    if base is not None and given["run"] is None:
        exit_with(program, "--base says where a run's model is now, and there is no run; a model is given as --model")
    try:
        settings = Settings(**given)
        config = _config(settings, rest, program)
        if base is not None:
            config = replace(config, model=replace(config.model, path=base))
        from egrsd_jax.analysis.write import write_analysis  # imported late: --help and mistakes need no jax
        from egrsd_jax.verify.process import WorkerCannotStart

        try:
            print(keep_programs(config.run.compilation_cache), file=sys.stderr)
            write_analysis(settings, config)
        except WorkerCannotStart as error:
            exit_with(program, str(error))
    except (ValueError, OSError) as error:
        exit_for(program, error)


def _config(settings: Settings, options: list[str], program: str) -> Config:
    """The run's own configuration, changed by options where new completions are sampled; or that of a model."""
    if settings.run is None:
        models = [option.partition("=")[2] for option in options if option.startswith("--model.path=")]
        model = models[-1] if models else "arithmetic"
        default = training_file(model if model in MODELLED_TASKS else FOR_OTHER_MODELS)
        return parse_config(options, program=program, description=__doc__, default=default)
    file = settings.run / "config.yaml"
    if not file.is_file():
        raise FileNotFoundError(f"{settings.run} is not a run's folder: it has no config.yaml, which training writes")
    if not settings.draw:
        changing = [option for option in options if not option.startswith("--probes.")]
        if changing:
            raise ValueError(
                f"{changing[0]} would change what the run recorded; give the run as --run for new completions"
            )
        if not options:
            return load_config(file)
    return parse_config(["--config", str(file), *options], program=program, description=__doc__, default=file)


def _with_values(arguments: Sequence[str]) -> list[str]:
    """Every option of training in one piece with its value, which argparse would take for the run's folder."""
    joined: list[str] = []
    for argument in arguments:
        before = joined[-1] if joined else ""
        is_open = before.startswith("--") and "=" not in before and ("." in before or before in ("--seed", "--config"))
        if is_open and not argument.startswith("--"):
            joined[-1] = f"{before}={argument}"
        else:
            joined.append(argument)
    return joined


def _own_options(program: str) -> OneLineParser:
    parser = settings_parser(program, __doc__)
    what = parser.add_argument_group("what is analyzed")
    what.add_argument(
        "run", type=Path, nargs="?", default=None, metavar="RUN_FOLDER", help="completions and scores that it recorded"
    )
    what.add_argument("--step", type=int, help="of which step; by default the newest that has a checkpoint")
    what.add_argument("--base", metavar="FOLDER", help="where the run's model is now, if it was moved")
    what.add_argument("--logged_only", action="store_true", help="logged scores alone: no model is run")
    new = parser.add_argument_group("or new completions, with every option of training")
    new.add_argument("--model", help="as --model.path: a folder, a hub repository, or arithmetic, the built-in model")
    new.add_argument("--adapter", type=Path, metavar="FOLDER", help="a PEFT adapter on top of the model")
    new.add_argument(
        "--run", dest="checkpoint_of", type=Path, metavar="FOLDER", help="a run's checkpoint; --step another"
    )
    new.add_argument("--data", help="as --data.path: problems with references; --data.solution COLUMN and so on")
    new.add_argument("--completions", type=int, help="how many, one per problem; 64")
    how = parser.add_argument_group("how")
    how.add_argument("--gamma", type=float, help="of the gate, in place of the method's")
    how.add_argument("--window", type=int, help="of the lookahead, tokens; the method's, or 5 where it has none")
    how.add_argument("--top", type=int, help="likeliest tokens kept at every position, of student and teacher; 5")
    how.add_argument("--show", type=int, metavar="ROW", help="which completion of scored.jsonl is plotted, from 0")
    how.add_argument("--to", type=Path, metavar="FOLDER", help="RUN_FOLDER/analysis, or runs/analysis-MODEL")
    return parser
