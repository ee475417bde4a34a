"""A model to run: base weights with an adapter or without. One set of base weights serves student and teacher."""

from typing import NamedTuple

import jax

from egrsd_jax.config import LoraSettings
from egrsd_jax.model.decoder import Params
from egrsd_jax.model.lora import Lora


class Policy(NamedTuple):
    """A model to run: base parameters, with an adapter or without."""

    params: Params
    lora: Lora | None


def student(
    trainable: Params, base: Params, settings: LoraSettings, *, dropout_keys: jax.Array | None = None
) -> Policy:
    """The model that learns: the base with the adapter on it, or the trained weights themselves.

    With `dropout_keys`, one per row or per position, inputs of the adapter are dropped as the settings say; else never.
    """
    if settings.rank == 0:
        return Policy(trainable, None)
    return Policy(
        base, Lora(trainable, scale=settings.alpha / settings.rank, dropout=settings.dropout, key=dropout_keys)
    )


def initial(base: Params) -> Policy:
    """The policy before training: the base weights as they were loaded, adapter off."""
    return Policy(base, None)
