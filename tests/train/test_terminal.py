"""What a run prints while it waits."""

import numpy as np

from egrsd_jax.rollout.requests import Completion
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
