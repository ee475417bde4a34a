"""Every verdict on both sides of its limit, from numbers made for it."""

from dataclasses import replace

import numpy as np
import pytest

from egrsd_jax.config import Config, RewardSettings, RolloutSettings, TrainSettings
from egrsd_jax.evaluate.comparison import compare
from egrsd_jax.evaluate.scores import Scores
from egrsd_jax.objective.methods import method_settings
from egrsd_jax.preflight.checks.line import Line
from egrsd_jax.preflight.entry_clip import EntryClip
from egrsd_jax.preflight.judge import lines, verdict
from egrsd_jax.preflight.measure import Measured, Signal, Weights
from egrsd_jax.preflight.templates import Turns

N, K = 60, 4
SIGNAL = Signal(-0.1, 0.2, 1e-7, 1e-7, 0.0, 0.01, 0.3, 0.2)
WEIGHTS = Weights(0.05, 0.05, 0.9, 0.0, None, {"lock": 0.5, "mid": 0.2, "pivot": 0.2, "fork": 0.1})
TURNS = Turns(
    student_opening="<|im_start|>assistant\n",
    teacher_opening="<|im_start|>assistant\n",
    end="<|im_end|>\n",
    end_id=2,
    end_token="<|im_end|>",
    stops={0: "<|endoftext|>", 2: "<|im_end|>"},
    eos=2,
    generation=(2, 0),
    student_tail=("assistant", "\n"),
    teacher_tail=("assistant", "\n"),
    thinking=None,
)


def scores(share: float, *, cut_off: float = 0.0, ungradable: int = 0, missing: dict[str, int] | None = None) -> Scores:
    """N problems × K, with so many of each problem's completions correct that the mean is the share."""
    place_NK = np.arange(N * K).reshape(K, N).T
    solved = place_NK < round(share * N * K)
    return Scores(
        "some",
        "set",
        [str(number) for number in range(N)],
        correct=solved.astype(int).tolist(),
        tokens=np.full((N, K), 30).tolist(),
        cut_off=cut_off,
        ungradable=ungradable,
        max_new_tokens=1024,
        missing=missing or {},
    )


def measured(plain: float = 0.5, privileged: float = 0.9, method: str = "egrsd", **changes) -> Measured:
    before, after = scores(plain), scores(privileged)
    settings = Config(method=method_settings(method), rollout=RolloutSettings(), train=TrainSettings(batch_size=32))
    made = Measured(
        "a model", settings, before, after, compare(before, after).accuracy, SIGNAL, WEIGHTS, 1e-6, TURNS, []
    )
    return replace(made, **changes)


def line(name: str, of: Measured) -> Line:
    return next(line for line in lines(of) if line.name == name)


def test_a_model_that_the_privilege_helps_is_a_go_throughout():
    judged = lines(measured())
    assert {line.judgement for line in judged} == {"go"}, [line for line in judged if line.judgement != "go"]
    assert verdict(judged) == "go"
    gap = line("gap", measured()).numbers
    assert gap["gap"] == pytest.approx(0.4)
    assert 0 < gap["gap_low"] < 0.4 < gap["gap_high"]


def test_a_model_that_solves_nothing_either_way_is_a_stop_that_says_so():
    judged = lines(measured(0, 0))
    assert verdict(judged) == "stop"
    assert [line.judgement for line in judged[:2]] == ["stop", "stop"]
    assert "no completion is correct" in judged[0].reason
    assert "not even with the privilege" in judged[1].reason
    high = judged[1].numbers["gap_high"]
    assert high == pytest.approx(1 - 0.025 ** (1 / N))  # none of 60 problems differed, and that is all that is known


@pytest.mark.parametrize(
    ("plain", "privileged", "judgement"),
    [(0.5, 0.3, "stop"), (0.5, 0.5, "look"), (0.5, 0.75, "go")],
)
def test_the_gap_is_judged_by_its_interval(plain, privileged, judgement):
    assert line("gap", measured(plain, privileged)).judgement == judgement


def test_a_gap_that_chance_could_make_is_no_go():
    chance = np.random.default_rng(0)
    before, after = (
        replace(scores(0.5), correct=(chance.random((N, K)) < share).astype(int).tolist()) for share in (0.5, 0.55)
    )
    gap = compare(before, after).accuracy
    assert gap.low < 0 < gap.high
    assert line("gap", measured(plain=0.5, privileged=0.5, gap=gap)).judgement == "look"


def test_a_privilege_whose_completions_were_cut_off_is_not_judged_as_useless():
    cut = replace(measured(0.5, 0.3), privileged=scores(0.3, cut_off=0.7))
    assert line("gap", cut).judgement == "look"
    assert "--privileged_cap" in line("gap", cut).reason


def test_a_control_without_privilege_is_no_stop():
    control = measured(0.5, 0.5, signal=SIGNAL._replace(signal=0.0))
    control = replace(control, config=replace(control.config, method=method_settings("egrsd", privilege="none")))
    assert line("gap", control).judgement == "look"
    assert line("noise", control).judgement == "look"


def test_nothing_is_left_to_learn_where_all_is_solved():
    assert line("accuracy", measured(1.0, 1.0)).judgement == "stop"
    assert line("accuracy", measured(0.9, 1.0)).judgement == "go"


def test_a_method_that_reads_no_reward_may_begin_without_a_correct_completion():
    copying = measured(0, 0.9, "opsd", weights=WEIGHTS._replace(clipped_low=None, clipped_high=None, gate_mean=None))
    assert line("accuracy", copying).judgement == "look"
    assert verdict(lines(copying)) == "look"
    assert {"clip", "gate"}.isdisjoint(line.name for line in lines(copying))


@pytest.mark.parametrize("method", ["egrsd", "grpo", "rlsd", "sdar", "sdpg", "rlad", "oasis", "paced"])
def test_a_method_that_learns_from_rewards_stops_without_a_correct_completion(method):
    """Also where a divergence counts only for problems that are solved at times."""
    before = measured(0, 0.9)
    settings = replace(
        before.config,
        method=method_settings(method),
        rollout=RolloutSettings(samples_per_problem=8),
        reward=RewardSettings(),
    )
    assert line("accuracy", replace(before, config=settings)).judgement == "stop"


@pytest.mark.parametrize(("mass", "judgement"), [(0.0, "go"), (0.0099, "go"), (0.0101, "look"), (0.6, "look")])
def test_a_divergence_whose_clip_binds_much_of_the_teachers_probability_is_worth_a_look(mass, judgement):
    weights = Weights(None, None, None, None, None, WEIGHTS.regimes, EntryClip(0.002, mass, 0.3))
    found = line("entry_clip", measured(method="opsd", weights=weights))
    assert found.judgement == judgement
    assert found.numbers == {"entries": 0.002, "mass": mass, "tokens": 0.3}
    assert all(line.name != "entry_clip" for line in lines(measured()))


@pytest.mark.parametrize(("share", "judgement"), [(0.1, "go"), (0.11, "look"), (0.5, "look"), (0.51, "stop")])
def test_cut_off(share, judgement):
    assert line("cut_off", measured()).judgement == "go"
    assert line("cut_off", replace(measured(), plain=scores(0.4, cut_off=share))).judgement == judgement


@pytest.mark.parametrize(("count", "judgement"), [(12, "go"), (13, "look"), (60, "look"), (61, "stop")])
def test_answers_are_missed_among_the_completions_that_ended(count, judgement):
    half = scores(0.2, cut_off=0.5, missing={"cut off": N * K // 2, "no box": count})
    assert line("no_answer", replace(measured(), plain=half)).judgement == judgement


@pytest.mark.parametrize(("count", "judgement"), [(12, "go"), (13, "look"), (61, "stop")])
def test_ungradable(count, judgement):
    assert line("ungradable", replace(measured(), plain=scores(0.5, ungradable=count))).judgement == judgement


@pytest.mark.parametrize(
    ("changes", "judgement"),
    [
        ({"end_id": 7, "end_token": "</s>"}, "stop"),
        ({"end_id": None, "end_token": None}, "look"),
        ({"eos": 0}, "look"),
        ({"generation": (0,)}, "look"),
        ({"generation": ()}, "go"),
    ],
)
def test_the_end_of_a_turn(changes, judgement):
    assert line("end_of_turn", measured(turns=replace(TURNS, **changes))).judgement == judgement


def test_openings_that_differ_are_named():
    thinks = replace(TURNS, teacher_opening="<|im_start|>assistant\n<think>\n")
    opening = line("opening", measured(turns=thinks))
    assert opening.judgement == "look"
    assert r"'<|im_start|>assistant\n<think>\n'" in opening.value
    assert line("opening", measured(turns=replace(TURNS, student_opening=None))).judgement == "look"
    assert line("opening", measured(turns=replace(TURNS, thinking="it ignores"))).reason == "it ignores"


@pytest.mark.parametrize(
    ("signal", "name", "judgement"),
    [
        (SIGNAL._replace(signal=0.0), "noise", "stop"),
        (SIGNAL._replace(twice=0.03), "noise", "look"),
        (SIGNAL._replace(twice=0.15), "noise", "stop"),
        (SIGNAL._replace(first_size=0.61), "first_token", "look"),
        (SIGNAL._replace(first_size=0.59), "first_token", "go"),
        (SIGNAL._replace(first_size=0.4, signal=0.01), "first_token", "go"),
    ],
)
def test_the_signal_against_its_noise(signal, name, judgement):
    assert line(name, measured(signal=signal)).judgement == judgement


def test_a_gap_between_sampler_and_trainer_is_worse_in_float32():
    apart = measured(sampler_gap=0.06)
    assert line("sampler_gap", apart).judgement == "look"
    exact = replace(apart.config, model=replace(apart.config.model, dtype="float32"))
    assert line("sampler_gap", replace(apart, config=exact)).judgement == "stop"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"clipped_low": 0.5, "clipped_high": 0.35}, "clip"),
        ({"gate_mean": 0.9995}, "gate"),
        ({"gate_mean": 0.4}, "gate"),
        ({"restored": 0.0, "regimes": {**WEIGHTS.regimes, "pivot": 0.001}}, "regimes"),
    ],
)
def test_weights_that_leave_little_are_worth_a_look(changes, name):
    assert line(name, measured()).judgement == "go"
    assert line(name, measured(weights=WEIGHTS._replace(**changes))).judgement == "look"


def test_group_advantages_need_problems_that_some_completions_solve():
    grouped = measured(0.5, 0.9)
    grouped = replace(
        grouped,
        config=replace(
            grouped.config, rollout=RolloutSettings(samples_per_problem=4), reward=RewardSettings(advantage="group")
        ),
    )
    assert line("mixed_groups", grouped).judgement == "go"
    assert line("mixed_groups", replace(grouped, plain=scores(0.25))).judgement == "go"
    all_or_none = replace(scores(0.5), correct=[[int(row < N // 2)] * K for row in range(N)])
    assert line("mixed_groups", replace(grouped, plain=all_or_none)).judgement == "stop"
    assert all(line.name != "mixed_groups" for line in lines(measured()))
