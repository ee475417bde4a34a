"""Alarms over steps: each fires on a case made for it, once when it begins, and a healthy run is silent."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from egrsd_jax.probes.catalogue import PROBES, judge
from egrsd_jax.probes.observed import Observed, Tallies, tallies
from egrsd_jax.probes.settings import ProbeSettings
from egrsd_jax.probes.watch import Watch, as_row, from_row, metrics_of

SETTINGS = ProbeSettings(window=3, overlap_words=3)
REFERENCE = "first we add the two and then we halve the sum of both"
HEALTHY = "wait so the mean is what we want , adding both gives ten hence half of that , which is five . "


def step(seed: int, rows: int = 64, **changed) -> Tallies:
    """A step of completions as healthy as the untrained model's, but for what is changed in every one."""
    source, observed = np.random.default_rng(seed), []
    for row in range(rows):
        length = changed.get("length", 40) + int(source.integers(-4, 5))
        forks = changed.get("forks", 0.1)
        weight = np.ones(length)
        style = np.arange(length) < changed.get("style", 4)
        weight[style] = changed.get("style_weight", 1.0)
        observed.append(
            Observed(
                text=changed.get("text", HEALTHY * int(source.integers(1, 3)) + r"\boxed{5}"),
                problem="what is the mean of 3 and 7",
                reference=REFERENCE,
                answer=None if row < changed.get("no_answer", 0) * rows else "5",
                tokens=list(range(40)) + [7] * 30 if row < changed.get("loop", 0) * rows else list(range(70)),
                correct=row < changed.get("right", 0.75) * rows,
                stopped=row >= changed.get("cut_off", 0.02) * rows,
                length=length,
                style=style,
                weight=weight,
                delta=weight,
                fork=source.random(length) < forks,
            )
        )
    return tallies(observed, SETTINGS)


BROKEN = {
    "length_fall": {"length": 25, "right": 0.6},
    "length_rise": {"length": 70},
    "cut_off_excess": {"cut_off": 0.4},
    "hesitation_fall": {"text": HEALTHY.replace("wait", "") + r"\boxed{5}"},
    "hesitation_rise": {"text": "wait hmm " * 3 + HEALTHY + r"\boxed{5}"},
    "mention_excess": {"text": "as the reference solution says , " + HEALTHY * 2 + r"\boxed{5}"},
    "overlap_excess": {"text": HEALTHY + REFERENCE + r"\boxed{5}"},
    "early_excess": {"text": r"\boxed{5} " + HEALTHY * 2},
    "fork_fall": {"forks": 0.02},
    "style_most": {"style_weight": 20.0},
    "loop_most": {"loop": 0.4},
    "no_answer_most": {"no_answer": 0.8},
}


def watched(*later: Tallies, settings: ProbeSettings = SETTINGS) -> list[list[str | None]]:
    """The limits that begin to be broken with each step after the untrained model's."""
    watch = Watch(settings)
    assert watch.see(step(0)) == []
    return [[verdict.broken for verdict in watch.see(found)] for found in later]


def test_a_healthy_run_is_silent():
    assert watched(*(step(seed) for seed in range(1, 31))) == [[]] * 30


@pytest.mark.parametrize("limit", BROKEN)
def test_each_alarm_fires_once_it_has_lasted_and_only_once(limit):
    alarms = watched(*(step(seed, **BROKEN[limit]) for seed in range(1, 10)))
    assert alarms[:2] == [[], []]  # the window is not full
    assert limit in alarms[2]
    assert [broken for each in alarms[3:] for broken in each if broken == limit] == []


def nothing_correct(watch: Watch, steps: range, right: float = 0) -> list[str]:
    """What is said of steps that have no correct completion, an empty text where nothing is."""
    verdicts = [watch.see(step(seed, right=right)) for seed in steps]
    return ["".join(verdict.text for verdict in begun if verdict.broken == "nothing_correct") for begun in verdicts]


def test_nothing_correct_for_many_steps_counts_the_untrained_models_own():
    watch = Watch(replace(SETTINGS, nothing_correct=4))
    assert [bool(text) for text in nothing_correct(watch, range(6))] == [False, False, False, True, False, False]
    assert nothing_correct(watch, range(6, 7), right=0.5) == [""]
    again = nothing_correct(watch, range(8, 12))
    assert [bool(text) for text in again] == [False, False, False, True]
    assert "limit probes.nothing_correct" in again[-1]
    assert not any(nothing_correct(Watch(replace(SETTINGS, nothing_correct=None)), range(12)))


def test_a_run_that_began_without_a_probe_resumes():
    """Rows that an earlier version wrote lack the newer probes."""
    watch = Watch(SETTINGS)
    for seed in range(3):
        row = as_row(step(seed))
        watch.see(from_row({name: row[name] for name in row.keys() - {"loop", "repeat"}}))
    for seed in range(3, 5):
        assert "loop" not in [verdict.probe.name for verdict in watch.verdicts()]
        watch.see(step(seed, loop=1))
    assert [verdict.broken for verdict in watch.see(step(6, loop=1))] == ["loop_most"]


def test_every_limit_has_a_case():
    assert {limit for probe in PROBES for limit in probe.limits.values()} == set(BROKEN)


@pytest.mark.parametrize("limit", BROKEN)
def test_a_limit_of_null_never_alarms(limit):
    off = replace(SETTINGS, **{limit: None})
    alarms = watched(*(step(seed, **BROKEN[limit]) for seed in range(1, 6)), settings=off)
    assert not any(limit in broken for broken in alarms)


def test_an_alarm_begins_again_after_a_quiet_window():
    bad, good = BROKEN["cut_off_excess"], {}
    kinds = [bad] * 4 + [good] * 7 + [bad] * 4
    alarms = watched(*(step(seed, **kind) for seed, kind in enumerate(kinds, start=1)))
    assert [index for index, broken in enumerate(alarms) if "cut_off_excess" in broken] == [2, 11]


def test_one_bad_step_is_pooled_away():
    kinds = [{}] * 4 + [{"cut_off": 0.3}] + [{}] * 4
    assert watched(*(step(seed, **kind) for seed, kind in enumerate(kinds, start=1))) == [[]] * 9


def test_shorter_completions_are_excused_by_accuracy_that_held():
    alarms = watched(*(step(seed, length=25, right=0.95) for seed in range(1, 8)))
    assert not any("length_fall" in broken for broken in alarms)


def test_what_a_killed_run_logged_brings_the_watch_back():
    steps = [step(seed, **(BROKEN["early_excess"] if seed else {})) for seed in range(8)]
    whole, again = Watch(SETTINGS), Watch(SETTINGS)
    alarms = [whole.see(found) for found in steps]
    rows = [json.loads(json.dumps(as_row(found))) for found in steps[:5]]
    alarms_again = [again.see(from_row(row)) for row in rows] + [again.see(found) for found in steps[5:]]
    assert [[v.text for v in each] for each in alarms_again] == [[v.text for v in each] for each in alarms]


@pytest.mark.parametrize("stopped", [0, 1, 4, 6])
def test_what_a_checkpoint_has_brings_the_watch_back(stopped):
    kinds: list[dict[str, Any]] = [{"right": 0.0}] * 2 + [BROKEN["early_excess"]] * 7
    steps = [step(seed, **kind) for seed, kind in enumerate(kinds)]
    settings = replace(SETTINGS, baseline_steps=2)
    whole, before = (Watch(settings, fork_entropy=0.25) for _ in range(2))
    alarms = [whole.see(tally) for tally in steps]
    for tally in steps[:stopped]:
        before.see(tally)
    again = Watch.resumed(settings, json.loads(json.dumps(before.to_json())))
    assert again is not None
    assert again == before
    assert [again.see(tally) for tally in steps[stopped:]] == alarms[stopped:]
    assert again == whole
    assert any(alarms)
    assert Watch.resumed(replace(settings, window=4), before.to_json()) is None


def test_a_line_says_figures_limit_and_meaning():
    [verdict] = [v for v in judge(step(1, cut_off=0.5), step(0), SETTINGS) if v.broken]
    assert verdict.text == (
        "cut off: 50 ± 6.3 %, and the untrained model's 3.12 ± 2.2; limit probes.cut_off_excess: "
        "completions without an end earn nothing"
    )


def test_without_the_untrained_model_only_absolute_limits_count():
    broken = [v.broken for v in judge(step(1, cut_off=0.5, style_weight=20.0), None, SETTINGS)]
    assert [limit for limit in broken if limit] == ["style_most"]


def test_figures_have_names_for_a_log_and_leave_out_what_is_not_there():
    found = metrics_of(step(0, right=1.0))
    assert found["probe_accuracy"] == 1
    assert found["probe_hesitation_right"] == found["probe_hesitation"]
    assert "probe_hesitation_wrong" not in found
    assert "probe_accuracy_right" not in found
