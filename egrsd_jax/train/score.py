"""A policy's view of sampled completions: hidden states where each token is predicted, scores, divergences.

B rows, S positions of prompt + completion, T completion positions, D hidden size, V vocabulary.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.decoder import forward, output_head
from egrsd_jax.objective.settings import Divergence
from egrsd_jax.ops.attention import Prefix
from egrsd_jax.ops.divergences import clipped_divergence, token_divergence, top_k_divergence
from egrsd_jax.ops.products import product
from egrsd_jax.ops.scores import TokenScores, token_scores
from egrsd_jax.ops.top_tokens import token_logps, top_tokens
from egrsd_jax.policy import Policy


class Scored(NamedTuple):
    """A policy's numbers of completion tokens: log p of each, the entropy of the distribution that it is from, nats,
    and the chance that the completion would end there instead; None where the tokens that end one are not given."""

    logp_BT: jax.Array
    entropy_BT: jax.Array
    end_BT: Any = None


class Prediction(NamedTuple):
    """Hidden states from which each completion token is predicted, and the head that does it, in its own layout."""

    hidden_BTD: jax.Array
    head_VD: jax.Array


def predict(
    policy: Policy, config: ModelConfig, tokens_BS, before_BT, *, segment_BS=None, prefix: Prefix | None = None
) -> Prediction:
    """The predictions made at `before_BT`, in rows of one sequence each, or of several, numbered by `segment_BS`.

    With a `prefix` the sequences are what follows it.
    """
    hidden_BSD = forward(policy.params, config, tokens_BS, segments=segment_BS, lora=policy.lora, prefix=prefix)
    hidden_BTD = jnp.take_along_axis(hidden_BSD, before_BT[:, :, None], axis=1)
    return Prediction(hidden_BTD, output_head(policy.params, config).T)  # taken as [D, V], XLA would copy the head


def scores(prediction: Prediction, completion_BT, *, temperature: float) -> TokenScores:
    """Log-probability of every completion token, and the entropy of the distribution it is from, in nats."""
    return token_scores(*prediction, completion_BT, temperature=temperature, vocabulary_axis=0)


def scored(prediction: Prediction, completion_BT, *, temperature: float, stop_ids: tuple[int, ...] = ()) -> Scored:
    """`scores`, and the mass of the end-of-turn tokens together, which is for logs: no gradient flows through it."""
    both = scores(prediction, completion_BT, temperature=temperature)
    if not stop_ids:
        return Scored(*both)
    logp_BT = jax.lax.stop_gradient(both.logp_BT)
    fixed = jax.lax.stop_gradient(prediction)
    return Scored(*both, end_mass(fixed, completion_BT, logp_BT, stop_ids, temperature=temperature))


def end_mass(
    prediction: Prediction, completion_BT, logp_BT: jax.Array, stop_ids: tuple[int, ...], *, temperature: float
) -> jax.Array:
    """Probability of the tokens `stop_ids` together at every completion token, [B, T].

    It takes no pass over the vocabulary: what their logits are compared with follows from the sampled token, whose
    logit and log-probability are known, log p(y) = z_y - log Σ_v e^(z_v).
    """
    hidden_BTD, head_VD = prediction
    sampled_BTD = jnp.take(head_VD, completion_BT, axis=0, mode="clip").astype(jnp.float32)
    ends_KD = jnp.take(head_VD, jnp.asarray(stop_ids, jnp.int32), axis=0, mode="clip")
    sampled_BT = jnp.sum(hidden_BTD.astype(jnp.float32) * sampled_BTD, axis=-1)
    ends_BTK = product("btd,kd->btk", hidden_BTD, ends_KD.astype(hidden_BTD.dtype), dtype=jnp.float32)
    above_BTK = (ends_BTK - sampled_BT[..., None]) / temperature
    return jnp.sum(jnp.exp(above_BTK + logp_BT[..., None]), axis=-1)


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
