"""The files of a checkpoint folder and the tensors in them, found by reading headers alone."""

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from egrsd_jax.side_files import refuse_lfs_pointer

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES = ("float32", "bfloat16", "float16")
READABLE = {"F32": np.float32, "BF16": ml_dtypes.bfloat16, "F16": np.float16}  # the same, by safetensors' names
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
OF_TRAINING = ("training_args", "optimizer", "scheduler", "scaler", "rng_state")  # pickles of a trainer, not weights


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor is stored: `offset` bytes into a file. `dtype` is safetensors' name of it."""

    file: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]
    name: str

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop`, and no more, read from the file.

        safetensors' own slices read the whole tensor, or map the file, whose pages then count as this process's memory.
        """
        dtype, width = np.dtype(READABLE[self.dtype]), math.prod(self.shape[1:])
        offset = self.offset + start * width * dtype.itemsize
        flat = np.fromfile(self.file, dtype, count=(stop - start) * width, offset=offset)
        return flat.reshape(stop - start, *self.shape[1:])

    def finite_rows(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop`. Raises ValueError that names the tensor where one has a NaN or infinity."""
        rows = self.rows(start, stop)
        if not _is_finite(rows):
            raise ValueError(
                f"{self.file}: {self.name} has values that are not finite, among rows {start} to {stop - 1}; the "
                "training that wrote them diverged, or the file is damaged: take an earlier one, or copy it again"
            )
        return rows


def _is_finite(strip: np.ndarray) -> bool:
    """Whether no number is NaN or infinite, which is to have an exponent of all ones.

    By the bits, in no memory of its own: as whole numbers with a sign the largest is a positive number's, without one
    a negative number's. NumPy has no fast isfinite of bfloat16.
    """
    signed, unsigned = (np.int16, np.uint16) if strip.dtype.itemsize == 2 else (np.int32, np.uint32)
    positive, negative = (np.array(value, strip.dtype).view(unsigned) for value in (np.inf, -np.inf))
    return strip.size == 0 or bool(strip.view(signed).max() < positive and strip.view(unsigned).max() < negative)


def write_tensors(tensors: dict[str, np.ndarray], file: Path) -> None:
    """Writes a safetensors file. Raises OSError where the disk does not take it, as any writing does; safetensors has
    an error of its own for that."""
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise OSError(f"{file}: {error}") from None
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(file)) from None


def check_reached(name: str, array: np.ndarray) -> None:
    """Raises ValueError for a tensor with numbers that were too large for the float16 that they were cast to."""
    if array.dtype == np.float16 and np.isinf(array).any():
        raise ValueError(f"{name} has numbers beyond float16's largest, 65,504; write bfloat16 or float32")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint folder; the single file counts where there is an index too, as in
    transformers. Raises FileNotFoundError or ValueError that says what is there instead."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return _shards(folder)
    pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
    if pickles := [name for name in pickles if not name.startswith(OF_TRAINING)]:
        raise ValueError(
            f"{folder} keeps its weights in {pickles[0]}, a pickle: to read one is to run whatever code is in it, so "
            "none is read here; convert it to safetensors with transformers: "
            "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
        )
    links = {file.name: "" if file.exists() else " (a link to nothing)" for file in folder.iterdir()}
    contents = ", ".join(f"{name}{links[name]}" for name in sorted(links)) or "nothing"
    raise FileNotFoundError(
        f"{folder} has neither {WEIGHTS} nor {INDEX}, and weights are read from safetensors only; it has: {contents}"
    )


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX
    refuse_lfs_pointer(index)
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(weight_map.values()))
        whole = bool(names) and all(Path(name).name == name for name in names)
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(
            f"{index} is broken: it must be JSON with a weight_map from tensor names to files in its folder"
        )
    if absent := [name for name in names if not (folder / name).is_file()]:
        raise FileNotFoundError(
            f"{folder} has no {absent[0]}, one of the {len(names)} shards that {INDEX} names; download or copy it again"
        )
    return [folder / name for name in names]


def stored_tensors(files: Sequence[Path]) -> dict[str, StoredTensor]:
    """All tensors of some safetensors files by name. Raises ValueError that names a file that is not whole, or a tensor
    that two files hold."""
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        _check_whole(file)
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size))
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            if name in tensors:
                raise ValueError(f"{file} holds {name}, which another file of the same checkpoint holds too")
            begin, _ = entry["data_offsets"]  # from the header's end
            tensors[name] = StoredTensor(file, 8 + size + begin, entry["dtype"], tuple(entry["shape"]), name)
    return tensors


def _check_whole(file: Path) -> None:
    refuse_lfs_pointer(file)
    try:
        with safe_open(file, framework="np"):
            pass  # opening checks the header against the file's length
    except SafetensorError as error:
        raise ValueError(
            f"{file} is cut short or is no safetensors file ({error}); download or write it again"
        ) from None
