"""Whether a checkpoint whose config.json ties the head to the embedding holds a head of its own."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from egrsd_jax.model.hf.checkpoint_files import READABLE, StoredTensor, stored_tensors, weight_files
from egrsd_jax.model.hf.checkpoint_names import as_causal_model

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_ROWS = 1024  # compared at a time


def head_differs(folder: Path) -> bool:
    """Whether a folder's weights hold a head and an embedding that are not the same numbers.

    A folder without weights holds neither. Raises ValueError for a file that is not whole.
    """
    try:
        files = weight_files(folder)
    except (FileNotFoundError, ValueError):  # the loader says what is wrong with them; a server's folder has none
        return False
    return _differs(tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files))


@lru_cache(maxsize=8)
def _differs(files: tuple[tuple[Path, int, int], ...]) -> bool:
    tensors = as_causal_model(stored_tensors([file for file, *_ in files]))
    if not {EMBEDDING, HEAD} <= tensors.keys():
        return False
    embedding, head = tensors[EMBEDDING], tensors[HEAD]
    if embedding.dtype not in READABLE or head.dtype not in READABLE:
        return False
    return embedding.shape != head.shape or any(
        not np.array_equal(_numbers(embedding, start), _numbers(head, start))
        for start in range(0, embedding.shape[0], _ROWS)
    )


def _numbers(tensor: StoredTensor, start: int) -> np.ndarray:
    return tensor.rows(start, min(start + _ROWS, tensor.shape[0])).astype(np.float32)
