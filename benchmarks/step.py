"""A whole training step compared with the same step in plain PyTorch, with transformers and PEFT.

    python benchmarks/step.py                                  # 8 rows of 64/256 + 256 tokens, about 20M parameters
    python benchmarks/step.py --rows 2 --completion 64 --steps 1   # a quick look

Both train a LoRA adapter (r 16, all seven projections) on a Qwen3 that transformers wrote with random weights and the
real vocabulary size: teacher scores, student scores, EGRSD's loss, backward, clipped AdamW. PyTorch holds dense logits,
as one writes it down. Each side runs in a process of its own; the losses of the first step are printed, and where they
differ by more than LOSS_TOLERANCE the benchmark ends with an error, since then the two sides do not do the same.
Ours rematerialises: of each layer it keeps the input, and computes the rest again on the way back. PyTorch checkpoints
nothing, which takes more memory and saves it a forward pass.
Tokens are those of the completions; peak memory is the whole process's after the first step, when compilation is over.
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
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this file's checkout

import numpy as np

RANK, ALPHA, GAMMA, EPSILON, FLOOR, CLIP, RATE = 16, 32.0, 0.3, 0.2, 0.1, 0.1, 5e-6
LOSS_TOLERANCE = 1e-4  # of the first loss, or of 1 where that is less: a mean in float32 over a few thousand tokens
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def parse() -> argparse.Namespace:
    """The shapes of the step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 8), ("student", 64), ("teacher", 256), ("completion", 256), ("steps", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, default in (("vocabulary", 151_936), ("hidden", 128), ("layers", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--side", choices=("ours", "torch"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


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
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
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
    from egrsd_jax.train.state import init_state, make_optimizer
    from egrsd_jax.train.step import CompletionInputs, make_update

    config = Config(
        lora=LoraSettings(RANK, ALPHA),
        method=method_settings("egrsd", gamma=GAMMA, epsilon=EPSILON, floor=FLOOR),
        rollout=RolloutSettings(max_new_tokens=shape.completion),
        train=TrainSettings(batch_size=shape.rows, micro_batch_size=shape.rows, learning_rate=RATE, max_grad_norm=CLIP),
    )
    model, base = load_pretrained(shape.folder, dtype="float32")
    model = model.replace(dtype="float32", rematerialise="full")
    mesh, optimizer = make_mesh(devices=jax.devices()[:1]), make_optimizer(config.train)
    state = init_state(jax.random.key(0), base, model, config.lora, optimizer, mesh)
    students, teachers, completions, advantage = data(shape)
    most = shape.completion
    student, teacher = (
        ordered_rows(prompts, completions, shape.rows, max_new_tokens=most) for prompts in (students, teachers)
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


def plain(shape: argparse.Namespace) -> Callable[[], float]:
    """The same step in PyTorch, dense logits and all."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen3ForCausalLM

    base = Qwen3ForCausalLM.from_pretrained(shape.folder, dtype=torch.float32)
    adapter = LoraConfig(r=RANK, lora_alpha=int(ALPHA), target_modules=TARGETS)
    model: Any = get_peft_model(base, adapter)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, weight_decay=0.0)
    students, teachers, completions, advantages = data(shape)
    chosen, advantage = torch.tensor(completions), torch.from_numpy(advantages)[:, None]
    inputs = [
        torch.tensor([p + c for p, c in zip(prompts, completions, strict=True)]) for prompts in (students, teachers)
    ]

    def logp_of(tokens: Any) -> Any:
        logits = model(tokens, use_cache=False, logits_to_keep=shape.completion + 1).logits[:, :-1]
        return torch.log_softmax(logits.float(), dim=-1)

    def step() -> float:
        with torch.no_grad(), model.disable_adapter():
            logp_BTV = logp_of(inputs[1])
            teacher = logp_BTV.gather(-1, chosen[..., None])[..., 0]
            entropy = -(logp_BTV.exp() * logp_BTV).sum(-1)
            del logp_BTV
        student = logp_of(inputs[0]).gather(-1, chosen[..., None])[..., 0]
        weight = (advantage.sign() * (teacher - student.detach())).exp().clip(1 - EPSILON, 1 + EPSILON)
        gate = (1 - GAMMA * entropy / entropy.max().clip(min=1.0)).clip(FLOOR, 1.0)
        loss = -(advantage * weight * gate * student).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss.item()

    return step


def memory_of_process(field: str) -> float:
    """A field of this process's status, MiB (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}; this benchmark reads memory on Linux")


def measure(shape: argparse.Namespace) -> dict[str, float]:
    """Runs one side: its first loss, seconds of the first step and of a later one (median), and memory in MiB.

    Memory is the largest resident size of the whole process during the steps after the first, weights and program
    included.
    """
    step = (ours if shape.side == "ours" else plain)(shape)
    started = time.perf_counter()
    loss = step()
    first = time.perf_counter() - started
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak counts from here
    seconds = []
    for _ in range(shape.steps):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    peak = memory_of_process("VmHWM")
    return {"loss": loss, "first": first, "seconds": statistics.median(seconds), "peak": peak}


def disagreement(jax_loss: float, torch_loss: float) -> str | None:
    """What is wrong with two first losses that should be the same; None where they are."""
    if abs(jax_loss - torch_loss) <= LOSS_TOLERANCE * max(abs(torch_loss), 1.0):  # NaN is not
        return None
    return (
        f"the first losses differ: ours {jax_loss:.8f}, PyTorch {torch_loss:.8f}, and rounding is at most "
        f"{LOSS_TOLERANCE:g} of it (or of 1); the two sides do not compute the same step: times are not compared"
    )


def main() -> None:
    """Both sides, each in its own process, and their ratios."""
    shape = parse()
    if shape.side:
        print(json.dumps(measure(shape)))
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), shape)
        for side in ("torch", "ours"):
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side, "--folder", folder]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            results[side] = json.loads(done.stdout.splitlines()[-1])
    jax_side, torch_side = results["ours"], results["torch"]
    if error := disagreement(jax_side["loss"], torch_side["loss"]):
        sys.exit(error)
    tokens = shape.rows * shape.completion
    print(
        f"{shape.rows} rows, prompts {shape.student} / {shape.teacher}, completion {shape.completion}, float32, ",
        end="",
    )
    print(f"{os.cpu_count()} cores; first loss: ours {jax_side['loss']:.6f}, PyTorch {torch_side['loss']:.6f}")
    print("ours rematerialises each layer, PyTorch checkpoints nothing")
    print("| | ours | PyTorch | ratio |\n|---|---|---|---|")
    rates = tokens / jax_side["seconds"], tokens / torch_side["seconds"]
    peaks = jax_side["peak"], torch_side["peak"]
    print(f"| completion tokens a second | {rates[0]:.0f} | {rates[1]:.0f} | {rates[0] / rates[1]:.2f} |")
    print(f"| peak memory of the process, MiB | {peaks[0]:.0f} | {peaks[1]:.0f} | {peaks[0] / peaks[1]:.2f} |")
    print(f"| first step, with compilation, s | {jax_side['first']:.1f} | {torch_side['first']:.1f} | |")


if __name__ == "__main__":
    main()
