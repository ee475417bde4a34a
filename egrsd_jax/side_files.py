"""The small files next to a checkpoint's weights, read so that what is wrong with one names it. Imports no jax."""

import json
from pathlib import Path
from typing import Any

_LFS = b"version https://git-lfs"


def is_lfs_pointer(file: Path) -> bool:
    """Whether git left three lines in the place of a large file's content."""
    with file.open("rb") as stream:
        return stream.read(len(_LFS)) == _LFS


def refuse_lfs_pointer(file: Path) -> None:
    """Raises ValueError, one line that says how to get the content, for a Git LFS pointer."""
    if is_lfs_pointer(file):
        raise ValueError(
            f"{file} is a Git LFS pointer and not the file itself: run `git lfs pull` in its folder, or download it "
            "with `hf download`"
        )


def read_fields(file: Path) -> dict[str, Any]:
    """The fields of a JSON file such as config.json. Raises ValueError that names the file where it is cut short, is a
    Git LFS pointer, or holds no object."""
    refuse_lfs_pointer(file)
    try:
        fields = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not valid JSON: {error}; download or copy it again") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{file} holds a {type(fields).__name__}; it is an object of fields")
    return fields
