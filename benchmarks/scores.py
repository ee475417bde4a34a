"""Time and memory of the chunked vocabulary head against dense logits in JAX and in PyTorch, all in one process.

    python benchmarks/scores.py                                       # 2 × 1,024 tokens, V = 151,936, three widths
    python benchmarks/scores.py --dims 256 --tokens 256 --repeats 1   # a quick look
    python benchmarks/scores.py --dims 1024 --policies                # two policies: the head read twice, or once

Prints a Markdown row for each hidden size and pass, both sides of every ratio in it. Times are medians, the contenders
taking turns. All of them take the head as [V, D], which is how the trainer and PyTorch's Linear keep it. Temporary
memory is what XLA allocates in addition to arguments and results. The physical limit is the rate of a matrix product of
the head's own shape and dtype, measured in the same turns; "share" is the rate of the products that ours makes over
that limit: forward one; forward and backward, of log p and entropy to hidden states and head, four, the logits being
computed twice; with a frozen head (LoRA) and the gradient of log p alone, two.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this file's checkout
os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # on a GPU, leave PyTorch its share

import jax
import jax.numpy as jnp
import numpy as np

from egrsd_jax.ops.products import product
from egrsd_jax.ops.scores import TokenScores, token_scores

PROBE_WIDTH = 8_192  # entries of the head in the matrix product that sets the limit
PROBE_TURNS = 8
FORWARD, BACKWARD, FROZEN = "forward", "forward + backward", "log p to hidden states"
PRODUCTS = {FORWARD: 1, BACKWARD: 4, FROZEN: 2}

HEADER = (
    "| D | pass | ours s | dense JAX s | ratio | dense PyTorch s | ratio | ours MiB | dense JAX MiB | ratio "
    "| one logits tensor MiB | ratio | product GFLOP/s | ours GFLOP/s | share |\n" + "|---" * 15 + "|"
)


class Problem(NamedTuple):
    """The head's inputs, and a cotangent for each of its two outputs."""

    hidden_BTD: jax.Array
    head_VD: jax.Array
    targets_BT: jax.Array
    bars: TokenScores


class Program(NamedTuple):
    """Something to be timed: `run()` does it once and waits for it; its temporary memory where XLA reports it."""

    run: Callable[[], Any]
    temporary_bytes: int = 0


def make_problem(tokens: int, hidden_size: int, vocabulary: int, dtype: str) -> Problem:
    """Two sequences that share the tokens, and logits with the spread of a trained model's (standard deviation 3)."""
    keys = jax.random.split(jax.random.key(0), 5)
    shape_BT = (2, tokens // 2)
    return Problem(
        jax.random.normal(keys[0], (*shape_BT, hidden_size), dtype),
        jax.random.normal(keys[1], (vocabulary, hidden_size), dtype) * jnp.asarray(3 * hidden_size**-0.5, dtype),
        jax.random.randint(keys[2], shape_BT, 0, vocabulary),
        TokenScores(jax.random.normal(keys[3], shape_BT), jax.random.normal(keys[4], shape_BT)),
    )


def chunked_scores(hidden_BTD: jax.Array, head_VD: jax.Array, targets_BT: jax.Array) -> TokenScores:
    """Ours, called as the trainer calls it."""
    return token_scores(hidden_BTD, head_VD, targets_BT, vocabulary_axis=0)


def dense_scores(hidden_BTD: jax.Array, head_VD: jax.Array, targets_BT: jax.Array) -> TokenScores:
    """The scores as one writes them down, from all logits at once, in float32."""
    logits_BTV = jnp.einsum("btd,vd->btv", hidden_BTD, head_VD, preferred_element_type=jnp.float32)
    logp_BTV = jax.nn.log_softmax(logits_BTV, axis=-1)
    logp_BT = jnp.take_along_axis(logp_BTV, targets_BT[..., None], axis=-1)[..., 0]
    return TokenScores(logp_BT, -jnp.sum(jnp.exp(logp_BTV) * logp_BTV, axis=-1))


def compiled(function: Callable, *arguments: Any) -> Program:
    """A jitted function with its arguments."""
    program = jax.jit(function).lower(*arguments).compile()
    memory = program.memory_analysis()
    if memory is None:
        raise RuntimeError(f"XLA reports no memory analysis on {jax.default_backend()}; run this on CPU, GPU or TPU")
    return Program(lambda: jax.block_until_ready(program(*arguments)), memory.temp_size_in_bytes)


def jax_program(scores_of: Callable[..., TokenScores], problem: Problem, passed: str) -> Program:
    """One pass of a JAX form."""

    def both(hidden_BTD, head_VD, targets_BT, bars):
        scores, pull = jax.vjp(lambda hidden, head: scores_of(hidden, head, targets_BT), hidden_BTD, head_VD)
        return scores, pull(bars)

    def frozen(hidden_BTD, head_VD, targets_BT, bars):
        scores_of_hidden = partial(scores_of, head_VD=head_VD, targets_BT=targets_BT)
        logp_BT, pull, entropy_BT = jax.vjp(scores_of_hidden, hidden_BTD, has_aux=True)
        return logp_BT, entropy_BT, pull(bars.logp_BT)

    if passed == FORWARD:
        return compiled(scores_of, *problem[:3])
    return compiled(both if passed == BACKWARD else frozen, *problem)


def torch_program(torch: Any, problem: Problem, passed: str) -> Program:
    """One pass of the dense form in PyTorch, on the kind of device that JAX uses."""
    device = torch.device("cuda" if jax.default_backend() == "gpu" else "cpu")
    dtype = getattr(torch, problem.hidden_BTD.dtype.name)

    def moved(array, dtype):
        plain = array.astype(jnp.float32) if jnp.issubdtype(array.dtype, jnp.floating) else array
        return torch.from_numpy(np.array(plain)).to(device, dtype)

    hidden = moved(problem.hidden_BTD, dtype).requires_grad_(passed != FORWARD)
    head = moved(problem.head_VD, dtype).requires_grad_(passed == BACKWARD)
    targets = moved(problem.targets_BT, torch.int64)
    bars = [moved(bar, torch.float32) for bar in problem.bars]

    def run():
        hidden.grad = head.grad = None
        logp_BTV = torch.log_softmax(torch.nn.functional.linear(hidden, head).float(), dim=-1)
        logp_BT = logp_BTV.gather(-1, targets[..., None])[..., 0]
        with torch.set_grad_enabled(passed == BACKWARD):
            entropy_BT = -(logp_BTV.exp() * logp_BTV).sum(-1)
        if passed == BACKWARD:
            torch.autograd.backward([logp_BT, entropy_BT], bars)
        elif passed == FROZEN:
            torch.autograd.backward(logp_BT, bars[0])
        if device.type == "cuda":
            torch.cuda.synchronize()

    return Program(run)


def probe_program(problem: Problem) -> tuple[Program, float]:
    """The matrix product that sets the limit, made several times over so that it alone counts; and its FLOPs."""
    hidden_ND = problem.hidden_BTD.reshape(-1, problem.hidden_BTD.shape[2])
    head_CD = problem.head_VD[:PROBE_WIDTH]

    ones = jnp.ones(PROBE_TURNS, hidden_ND.dtype)  # handed over, so that XLA cannot make one product for all turns

    def products(hidden_ND, head_CD, ones):
        def add_product(total_N, one):
            product_NC = product("nd,cd->nc", one * hidden_ND, head_CD, dtype=jnp.float32)
            # The barrier keeps XLA from making the one column that is used.
            return total_N + jax.lax.optimization_barrier(product_NC)[:, 0], None

        return jax.lax.scan(add_product, jnp.zeros(hidden_ND.shape[0]), ones)[0]

    program = compiled(products, hidden_ND, head_CD, ones)
    return program, PROBE_TURNS * 2.0 * hidden_ND.size * head_CD.shape[0]


def median_seconds(programs: dict[str, Program], repeats: int) -> dict[str, float]:
    """Median seconds of each after one unmeasured run; they take turns, so that a busy machine is shared fairly."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(1 + repeats):
        for name, program in programs.items():
            start = time.perf_counter()
            program.run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(measured) for name, measured in seconds.items()}


def row(problem: Problem, passed: str, torch: Any, repeats: int) -> str:
    """Measure one pass and set it as a row of the table."""
    ours, dense = (jax_program(scores_of, problem, passed) for scores_of in (chunked_scores, dense_scores))
    probe, probe_flops = probe_program(problem)
    programs = {"ours": ours, "dense": dense, "probe": probe}
    if torch is not None:
        programs["torch"] = torch_program(torch, problem, passed)
    seconds = median_seconds(programs, repeats)

    logits_bytes = 4 * problem.targets_BT.size * problem.head_VD.shape[0]
    limit = probe_flops / seconds["probe"]
    reached = PRODUCTS[passed] * 2.0 * problem.hidden_BTD.size * problem.head_VD.shape[0] / seconds["ours"]
    against_torch = ["not installed", "–"]
    if torch is not None:
        against_torch = [f"{seconds['torch']:.3f}", f"{seconds['ours'] / seconds['torch']:.2f}"]
    cells = [
        str(problem.hidden_BTD.shape[2]),
        passed,
        f"{seconds['ours']:.3f}",
        f"{seconds['dense']:.3f}",
        f"{seconds['ours'] / seconds['dense']:.2f}",
        *against_torch,
        f"{ours.temporary_bytes / 2**20:.1f}",
        f"{dense.temporary_bytes / 2**20:.1f}",
        f"{ours.temporary_bytes / dense.temporary_bytes:.3f}",
        f"{logits_bytes / 2**20:.1f}",
        f"{ours.temporary_bytes / logits_bytes:.3f}",
        f"{limit / 1e9:.0f}",
        f"{reached / 1e9:.0f}",
        f"{reached / limit:.0%}",
    ]
    return f"| {' | '.join(cells)} |"


def policies_row(problem: Problem, repeats: int) -> str:
    """Scores of two policies with the same head: one after the other, and with each chunk of it read for both."""
    hidden_BTD, head_VD, targets_BT, _ = problem

    def apart(teacher_BTD, student_BTD):
        return chunked_scores(teacher_BTD, head_VD, targets_BT), chunked_scores(student_BTD, head_VD, targets_BT)

    def together(teacher_BTD, student_BTD):
        both = chunked_scores(
            jnp.concatenate([teacher_BTD, student_BTD]), head_VD, jnp.concatenate([targets_BT, targets_BT])
        )
        return tuple(jax.tree.map(lambda array, half=half: jnp.split(array, 2)[half], both) for half in range(2))

    arguments = hidden_BTD, hidden_BTD[::-1]
    seconds = median_seconds({form.__name__: compiled(form, *arguments) for form in (apart, together)}, repeats)
    ratio = seconds["together"] / seconds["apart"]
    return f"| {hidden_BTD.shape[2]} | {seconds['apart']:.3f} | {seconds['together']:.3f} | {ratio:.2f} |"


def main() -> None:
    """Parse the sizes, print the table."""
    parser = argparse.ArgumentParser(description="Chunked against dense scores, in time and memory.")
    parser.add_argument("--tokens", type=int, default=2048, help="in two sequences of half as many each")
    parser.add_argument("--dims", type=int, nargs="+", default=[1024, 2560, 4096], help="hidden sizes")
    parser.add_argument("--vocabulary", type=int, default=151_936, help="entries; the default is Qwen3's")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--policies", action="store_true", help="two policies' scores instead, apart and together")
    parser.add_argument("--repeats", type=int, default=5, help="measured runs of each, of which the median counts")
    arguments = parser.parse_args()
    if arguments.tokens < 2 or arguments.tokens % 2:
        parser.error(f"--tokens must be even and at least 2, not {arguments.tokens}")
    if arguments.repeats < 1:
        parser.error(f"--repeats must be at least 1, not {arguments.repeats}")
    if arguments.policies:
        print("| D | apart s | together s | ratio |\n|---|---|---|---|")
        for hidden_size in arguments.dims:
            problem = make_problem(arguments.tokens, hidden_size, arguments.vocabulary, arguments.dtype)
            print(policies_row(problem, arguments.repeats), flush=True)
        return
    try:
        import torch
    except ImportError:
        torch = None
        print("PyTorch is not installed: its column stays empty")

    device = jax.devices()[0]
    with_torch = "" if torch is None else f", torch {torch.__version__} with {torch.get_num_threads()} CPU threads"
    print(f"{device.platform} {device.device_kind}, jax {jax.__version__}{with_torch}")
    print(f"2 × {arguments.tokens // 2} tokens, V = {arguments.vocabulary}, {arguments.dtype}\n\n{HEADER}", flush=True)
    for hidden_size in arguments.dims:
        problem = make_problem(arguments.tokens, hidden_size, arguments.vocabulary, arguments.dtype)
        for passed in PRODUCTS:
            print(row(problem, passed, torch, arguments.repeats), flush=True)


if __name__ == "__main__":
    main()
