"""ONE rule from parameters to the tensors of a Hugging Face checkpoint, used in both directions.

The names are the same but for the layers: a parameter at `layers/self_attn/q_proj/weight` [L, out, in] is the L tensors
`model.layers.{i}.self_attn.q_proj.weight` [out, in]. Adapters are named as PEFT names them.
"""

from typing import Any, NamedTuple

import jax

LAYERS = "layers/"
_PEFT_SUFFIX = {"a": "lora_A.weight", "b": "lora_B.weight"}


class Source(NamedTuple):
    """The tensors that a parameter is made of: one per layer where it is stacked, itself where not."""

    tensors: list[str]
    stacked: bool


def tensor_name(parameter: str, layer: int | None = None) -> str:
    """The checkpoint's name of a parameter, or of one layer's part of it."""
    if layer is not None:
        return f"model.layers.{layer}.{_dotted(parameter.removeprefix(LAYERS))}"
    return _dotted(parameter) if parameter.startswith("lm_head/") else f"model.{_dotted(parameter)}"


def adapter_tensor_name(parameter: str, layer: int) -> str:
    """PEFT's name of one layer's part of an adapter's parameter, such as `self_attn/q_proj/a`."""
    module, _, side = parameter.rpartition("/")
    return f"base_model.model.{tensor_name(module, layer)}.{_PEFT_SUFFIX[side]}"


def parameter_source(parameter: str, num_layers: int) -> Source:
    """Where a parameter of the model is kept."""
    if not parameter.startswith(LAYERS):
        return Source([tensor_name(parameter)], stacked=False)
    return Source([tensor_name(parameter, layer) for layer in range(num_layers)], stacked=True)


def as_causal_model(tensors: dict[str, Any]) -> dict[str, Any]:
    """The tensors under the names of a causal language model, where they are those of its decoder alone (`AutoModel`
    saves such files), and without the rotary frequencies that old files hold, which config.json determines."""
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(".rotary_emb.inv_freq")}
    if "embed_tokens.weight" not in kept:
        return kept
    return {name if name.startswith("lm_head.") else f"model.{name}": tensor for name, tensor in kept.items()}


def adapter_source(parameter: str, num_layers: int) -> Source:
    """Where a parameter of an adapter is kept."""
    return Source([adapter_tensor_name(parameter, layer) for layer in range(num_layers)], stacked=True)


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """The leaves of a nested dict with their paths, such as `layers/mlp/up_proj/weight`."""
    return [(path_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def path_name(path: tuple) -> str:
    """A path as jax gives it -> its keys with slashes between them."""
    return "/".join(key.key for key in path)


def _dotted(parameter: str) -> str:
    return parameter.replace("/", ".")
