"""A GGUF file as values and tensors, read with the `gguf` package; what is wrong with a file is one line.

Imports no jax.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

NEEDS_GGUF = "reading GGUF files needs the package gguf: pip install gguf (or egrsd-jax with its extra, [import])"


class GgufFile:
    """The metadata and the tensors of a GGUF file.

    Raises ValueError for a file that is none, is cut short, is one part of several, has the bytes of numbers in the
    other order or a type of tensor that the package does not know, and ModuleNotFoundError's message as a ValueError
    where the `gguf` package is missing.
    """

    def __init__(self, file: Path, name: str):
        try:
            import gguf  # pyright: ignore[reportMissingImports]  # optional: the extra `import`
        except ModuleNotFoundError:
            raise ValueError(NEEDS_GGUF) from None
        self.name = name
        try:
            reader = gguf.GGUFReader(file)
            self.values: dict[str, Any] = {key: field.contents() for key, field in reader.fields.items()}
        except Exception as error:  # the reader trusts every number in the file, so a damaged one fails in many ways
            if "GGMLQuantizationType" in str(error):  # one that was given up, as Q4_0_4_4 was, or that is newer
                raise ValueError(
                    f"{name} has tensors of a type that this gguf package does not know ({error}); update the package, "
                    "or take a file with another quantisation, such as Q8_0 or F16"
                ) from None
            raise ValueError(f"{name} is no GGUF file, or is cut short ({error!r}); download it again") from None
        if reader.byte_order == "S":  # dequantize() takes all bytes for this machine's
            raise ValueError(f"{name} is a file for machines of the other byte order; take the one for this machine's")
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self._dequantize = gguf.quants.dequantize
        if self.values.get("split.count", 0) > 1:
            raise ValueError(
                f"{name} is one of {self.values['split.count']} parts; join them first, "
                "llama-gguf-split --merge FIRST_PART WHOLE does"
            )

    def value(self, key: str) -> Any:
        """A value that the file must have. Raises ValueError that names it."""
        if key not in self.values:
            raise ValueError(f"{self.name} has no {key}, which a model's GGUF file states")
        return self.values[key]

    def names(self) -> Iterator[str]:
        """The names of all tensors."""
        return iter(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, outputs first."""
        return tuple(int(size) for size in reversed(self._tensors[name].shape))

    def kinds(self) -> dict[str, int]:
        """How many tensors there are of each type."""
        kinds = [tensor.tensor_type.name for tensor in self._tensors.values()]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds))}

    def tensor(self, name: str) -> np.ndarray:
        """A tensor's numbers in float32. Raises ValueError for a type that the package cannot dequantise."""
        stored = self._tensors[name]
        try:
            with np.errstate(all="ignore"):
                numbers = self._dequantize(stored.data, stored.tensor_type)
        except NotImplementedError:
            raise ValueError(
                f"{self.name}: {name} is of type {stored.tensor_type.name}, which the gguf package cannot dequantise; "
                "take a file with another quantisation, such as Q8_0 or F16"
            ) from None
        numbers = np.asarray(numbers, np.float32).reshape(self.shape(name))
        if not np.isfinite(numbers).all():
            raise ValueError(f"{self.name}: {name} has numbers that are not finite; download the file again")
        return numbers
