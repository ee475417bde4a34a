"""The model that is trained, and its adapter."""

from dataclasses import dataclass
from typing import Literal

from egrsd_jax.ranges import BELOW_ONE, check_ranges, over, require


@dataclass(frozen=True)
class ModelSettings:
    """The model that is trained, and the mesh that it is sharded over.

    Args:
        path: a Hugging Face folder, a hub repository such as Qwen/Qwen3-4B, or a built-in model, `arithmetic` or
            `orders`.
        dtype: what matrices are multiplied in: bfloat16 or float32.
        param_dtype: what the base weights are kept in.
        rematerialise: what the backward pass computes again instead of keeping it: `none`; with `dots` all but products
            with weights; `full` everything but each layer's input, the least memory.
        data: devices over which the batch alone is split; -1 takes what the other two leave.
        fsdp: devices over which the batch and every weight are split; -1 takes what the other two leave.
        tensor: devices over which heads and hidden units are split.
    """

    path: str = "arithmetic"
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    param_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    rematerialise: Literal["none", "dots", "full"] = "full"
    data: int = 1
    fsdp: int = -1
    tensor: int = 1

    def __post_init__(self):
        for name in ("data", "fsdp", "tensor"):
            devices = getattr(self, name)
            fix = "it must be at least 1, or -1 for what the other two leave"
            require((devices == -1 or devices >= 1, f"model.{name} is {devices}; {fix}"))


@dataclass(frozen=True)
class LoraSettings:
    """The adapter on all seven projections of every layer.

    Args:
        rank: r; 0 trains all weights instead and keeps a frozen copy of them as the teacher.
        alpha: the adapter's output is scaled by alpha / rank.
        dropout: share of the adapter's inputs that are dropped while it is trained; not in sampling and scoring.
        path: a PEFT folder whose adapter is trained further; rank and alpha are then its own. The frozen teacher and
            the initial model are the base with it.
    """

    rank: int = 64
    alpha: float = 128.0
    dropout: float = 0.0
    path: str | None = None

    def __post_init__(self):
        require(
            (
                self.path is None or self.rank > 0,
                "lora.path names an adapter, and lora.rank is 0, which trains all weights; give a lora.rank over 0, "
                "which then becomes the adapter's own",
            ),
            (self.rank >= 0, f"lora.rank is {self.rank}; it must be at least 0, and 0 trains all weights"),
            (
                not (self.rank == 0 and self.dropout),
                "lora.dropout needs an adapter: lora.rank is 0, which trains all weights",
            ),
        )
        check_ranges("lora.", self, {"alpha": over(0), "dropout": BELOW_ONE})
