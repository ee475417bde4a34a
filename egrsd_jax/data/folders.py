"""Which files of a folder are a data set's split: shards, splits and configurations as the hub's data sets have them,
and what `save_to_disk` of `datasets` leaves. Imports no jax."""

import re
from collections.abc import Sequence
from pathlib import Path

from egrsd_jax.side_files import read_fields

_SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("validation", "valid", "val", "dev"),
    "eval": ("eval", "evaluation"),
}
_SPLIT_OF = {word: split for split, words in _SPLITS.items() for word in words}
_SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]+)?\..*")
_KINDS = ((".parquet",), (".arrow",), (".jsonl", ".ndjson"), (".csv",), (".tsv",), (".json",))
_COMPRESSIONS = (".gz", ".bz2", ".xz")


def data_files(folder: Path, split: str, name: str | None) -> list[Path]:
    """The files of a split, and of the configuration `name` where there are several, in the order of their names.

    Raises ValueError of one line: no file of data, several kinds of them, no such split, several configurations, a
    shard that is missing.
    """
    if (folder / "dataset_dict.json").is_file():  # save_to_disk of several splits
        splits = read_fields(folder / "dataset_dict.json").get("splits") or []
        if split not in splits:
            raise ValueError(f"{folder} has no split {split!r}; it has {', '.join(map(str, splits))}")
        folder = folder / split
    if (folder / "state.json").is_file():
        return _saved_to_disk(folder)
    files = _of_one_kind(folder)
    files = _of_configuration(folder, _of_split(folder, files, split), name)
    _check_shards(files)
    return files


def _saved_to_disk(folder: Path) -> list[Path]:
    state = read_fields(folder / "state.json")
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise ValueError(f"{folder} was saved with a selection of its rows; flatten_indices() before save_to_disk")
    files = [folder / entry["filename"] for entry in state.get("_data_files") or ()]
    if missing := [file for file in files if not file.is_file()]:
        raise ValueError(f"{missing[0]} is missing, one of the {len(files)} files that state.json names; copy it again")
    if not files:
        raise ValueError(f"{folder}: its state.json names no file of data")
    return files


def _of_one_kind(folder: Path) -> list[Path]:
    """Files of other programs next to data, such as dataset_info.json, count only where there is nothing else."""
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
    kinds = [[file for file in files if _ending(file) in kind] for kind in _KINDS]
    tables, others = [kind for kind in kinds[:-1] if kind], kinds[-1]
    if len(tables) > 1:
        raise ValueError(
            f"{folder} holds {tables[0][0].name} and {tables[1][0].name}, data of several kinds; give one file, or a "
            "folder of one kind"
        )
    if chosen := next(iter(tables), others):
        return chosen
    contents = ", ".join(file.name for file in files[:5]) or "nothing"
    raise ValueError(f"{folder} holds no .parquet, .arrow, .jsonl, .csv, .tsv or .json file; it holds {contents}")


def _ending(file: Path) -> str:
    return Path(file.stem).suffix.lower() if file.suffix.lower() in _COMPRESSIONS else file.suffix.lower()


def _split_of(folder: Path, file: Path) -> str | None:
    """The split that a file's name, or else a folder on the way to it, names."""
    for part in reversed(file.relative_to(folder).parts):
        for word in re.split(r"[^A-Za-z]+", part):
            if word.lower() in _SPLIT_OF:
                return _SPLIT_OF[word.lower()]
    return None


def _of_split(folder: Path, files: Sequence[Path], split: str) -> list[Path]:
    named = {file: _split_of(folder, file) for file in files}
    if not any(named.values()):
        return list(files)
    wanted = _SPLIT_OF.get(split, split)
    if chosen := [file for file, own in named.items() if own == wanted]:
        return chosen
    if chosen := [file for file in files if split in re.split(r"[-./\\]", str(file.relative_to(folder)))]:
        return chosen
    present = sorted({own for own in named.values() if own is not None})
    raise ValueError(f"{folder} has no files of the split {split!r}; it has {', '.join(present)}")


def _of_configuration(folder: Path, files: Sequence[Path], name: str | None) -> list[Path]:
    if name is not None:
        chosen = [file for file in files if name in re.split(r"[-./\\]", str(file.relative_to(folder)))]
        if not chosen:
            raise ValueError(f"{folder} has no files of the configuration {name!r}; it has {_names(folder, files)}")
        return chosen
    if len({file.parent for file in files}) > 1:
        raise ValueError(
            f"{folder} holds data in several folders, {_names(folder, files)}: give one of them as the path, or as the "
            "name of the configuration"
        )
    return list(files)


def _names(folder: Path, files: Sequence[Path]) -> str:
    return ", ".join(sorted({str(file.parent.relative_to(folder)) for file in files}))


def _check_shards(files: Sequence[Path]) -> None:
    shards: dict[tuple[Path, str, str], set[int]] = {}
    for file in files:
        if match := _SHARD.fullmatch(file.name):
            shards.setdefault((file.parent, match["stem"], match["count"]), set()).add(int(match["number"]))
    for (parent, stem, count), present in shards.items():
        if missing := sorted({*range(int(count))} - present):
            raise ValueError(
                f"{parent} has {len(present)} of the {int(count)} shards of {stem!r}: number {missing[0]:05d} is "
                "missing; download or copy it again"
            )
