"""Command line and YAML to a Config, and mistakes in either to one line on the terminal and exit code 2."""

import argparse
import dataclasses
import difflib
import functools
import re
import sys
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from egrsd_jax.config import Config
from egrsd_jax.presets import DEFAULT, training_file

EXIT_BAD_INPUT = 2
_BAD_VALUE = re.compile(r'Parser key "(?P<field>[\w.]+)".*?(?:Given value|Got value): (?P<value>[^\n]*)\Z', re.DOTALL)


def parse_config(
    argv: Sequence[str], *, program: str, description: str | None, default: str | Path = DEFAULT
) -> Config:
    """The Config that `--config` and the options after it describe; without `--config` the one of `default`.

    A configuration is given as a file or as the name of a preset. Later options win over earlier ones. Anything unknown
    or of a wrong type ends the program with one line that names it and how to fix it, and exit code 2.
    """
    try:
        argv, default = _with_files(argv), training_file(default)
        has_config = any(argument.startswith("--config=") for argument in argv)
        parser = ConfigParser(program, description, default)
        return parser.config(argv if has_config else [f"--config={default}", *argv])
    except ValueError as error:
        exit_with(program, str(error))


def load_config(file: Path) -> Config:
    """The Config that a run wrote to its config.yaml. Raises ValueError that names the file and what is wrong in it."""
    parser = _plain_parser()
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no fields")
        parsed = parser.parse_object(content)
        return Config(**parser.instantiate(parsed))
    except (yaml.YAMLError, ArgumentError, ValueError, TypeError) as error:
        raise ValueError(f"{file} is not a run's configuration: {' '.join(str(error).split())}") from None


def _with_files(argv: Sequence[str]) -> list[str]:
    """The arguments with `--config NAME` as `--config=FILE`. Raises ValueError where there is neither."""
    given, arguments = list(argv), []
    while given:
        argument = given.pop(0)
        if argument == "--config":
            if not given:
                raise ValueError("--config has no value; give a file or the name of a preset")
            argument = f"--config={given.pop(0)}"
        name, equals, value = argument.partition("=")
        if name == "--config" and equals:
            try:
                argument = f"--config={training_file(value)}"
            except ValueError as error:
                raise ValueError(f"--config {error}") from None
        arguments.append(argument)
    return arguments


def field_types() -> dict[str, Any]:
    """Every field of a Config by its dotted name -> its type."""
    return _field_types(Config)


def nearest(name: str, options: set[str], prefix: str = "") -> str:
    """Which option was perhaps meant: one that ends in the same field before one that only looks like it."""
    last = name.rpartition(".")[2]
    same_field = sorted(option for option in options if option.rpartition(".")[2] == last)
    likely = same_field or difflib.get_close_matches(name, sorted(options), n=1)
    return f"the nearest is {prefix}{likely[0]}" if likely else "--help lists them all"


def exit_with(program: str, message: str) -> NoReturn:
    """Ends the program over something that its user can put right."""
    print(f"{program}: error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(EXIT_BAD_INPUT)


class OneLineParser(argparse.ArgumentParser):
    """argparse's parser of a command's own options, with errors of one line."""

    def error(self, message: str) -> NoReturn:
        """Exit code 2 and one line on stderr."""
        exit_with(self.prog, message)


class SettingsParser(ArgumentParser):
    """jsonargparse's parser of a settings type, with errors of one line that say what a field takes."""

    def __init__(self, program: str, description: str | None, settings: type, usage: str = "--FIELD VALUE ..."):
        super().__init__(prog=program, description=description, usage=f"{program} [{usage}]")
        self._fields = _field_types(settings)
        self.add_class_arguments(settings, as_group=False)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # noqa: ARG002
        """Raises ValueError of one line."""
        if (bad := _BAD_VALUE.search(message)) and bad["field"] in self._fields:
            message = f"{bad['field']}: {bad['value']!r} is not {_wanted(self._fields[bad['field']])}"
        raise ValueError(message)


class ConfigParser(SettingsParser):
    """The parser of a Config and of the YAML files that fill it."""

    def __init__(self, program: str, description: str | None, default: Path):
        super().__init__(program, description, Config, usage="--config FILE_OR_PRESET] [--FIELD VALUE ...")
        self.add_argument(
            "--config",
            action="config",
            help=f"YAML file with any of the fields below, or a preset's name; {default.name} is the default",
        )

    def config(self, argv: Sequence[str]) -> Config:
        """The Config of some arguments. Raises ValueError that names what is wrong and how to fix it."""
        _check_names(argv, self._fields)
        parsed = self.parse_args([*argv]).clone(with_meta=False)
        del parsed["config"]
        return Config(**self.instantiate(parsed))


@functools.cache
def _plain_parser() -> ArgumentParser:
    """For whole files: a report reads a hundred, and making the parser costs more than using it."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Config, as_group=False)
    return parser


def _check_names(arguments: Sequence[str], fields: dict[str, Any]) -> None:
    """Raises ValueError over a name that no field has, on the command line or in a YAML file."""
    options = {*fields, *_sections(fields), "config", "help"}
    for index, argument in enumerate(arguments):
        name, _, value = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and name not in options:
            raise ValueError(f"there is no option --{name}; {nearest(name, options, '--')}")
        value = value or "".join(arguments[index + 1 : index + 2])
        if argument.startswith("--") and name == "config" and value:
            for key in _keys_of(Path(value)):
                if key not in options:
                    raise ValueError(f"{value}: there is no field {key}; {nearest(key, options)}")


def _keys_of(file: Path) -> list[str]:
    """The dotted names of all fields in a YAML file."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no fields; it is a YAML mapping such as 'train: {{steps: 100}}'")
    return _dotted(content)


def _dotted(content: dict[Any, Any], prefix: str = "") -> list[str]:
    names = []
    for key, value in content.items():
        names += _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [f"{prefix}{key}"]
    return names


def _field_types(cls: type, prefix: str = "") -> dict[str, Any]:
    """Every field's dotted name -> its type."""
    found: dict[str, Any] = {}
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        nested = isinstance(kind, type) and dataclasses.is_dataclass(kind)
        found |= _field_types(kind, f"{prefix}{field.name}.") if nested else {f"{prefix}{field.name}": kind}
    return found


def _sections(fields: dict[str, Any]) -> set[str]:
    return {name.partition(".")[0] for name in fields if "." in name}


def _wanted(kind: Any) -> str:
    """What a field takes, in words."""
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(_wanted(part) for part in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return "a list of texts"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    return words[kind]
