"""Padding, shapes and time of the update on real lengths: completions in order, sorted by length, or sharing rows.

    python benchmarks/shapes.py --gsm8k ../shared/data/gsm8k/train.jsonl --tokenizer ../shared/data/qwen3_tokenizer
    python benchmarks/shapes.py --gsm8k ... --tokenizer ... --time 3

A hundred steps of 32 completions, in the order of seed 0. GSM8K's prompts are those of the Qwen3 presets; a second set
of lengths is log-normal, as OpenThoughts' are: prompts with a reference solution of median 4,000 tokens (sigma 0.7) and
up to 18,976, the presets' cap. Completions are log-normal too (medians 220 and 650, sigma 0.5 and 0.6), at most 1,024.

`in order`: one completion per row, all rows of a step as long as its longest (train.micro_batch_size). `sorted`: one
per row, in micro-batches of three lengths, which are chosen with all lengths known. `shared`: several to a row
(`data.packing`), whose lengths are chosen by the prompts alone. Updates are programs that jit would compile, padding is
positions computed for each real one. With `--time N` a small model takes N of the first data set's steps on this
machine, sides in turns, and the losses of all sides are compared.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this file's checkout

import numpy as np

from egrsd_jax.data.order import problem_indices
from egrsd_jax.data.packing import (
    Rows,
    Shape,
    StepBatch,
    choose_shapes,
    lay_out,
    ordered_rows,
    packed_rows,
    padding,
    step_batch,
)

STEPS, BATCH, MOST, CAP = 100, 32, 1024, 18_976
SORTED_LENGTHS = 3
VOCABULARY = 4096


class Step(NamedTuple):
    """The lengths of a step's texts, and one side's way to make rows of them."""

    student: np.ndarray
    teacher: np.ndarray
    completion: np.ndarray


Maker = Callable[[np.ndarray, np.ndarray], tuple[Rows, ...]]  # lengths of prompts and completions -> rows


def parse() -> argparse.Namespace:
    """Where GSM8K and the tokenizer are, and what to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gsm8k", type=Path, help="train.jsonl of openai/gsm8k")
    parser.add_argument("--tokenizer", type=Path, help="folder of Qwen3's tokenizer")
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 8], help="devices that share a batch")
    parser.add_argument("--time", type=int, default=0, metavar="N", help="time N steps of a small model")
    return parser.parse_args()


def log_normal(draw: np.random.Generator, median: float, sigma: float, least: int, most: int, count: int) -> np.ndarray:
    """Whole numbers, cut at both ends."""
    return np.clip(draw.lognormal(np.log(median), sigma, count), least, most).astype(int)


def open_thoughts() -> list[Step]:
    """Steps with the long tail of reasoning traces as reference solutions."""
    draw, count = np.random.default_rng(0), STEPS * BATCH
    student = log_normal(draw, 110, 0.5, 20, 1000, count)
    teacher = np.minimum(student + 60 + log_normal(draw, 4000, 0.7, 50, CAP, count), CAP)
    return _steps(student, teacher, log_normal(draw, 650, 0.6, 1, MOST, count))


def gsm8k(file: Path, tokenizer_folder: Path) -> list[Step]:
    """Steps with GSM8K's own prompts, in the order in which a run with seed 0 takes them."""
    from transformers import AutoTokenizer

    from egrsd_jax.config import PromptSettings
    from egrsd_jax.data.problems import load_problems
    from egrsd_jax.data.prompts import PromptTemplates, encode_problems

    problems = load_problems(str(file), problem="question", solution="answer", answer="answer").problems
    wording = PromptSettings()
    templates = PromptTemplates(wording.student, wording.teacher, wording.student_thinking, wording.teacher_thinking)
    encoded = encode_problems(
        AutoTokenizer.from_pretrained(tokenizer_folder), templates, problems, max_prompt_tokens=CAP
    )
    order = problem_indices(0, 0, STEPS * BATCH, len(encoded.problems))
    student, teacher = (
        np.array([len(prompts[index]) for index in order])
        for prompts in (encoded.student_prompts, encoded.teacher_prompts)
    )
    return _steps(student, teacher, log_normal(np.random.default_rng(0), 220, 0.5, 1, MOST, STEPS * BATCH))


def _steps(*lengths: np.ndarray) -> list[Step]:
    return [Step(*(whole[at : at + BATCH] for whole in lengths)) for at in range(0, STEPS * BATCH, BATCH)]


def texts(lengths: np.ndarray) -> list[list[int]]:
    """Texts of these lengths; what is in them has no influence here."""
    draw = np.random.default_rng(0)
    return [draw.integers(0, VOCABULARY, length).tolist() for length in lengths]


def best_lengths(lengths: np.ndarray, count: int) -> list[int]:
    """The `count` row lengths with the least padding where each text takes the next longer one (dynamic programme)."""
    choices = np.unique(-(-np.quantile(lengths, np.linspace(0.02, 1, 60)).astype(int) // 64) * 64)
    below = np.searchsorted(np.sort(lengths), choices, side="right")
    best: list[tuple[float, list[int]]] = [(float(c * n), [int(c)]) for c, n in zip(choices, below, strict=True)]
    for _ in range(count - 1):
        best = [
            min(
                [best[j], *((best[i][0] + c * (below[j] - below[i]), [*best[i][1], int(c)]) for i in range(j))],
                key=lambda padded_and_lengths: padded_and_lengths[0],
            )
            for j, c in enumerate(choices)
        ]
    return best[-1][1]


def makers(steps: Sequence[Step], shards: int) -> dict[str, tuple[Maker, Maker]]:
    """By side, how student's and teacher's rows are made."""
    completion = np.concatenate([step.completion for step in steps])

    def in_order(prompts: np.ndarray, completions: np.ndarray) -> tuple[Rows, ...]:
        return ordered_rows(texts(prompts), texts(completions), -(-BATCH // shards) * shards, max_new_tokens=MOST)

    def sorted_into(prompts_of_all: np.ndarray) -> Maker:
        lengths = best_lengths(prompts_of_all + completion, SORTED_LENGTHS)
        shapes = [Shape(shards * (lengths[-1] // length), length, min(length, MOST)) for length in lengths]

        def make(prompts: np.ndarray, completions: np.ndarray) -> tuple[Rows, ...]:
            whole, rows, start = prompts + completions, [[] for _ in shapes], 0
            order = np.argsort(-whole, kind="stable").tolist()
            while start < len(order):  # the longest first; a micro-batch that is not full takes the next shorter ones
                number = next(at for at, shape in enumerate(shapes) if shape.positions >= whole[order[start]])
                rows[number] += [[index] for index in order[start : start + shapes[number].rows]]
                start += shapes[number].rows
            both = texts(prompts), texts(completions)
            return tuple(
                lay_out(*both, part, shape, -(-BATCH // shape.rows), MOST, 0)
                for part, shape in zip(rows, shapes, strict=True)
            )

        return make

    def shared(prompts_of_all: np.ndarray) -> Maker:
        shapes = choose_shapes(prompts_of_all.tolist(), max_new_tokens=MOST, shards=shards)
        return lambda prompts, completions: packed_rows(texts(prompts), texts(completions), shapes, max_new_tokens=MOST)

    views = [np.concatenate([getattr(step, whose) for step in steps]) for whose in ("student", "teacher")]
    return {
        "in order": (in_order, in_order),
        f"sorted, {SORTED_LENGTHS} lengths": (sorted_into(views[0]), sorted_into(views[1])),
        "shared": (shared(views[0]), shared(views[1])),
    }


def batches(steps: Sequence[Step], sides: tuple[Maker, Maker]) -> Iterator[StepBatch]:
    """The steps as one side lays them out."""
    for step in steps:
        student, teacher = sides[0](step.student, step.completion), sides[1](step.teacher, step.completion)
        yield step_batch(student, teacher, texts(step.completion), max_new_tokens=MOST)


def signature(batch: StepBatch) -> tuple:
    """What jit tells updates apart by."""
    return tuple(tuple(array.shape for array in rows) for rows in (*batch.student, *batch.teacher))


def count_shapes(steps: Sequence[Step], shards: int) -> dict[str, tuple[int, float, float, float]]:
    """By side: updates that are compiled, and padded over real positions of student, teacher and both."""
    results = {}
    for name, sides in makers(steps, shards).items():
        signatures, computed, real = set(), np.zeros(2), np.zeros(2)
        for step, batch in zip(steps, batches(steps, sides), strict=True):
            signatures.add(signature(batch))
            here = np.array([np.sum(prompts + step.completion) for prompts in (step.student, step.teacher)], float)
            computed += here * [padding(batch.student), padding(batch.teacher)]
            real += here
        results[name] = (len(signatures), *(computed / real).tolist(), float(computed.sum() / real.sum()))
    return results


def seconds_of_steps(steps: Sequence[Step]) -> dict[str, list[float]]:
    """By side, seconds of each step of a small Qwen3 with an adapter, after a first run that compiles."""
    import jax

    from egrsd_jax.config import Config, LoraSettings, RolloutSettings, TrainSettings
    from egrsd_jax.model.config import ModelConfig
    from egrsd_jax.model.decoder import init_params
    from egrsd_jax.model.sharding import make_mesh
    from egrsd_jax.train.batch_signals import CompletionInputs
    from egrsd_jax.train.state import init_state, make_optimizer
    from egrsd_jax.train.step import make_update

    model = ModelConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_layers=4,
        num_heads=4,
        num_kv_heads=2,
        head_dim=64,
        rope_theta=1e6,
        rms_norm_eps=1e-6,
        tie_embeddings=True,
        dtype="float32",
        max_positions=32_768,
    )
    mesh, base = make_mesh(devices=jax.devices()[:1]), jax.jit(init_params, static_argnums=1)(jax.random.key(0), model)
    per_completion = np.linspace(-1, 1, BATCH, dtype=np.float32), np.ones(BATCH, np.float32), np.zeros(BATCH, bool)
    inputs = CompletionInputs(*per_completion, np.zeros((BATCH, MOST), np.float32))
    key, calls = np.asarray(jax.random.key_data(jax.random.key(1))), {}
    for name, sides in makers(steps, 1).items():
        size = None if name == "shared" else BATCH
        train = TrainSettings(batch_size=BATCH, micro_batch_size=size)
        config = Config(lora=LoraSettings(16, 32.0), rollout=RolloutSettings(max_new_tokens=MOST), train=train)
        optimizer = make_optimizer(train)
        state = init_state(jax.random.key(0), base, model, config.lora, optimizer, mesh)
        calls[name] = [make_update(config, model, optimizer, mesh, state), state.learned, list(batches(steps, sides))]

    def take(name: str, number: int) -> tuple[float, Any]:
        update, learned, laid_out = calls[name]
        started = time.perf_counter()
        result = jax.block_until_ready(update(learned, base, laid_out[number], inputs, np.int32(0), key))
        calls[name][1] = result.learned
        return time.perf_counter() - started, float(result.metrics["loss"])

    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(len(steps)):
        losses = [take(name, number)[1] for name in calls]  # compiles where the shape is new
        np.testing.assert_allclose(losses, losses[0], rtol=1e-4, atol=1e-5)
        for name in calls:
            seconds[name].append(take(name, number)[0])
    return seconds


def main() -> None:
    """A table for each data set and number of devices, and one of times."""
    options = parse()
    sets = {"log-normal up to 18,976": open_thoughts()}
    if options.gsm8k and options.tokenizer:
        sets = {"GSM8K": gsm8k(options.gsm8k, options.tokenizer), **sets}
    print("| lengths | devices | rows | updates | padding student | teacher | both |\n|---|---|---|---|---|---|---|")
    for data, steps in sets.items():
        for shards in options.shards:
            for name, (updates, *shares) in count_shapes(steps, shards).items():
                print(f"| {data} | {shards} | {name} | {updates} |", *(f"{share:.2f} |" for share in shares))
    if options.time:
        data, steps = next(iter(sets.items()))
        print(f"\nseconds of a step, 4 layers of 256, float32, {data}, sides in turns")
        print("| rows | median | best |\n|---|---|---|")
        for name, seconds in seconds_of_steps(steps[: options.time]).items():
            print(f"| {name} | {np.median(seconds):.2f} | {min(seconds):.2f} |")


if __name__ == "__main__":
    main()
