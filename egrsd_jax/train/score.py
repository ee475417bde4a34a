"""A policy's view of sampled completions: hidden states where each token is predicted, scores, divergences.

B rows, S positions of prompt + completion, T completion positions, D hidden size, V vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.decoder import forward, output_head
from egrsd_jax.objective.settings import Divergence
from egrsd_jax.ops.divergences import clipped_divergence, token_divergence, top_k_divergence
from egrsd_jax.ops.scores import TokenScores, token_scores
from egrsd_jax.ops.top_tokens import token_logps, top_tokens
from egrsd_jax.policy import Policy


class Prediction(NamedTuple):
    """Hidden states from which each completion token is predicted, and the head that does it, in its own layout."""

    hidden_BTD: jax.Array
    head_VD: jax.Array


def predict(policy: Policy, config: ModelConfig, tokens_BS, before_BT, *, segment_BS=None) -> Prediction:
    """The predictions made at `before_BT`, in rows of one sequence each, or of several, numbered by `segment_BS`."""
    hidden_BSD = forward(policy.params, config, tokens_BS, segments=segment_BS, lora=policy.lora)
    hidden_BTD = jnp.take_along_axis(hidden_BSD, before_BT[:, :, None], axis=1)
    return Prediction(hidden_BTD, output_head(policy.params, config).T)  # taken as [D, V], XLA would copy the head


def scores(prediction: Prediction, completion_BT, *, temperature: float) -> TokenScores:
    """Log-probability of every completion token, and the entropy of the distribution it is from, in nats."""
    return token_scores(*prediction, completion_BT, temperature=temperature, vocabulary_axis=0)


def divergence(
    student: Prediction, teacher: Prediction, kind: Divergence, *, temperature: float
) -> dict[str, jax.Array]:
    """The divergence of every completion token, nats [B, T], and what its clip binds, by their names in `Signals`."""
    options = {"temperature": temperature, "vocabulary_axis": 0}
    if kind.entry_clip is not None:
        results = clipped_divergence(*student, *teacher, beta=kind.beta, clip=kind.entry_clip, **options)
        return dict(zip(divergence_names(kind), results, strict=True))
    if kind.over == "whole":
        return {"divergence_BT": token_divergence(*student, *teacher, beta=kind.beta, **options)}
    chooser = teacher if kind.over == "teacher_top" else student
    count = min(kind.top_k, student.head_VD.shape[0])
    ids_BTK = top_tokens(*jax.lax.stop_gradient(chooser), count, vocabulary_axis=0)
    divergence_BT = top_k_divergence(
        token_logps(*student, ids_BTK, **options),
        token_logps(*jax.lax.stop_gradient(teacher), ids_BTK, **options),
        beta=kind.beta,
        rest="renormalise" if kind.over == "teacher_top" or kind.renormalised else "bucket",
    )
    return {"divergence_BT": divergence_BT}


def divergence_names(kind: Divergence | None) -> tuple[str, ...]:
    """What `divergence` returns for this kind; nothing for none."""
    if kind is None:
        return ()
    return ("divergence_BT", "clipped_entries_BT", "clipped_mass_BT") if kind.entry_clip else ("divergence_BT",)
