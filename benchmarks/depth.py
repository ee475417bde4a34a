"""Compile time and program size against depth, and the update's memory with each choice of rematerialisation.

    python benchmarks/depth.py                        # Qwen3-0.6B's width on 8 host devices, at 4, 16 and 36 layers
    python benchmarks/depth.py --topology v5p:2x2x2 --model Qwen/Qwen3-8B   # for TPUs, without one

Compiles the real update and the real rollout for arrays by shape alone, and runs nothing. Seconds are processor time of
all threads together, which other work on the machine does not change much. Program size is that of the text of the
optimised program. The update scans its layers and is flat in depth; the rollout unrolls them, since a cache carried
through a scan is copied at every layer, and grows.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this file's checkout

REMATERIALISE = ("none", "dots", "full")


def main() -> None:
    """Parse the sizes, print both tables."""
    parser = argparse.ArgumentParser(description="Compile time and memory of one training step.")
    parser.add_argument("--topology", help="such as v5p:2x2x2; by default 8 host devices")
    parser.add_argument("--model", default="Qwen/Qwen3-0.6B", help="whose width to take: a folder or a known name")
    parser.add_argument(
        "--layers", type=int, nargs="+", default=[4, 16, 36], help="depths; the last one for the memory"
    )
    parser.add_argument("--batch", type=int, default=32, help="completions a step")
    parser.add_argument("--student_prompt", type=int, default=128, help="tokens")
    parser.add_argument("--teacher_prompt", type=int, default=512, help="tokens")
    parser.add_argument("--completion", type=int, default=256, help="tokens")
    arguments = parser.parse_args()
    if min(arguments.layers) < 1:
        parser.error(f"--layers {min(arguments.layers)}: a model has at least one")

    from egrsd_jax.plan.targets import compile_without_tpu, local_target, tpu_target

    if arguments.topology:
        compile_without_tpu()
    else:
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    try:
        target = tpu_target(arguments.topology) if arguments.topology else local_target()
    except ValueError as error:
        parser.error(str(error))
    _tables(arguments, target)


def _tables(arguments: argparse.Namespace, target: Any) -> None:
    import jax

    shape = (
        f"student {arguments.student_prompt} + {arguments.completion}, "
        f"teacher {arguments.teacher_prompt} + {arguments.completion} tokens"
    )
    print(f"{arguments.model}'s width on {target.name}, jax {jax.__version__}, batch {arguments.batch}, {shape}\n")
    print("| layers | update, processor s | program MB | rollout, processor s | program MB |\n" + "|---" * 5 + "|")
    full = None
    for layers in arguments.layers:
        compiler = _compiler(arguments, target, layers, "full")
        lengths = _lengths(arguments, compiler)
        full = compiler.update(lengths, compiler.workload.rows)
        programs = full.compiled, compiler.rollout(lengths).compiled
        cells = [
            f"{value:.1f}" for program in programs for value in (program.processor_seconds, program.text_bytes / 1e6)
        ]
        print(f"| {layers} | {' | '.join(cells)} |", flush=True)

    layers = arguments.layers[-1]
    print(f"\nupdate of {layers} layers\n")
    print("| rematerialise | temporary GiB per device | TFLOP per device | processor s |\n" + "|---" * 4 + "|")
    for choice in REMATERIALISE:
        update = full if choice == "full" else None
        if update is None:
            compiler = _compiler(arguments, target, layers, choice)
            update = compiler.update(_lengths(arguments, compiler), compiler.workload.rows)
        compiled = update.compiled
        memory = compiled.refused or f"{compiled.temporary / 2**30:.2f}"
        print(
            f"| {choice} | {memory} | {compiled.cost.flops / 1e12:.1f} | {compiled.processor_seconds:.1f} |", flush=True
        )


def _compiler(arguments: argparse.Namespace, target: Any, layers: int, rematerialise: Any) -> Any:
    """The programs of a model of another depth, which is what its folder's config.json says."""
    from egrsd_jax.config import Config, ModelSettings, RolloutSettings, TrainSettings
    from egrsd_jax.plan.planning import Compiler
    from egrsd_jax.plan.shapes import model_shape
    from egrsd_jax.plan.steps import make_workload

    model = model_shape(arguments.model)
    sliding = model.sliding_layers and (model.sliding_layers * layers)[:layers]
    nope = model.nope_layers and (model.nope_layers * layers)[:layers]
    model = model.replace(num_layers=layers, sliding_layers=sliding, nope_layers=nope)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(model.to_hf(param_dtype="bfloat16")), encoding="utf-8")
        config = Config(
            model=ModelSettings(path=folder, rematerialise=rematerialise),
            train=TrainSettings(batch_size=arguments.batch),
            rollout=RolloutSettings(max_new_tokens=arguments.completion),
        )
        return Compiler(make_workload(config, target), lambda _: None)


def _lengths(arguments: argparse.Namespace, compiler: Any) -> Any:
    from egrsd_jax.plan.steps import padded_lengths

    return padded_lengths(compiler.workload.config, arguments.student_prompt, arguments.teacher_prompt)


if __name__ == "__main__":
    main()
