"""What a server samples with: versions of a policy's weights, as folders that it loads and never sees half written.

Every version has a name and a folder of its own, in a folder that run and servers share. A name is never used for
other weights: vLLM keys its prefix cache by an adapter's name and path, and an adapter that was rewritten in place
would be sampled with keys and values of the one before it.
"""

import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.decoder import Params
from egrsd_jax.model.hf.peft import save_adapter
from egrsd_jax.model.hf.save import save_pretrained
from egrsd_jax.model.lora import Lora

Kind = Literal["base", "adapter", "all"]
UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class Weights:
    """One version of a policy: the base model as the server loaded it, an adapter on it, or all weights.

    `name` is that of the adapter, or the version of the weights that the server reports; `path` its folder as the
    server sees it, and `rank` the adapter's.
    """

    version: int
    kind: Kind
    name: str
    path: str = ""
    rank: int = 0


class SharedFolder:
    """Where a run keeps the weights that its servers load, a folder for each version.

    Args:
        folder: as this process sees it; made where it does not exist.
        on_server: the same folder as the servers see it, where that is another path.
        run: what identifies the run; names have a hash of it and a part of this process's own, so that neither
            another run nor a run that was killed and resumed uses a name again.
        base_model: what an adapter's configuration names as its model.
        model: the model whose weights are written.
        dtype: of the numbers that are written: what the trainer multiplies in, so that no rounding is added.
    """

    def __init__(
        self, folder: Path, *, on_server: str | None, run: str, base_model: str, model: ModelConfig, dtype: str
    ):
        self._folder, self._on_server = folder.absolute(), on_server
        self._base_model, self._model, self._dtype = base_model, model, dtype
        self.of_run = f"egrsd-{blake2b(run.encode(), digest_size=4).hexdigest()}-"
        self._of_process = f"{self.of_run}{secrets.token_hex(3)}-"

    @property
    def tied(self) -> bool:
        """Whether the model's output head is its embedding."""
        return self._model.tie_embeddings

    def clear(self) -> None:
        """Removes what earlier processes of this run left, among it what was half written when one was killed."""
        for pattern in (f"{self.of_run}*", f"{UNFINISHED}-{self.of_run}*"):
            for left in self._folder.glob(pattern):
                if not left.name.removeprefix(f"{UNFINISHED}-").startswith(self._of_process):
                    shutil.rmtree(left, ignore_errors=True)

    def write_adapter(self, version: int, lora: Lora) -> Weights:
        """An adapter in PEFT's form. Raises OSError where the folder cannot be written."""
        name = self._name(version)
        self._write(name, lambda folder: save_adapter(folder, lora, base_model=self._base_model, dtype=self._dtype))
        rank = next(iter(lora.layers["mlp"].values()))["a"].shape[1]
        return Weights(version, "adapter", name, self._path(name), rank)

    def write_all(self, version: int, params: Params) -> Weights:
        """All weights as a Hugging Face checkpoint. Raises OSError where the folder cannot be written."""
        name = self._name(version)
        self._write(name, lambda folder: save_pretrained(folder, self._model, params, dtype=self._dtype))
        return Weights(version, "all", name, self._path(name))

    def remove(self, weights: Weights) -> None:
        """Removes the folder of a version that no server has any more."""
        if weights.path:
            shutil.rmtree(self._folder / weights.name, ignore_errors=True)

    def _name(self, version: int) -> str:
        return f"{self._of_process}{version:06d}"

    def _path(self, name: str) -> str:
        return str(self._folder / name) if self._on_server is None else f"{self._on_server.rstrip('/')}/{name}"

    def _write(self, name: str, write: Callable[[Path], Any]) -> None:
        """The folder appears under its name when it is whole, and is readable to a server of another user."""
        self._folder.mkdir(parents=True, exist_ok=True)
        unfinished = self._folder / f"{UNFINISHED}-{name}"
        write(unfinished)
        for file in (unfinished, *unfinished.iterdir()):
            file.chmod(0o755 if file.is_dir() else 0o644)
            descriptor = os.open(file, os.O_RDONLY)  # another machine reads it as soon as it is named
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        unfinished.replace(self._folder / name)
