"""Whole runs compile nothing after their second step where shapes do not change."""

import collections
import json

import jax
import pytest

from egrsd_jax.command_line import parse_config
from egrsd_jax.compilation import Listener, listening
from egrsd_jax.data.tasks.registry import BUILT_IN_TASKS
from egrsd_jax.presets import training_file
from egrsd_jax.train.loop import train
from egrsd_jax.train.setup import prepare

pytestmark = pytest.mark.slow
STEPS = 5


class Compiled(Listener):
    """The programs that were made, by name, in order."""

    def __init__(self):
        self.names: list[str] = []

    def ends(self, name: str, seconds: float) -> None:
        self.names.append(name)


@pytest.fixture(scope="module")
def equal_problems(tmp_path_factory):
    """Problems of the built-in task whose prompts and references are all as long as those of the others."""
    problems = BUILT_IN_TASKS["arithmetic"].problems(400, seed=0, held_out=False)
    by_length = collections.defaultdict(list)
    for problem in problems:
        by_length[len(problem.problem.split()), len(problem.solution.split())].append(problem)
    rows = max(by_length.values(), key=len)
    file = tmp_path_factory.mktemp("data") / "problems.jsonl"
    fields = ("problem", "solution", "answer")
    file.write_text("".join(json.dumps({name: getattr(row, name) for name in fields}) + "\n" for row in rows))
    return file


@pytest.mark.parametrize("rank", [0, 4], ids=["full", "lora"])
def test_nothing_is_compiled_after_the_second_step(rank, equal_problems, tmp_path):
    options = [
        f"--run.dir={tmp_path}",
        "--run.name=run",
        "--run.track=none",
        f"--lora.rank={rank}",
        f"--data.path={equal_problems}",
        f"--evaluation.path={equal_problems}",
        "--evaluation.problems=8",
        "--evaluation.samples=1",
        "--evaluation.max_new_tokens=16",
        "--evaluation.every=2",
        "--rollout.max_new_tokens=16",
        "--rollout.max_rows=8",
        "--train.batch_size=8",
        "--train.micro_batch_size=8",
        f"--train.steps={STEPS}",
        "--train.checkpoint_every=1",
        "--train.sample_every=2",
    ]
    config = parse_config(options, program="test", description=None, default=training_file("arithmetic"))
    jax.clear_caches()  # of tests before this one
    compiled = Compiled()
    with listening(compiled):
        train(prepare(config))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    by_step = [row["programs_compiled"] + row["programs_cached"] for row in rows]
    assert len(by_step) == STEPS
    assert by_step[0] > 5
    assert by_step[2:] == [0.0] * (STEPS - 2), compiled.names
    assert sum(by_step[:2]) >= len(compiled.names) - 3, "evaluations compile on the way"
