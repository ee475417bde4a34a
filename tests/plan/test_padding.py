"""What a plan counts of a run's own data: programs, rows and padding, as the run itself has them."""

import dataclasses

import jax
import pytest

from egrsd_jax.command_line import load_config
from egrsd_jax.config import TrainSettings
from egrsd_jax.plan.padding import STEPS, data_padding, padding_lines
from egrsd_jax.plan.steps import make_workload
from egrsd_jax.plan.targets import Target
from tests.commands import ROOT


@pytest.fixture(scope="module")
def config():
    config = load_config(ROOT / "configs/arithmetic.yaml")
    return dataclasses.replace(config, data=dataclasses.replace(config.data, train_problems=64))


def counted(config, devices: int, **train):
    config = dataclasses.replace(config, train=TrainSettings(steps=20, batch_size=32, **train))
    return data_padding(make_workload(config, Target("test", jax.devices()[:devices], None, None)))


def test_completions_that_share_rows_need_one_update_and_little_padding(config):
    data = counted(config, 1)
    assert (data.steps, data.updates) == (20, 1)
    assert data.shapes is not None
    assert 1 <= data.student <= 1.3
    assert data.teacher is not None
    assert 1 <= data.teacher <= 1.3
    summary, student, teacher = padding_lines(data)
    assert "first 20 steps" in summary
    assert "the update is 1 program;" in summary
    assert f"student {data.student:.2f}, teacher {data.teacher:.2f}" in summary
    shape = data.shapes.student[0]
    assert student == f"  student: micro-batches of {shape.rows} × {shape.positions} positions"
    assert teacher.startswith("  teacher: ")


def test_several_devices_have_rows_of_two_lengths(config):
    data = counted(config, 8)
    assert data.shapes is not None
    assert [shape.rows for shape in data.shapes.student] == [8, 8]
    assert " and 8 × " in padding_lines(data)[1]


def test_a_row_for_each_completion_is_padded_to_the_longest(config):
    alone = counted(config, 1, micro_batch_size=8)
    assert alone.shapes is None
    assert alone.student > counted(config, 1).student
    assert len(padding_lines(alone)) == 1


def test_no_more_steps_than_the_limit(config):
    assert STEPS == 100
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, train_problems=8))
    config = dataclasses.replace(config, train=TrainSettings(steps=150, batch_size=2))
    assert data_padding(make_workload(config, Target("test", jax.devices()[:1], None, None))).steps == 100
