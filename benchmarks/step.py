"""A whole training step compared with the same step in PyTorch, with transformers and PEFT.

    python benchmarks/step.py                                  # 8 rows of 64/256 + 256 tokens, about 20M parameters
    python benchmarks/step.py --hidden 512 --layers 8 --heads 8 --head_dim 64          # a wide model
    python benchmarks/step.py --sides ours ours:dots ours:none ours:micro=2            # what ours keeps and cuts
    python benchmarks/step.py --rows 2 --completion 64 --steps 1 --sides ours torch    # a quick look

All train a LoRA adapter (r 16, all seven projections) on a Qwen3 that transformers wrote with random weights and the
real vocabulary size: teacher scores, student scores, EGRSD's loss, backward, clipped AdamW. A side is `ours` or
`torch`, with options after a colon, separated by commas:

- `ours`: float32, and of each layer the input is kept and the rest computed again on the way back. `bfloat16` holds the
  base and computes in it; `dots` keeps the products with weights and `none` everything; `micro=N` takes N rows at once.
- `torch`: dense logits, as one writes it down, nothing checkpointed. `chunked` holds the logits of 128 tokens at a time
  and gathers the gradient of log p on the way (as ours does over the vocabulary), `checkpointed` computes every layer
  again on the way back, and `bfloat16` holds the base in it and computes under autocast.

Each side has a process of its own, and they take turns, step by step. The losses of the first step are printed, and
where they differ by more than a tolerance the benchmark ends with an error, since then the sides do not do the same.
Tokens are those of the completions; times are medians; peak memory is the whole process's after the first step, when
compilation is over and every side has given back what it freed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this file's checkout

import numpy as np

from egrsd_jax.compilation import return_freed_memory

RANK, ALPHA, GAMMA, EPSILON, FLOOR, CLIP, RATE = 16, 32.0, 0.3, 0.2, 0.1, 0.1, 5e-6
LOSS_TOLERANCE = 1e-4  # of the first loss, or of 1 where that is less: a mean in float32 over a few thousand tokens
NARROW_TOLERANCE = 3e-2  # where a side computes in bfloat16, whose rounding is 2^-9 and adds up over layers
CHUNK = 128  # tokens whose dense logits PyTorch's chunked head holds at a time: 78 MB
SIDES = ["torch", "torch:chunked", "torch:chunked,checkpointed", "torch:chunked,bfloat16", "ours", "ours:bfloat16"]
OPTIONS = {"ours": {"bfloat16", "dots", "none"}, "torch": {"chunked", "checkpointed", "bfloat16"}}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Side(NamedTuple):
    """One contender: its library, its options, and the rows of a micro-batch where not all are taken at once."""

    library: str
    options: frozenset[str]
    micro_batch: int | None

    @property
    def dtype(self) -> str:
        """What it computes in."""
        return "bfloat16" if "bfloat16" in self.options else "float32"


def read_side(text: str) -> Side:
    """A side as it is written on the command line; ArgumentTypeError where there is no such side."""
    library, _, rest = text.partition(":")
    options = set(rest.split(",")) if rest else set()
    sizes = [option.removeprefix("micro=") for option in options if option.startswith("micro=")]
    options -= {f"micro={size}" for size in sizes}
    known = OPTIONS.get(library, set())
    if library not in OPTIONS or options - known or (sizes and library != "ours") or not all(map(str.isdigit, sizes)):
        raise argparse.ArgumentTypeError(
            f"{text!r}: sides are ours[:bfloat16,dots,none,micro=N] and torch[:chunked,checkpointed,bfloat16]"
        )
    return Side(library, frozenset(options), int(sizes[0]) if sizes else None)


def parse() -> argparse.Namespace:
    """The shapes of the step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 8), ("student", 64), ("teacher", 256), ("completion", 256), ("steps", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, default in (("vocabulary", 151_936), ("hidden", 128), ("layers", 4), ("heads", 4), ("head_dim", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sides", nargs="+", default=SIDES, help=f"by default {' '.join(SIDES)}")
    parser.add_argument("--side", type=read_side, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    shape = parser.parse_args()
    for text in shape.sides:
        try:
            side = read_side(text)
        except argparse.ArgumentTypeError as error:
            parser.error(str(error))
        if side.micro_batch is not None and (not side.micro_batch or shape.rows % side.micro_batch):
            parser.error(f"{text}: {shape.rows} rows are not whole micro-batches of {side.micro_batch}")
    return shape


def data(shape: argparse.Namespace) -> tuple[list[list[int]], list[list[int]], list[list[int]], np.ndarray]:
    """Prompts and completions of one length each, and advantages of both signs."""
    draw = np.random.default_rng(0)
    lengths = shape.student, shape.teacher, shape.completion
    students, teachers, completions = (
        draw.integers(0, shape.vocabulary, (shape.rows, length)).tolist() for length in lengths
    )
    return students, teachers, completions, draw.normal(size=shape.rows).astype(np.float32)


def write_model(folder: Path, shape: argparse.Namespace) -> None:
    """A Qwen3 with random weights, as transformers writes it."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=3 * shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=max(shape.heads // 2, 1),
        head_dim=shape.head_dim,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
        initializer_range=0.1,  # entropies of a few nats instead of a uniform distribution
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)


def ours(shape: argparse.Namespace) -> Callable[[], float]:
    """One step of ours, which returns its loss."""
    import jax

    from egrsd_jax.config import Config, LoraSettings, RolloutSettings, TrainSettings
    from egrsd_jax.data.packing import ordered_rows, step_batch
    from egrsd_jax.model.hf.hub import load_pretrained
    from egrsd_jax.model.sharding import make_mesh
    from egrsd_jax.objective.methods import method_settings
    from egrsd_jax.train.batch_signals import CompletionInputs
    from egrsd_jax.train.state import init_state, make_optimizer
    from egrsd_jax.train.step import make_update

    side = shape.side
    size = side.micro_batch or shape.rows
    config = Config(
        lora=LoraSettings(RANK, ALPHA),
        method=method_settings("egrsd", gamma=GAMMA, epsilon=EPSILON, floor=FLOOR),
        rollout=RolloutSettings(max_new_tokens=shape.completion),
        train=TrainSettings(batch_size=shape.rows, micro_batch_size=size, learning_rate=RATE, max_grad_norm=CLIP),
    )
    model, base = load_pretrained(shape.folder, dtype=side.dtype)
    kept = next(iter(side.options & {"dots", "none"}), "full")
    model = model.replace(dtype=side.dtype, rematerialise=kept)
    mesh, optimizer = make_mesh(devices=jax.devices()[:1]), make_optimizer(config.train)
    state = init_state(jax.random.key(0), base, model, config.lora, optimizer, mesh)
    students, teachers, completions, advantage = data(shape)
    most = shape.completion
    student, teacher = (
        ordered_rows(prompts, completions, size, max_new_tokens=most) for prompts in (students, teachers)
    )
    batch = step_batch(student, teacher, completions, max_new_tokens=most)
    ones, none = np.ones(shape.rows, np.float32), np.zeros(shape.rows, bool)
    rows = CompletionInputs(advantage, ones, none, np.zeros(batch.mask_BT.shape, np.float32))
    arguments = jax.device_put((batch, rows, np.int32(0), np.asarray(jax.random.key_data(jax.random.key(1)))))
    update = make_update(config, model, optimizer, mesh, state)
    learned = [state.learned]

    def step() -> float:
        result = update(learned[0], base, *arguments)
        learned[0] = result.learned
        jax.block_until_ready(result)
        return float(result.metrics["loss"])

    return step


def pytorch(shape: argparse.Namespace) -> Callable[[], float]:
    """The same step in PyTorch."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen3ForCausalLM

    options = shape.side.options
    base = Qwen3ForCausalLM.from_pretrained(shape.folder, dtype=getattr(torch, shape.side.dtype))
    adapter = LoraConfig(r=RANK, lora_alpha=int(ALPHA), target_modules=TARGETS)
    model: Any = get_peft_model(base, adapter)  # type: ignore[arg-type]
    if "checkpointed" in options:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
        model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, weight_decay=0.0)
    students, teachers, completions, advantages = data(shape)
    chosen, advantage = torch.tensor(completions), torch.from_numpy(advantages)[:, None]
    inputs = [
        torch.tensor([p + c for p, c in zip(prompts, completions, strict=True)]) for prompts in (students, teachers)
    ]
    chunked = chunked_head(torch)

    def logp_and_entropy(tokens: Any) -> tuple[Any, Any]:
        if "chunked" in options:
            hidden = model.base_model.model.model(tokens, use_cache=False).last_hidden_state
            predicting = hidden[:, -shape.completion - 1 : -1].flatten(0, 1)
            head = model.base_model.model.lm_head.weight
            return tuple(x.view(chosen.shape) for x in chunked(predicting, head, chosen.flatten()))
        logits = model(tokens, use_cache=False, logits_to_keep=shape.completion + 1).logits[:, :-1]
        logp_BTV = torch.log_softmax(logits.float(), dim=-1)
        entropy = None if torch.is_grad_enabled() else -(logp_BTV.exp() * logp_BTV).sum(-1)
        return logp_BTV.gather(-1, chosen[..., None])[..., 0], entropy

    def loss_of_step() -> Any:
        with torch.no_grad(), model.disable_adapter():
            teacher, entropy = logp_and_entropy(inputs[1])
        student, _ = logp_and_entropy(inputs[0])
        weight = (advantage.sign() * (teacher - student.detach())).exp().clip(1 - EPSILON, 1 + EPSILON)
        gate = (1 - GAMMA * entropy / entropy.max().clip(min=1.0)).clip(FLOOR, 1.0)
        return -(advantage * weight * gate * student).mean()

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=shape.side.dtype == "bfloat16"):
            loss = loss_of_step()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss.item()

    return step


def chunked_head(torch: Any) -> Callable[..., Any]:
    """log p and entropy of tokens from hidden states [N, D] and a frozen head [V, D], without all logits at once.

    Where hidden states are differentiated, the gradient of log p is gathered while a chunk's logits are there, so that
    none are made a second time: two products with the head, as in ours.
    """

    class ChunkedHead(torch.autograd.Function):
        @staticmethod
        def forward(context, hidden, head, targets):
            logps, entropies, pulls = [], [], []
            for rows, target in zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True):
                logits = torch.nn.functional.linear(rows, head).float()
                total = logits.logsumexp(-1)
                logps.append(logits.gather(-1, target[:, None])[:, 0] - total)
                if context.needs_input_grad[0]:
                    mass = logits.sub_(total[:, None]).exp_()
                    pulls.append(head[target] - mass.to(head.dtype) @ head)
                else:
                    logp = logits.sub_(total[:, None])
                    entropies.append(-torch.linalg.vecdot(logp.exp(), logp))
            if pulls:
                context.save_for_backward(torch.cat(pulls))
            return torch.cat(logps), torch.cat(entropies) if entropies else torch.zeros_like(targets)

        @staticmethod
        def backward(context, *bars):
            (pull,) = context.saved_tensors
            return (bars[0][:, None] * pull).to(pull.dtype), None, None

    def apply(hidden, head, targets):
        return ChunkedHead.apply(hidden.to(head.dtype), head, targets)

    return apply


def memory_of_process(field: str) -> float:
    """A field of this process's status, MiB (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}; this benchmark reads memory on Linux")


def take_turns(shape: argparse.Namespace) -> None:
    """One side: prints its first step, then one more for every line that it reads, and at the end its peak memory.

    Memory is the largest resident size of the whole process, in MiB, during the steps after the first, weights and
    program included.
    """
    step = (ours if shape.side.library == "ours" else pytorch)(shape)
    started = time.perf_counter()
    loss = step()
    return_freed_memory()  # the compiler's, or what the first step alone has needed
    print(json.dumps({"loss": loss, "seconds": time.perf_counter() - started}), flush=True)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak counts from here
    for _ in sys.stdin:
        started = time.perf_counter()
        step()
        peak = memory_of_process("VmHWM")
        print(json.dumps({"seconds": time.perf_counter() - started, "peak": peak}), flush=True)


class Measured(NamedTuple):
    """A side's first loss, seconds of its first step and of a later one (median), and peak memory in MiB."""

    loss: float
    first: float
    seconds: float
    peak: float


def run_sides(shape: argparse.Namespace, folder: str) -> dict[str, Measured]:
    """Every side's figures; one after the other they make their first step, and then they take turns."""
    processes: dict[str, subprocess.Popen[str]] = {}
    firsts, seconds, peaks = {}, {side: [] for side in shape.sides}, dict.fromkeys(shape.sides, 0.0)

    def answer(side: str) -> dict[str, float]:
        output = processes[side].stdout
        assert output is not None
        while line := output.readline():
            if line.startswith("{"):  # libraries print too
                return json.loads(line)
        sys.exit(f"{side} ended with exit status {processes[side].wait()}; what it wrote is above")

    try:
        for side in shape.sides:
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side, "--folder", folder]
            processes[side] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            firsts[side] = answer(side)
        for _ in range(shape.steps):
            for side in shape.sides:
                request = processes[side].stdin
                assert request is not None
                request.write("step\n")
                request.flush()
                measured = answer(side)
                seconds[side].append(measured["seconds"])
                peaks[side] = measured["peak"]
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    return {
        side: Measured(firsts[side]["loss"], firsts[side]["seconds"], statistics.median(seconds[side]), peaks[side])
        for side in shape.sides
    }


def disagreement(name: str, loss: float, reference: float, tolerance: float = LOSS_TOLERANCE) -> str | None:
    """What is wrong with a first loss that should be the reference's; None where it is."""
    if abs(loss - reference) <= tolerance * max(abs(reference), 1.0):  # NaN is not
        return None
    return (
        f"the first losses differ: {name} {loss:.8f}, the first side {reference:.8f}, and rounding is at most "
        f"{tolerance:g} of it (or of 1); the two sides do not compute the same step: times are not compared"
    )


def main() -> None:
    """All sides, each in its own process, and their ratios."""
    shape = parse()
    if shape.side:
        take_turns(shape)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), shape)
        results = run_sides(shape, folder)
    reference = results[shape.sides[0]]
    for name, side in results.items():
        narrow = "bfloat16" in name or "bfloat16" in shape.sides[0]
        if error := disagreement(name, side.loss, reference.loss, NARROW_TOLERANCE if narrow else LOSS_TOLERANCE):
            sys.exit(error)
    tokens = shape.rows * shape.completion
    print(
        f"{shape.rows} rows, prompts {shape.student} / {shape.teacher}, completion {shape.completion}, hidden size "
        f"{shape.hidden}, {shape.layers} layers, {os.cpu_count()} cores; medians of {shape.steps} steps in turns\n"
    )
    print("| side | completion tokens a second | peak memory of the process, MiB | first step, s | first loss |")
    print("|---|---|---|---|---|")
    for name, side in results.items():
        print(f"| {name} | {tokens / side.seconds:.0f} | {side.peak:.0f} | {side.first:.1f} | {side.loss:.6f} |")
    print()
    for line in comparisons(results):
        print(line)


def comparisons(results: dict[str, Measured]) -> list[str]:
    """Ours against the fastest form of PyTorch in the same dtype, and bfloat16 against float32 of ours."""

    def fastest(library: str, dtype: str) -> str | None:
        sides = [text for text in results if (side := read_side(text)).library == library and side.dtype == dtype]
        return min(sides, key=lambda text: results[text].seconds, default=None)

    lines = []
    for dtype in ("float32", "bfloat16"):
        fast, peer = fastest("ours", dtype), fastest("torch", dtype)
        if fast and peer:
            ratio, memory = results[peer].seconds / results[fast].seconds, results[fast].peak / results[peer].peak
            lines.append(f"{fast} over {peer}, the fastest in {dtype}: rate {ratio:.2f}, memory {memory:.2f}")
    if {"ours", "ours:bfloat16"} <= results.keys():
        ratio = results["ours"].seconds / results["ours:bfloat16"].seconds
        lines.append(f"ours:bfloat16 over ours: rate {ratio:.2f}")
    return lines


if __name__ == "__main__":
    main()
