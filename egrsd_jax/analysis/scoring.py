"""Both policies' scores of completions: log-probability, entropy, and the likeliest tokens at every position."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax

from egrsd_jax.analysis.completions import Written
from egrsd_jax.analysis.models import Models
from egrsd_jax.data.batch import Batch, bucket_length, make_batch
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.hosts import fetch, put_global
from egrsd_jax.model.sharding import batch_sharding, batch_shards, round_up
from egrsd_jax.ops.top_tokens import token_logps, top_tokens
from egrsd_jax.policy import Policy
from egrsd_jax.runs.progress import EvaluationProgress
from egrsd_jax.train.score import predict, scores


class View(NamedTuple):
    """One policy's scores of one completion of T tokens: nats [T], and its K likeliest tokens at each position."""

    logp: Any
    entropy: Any
    top_ids: Any
    top_logp: Any


def views(
    models: Models,
    completions: Sequence[Written],
    *,
    rows: int,
    temperature: float,
    top: int,
    progress: EvaluationProgress,
) -> list[tuple[View, View]]:
    """The student's and the teacher's view of every completion, `rows` of them at a time in one compiled shape."""
    score = partial(_score, config=models.config, temperature=temperature, top=min(top, models.config.vocab_size))
    progress.start("score", done=0, total=len(completions))
    scored: list[tuple[View, View]] = []
    for part, batch in batches(models, completions, rows=rows):
        student = fetch(score(models.student, batch.student_tokens_BS, batch.student_before_BT, batch.completion_BT))
        teacher = fetch(score(models.teacher, batch.teacher_tokens_BU, batch.teacher_before_BT, batch.completion_BT))
        for row, completion in enumerate(part):
            length = len(completion.tokens)
            scored.append((_row(student, row, length), _row(teacher, row, length)))
        progress.advance(len(part), sum(len(completion.tokens) for completion in part))
    return scored


def batches(models: Models, completions: Sequence[Written], *, rows: int) -> Iterator[tuple[Sequence[Written], Batch]]:
    """The completions, `rows` at a time, as arrays on the models' mesh, all of one shape."""
    rows = round_up(min(rows, len(completions)), batch_shards(models.mesh))
    students, teachers = [c.student_prompt for c in completions], [c.teacher_prompt for c in completions]
    widest: dict[str, Any] = {
        "completion_buckets": [bucket_length(max(len(completion.tokens) for completion in completions))],
        "prompt_buckets": [bucket_length(max(map(len, prompts))) for prompts in (students, teachers)],
    }
    for start in range(0, len(completions), rows):
        part = completions[start : start + rows]
        batch = make_batch(
            students[start : start + rows],
            teachers[start : start + rows],
            [completion.tokens for completion in part],
            rows=rows,
            **widest,
        )
        yield part, Batch(*put_global(tuple(batch), batch_sharding(models.mesh)))


@partial(jax.jit, static_argnames=("config", "temperature", "top"))
def _score(policy: Policy, tokens_BS, before_BT, completion_BT, *, config: ModelConfig, temperature: float, top: int):
    prediction = predict(policy, config, tokens_BS, before_BT)
    logp_BT, entropy_BT = scores(prediction, completion_BT, temperature=temperature)
    ids_BTK = top_tokens(*prediction, top, vocabulary_axis=0)
    top_logp_BTK = token_logps(*prediction, ids_BTK, temperature=temperature, vocabulary_axis=0)
    return View(logp_BT, entropy_BT, ids_BTK, top_logp_BTK)


def _row(view: Any, row: int, length: int) -> View:
    return View(*(array[row, :length] for array in view))
