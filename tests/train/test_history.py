"""What a run that resumes has of its earlier steps: from its checkpoint, or from files where that has none."""

from types import SimpleNamespace
from typing import Any

import pytest

from egrsd_jax.config import Config, EvaluationSettings
from egrsd_jax.probes.settings import ProbeSettings
from egrsd_jax.probes.watch import Watch, as_row
from egrsd_jax.runs.folder import RunFolder
from egrsd_jax.runs.rows import append_rows
from egrsd_jax.train.loop import _kept_evaluations
from egrsd_jax.train.probing import kept_probes
from tests.probes.test_watch import step


def resuming(tmp_path, history: dict[str, Any], probes: ProbeSettings) -> Any:
    """A run at step 4 as far as its history goes, with rows of the probes of all steps but for the first."""
    config = Config(probes=probes, evaluation=EvaluationSettings(every=2))
    folder = RunFolder(config)
    folder.path, folder.probes = tmp_path, tmp_path / "probes.jsonl"
    if not folder.probes.exists():
        append_rows(folder.probes, [{"step": n, **as_row(step(n)), "fork_entropy": 0.5} for n in range(1, 6)])
    return SimpleNamespace(
        config=config,
        folder=folder,
        checkpoints=SimpleNamespace(history=history),
        state=SimpleNamespace(step=4),
        tokenizer=SimpleNamespace(decode=str),
        held_out=SimpleNamespace(read=dict),
    )


def test_probes_are_the_checkpoints_or_are_counted_again_and_say_what_they_lack(tmp_path):
    settings = ProbeSettings(window=3)
    whole = Watch(settings, fork_entropy=0.25)
    for number in range(4):
        whole.see(step(number))
    history = {"probes": whole.to_json()}
    probes, notes = kept_probes(resuming(tmp_path, history, settings))
    assert (probes.watch, notes) == (whole, [])
    for kept, changed in (({}, settings), (history, ProbeSettings(window=2))):
        probes, [note] = kept_probes(resuming(tmp_path, kept, changed))
        assert len(probes.watch.recent) == 2
        assert probes.watch.fork_entropy == 0.5
        assert note.startswith(f"{tmp_path}/probes.jsonl has no rows of steps 0; the averages and limits")


@pytest.mark.parametrize("kept", [True, False])
def test_an_evaluation_that_is_gone_is_written_again_or_named(tmp_path, kept):
    run = resuming(tmp_path, {"evaluations": {"0": {"accuracy": 0.5}}} if kept else {}, ProbeSettings())
    run.folder.write_json("evaluation_step2.json", {"accuracy": 0.75})
    lines: list[str] = []
    evaluations = _kept_evaluations(run, SimpleNamespace(warn=lines.append))  # pyright: ignore
    later = (2, {"accuracy": 0.75})
    if kept:
        assert evaluations == [(0, {"accuracy": 0.5}), later]
        assert lines == [f"{tmp_path}/evaluation_step0.json is written again, from the checkpoint"]
        assert run.folder.read_json("evaluation_step0.json") == {"accuracy": 0.5}
    else:
        assert evaluations == [later]
        assert lines == [
            f"{tmp_path} has no evaluations of steps 0; alarms, the plot and train.keep_best are without them"
        ]
