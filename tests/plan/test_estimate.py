"""Costs by hand against what the compiler counted for the plans of docs/scaling.md."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from egrsd_jax.command_line import parse_config
from egrsd_jax.config import Config
from egrsd_jax.objective.methods import method_settings
from egrsd_jax.plan.estimate import (
    Lengths,
    adapter_weights,
    checkpoint_bytes,
    device_bytes,
    estimate,
    evaluation_seconds,
    layer_weights,
    machine,
    rollout_seconds,
    update_flops,
)
from egrsd_jax.plan.shapes import model_shape

SCALING = (Path(__file__).resolve().parents[2] / "docs/scaling.md").read_text(encoding="utf-8")
PLANNED = Lengths(512, 4096, 1024)
PLANS = {"Qwen/Qwen3-8B": ("qwen3_8b_cl_egrsd", "v5p:8"), "Qwen/Qwen3-4B": ("qwen3_4b_cl_egrsd", "v5e:8")}


def config(preset: str, *options: str) -> Config:
    return parse_config(["--config", preset, *options], program="", description="")


def compiled(model: str, row: str) -> list[float]:
    """A row of the model's tables in docs/scaling.md."""
    table = SCALING.split(f"```text\n{model}, cl_egrsd")[1].split("```")[0]
    cells = re.search(rf"^│ {re.escape(row)} +│(.*)│$", table, re.MULTILINE)
    assert cells is not None, row
    return [float(cell.replace(",", "")) for cell in cells[1].split("│")]


@pytest.mark.parametrize("model", PLANS)
def test_the_compiler_counts_the_same(model):
    preset, on = PLANS[model]
    planned, shape = config(preset, "--train.micro_batch_size=32"), model_shape(model)
    update, *_ = compiled(model, "TFLOP")
    assert update_flops(planned, shape, PLANNED) == pytest.approx(8e12 * update, rel=1e-3)
    least = compiled(model, "at least, s")
    seconds = rollout_seconds(planned, shape, PLANNED, machine(on))
    assert seconds == pytest.approx(least[1] + least[3], rel=0.45)
    total = compiled(model, "total")
    longest = PLANNED._replace(teacher=24_576)
    for lengths, gib in ((PLANNED, total[0]), (longest, total[1])):
        assert device_bytes(planned, shape, lengths, machine(on)) / 2**30 == pytest.approx(gib, rel=1 / 3)
    made = estimate(planned, shape, PLANNED, longest, machine(on))
    assert made.fits
    assert made.step == pytest.approx(made.update + made.rollout)


def test_weights_of_a_model():
    shape = model_shape("Qwen/Qwen3-8B")
    assert layer_weights(shape) == pytest.approx(36 * 192.9e6, rel=1e-3)  # docs/scaling.md
    assert adapter_weights(config("qwen3_8b_egrsd"), shape) == pytest.approx(36 * 4.85e6, rel=1e-3)


def test_what_a_run_keeps_on_disk():
    eight = config("qwen3_8b_egrsd")
    shape = model_shape("Qwen/Qwen3-8B")
    one = 4 * 3 * adapter_weights(eight, shape)  # float32: the weights and two moments
    assert checkpoint_bytes(eight, shape) == 6 * one  # four newest, the best, and the one that is written
    moving = replace(eight, method=method_settings("egrsd", teacher="ema"))
    assert checkpoint_bytes(moving, shape) == 8 * one


def test_a_method_without_a_teacher_costs_less_and_reference_solutions_are_not_sampled():
    shape, planned = model_shape("Qwen/Qwen3-4B"), config("qwen3_4b_egrsd")
    without = replace(planned, method=method_settings("grpo"))
    assert update_flops(without, shape, PLANNED) < 0.6 * update_flops(planned, shape, PLANNED)
    copied = replace(planned, method=method_settings("sft"))
    assert rollout_seconds(copied, shape, PLANNED, machine("H200:1")) == 0


def test_twice_the_samples_or_half_the_chips_take_twice_as_long():
    shape, planned = model_shape("Qwen/Qwen3-4B"), config("qwen3_4b_egrsd")

    def seconds(samples: int, on: str) -> float:
        return evaluation_seconds(planned, shape, samples=samples, rows=16, tokens=12_000, on=machine(on))

    assert seconds(64, "v5e:8") == pytest.approx(2 * seconds(32, "v5e:8"))
    assert seconds(64, "v5e:4") == pytest.approx(2 * seconds(64, "v5e:8"))


def test_machines_by_name():
    assert machine("v5p:8").name == "v5p:8"
    assert machine("h200:1").chip.flops == 989e12
    assert (machine("tpu7x:4").count, machine("tpu7x:4").chips) == (8, 4)
    for text in ("v5p", "v5p:0", "v9:8", "v5p:2x2"):
        with pytest.raises(ValueError, match="it is KIND:CHIPS"):
            machine(text)
