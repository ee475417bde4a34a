"""Every method's token losses and gradients against a float64 restatement of its equation, in plain loops."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.objective.methods import METHODS, Signals, position_weight
from egrsd_jax.objective.settings import MethodSettings, method_checks, published

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
    )


def clip(x, low, high):
    return min(max(x, low), high)


def credit(name: str, s: dict, m: MethodSettings):
    """(loss, d loss / d log p_S, d loss / d divergence) of one token, from the equations alone."""
    delta, sign = s["teacher"] - s["student"], math.copysign(1, s["A"]) if s["A"] else 0
    A, logp, c = s["c"] * s["A"], s["student"], s["c"]
    if name in ("egrsd", "cl_egrsd", "direction"):
        factor = A * clip(math.exp(sign * delta), 1 - m.epsilon, 1 + m.epsilon) * s["gate"]
        return -factor * logp, -factor, 0
    if name == "rlsd":
        mixing = m.mixing * max(0, 1 - s["step"] / m.mixing_steps)
        factor = A * (1 - mixing + mixing * clip(math.exp(sign * delta), 1 - m.epsilon, 1 + m.epsilon))
        return -factor * logp, -factor, 0
    if name == "grpo":
        return -A * logp, -A, 0
    if name in ("grpo_group", "dr_grpo", "dapo"):
        loss, slope = ratio(A, s, m)
        gap = s["initial"] - logp
        return loss + c * m.kl * (math.exp(gap) - gap - 1), slope + c * m.kl * (1 - math.exp(gap)), 0
    if name in ("opsd", "crisp", "sdpo", "sdft", "paced"):
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
    raise AssertionError(name)


def ratio(A, s, m):
    """PPO's clipped ratio as a loss, and its slope in log p_S: 0 where the clip binds the smaller of the two."""
    rho = math.exp(s["student"] - s["sampled"])
    clipped = clip(rho, 1 - m.epsilon, 1 + m.epsilon_high)
    binds = clipped * A < rho * A
    return -min(rho * A, clipped * A), 0 if binds else -rho * A


def restated(name: str, found: Signals, settings: MethodSettings):
    results = np.zeros((3, B, T))
    for b, t in zip(*np.nonzero(found.mask_BT), strict=True):
        token = {
            "A": float(found.advantage_B[b]),
            "c": float(found.weight_B[b]),
            "step": int(found.step),
            "entropy_threshold": float(found.student_entropy_threshold),
            "demonstration": bool(found.demonstration_B[b]),
            "t": t + 1,
            "T": int(LENGTHS[b]),
            "student": float(found.student_logp_BT[b, t]),
            "sampled": float(found.sampled_logp_BT[b, t]),
            "teacher": float(found.teacher_logp_BT[b, t]),
            "entropy": float(found.teacher_entropy_BT[b, t]),
            "gate": float(found.gate_BT[b, t]),
            "divergence": float(found.divergence_BT[b, t]),
            "student_entropy": float(found.student_entropy_BT[b, t]),
            "initial": float(found.initial_logp_BT[b, t]),
        }
        results[:, b, t] = credit(name, token, settings)
    return results


SETTINGS = {
    **{name: MethodSettings(name).resolved(rollout_temperature=1.1, steps=10) for name in METHODS},
    "grpo_group with kl": MethodSettings("grpo_group", kl=0.05).resolved(),
    "egrsd, the gate alone": MethodSettings("egrsd", epsilon=0.0).resolved(),
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
    expected = restated(settings.name, found, settings)
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
    "rlsd": {**FROZEN, "epsilon": 0.2, "mixing": 1.0, "mixing_steps": 10},
    "grpo": {"teacher": None},
    "grpo_group": {**GROUP, "reduction": "sequence"},
    "dr_grpo": {**GROUP, "reduction": "constant"},
    "dapo": {**GROUP, "epsilon_high": 0.28, "reduction": "token"},
    "opsd": {**FROZEN, "beta": 0.0, "entry_clip": 0.05, "score_temperature": 1.1},
    "pw_opsd": {**FROZEN, "beta": 0.0, "entry_clip": 0.05, "score_temperature": 1.1, "reduction": "sequence"},
    "crisp": {"teacher": "frozen", "privilege": "concise", "beta": 1.0, "entry_clip": None},
    "eopd": {**FROZEN, "epsilon": 0.2, "epsilon_high": 0.2, "top_k": 16, "entropy_threshold": 0.8},
    "reopold": {**FROZEN, "mixture": 0.1, "exploration_steps": 50, "kept_share": 0.2},
    "sdpo": {"teacher": "ema", "teacher_decay": 0.95, "beta": 0.5, "top_k": 100},
    "sdft": {"teacher": "ema", "privilege": "reference", "beta": 1.0},
    "gates": {**FROZEN, "consensus": 4, "policy_weight": 0.1, "delta_clip": 1.0},
    "paced": {**FROZEN, "beta": 0.0, "entry_clip": 0.0, "pace_right": 1.0, "pace_wrong": 1.0},
    "sft": {"teacher": None},
    "ssd": {"teacher": None},
}
GROUPS = {"grpo_group": 8, "dr_grpo": 8, "dapo": 8, "gates": 16, "paced": 8}
ADVANTAGES = {"grpo_group": "group", "dr_grpo": "group_centred", "dapo": "group"}


@pytest.mark.parametrize("name", METHODS)
def test_the_name_alone_stands_for_the_published_setting(name):
    """Figures of the papers, written down a second time: docs/methods.md has the sources."""
    settings = MethodSettings(name).resolved(rollout_temperature=1.1, steps=10)
    expected = {"reduction": "token", "score_temperature": 1.1 if name == "paced" else 1.0, **PUBLISHED[name]}
    assert {field: getattr(settings, field) for field in expected} == expected
    assert published(name).samples_per_problem == GROUPS.get(name, 1)
    assert published(name).advantage == ADVANTAGES.get(name, "running")


@pytest.mark.parametrize(("name", "upper"), [("grpo_group", 0.1), ("dr_grpo", 0.1), ("eopd", 0.1), ("dapo", 0.28)])
def test_the_ratios_upper_clip_is_the_lower_one_but_for_dapo(name, upper):
    assert MethodSettings(name, epsilon=0.1).resolved().epsilon_high == upper
    assert MethodSettings(name, epsilon=0.1, epsilon_high=0.3).resolved().epsilon_high == 0.3


@pytest.mark.parametrize("name", METHODS)
def test_a_method_uses_the_fields_it_was_published_with(name):
    """Resolved settings satisfy their own checks, have no open field in use, and leave the others open."""
    resolved = MethodSettings(name).resolved(steps=7)
    assert all(good for good, _ in method_checks(resolved))
    for field in dataclasses.fields(resolved):
        if field.name != "name":
            assert (getattr(resolved, field.name) is None) == (field.name not in published(name).settings), field.name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (MethodSettings("grpo", gamma=0.3), "method.gamma is 0.3, and grpo has no use for it; egrsd, cl_egrsd"),
        (MethodSettings("egrsd", beta=0.5), "opsd, pw_opsd, crisp, sdpo, sdft, paced would have"),
        (MethodSettings("opsd", beta=1.5), "method.beta is 1.5; it must be between 0 and 1"),
        (MethodSettings("sft", teacher="ema"), "method.teacher is ema, and sft has no use for it"),
        (MethodSettings("sdft", teacher_decay=-1.0), "method.teacher_decay is -1.0"),
        (
            MethodSettings("egrsd", teacher_decay=0.5),
            "method.teacher_decay is 0.5, and a teacher that is frozen has no",
        ),
        (MethodSettings("sdpo", teacher_every=7), "is ema has no use for it; set method.teacher to copy, or leave it"),
        (MethodSettings("sft", pace_right=1.0), "in sft nobody tries a problem"),
        (MethodSettings("direction", gate="random"), "direction has no gate, but method.gate is random; use egrsd"),
    ],
)
def test_fields_that_make_no_sense_are_named(settings, message):
    wrong = [text for good, text in method_checks(settings) if not good]
    assert len(wrong) == 1
    assert message in wrong[0]


def test_full_vocabulary_methods_score_at_the_rollouts_temperature():
    assert MethodSettings("opsd").resolved(rollout_temperature=1.1).score_temperature == 1.1
    assert MethodSettings("egrsd").resolved(rollout_temperature=1.1).score_temperature == 1.0
    assert MethodSettings("opsd", score_temperature=1.0).resolved(rollout_temperature=1.1).score_temperature == 1.0
