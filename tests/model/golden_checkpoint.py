"""Golden models: a `config.json`, weights that any machine can make again, and the logits that transformers gave.

`golden/NAME.json` holds the configuration and the shape of every tensor, `golden/NAME.npz` tokens [B, S] and float32
logits [B, S, V]. `make_golden.py` makes both with torch; the tests read them without.
"""

import json
import zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

GOLDEN = Path(__file__).parent / "golden"


def golden_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor's numbers from its name alone: Philox's raw stream, which NumPy promises never to change.

    Norm weights are around 1 and the others around 0, all far from their initial values, so that no term is hidden.
    """
    stream = np.random.Philox(key=zlib.crc32(name.encode()))
    uniform = (stream.random_raw(int(np.prod(shape))) >> 40).astype(np.float32) / np.float32(2**24) - np.float32(0.5)
    if len(shape) == 1:
        return uniform.reshape(shape) + np.float32("norm" in name)
    return (uniform * np.float32(5) / np.sqrt(np.float32(shape[-1]))).reshape(shape)


def write_checkpoint(folder: Path, config: dict, shapes: dict[str, list[int]]) -> None:
    """A checkpoint folder as the hub has them, with the golden numbers in it."""
    tensors = {name: golden_tensor(name, tuple(shape)) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
