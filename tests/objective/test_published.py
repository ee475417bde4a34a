"""What each method was published with, number by number, each with where it was read.

A test of every method finds these among its defaults, and no number of a method is missing here. Where the source is
a text about the paper and not the paper or its code, the line says `digest`; docs/methods.md says so too.
"""

import dataclasses
from pathlib import Path

import pytest

from egrsd_jax.objective.methods import METHODS
from egrsd_jax.objective.settings import TeacherSettings

EGRSD = "EGRSD, arXiv 2605.13255"
RELEASED_RLSD = "RLSD's released code: opsd_config.py"
RELEASED_RLCSD = "RLCSD's released configurations, all alike (github.com/THU-BPM/RLCSD)"
GRPO = "GRPO, arXiv 2402.03300"
PAPER = {"temperature": (1.1, EGRSD), "top_p": (0.95, EGRSD), "top_k": (20, EGRSD)}


def whole(source: str) -> dict:
    """The policy's own distribution."""
    return {"temperature": (1.0, source), "top_p": (1.0, source), "top_k": (0, source)}


# method: {setting, or what of the run belongs to the method: (value, source)}
NUMBERS: dict[str, dict[str, tuple]] = {
    "egrsd": {"epsilon": (0.2, EGRSD), "gamma": (0.3, EGRSD), "floor": (0.1, EGRSD), **PAPER},
    "cl_egrsd": {
        "epsilon": (0.2, EGRSD),
        "gamma": (0.3, EGRSD),
        "window": (3, EGRSD + ", Qwen3-4B"),
        "floor": (0.1, EGRSD),
        **PAPER,
    },
    "direction": {"epsilon": (0.2, EGRSD), "floor": (0.1, EGRSD), **PAPER},
    "gate_only": {"gamma": (0.3, EGRSD), "floor": (0.1, EGRSD), **PAPER},
    "rlsd": {
        "epsilon": (0.2, RELEASED_RLSD + ": rlsd_reweight_clip_range; ms-swift 4.6 too"),
        "mixing": (0.5, RELEASED_RLSD + ": rlsd_lambda; ms-swift 4.6 too"),
        "mixing_steps": (0, "ms-swift 4.6: rlsd_lambda_decay_steps; RLSD's script has 60, its paper 50"),
        "clip_low": (0.2, "RLSD's script rlsd_train.sh: clip_ratio_low"),
        "clip_high": (0.28, "RLSD's script rlsd_train.sh: clip_ratio_high"),
        "samples_per_problem": (8, "the released runs have 4 to 8"),
        **whole("RLSD's script rlsd_train.sh leaves verl's 1, 1, -1"),
    },
    "sdar": {
        "epsilon": (0.2, "verl's default, which SDAR's script leaves"),
        "kl": (0.001, "SDAR's released script: kl_loss_coef, low_var_kl, which is k3"),
        "distill_weight": (0.1, "ms-swift 4.6: what the reference uses, 0.01 for ALFWorld; the script has 0.01"),
        "gate_slope": (5.0, "SDAR's released script: gate_beta; ms-swift 4.6 too"),
        "samples_per_problem": (8, "SDAR's released script: group_size"),
        **whole("verl's defaults, which SDAR's script leaves"),
    },
    "sdpg": {
        "epsilon": (0.2, "SDPG's released script: clip_ratio_low"),
        "epsilon_high": (0.28, "SDPG's released script: clip_ratio_high"),
        "kl": (0.0, "SDPG's released script: use_kl_loss False"),
        "distill_weight": (0.001, "SDPG's released script: BETA"),
        "anchor_weight": (0.001, "SDPG's released script: ALPHA, KL_MODE urkl"),
        "samples_per_problem": (8, "SDPG's README: n=8"),
        **whole("SDPG's released script"),
    },
    "rlad": {
        "epsilon": (0.2, "that of GRPO; RLAD's own is open"),
        "kl": (0.0, "digest: GRPO's KL term, whose weight is open"),
        "old_share": (0.5, "digest: a port of RLAD to verl by others"),
        "samples_per_problem": (8, "as the other methods with groups; RLAD's own is open"),
        **whole("that of GRPO; RLAD's own is open"),
    },
    "rlcsd": {
        "epsilon": (0.2, RELEASED_RLCSD + ": epsilon"),
        "teacher_every": (10, RELEASED_RLCSD + ": teacher_sync_interval, teacher_mode snapshot"),
        "contrasts": (4, RELEASED_RLCSD + ": rlcsd_k_max"),
        "contrast_scale": (0.02, RELEASED_RLCSD + ": rlcsd_tau"),
        "contrast_strength": (0.5, RELEASED_RLCSD + ": rlcsd_beta 1.0 times rlcsd_lam 0.5"),
        "least_modulation": (0.02, RELEASED_RLCSD + ": rlcsd_delta"),
        "modulated_weight": (1.0, RELEASED_RLCSD + ": rlcsd_eta"),
        "samples_per_problem": (8, RELEASED_RLCSD + ": group_size"),
        "temperature": (1.0, RELEASED_RLCSD + ": temperature"),
        "top_p": (0.95, RELEASED_RLCSD + ": top_p"),
        "top_k": (20, RELEASED_RLCSD + ": top_k_sampling"),
    },
    "sign": whole("digest of arXiv 2609.08341: temperature 1.0, top-p 1.0"),
    "fixed_negative": {
        "lowest_share": (0.2, "OPSA's released code: f"),
        "fixed_advantage": (-0.5, "OPSA's released code: preset fixed-negative"),
        **whole("digest of arXiv 2608.31046: temperature 1.0, top-p 1.0"),
    },
    "grpo": PAPER,
    "grpo_group": {
        "epsilon": (0.2, "PPO, arXiv 1707.06347"),
        "kl": (0.0, "without the term of " + GRPO),
        "samples_per_problem": (8, "TRL 1.16: num_generations"),
        **whole(GRPO),
    },
    "dr_grpo": {
        "epsilon": (0.2, "Dr.GRPO, arXiv 2503.20783"),
        "kl": (0.0, "Dr.GRPO, arXiv 2503.20783"),
        "samples_per_problem": (8, "as the other methods with groups"),
        **whole("Dr.GRPO, arXiv 2503.20783"),
    },
    "dapo": {
        "epsilon": (0.2, "DAPO, arXiv 2503.14476"),
        "epsilon_high": (0.28, "DAPO, arXiv 2503.14476"),
        "kl": (0.0, "DAPO, arXiv 2503.14476"),
        "samples_per_problem": (8, "as the other methods with groups"),
        **whole("DAPO, arXiv 2503.14476"),
    },
    "opsd": {
        "beta": (0.0, "OPSD, arXiv 2601.18734"),
        "entry_clip": (0.05, "OPSD, arXiv 2601.18734, Qwen3-4B"),
        **PAPER,
    },
    "pw_opsd": {
        "beta": (0.0, "PW-OPSD, arXiv 2605.21606"),
        "entry_clip": (0.05, "PW-OPSD, arXiv 2605.21606"),
        **PAPER,
    },
    "paced": {
        "pace_right": (1.0, "PACED, arXiv 2603.11178"),
        "pace_wrong": (1.0, "PACED, arXiv 2603.11178"),
        "beta": (0.0, "PACED, arXiv 2603.11178"),
        "entry_clip": (0.0, "PACED, arXiv 2603.11178"),
        "samples_per_problem": (8, "PACED, arXiv 2603.11178"),
        **PAPER,
    },
    "oasis": {
        "beta": (0.0, "digest of arXiv 2609.37915: OPSD's forward KL"),
        "entry_clip": (0.05, "digest of arXiv 2609.37915"),
        "samples_per_problem": (8, "digest of arXiv 2609.37915: K"),
        "temperature": (1.1, "digest of arXiv 2609.37915"),
        "top_p": (0.95, "digest of arXiv 2609.37915"),
        "top_k": (20, "digest of arXiv 2609.37915"),
    },
    "crisp": {"beta": (1.0, "CRISP, arXiv 2603.05433"), **PAPER},
    "sdpo": {
        "teacher_decay": (0.95, "SDPO, arXiv 2601.20802; TRL 1.16: teacher_update_rate 0.05"),
        "beta": (0.5, "SDPO, arXiv 2601.20802"),
        "top_k": (100, "SDPO, arXiv 2601.20802"),
        "ratio_cap": (0.0, "left out, with one gradient step on a rollout; TRL 1.16 has distillation_is_clip 2.0"),
        "sampling top_k": (20, EGRSD),
        **{name: PAPER[name] for name in ("temperature", "top_p")},
    },
    "sdft": {"beta": (1.0, "SDFT, arXiv 2601.19897"), **PAPER},
    "eopd": {
        "epsilon": (0.2, "EOPD, arXiv 2603.07079"),
        "top_k": (16, "EOPD, arXiv 2603.07079"),
        "entropy_threshold": (0.8, "EOPD, arXiv 2603.07079"),
        "sampling top_k": (20, EGRSD),
        **{name: PAPER[name] for name in ("temperature", "top_p")},
    },
    "reopold": {
        "kept_share": (0.2, "REOPOLD, arXiv 2603.11137"),
        "mixture": (0.1, "REOPOLD, arXiv 2603.11137"),
        "exploration_steps": (50, "REOPOLD, arXiv 2603.11137"),
        **PAPER,
    },
    "gates": {
        "consensus": (4, "GATES, arXiv 2602.20574"),
        "policy_weight": (0.1, "GATES, arXiv 2602.20574"),
        "delta_clip": (1.0, "open in GATES, arXiv 2602.20574"),
        "samples_per_problem": (16, "8 of the teacher's, GATES, arXiv 2602.20574, and as many of the student's"),
        **PAPER,
    },
    "sft": PAPER,
    "ssd": PAPER,
}
# What the teacher reads where it is not the reference solution, and where that was read.
PRIVILEGES = {
    "rlsd": ("answer", "RLSD's released code: use_gt_as_hint, the answer as the trajectory"),
    "sdpg": ("answer", "SDPG's README: the teacher's context is 'The correct answer to this problem is: {answer}'"),
    "rlcsd": ("own", RELEASED_RLCSD + ": correct_privileged_hint_source self_rollout"),
    "oasis": ("attempt", "digest of arXiv 2609.37915"),
    "crisp": ("concise", "CRISP, arXiv 2603.05433"),
}
# What every method has, or every one with a teacher, and what says nothing about this one.
COMMON = {field.name for field in dataclasses.fields(TeacherSettings)} - {"teacher_decay"}
OFF = {"agreement": 1.0, "retire_after": 0}  # in no paper of these methods, and without effect at these values


@pytest.mark.parametrize("name", METHODS)
def test_every_number_of_a_method_has_a_source(name):
    settings, method = METHODS[name].settings(), METHODS[name]
    numbers = dict(NUMBERS[name])
    of_run = {"samples_per_problem": method.samples_per_problem, **method.sampling._asdict()}
    if "sampling top_k" in numbers:
        assert method.sampling.top_k == numbers.pop("sampling top_k")[0]
        of_run.pop("top_k")
    actual = of_run | {field: getattr(settings, field) for field in numbers if hasattr(settings, field)}
    assert {field: actual[field] for field in numbers} == {field: value for field, (value, _) in numbers.items()}
    assert all(len(source) > 10 for _, source in numbers.values())
    # pace_right and teacher_decay are every method's, and say something of the few that change them
    own = [
        field.name
        for field in dataclasses.fields(settings)
        if field.init and field.name not in COMMON and type(getattr(settings, field.name)) in (int, float)
    ]
    assert all(getattr(settings, field) == OFF[field] for field in OFF.keys() & {*own})
    missing = {*own, *of_run} - {*numbers} - {"teacher_decay", "epsilon_high"} - OFF.keys()
    assert missing <= ({"samples_per_problem"} if method.samples_per_problem == 1 else set())


def test_what_a_teacher_reads_has_a_source():
    privileges = {name: getattr(method.settings(), "privilege", "reference") for name, method in METHODS.items()}
    changed = {name: value for name, value in privileges.items() if value != "reference"}
    assert changed == {name: value for name, (value, _) in PRIVILEGES.items()}


def test_the_page_says_which_numbers_are_of_a_digest():
    page = (Path(__file__).resolve().parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    digests = [name for name, numbers in NUMBERS.items() if any("digest" in source for _, source in numbers.values())]
    section = page.partition("## What could not be checked")[2].partition("\n## ")[0]
    assert [name for name in digests if f"`{name}`" not in section] == []
