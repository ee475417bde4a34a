"""Every method's token losses and gradients against a float64 restatement of its equation, in plain loops."""

import dataclasses
import math
import re
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.objective import method_table
from egrsd_jax.objective.methods import METHODS, collected, method_settings
from egrsd_jax.objective.methods.pw_opsd import position_weight
from egrsd_jax.objective.settings import OPEN, MethodSettings
from egrsd_jax.objective.signals import Signals
from tests.objective.methods import FILES
from tests.objective.restated import restated

B, T = 4, 6
LENGTHS = np.array([6, 3, 0, 5])


def signals(seed: int = 0, step: int = 3) -> Signals:
    """Completions of several lengths, one of them empty; padding holds 0, as the step fills it."""
    draw = np.random.default_rng(seed)
    mask = np.arange(T)[None] < LENGTHS[:, None]

    def of(low, high):
        return np.where(mask, draw.uniform(low, high, (B, T)), 0).astype(np.float32)

    student = of(-3, -0.1)
    return Signals(
        mask_BT=mask,
        student_logp_BT=student,
        sampled_logp_BT=np.where(mask, student + draw.normal(0, 0.3, (B, T)), 0).astype(np.float32),
        advantage_B=np.array([1.2, -0.7, 0.5, 0.0], np.float32),
        weight_B=np.array([0.25, 0.1, 1.0, 0.2], np.float32),
        demonstration_B=np.array([True, False, False, True]),
        step=np.int32(step),
        teacher_logp_BT=np.where(mask, student + draw.normal(0, 1.5, (B, T)), 0).astype(np.float32),
        teacher_entropy_BT=of(0, 2),
        gate_BT=of(0.3, 1),
        divergence_BT=of(0, 1),
        student_entropy_BT=of(0, 2),
        student_entropy_threshold=np.float32(1.1),
        initial_logp_BT=of(-3, -0.1),
        lowest_BT=np.where(of(0, 1) > 0.5, 2, 0).astype(np.float32),
        modulation_BT=of(-1, 1),
        split_BT=of(0.5, 3),
    )


def clip(x, low, high):
    return min(max(x, low), high)


def credit(s: dict, m: MethodSettings):
    """(loss, d loss / d log p_S, d loss / d divergence) of one token, from the equations alone."""
    name = m.name
    if name in FILES:
        return FILES[name].restatement(s, m)
    delta, sign = s["teacher"] - s["student"], math.copysign(1, s["A"]) if s["A"] else 0
    A, logp, c = s["c"] * s["A"], s["student"], s["c"]
    if name in ("egrsd", "cl_egrsd", "direction"):
        factor = A * clip(math.exp(sign * delta), 1 - m.epsilon, 1 + m.epsilon) * s["gate"]
        return -factor * logp, -factor, 0
    if name == "grpo":
        return -A * logp, -A, 0
    if name in ("grpo_group", "dr_grpo", "dapo"):
        loss, slope = ratio(A, s, m)
        gap = s["initial"] - logp
        return loss + c * m.kl * (math.exp(gap) - gap - 1), slope + c * m.kl * (1 - math.exp(gap)), 0
    if name in ("opsd", "crisp", "sdft", "paced"):
        return c * s["divergence"], 0, c
    if name == "pw_opsd":
        weight = 0.25 + 0.75 / (1 + math.exp(-((s["t"] / s["T"] - 0.3) / 0.1)))
        return c * weight * s["divergence"], 0, c * weight
    if name == "eopd":
        loss, slope = ratio(delta, s, m)
        unsure = s["entropy"] > m.entropy_threshold
        return c * (loss + unsure * s["divergence"]), c * slope, c * unsure
    if name == "reopold":
        least = math.log(m.mixture / (1 - m.mixture))
        kept = delta >= least if s["step"] < m.exploration_steps else s["student_entropy"] >= s["entropy_threshold"]
        factor = c * max(delta, least) * kept
        return -factor * logp, -factor, 0
    if name in ("sft", "ssd"):
        return -c * logp, -c, 0
    if name == "gates":
        factor = c * (1 if s["demonstration"] else m.policy_weight * clip(delta, -m.delta_clip, m.delta_clip))
        return -factor * logp, -factor, 0
    raise AssertionError(f"write {name} down in tests/objective/methods/{name}.py")


def ratio(A, s, m):
    """PPO's clipped ratio as a loss, and its slope in log p_S: 0 where the clip binds the smaller of the two."""
    rho = math.exp(s["student"] - s["sampled"])
    clipped = clip(rho, 1 - m.epsilon, 1 + m.epsilon_high)
    binds = clipped * A < rho * A
    return -min(rho * A, clipped * A), 0 if binds else -rho * A


SETTINGS = {
    **{name: method_settings(name).in_run(rollout_temperature=1.1) for name in METHODS},
    "rlsd, falling": method_settings("rlsd", mixing=0.9, mixing_steps=10),
    "rlsd, negative alone": method_settings("rlsd", mixing=0.8, negative_only=True, clip_low=0.1, clip_high=0.1),
    "sdpo, sampled token": method_settings("sdpo", over="sampled", beta=1.0, ratio_cap=1.2),
    "sdar, heavy": method_settings("sdar", distill_weight=0.7, kl=0.2),
    "sdpg, heavy": method_settings("sdpg", distill_weight=0.7, anchor_weight=0.4, kl=0.1),
    "grpo_group with kl": method_settings("grpo_group", kl=0.05),
    "rlcsd, one-sided": method_settings("rlcsd", epsilon=0.1, epsilon_high=0.4),
    "egrsd, the gate alone": method_settings("egrsd", epsilon=0.0),
}


@pytest.mark.parametrize("step", [3, 60])
@pytest.mark.parametrize("case", SETTINGS)
def test_token_losses_equal_the_equation(case, step):
    settings, found = SETTINGS[case], signals(step=step)
    token_loss = METHODS[settings.name].token_loss

    def total(logp_BT, divergence_BT):
        losses = token_loss(found._replace(student_logp_BT=logp_BT, divergence_BT=divergence_BT), settings)
        return jnp.sum(losses, where=found.mask_BT), losses

    inputs = found.student_logp_BT, found.divergence_BT
    (_, losses), slopes = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(*inputs)
    expected = restated(credit, found, settings)
    for actual, wanted in zip((losses, *slopes), expected, strict=True):
        np.testing.assert_allclose(np.where(found.mask_BT, actual, 0), wanted, rtol=2e-6, atol=2e-6)
    assert np.abs(expected[1:]).max() > 0.01  # every method moves something


def test_reopold_keeps_what_its_phase_keeps():
    """Before the exploration ends by reward, then by student entropy: two sets of tokens, neither all nor none."""
    settings = SETTINGS["reopold"]
    kept = [np.asarray(METHODS["reopold"].token_loss(signals(step=step), settings)) != 0 for step in (49, 50)]
    real = signals().mask_BT
    assert (kept[0] != kept[1]).any()
    assert all(0 < keep.sum() < real.sum() for keep in kept)


def test_position_weight_rises_from_a_quarter_to_one():
    weight = np.asarray(position_weight(np.ones((1, 1000), bool)))[0]
    np.testing.assert_allclose(weight[[0, 299, -1]], [0.285, 0.625, 0.999], atol=2e-3)
    assert (np.diff(weight) > 0).all()


FROZEN = {"teacher": "frozen", "privilege": "reference"}
GATED = {
    **FROZEN,
    "gamma": 0.3,
    "epsilon": 0.2,
    "floor": 0.1,
    "scope": "batch",
    "denominator": "raw",
    "gate": "entropy",
}
GROUP = {"epsilon": 0.2, "epsilon_high": 0.2, "kl": 0.0}
PUBLISHED = {
    "egrsd": {**GATED, "window": 0},
    "cl_egrsd": {**GATED, "window": 3},
    "direction": {**GATED, "gamma": 0.0, "window": 0},
    "grpo": {},
    "grpo_group": {**GROUP, "reduction": "sequence"},
    "dr_grpo": {**GROUP, "reduction": "constant"},
    "dapo": {**GROUP, "epsilon_high": 0.28, "reduction": "token"},
    "opsd": {**FROZEN, "beta": 0.0, "entry_clip": 0.05, "score_temperature": 1.1},
    "pw_opsd": {**FROZEN, "beta": 0.0, "entry_clip": 0.05, "score_temperature": 1.1, "reduction": "sequence"},
    "crisp": {"teacher": "frozen", "privilege": "concise", "beta": 1.0},
    "eopd": {**FROZEN, "epsilon": 0.2, "epsilon_high": 0.2, "top_k": 16, "entropy_threshold": 0.8},
    "reopold": {**FROZEN, "mixture": 0.1, "exploration_steps": 50, "kept_share": 0.2},
    "sdft": {"teacher": "ema", "privilege": "reference", "beta": 1.0},
    "gates": {**FROZEN, "consensus": 4, "policy_weight": 0.1, "delta_clip": 1.0},
    "paced": {**FROZEN, "beta": 0.0, "entry_clip": 0.0, "pace_right": 1.0, "pace_wrong": 1.0},
    "sft": {},
    "ssd": {},
    **{name: file.PUBLISHED for name, file in FILES.items()},
}
GROUPS = {"grpo_group": 8, "dr_grpo": 8, "dapo": 8, "gates": 16, "paced": 8}
ADVANTAGES = {"grpo_group": "group", "dr_grpo": "group_centred", "dapo": "group"}


@pytest.mark.parametrize("name", METHODS)
def test_the_name_alone_stands_for_the_published_setting(name):
    """Numbers of the papers, written down a second time: docs/methods.md has the sources."""
    settings = method_settings(name).in_run(rollout_temperature=1.1)
    full_vocabulary = name in ("opsd", "pw_opsd", "paced", "oasis")
    file = FILES.get(name)
    expected = {"reduction": "token", "score_temperature": 1.1 if full_vocabulary else 1.0, **PUBLISHED[name]}
    assert {field: getattr(settings, field) for field in expected} == expected
    assert METHODS[name].samples_per_problem == getattr(file, "SAMPLES_PER_PROBLEM", GROUPS.get(name, 1))
    assert METHODS[name].advantage == getattr(file, "ADVANTAGE", ADVANTAGES.get(name, "running"))
    assert METHODS[name].teacher == ("teacher" in PUBLISHED[name])


@pytest.mark.parametrize(("name", "upper"), [("grpo_group", 0.1), ("dr_grpo", 0.1), ("eopd", 0.1), ("dapo", 0.28)])
def test_the_ratios_upper_clip_is_the_lower_one_but_for_dapo(name, upper):
    assert method_settings(name, epsilon=0.1).epsilon_high == upper
    assert method_settings(name, epsilon=0.1, epsilon_high=0.3).epsilon_high == 0.3


@pytest.mark.parametrize("name", METHODS)
def test_a_record_is_whole(name):
    """Its settings are explained, published, checked and, in a run, closed; what it says of itself is there."""
    method = METHODS[name]
    in_run = method_settings(name).in_run(rollout_temperature=1.1)
    for field in dataclasses.fields(method.settings):
        assert len(method.explanation(field.name)) > 5, field.name
        assert getattr(in_run, field.name) is not OPEN, field.name
        if field.init and type(getattr(in_run, field.name)) in (float, int):
            with pytest.raises(ValueError, match=f"method.{field.name} is nan; it must be "):
                method_settings(name, **{field.name: math.nan})
    assert in_run.name == name
    assert method.title
    assert method.description
    assert method.formula


def module(name: str, **bound: object) -> ModuleType:
    found = ModuleType(name)
    vars(found).update(bound)
    return found


def test_every_file_of_the_folder_that_binds_a_method_is_one():
    folder = Path(method_table.__file__).parent / "methods"
    assert len(METHODS) == len([file for file in folder.glob("*.py") if "\nMETHOD = " in file.read_text()])


def test_every_file_of_a_restatement_is_a_methods():
    assert FILES.keys() <= METHODS.keys()


def test_two_methods_of_one_name_are_refused_with_both_modules():
    with pytest.raises(ValueError, match="mine and other both have a method named 'sft'"):
        collected([module("mine", METHOD=METHODS["sft"]), module("other", METHOD=METHODS["sft"])])


def test_a_module_without_a_record_is_no_method():
    assert collected([module("helper"), module("mine", METHOD=METHODS["sft"])]) == {"sft": METHODS["sft"]}


def test_a_setting_that_no_docstring_explains_is_named():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class MySettings(MethodSettings):
        """Nothing is said of temper."""

        temper: float = 1.0

    method = dataclasses.replace(METHODS["sft"], settings=MySettings)
    with pytest.raises(ValueError, match="the docstring of MySettings does not explain temper; add a line"):
        method.explanation("temper")


@pytest.mark.parametrize("name", method_table.PAGES)
def test_the_tables_of_the_docs_are_those_of_the_records(name):
    page = (method_table.ROOT / name).read_text(encoding="utf-8")
    again = method_table.made_anew(page, method_table.PAGES[name])
    assert again == page, f"{name} is stale; run {method_table.COMMAND}"


@pytest.mark.parametrize("part", ["methods", "settings"])
def test_a_bar_in_a_cell_begins_no_cell(part):
    page = (method_table.ROOT / "docs/methods.md").read_text(encoding="utf-8")
    table = page.partition(f"<!-- {part}: ")[2].partition(f"<!-- end of {part} -->")[0].splitlines()[1:]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table if row}) == 1


def test_a_page_without_the_marks_of_a_table_is_refused():
    with pytest.raises(ValueError, match="has no lines '<!-- methods"):
        method_table.made_anew("# The methods", ["methods"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "grpo", "gamma": 0.3}, "method.gamma is 0.3, and grpo has no use for it; egrsd, cl_egrsd"),
        ({"name": "egrsd", "beta": 0.5}, "egrsd has no use for it; opsd, pw_opsd, oasis, paced"),
        ({"name": "egrsd", "window": 3}, "method.window is 3, and egrsd has it fixed at 0; cl_egrsd can set it"),
        ({"name": "cl_egrsd", "window": 0}, "method.window is 0; it must be at least 1 (a window of 0 is egrsd)"),
        ({"name": "direction", "gamma": 0.3}, "direction has it fixed at 0.0; egrsd, cl_egrsd"),
        ({"name": "direction", "gate": "random"}, "direction has it fixed at entropy; egrsd, cl_egrsd"),
        ({"name": "opsd", "beta": 1.5}, "method.beta is 1.5; it must be between 0 and 1"),
        ({"name": "sft", "teacher": "ema"}, "method.teacher is ema, and sft has no use for it"),
        ({"name": "sdft", "teacher_decay": -1.0}, "method.teacher_decay is -1.0; it must be between 0 and 1"),
        ({"name": "egrsd", "teacher_decay": 0.5}, "method.teacher_decay is 0.5, and a teacher that is frozen has no"),
        (
            {"name": "sdpo", "teacher_every": 7},
            "is ema has no use for it; set method.teacher to copy or earned, or leave",
        ),
        ({"name": "sft", "pace_right": 1.0}, "method.pace_right is 1.0, and sft has it fixed at 0.0"),
        ({"name": "sdpo", "over": "sampled"}, "estimates reverse KL, which is method.beta 1, and it is 0.5"),
        ({"name": "rlcsd", "reduction": "sequence"}, "method.reduction is sequence, and rlcsd adds two means over tok"),
        ({"name": "rlcsd", "contrasts": 0}, "method.contrasts is 0; it must be at least 1"),
        ({"name": "reopold", "mixture": 1.0}, "method.mixture is 1.0; it must be over 0 and under 1"),
        ({"name": "egrs"}, "method.name is 'egrs'; it must be one of egrsd, cl_egrsd"),
    ],
)
def test_fields_that_make_no_sense_are_named(given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        method_settings(**given)


def test_a_fixed_field_may_be_given_with_its_value():
    """As config.yaml has it: every field of the method, fixed ones too."""
    settings = method_settings("direction", epsilon=0.1)
    assert method_settings(**dataclasses.asdict(settings)) == settings


def test_full_vocabulary_methods_score_at_the_rollouts_temperature():
    at = {"rollout_temperature": 1.1}
    assert method_settings("opsd").in_run(**at).score_temperature == 1.1
    assert method_settings("egrsd").in_run(**at).score_temperature == 1.0
    assert method_settings("opsd", score_temperature=1.0).in_run(**at).score_temperature == 1.0
    assert method_settings("opsd").in_run(rollout_temperature=0.0).score_temperature == 1.0  # greedy
