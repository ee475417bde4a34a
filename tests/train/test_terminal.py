"""What a run prints while it waits."""

from unittest.mock import Mock

import jax
import numpy as np

from egrsd_jax.config import Config, LoraSettings
from egrsd_jax.evaluate.held_out import HeldOut, ProblemSet
from egrsd_jax.rollout.requests import Completion, Sampling
from egrsd_jax.train import loop
from egrsd_jax.train.terminal import LINE_SECONDS, Terminal


def test_a_wait_prints_a_line_now_and_then_where_there_is_no_terminal(capsys):
    now = [0.0]
    with Terminal(0, 3, clock=lambda: now[0]) as terminal:
        with terminal.wait("evaluate", 1000) as advance:
            for _ in range(5):
                now[0] += LINE_SECONDS / 2
                advance(Completion([1, 2, 3], np.zeros(3, np.float32), "stop"))
        terminal.end()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("evaluate")]
    assert lines == [
        "evaluate: 2 of 1,000 completions after 30 s, 0 tokens/s",
        "evaluate: 4 of 1,000 completions after 60 s, 0 tokens/s",
    ]


def test_on_a_terminal_a_wait_is_a_bar_that_goes_when_it_is_over(monkeypatch, capsys):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TTY_INTERACTIVE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    now = [0.0]
    with Terminal(0, 3, clock=lambda: now[0]) as terminal:
        with terminal.wait("sample", 2) as advance:
            now[0] += 100.0
            advance(Completion([1] * 700, np.zeros(700, np.float32), "stop"))
            shown = [task.description for task in terminal._progress.tasks]
            assert shown == ["train", "sample"]
            assert terminal._progress.tasks[1].completed == 1
            assert terminal._progress.tasks[1].fields["headline"] == "7 tokens/s"
        assert [task.description for task in terminal._progress.tasks] == ["train"]
    assert "of 2 completions" not in capsys.readouterr().out


def test_the_held_out_evaluation_of_a_run_shows_how_far_it_is(capsys):
    now = [0.0]

    class Slow:
        """An engine whose completions take 40 seconds each."""

        def update_params(self, params, lora=None) -> int:
            return 1

        def generate(self, requests, *, on_tokens=None):
            for number in range(len(requests)):
                now[0] += 40.0
                yield number, Completion([1, 2], np.zeros(2, np.float32), "stop")

    held_out = HeldOut(
        ProblemSet("set", "data", ["0", "1"]), [[1], [2]], ["0", "1"], 1, Sampling(max_new_tokens=4), jax.random.key(0)
    )
    grader = Mock()
    grader.grade.side_effect = lambda completions, answers: [Mock(correct=True, ungradable=None) for _ in answers]
    run = Mock(config=Config(lora=LoraSettings(rank=0)), held_out=held_out, engine=Slow())
    run.folder.read_json.return_value = None
    state = Mock(step=0, trainable={})
    with Terminal(0, 3, clock=lambda: now[0]) as terminal:
        [(step, scores)] = loop._evaluation(run, state, grader, Mock(), terminal)
        terminal.end()
    assert (step, scores.tokens) == (0, [[2], [2]])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("evaluate")]
    assert lines == [
        "evaluate: 1 of 2 completions after 40 s, 0 tokens/s",
        "evaluate: 2 of 2 completions after 80 s, 0 tokens/s",
    ]
