"""How much of the vocabulary, and of the teacher's probability, a divergence's clip would bind in the first step."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from egrsd_jax.analysis.completions import Written
from egrsd_jax.analysis.models import Models
from egrsd_jax.analysis.scoring import batches
from egrsd_jax.data.batch import Batch
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.hosts import fetch
from egrsd_jax.objective.metrics import clip_metrics
from egrsd_jax.objective.settings import Divergence, MethodSettings
from egrsd_jax.policy import Policy
from egrsd_jax.train.score import divergence, predict


class EntryClip(NamedTuple):
    """Shares as a step logs them: of all entries, of the teacher's probability, and of tokens with a bound entry."""

    entries: float
    mass: float
    tokens: float


def entry_clip(method: MethodSettings, models: Models, written: Sequence[Written], *, rows: int) -> EntryClip | None:
    """Of the completions, by the definitions of training; None for a method without such a clip."""
    kind = method.divergence
    if kind is None or kind.entry_clip is None:
        return None
    counted: list[tuple[np.ndarray, ...]] = []
    count = partial(_bound, kind=kind, config=models.config, temperature=method.score_temperature)
    for part, batch in batches(models, written, rows=rows):
        arrays = (batch.mask_BT, *count(models.student, models.teacher, batch))
        counted.append(tuple(np.asarray(array)[: len(part)] for array in fetch(arrays)))
    mask, entries, mass = (np.concatenate(arrays) for arrays in zip(*counted, strict=True))
    shares = clip_metrics(entries, mass, mask, vocab_size=models.config.vocab_size)
    return EntryClip(*(float(shares[f"clipped_{name}_share"]) for name in EntryClip._fields))


@partial(jax.jit, static_argnames=("kind", "config", "temperature"))
def _bound(
    student: Policy, teacher: Policy, batch: Batch, *, kind: Divergence, config: ModelConfig, temperature: float
) -> tuple[jax.Array, jax.Array]:
    """Entries at the clip of every token, and the teacher's probability of them, [B, T]."""
    of_student = predict(student, config, batch.student_tokens_BS, batch.student_before_BT)
    of_teacher = predict(teacher, config, batch.teacher_tokens_BU, batch.teacher_before_BT)
    numbers = divergence(of_student, of_teacher, kind, temperature=temperature)
    return numbers["clipped_entries_BT"], numbers["clipped_mass_BT"]
