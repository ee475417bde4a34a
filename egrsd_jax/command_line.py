"""Command line and YAML to a Config, and mistakes in either to one line on the terminal and exit code 2."""

import argparse
import dataclasses
import difflib
import errno
import functools
import re
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from egrsd_jax.config import Config
from egrsd_jax.objective.method_table import explanation, published_values
from egrsd_jax.objective.methods import METHODS, method_settings
from egrsd_jax.presets import DEFAULT, training_file

EXIT_FAILED, EXIT_BAD_INPUT = 1, 2
# What to do about a disk, by the system's error; `GONE` only of a file that was being written.
DISK = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room, and the same command resumes"),
    errno.EFBIG: "raise the limit of a file's size (ulimit -f), and the same command resumes",
    errno.EROFS: "make it writable, and the same command resumes",
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENODEV), "bring the disk back, and the same command resumes"),
}
GONE = {
    **dict.fromkeys((errno.EACCES, errno.EPERM), "make it writable, and the same command resumes"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR), "bring the folder back, and the same command resumes"),
}
# Fields that had another name in earlier versions. Run folders, grids, YAML files and options that have it still work.
OLD_FIELDS = {"rollout.slots": "rollout.max_rows"}
_BAD_VALUE = re.compile(r'Parser key "(?P<field>[\w.]+)".*?(?:Given value|Got value): (?P<value>[^\n]*)\Z', re.DOTALL)


def parse_config(
    argv: Sequence[str], *, program: str, description: str | None, default: str | Path = DEFAULT
) -> Config:
    """The Config that `--config` and the options after it describe; without `--config` the one of `default`.

    A configuration is given as a file or as the name of a preset. Later options win over earlier ones. Anything unknown
    or of a wrong type ends the program with one line that names it and how to fix it, and exit code 2.
    """
    has_config = any(argument.partition("=")[0] == "--config" for argument in argv)
    try:
        default = training_file(default)
        parser = ConfigParser(program, description, default)
        return parser.config(argv if has_config else [f"--config={default}", *argv])
    except ValueError as error:
        exit_with(program, str(error))


def load_config(file: Path) -> Config:
    """The Config that a run wrote to its config.yaml. Raises ValueError that names the file and what is wrong in it."""
    content = read_yaml(file)
    try:
        if not isinstance(content, dict):
            raise ValueError("it holds no fields")
        return _config(_plain_parser().parse_object(_checked_fields(content, field_types())))
    except (ArgumentError, ValueError, TypeError) as error:
        raise ValueError(f"{file} is not a run's configuration: {' '.join(str(error).split())}") from None


def read_yaml(file: Path) -> Any:
    """What a YAML file holds. Raises ValueError, one line, that names the file, where it is not YAML."""
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"{file} is not valid YAML: {where}{error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        raise ValueError(f"{file} is not valid YAML: {error.reason}") from None
    except (yaml.YAMLError, ValueError) as error:  # such as a date that no month has
        raise ValueError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from None


def with_new_names(content: dict[str, Any]) -> dict[str, Any]:
    """A nested mapping of fields with those of `OLD_FIELDS` under the names that they have today.

    Raises ValueError where it has a field under both names.
    """
    content = {name: {**value} if isinstance(value, dict) else value for name, value in content.items()}
    for old, new in OLD_FIELDS.items():
        (section, old_name), new_name = old.split("."), new.partition(".")[2]
        fields = content.get(section)
        if isinstance(fields, dict) and old_name in fields:
            if new_name in fields:
                raise ValueError(f"{new} is given twice, also as {old}, its name in earlier versions; leave that out")
            fields[new_name] = fields.pop(old_name)
    return content


@functools.cache
def field_types() -> dict[str, Any]:
    """Every field that can be given, by its dotted name -> its type."""
    return _field_types(_options())


def nearest(name: str, options: set[str], prefix: str = "") -> str:
    """Which option was perhaps meant: one that ends in the same field before one that only looks like it."""
    last = name.rpartition(".")[2]
    same_field = sorted(option for option in options if option.rpartition(".")[2] == last)
    likely = same_field or difflib.get_close_matches(name, sorted(options), n=1)
    return f"the nearest is {prefix}{likely[0]}" if likely else "--help lists them all"


def exit_with(program: str, message: str, code: int = EXIT_BAD_INPUT) -> NoReturn:
    """Ends the program over something that its user can put right."""
    print(f"{program}: error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code)


def exit_for(program: str, error: Exception) -> NoReturn:
    """Ends the program over what stopped its work: exit code 2 for what its user asked for, and 1 for a disk that is
    full, read-only or gone, where the same command resumes afterwards. An error that `ends_at_once` is of a process
    whose other hosts are gone: an end in order would wait for them."""
    message, code = str(error), getattr(error, "exit_code", EXIT_BAD_INPUT)
    if isinstance(error, OSError) and error.errno is not None:
        message = f"{'' if error.filename is None else f'{error.filename}: '}{error.strerror}"
        fix = DISK.get(error.errno) or (GONE.get(error.errno) if hasattr(error, "exit_code") else None)
        code = EXIT_BAD_INPUT
        if fix is not None:
            message, code = f"{message}; nothing that was written before is lost: {fix}", EXIT_FAILED
    try:
        exit_with(program, message, code)
    except SystemExit as end:
        end.ends_at_once = getattr(error, "ends_at_once", False)  # pyright: ignore
        raise


class OneLineParser(argparse.ArgumentParser):
    """argparse's parser of a command's own options, with errors of one line."""

    def error(self, message: str) -> NoReturn:
        """Exit code 2 and one line on stderr."""
        exit_with(self.prog, message)


class SettingsParser(ArgumentParser):
    """jsonargparse's parser of a settings type, with errors of one line that say what a field takes."""

    def __init__(self, program: str, description: str | None, settings: type, usage: str):
        super().__init__(prog=program, description=description, usage=f"{program} {usage}", print_config=None)
        self._fields = _field_types(settings)
        self.add_class_arguments(settings, as_group=False)
        for action in self._actions:
            if action.dest in _sections(self._fields):  # a section is given by its fields
                action.help = argparse.SUPPRESS

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # noqa: ARG002
        """Raises ValueError of one line."""
        if (bad := _BAD_VALUE.search(message)) and bad["field"] in self._fields:
            message = f"{bad['field']}: {bad['value']!r} is not {_wanted(self._fields[bad['field']])}"
        raise ValueError(message)


class ConfigParser(SettingsParser):
    """The parser of a Config and of the YAML files that fill it."""

    def __init__(self, program: str, description: str | None, default: Path):
        super().__init__(program, description, _options(), usage="[--config FILE_OR_PRESET] [--FIELD VALUE ...]")
        self.add_argument(
            "--config",
            action="config",
            help=f"YAML file with any of the fields below, or a preset's name; {default.name} is the default",
        )

    def config(self, argv: Sequence[str]) -> Config:
        """The Config of some arguments. Raises ValueError that names what is wrong and how to fix it."""
        files: dict[Path, dict[str, Any]] = {}
        arguments = [*_checked(argv, self._fields, files)]
        try:
            return _config(self.parse_args(arguments))
        except ValueError:
            for file, content in files.items():
                _check_values(file, content)
            raise


@functools.cache
def _plain_parser() -> SettingsParser:
    """For whole files: a report reads a hundred, and making the parser costs more than using it."""
    return SettingsParser("", None, _options(), usage="")


def _check_values(file: Path, content: dict[str, Any]) -> None:
    """Raises ValueError that names the file of a value of a wrong type."""
    try:
        _plain_parser().parse_object(content)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


@functools.cache
def _options() -> type:
    """A Config as options: its sections, and in the place of the method's settings the fields of all methods."""
    hints = typing.get_type_hints(Config) | {"method": _method_options()}
    fields = [
        (field.name, hints[field.name], dataclasses.field(default_factory=hints[field.name]))
        if field.default is dataclasses.MISSING
        else (field.name, hints[field.name], dataclasses.field(default=field.default))
        for field in dataclasses.fields(Config)
    ]
    return dataclasses.make_dataclass("Options", fields, namespace={"__doc__": Config.__doc__}, frozen=True)


@functools.cache
def _method_options() -> type:
    """The fields of all methods with their explanations. Null is a field that is not given."""
    kinds: dict[str, Any] = {"name": typing.Literal[tuple(METHODS)]}
    for method in METHODS.values():
        hints = typing.get_type_hints(method.settings)
        for name in method.own_fields:
            kinds[name] = kinds.get(name, hints[name]) | hints[name] | None
    words = {name: explanation(name) for name in kinds}
    words |= {name: f"{words[name]} By default {published_values(name)}." for name in kinds if name != "name"}
    documentation = "The objective.\n\nArgs:\n" + "\n".join(f"    {name}: {text}" for name, text in words.items())
    fields = [
        (name, kind, dataclasses.field(default=Config().method.name if name == "name" else None))
        for name, kind in kinds.items()
    ]
    return dataclasses.make_dataclass("MethodOptions", fields, namespace={"__doc__": documentation}, frozen=True)


def _config(parsed: Namespace) -> Config:
    """The Config of what a parser read. Raises ValueError for values out of range and fields that contradict."""
    given = parsed.clone(with_meta=False).as_dict()
    of_method = {name: value for name, value in given["method"].items() if value is not None}
    hints = typing.get_type_hints(Config)
    sections = {
        field.name: hints[field.name](**given[field.name])
        if dataclasses.is_dataclass(hints[field.name])
        else given[field.name]
        for field in dataclasses.fields(Config)
        if field.name != "method"
    }
    return Config(**sections, method=method_settings(**of_method))


def _checked(arguments: Sequence[str], fields: dict[str, Any], files: dict[Path, dict[str, Any]]) -> Iterator[str]:
    """The arguments with today's names, and with the content of YAML files in their place and put into `files`.

    Raises ValueError over a name that no field has, on the command line or in a file.
    """
    options = {*fields, "config", "help"}
    sections, rest = _sections(fields), list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--"):
            yield argument
            continue
        name, equals, value = argument.removeprefix("--").partition("=")
        name = OLD_FIELDS.get(name, name)
        if name in sections:
            raise ValueError(f"--{name} is a section; give a field of it, such as --{_first_field(name, fields)}")
        if name not in options:
            raise ValueError(f"there is no option --{name}; {nearest(name, options, '--')}")
        if name != "config":
            yield f"--{name}{equals}{value}"
        elif equals or rest:
            file, content = _content(value if equals else rest.pop(0), fields)
            files[file] = content
            yield f"--config={yaml.safe_dump(content)}"
        else:
            raise ValueError("--config has no value; give a file or the name of a preset")


def _content(given: str, fields: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The file and the fields of a YAML file or preset, checked by name."""
    try:
        file = training_file(given)
    except ValueError as error:
        raise ValueError(f"--config {error}") from None
    try:
        content = read_yaml(file)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no fields; it is a YAML mapping such as 'train: {{steps: 100}}'")
    try:
        return file, _checked_fields(content, fields)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _checked_fields(content: dict[Any, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """A file's fields under today's names. Raises ValueError over a name that no field has and over a section that is
    no mapping."""
    content = with_new_names(content)
    check_sections(content)
    known = {*fields, *_sections(fields)}
    for key in _dotted(content):
        if key not in known:
            raise ValueError(f"there is no field {key}; {nearest(key, set(fields))}")
    return content


def check_sections(content: dict[Any, Any]) -> None:
    """Raises ValueError, one line, over a section of a file that is no mapping of fields."""
    fields = field_types()
    sections = _sections(fields)
    for name, value in content.items():
        if name in sections and not isinstance(value, dict):
            example = _first_field(name, fields).partition(".")[2]
            default = getattr(getattr(Config(), name), example)
            raise ValueError(
                f"{name} is {'empty' if value is None else repr(value)}; it must be a mapping of fields, such as "
                f"{name}: {{{example}: {default}}}"
            )


def _dotted(content: dict[Any, Any], prefix: str = "") -> list[str]:
    names = []
    for key, value in content.items():
        names += _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [f"{prefix}{key}"]
    return names


def _field_types(cls: type, prefix: str = "") -> dict[str, Any]:
    """Every field's dotted name -> its type."""
    kinds: dict[str, Any] = {}
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        nested = isinstance(kind, type) and dataclasses.is_dataclass(kind)
        kinds |= _field_types(kind, f"{prefix}{field.name}.") if nested else {f"{prefix}{field.name}": kind}
    return kinds


def _sections(fields: dict[str, Any]) -> set[str]:
    return {name.partition(".")[0] for name in fields if "." in name}


def _first_field(section: str, fields: dict[str, Any]) -> str:
    return next(name for name in fields if name.startswith(f"{section}."))


def _wanted(kind: Any) -> str:
    """What a field takes, in words."""
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(_wanted(part) for part in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        is_pairs = typing.get_origin(typing.get_args(kind)[0]) is tuple
        return "a list of pairs of texts" if is_pairs else "a list of texts"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    return words[kind]
