"""What a run costs on a machine, by hand: FLOPs and bytes of a step from the model's shape, without compiling anything.

`planning` counts the same in the compiled programs, exactly and in minutes; this is for grids of many runs and for
machines that cannot be compiled for here. docs/scaling.md has the count, docs/reproduce.md how far the two are apart.
"""

import re
from typing import NamedTuple

from egrsd_jax.config import Config
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.lora import projection_shapes
from egrsd_jax.objective.methods import METHODS
from egrsd_jax.objective.settings import contrasts, teacher_schedule
from egrsd_jax.plan.targets import CHIPS, Chip

EFFICIENCY = 0.4  # of the published rates that a run reaches: a usual share of large training jobs, and a guess
BYTES = {"bfloat16": 2, "float32": 4}


class Machine(NamedTuple):
    """So many devices of a kind."""

    chip: Chip
    count: int

    @property
    def chips(self) -> int:
        """How many are rented: some have several devices."""
        return self.count // self.chip.per_chip

    @property
    def name(self) -> str:
        """As it is given: v5p:8."""
        return f"{self.chip.name}:{self.chips}"


class Lengths(NamedTuple):
    """Tokens of the two prompts and of a completion, of the mean or of the longest."""

    student: float
    teacher: float
    completion: float


class Estimate(NamedTuple):
    """Seconds of a step at `EFFICIENCY`, and bytes: of one device, of its most, and of all checkpoints of a run."""

    update: float
    rollout: float
    memory: float
    limit: float
    disk: float

    @property
    def step(self) -> float:
        """Seconds of a step."""
        return self.update + self.rollout

    @property
    def fits(self) -> bool:
        """Whether a device has the memory."""
        return self.memory <= self.limit


def machine(text: str) -> Machine:
    """`KIND:CHIPS`, such as v5e:8 or H200:1. Raises ValueError, one line, for anything else."""
    known = {chip.name.lower(): chip for chip in CHIPS.values()}
    match = re.fullmatch(r"(\w+):(\d+)", text)
    if match is None or match[1].lower() not in known or int(match[2]) < 1:
        names = ", ".join(chip.name for chip in CHIPS.values())
        raise ValueError(f"there is no machine {text!r}; it is KIND:CHIPS, KIND one of {names}, such as v5p:8")
    chip = known[match[1].lower()]
    return Machine(chip, int(match[2]) * chip.per_chip)


def estimate(config: Config, model: ModelConfig, mean: Lengths, longest: Lengths, on: Machine) -> Estimate:
    """Of one step of a run: seconds for the mean lengths, memory for the greatest."""
    update = update_flops(config, model, mean) / (on.count * on.chip.flops)
    return Estimate(
        update / EFFICIENCY,
        rollout_seconds(config, model, mean, on) / EFFICIENCY,
        device_bytes(config, model, longest, on),
        on.chip.memory,
        checkpoint_bytes(config, model),
    )


def update_flops(config: Config, model: ModelConfig, lengths: Lengths) -> float:
    """Of an update on all devices together, the count by hand of docs/scaling.md.

    Layers are computed once for each prompt of the teacher's, and for the student forward, again, and backward: to the
    inputs alone under an adapter, else to the weights as well.
    """
    rows, weights = config.train.batch_size, layer_weights(model)
    student, teacher = (prompt + lengths.completion for prompt in lengths[:2])
    products = rows * student * 2 * weights * (3 if config.lora.rank else 4)
    down = model.num_layers * model.hidden_size * model.intermediate_size
    products -= rows * student * 2 * down  # the last product of a layer is not computed again
    products += rows * student * 8 * adapter_weights(config, model)
    square = 2 * rows * model.num_layers * model.num_heads * model.head_dim
    products += 11 * square * student**2 * 2 / 3  # attention: scores and sums, again and backward, above the diagonal
    head = 2 * model.hidden_size * model.vocab_size * rows * lengths.completion
    products += 2 * head
    if METHODS[config.method.name].teacher:
        once = rows * teacher * 2 * weights + 2 * square * teacher**2 * 0.55 + head
        products += (1 + contrasts(config.method)) * once
    return products


def rollout_seconds(config: Config, model: ModelConfig, lengths: Lengths, on: Machine) -> float:
    """The least of sampling a step's completions: every token reads all weights and the keys and values so far."""
    method = METHODS[config.method.name]
    if method.writer == "reference":
        return 0.0
    rows = min(config.rollout.max_rows, config.train.batch_size)
    times = config.train.batch_size / rows
    per_token = _seconds_per_token(config, model, rows, lengths.student + lengths.completion / 2, on)
    prefill = 2 * layer_weights(model) * config.train.batch_size * lengths.student / (on.count * on.chip.flops)
    return prefill + times * lengths.completion * per_token


def evaluation_seconds(
    config: Config, model: ModelConfig, *, samples: int, rows: int, tokens: float, on: Machine
) -> float:
    """Of sampling so many completions of so many tokens, `rows` of them at a time."""
    turns = samples / rows * tokens
    return turns * _seconds_per_token(config, model, rows, tokens / 2, on) / EFFICIENCY


def _seconds_per_token(config: Config, model: ModelConfig, rows: float, positions: float, on: Machine) -> float:
    """Of one token in all rows: the weights and each row's keys and values of so many positions are read."""
    weights = (layer_weights(model) + model.hidden_size * model.vocab_size) * BYTES[_decode_dtype(config)]
    kept = _cache_bytes_per_token(model) * rows * positions
    return (weights + kept) / (on.count * on.chip.bandwidth)


def device_bytes(config: Config, model: ModelConfig, longest: Lengths, on: Machine) -> float:
    """The most that one device holds, for prompts of the greatest lengths: in the update, or while it decodes with the
    weights a second time.

    An update keeps the inputs of every layer, and about as much again backward; the teacher's forward pass has the
    widest layer's work at all of its positions; a chunk of logits and its gradient are taken as 1 GB. That is within a
    third of what the compiler takes for the plans of docs/scaling.md, `rematerialise full`.
    """
    size, width = BYTES[config.model.param_dtype], BYTES[config.model.dtype]
    whole = all_weights(model) * size
    trained = adapter_weights(config, model) or all_weights(model)
    state = (whole + 4.0 * trained * _copies(config)) / on.count
    rows = -(-(config.train.micro_batch_size or 1) // on.count)
    student, teacher = (rows * (prompt + longest.completion) for prompt in longest[:2])
    inputs = student * model.num_layers * model.hidden_size * width
    working = max(student, teacher) * (2 * model.intermediate_size + 4 * model.hidden_size) * width
    decoded = -(-min(config.rollout.max_rows, config.train.batch_size) // on.count)
    cache = _cache_bytes_per_token(model) * decoded * (longest.student + longest.completion)
    decoding = all_weights(model) * BYTES[_decode_dtype(config)] / on.count + cache
    if METHODS[config.method.name].writer == "reference":
        decoding = 0.0
    return state + 1e9 + max(2 * inputs + working, decoding)


def checkpoint_bytes(config: Config, model: ModelConfig) -> float:
    """Of all checkpoints that a run keeps at once, the one that is being written among them."""
    trained = adapter_weights(config, model) or all_weights(model)
    return 4.0 * trained * _copies(config) * (config.train.keep_checkpoints + config.train.keep_best + 1)


def _copies(config: Config) -> int:
    """How often the trained weights are in a run's state, in float32: themselves, two moments, a kept teacher."""
    return 3 + (teacher_schedule(config.method) in ("ema", "copy"))


def all_weights(model: ModelConfig) -> int:
    """Weights of the layers' projections, the embedding and the head."""
    return layer_weights(model) + (1 if model.tie_embeddings else 2) * model.hidden_size * model.vocab_size


def layer_weights(model: ModelConfig) -> int:
    """Weights of all layers' projections."""
    return model.num_layers * sum(out * inner for out, inner in _projections(model))


def adapter_weights(config: Config, model: ModelConfig) -> int:
    """Weights of the adapter; 0 without one."""
    return model.num_layers * config.lora.rank * sum(out + inner for out, inner in _projections(model))


def _projections(model: ModelConfig) -> list[tuple[int, int]]:
    return [shape for block in projection_shapes(model).values() for shape in block.values()]


def _cache_bytes_per_token(model: ModelConfig) -> int:
    return 2 * model.num_layers * model.num_kv_heads * model.head_dim * BYTES[str(model.dtype)]


def _decode_dtype(config: Config) -> str:
    return config.rollout.weights_dtype or config.model.dtype
