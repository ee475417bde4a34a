"""The jitted step against a plain restatement, in micro-batches of every size, and on a mesh of eight devices."""

import dataclasses
from functools import cache
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from egrsd_jax.config import Config, LoraSettings, RolloutSettings, TrainSettings
from egrsd_jax.data.batch import make_batch
from egrsd_jax.data.packing import Shape, choose_shapes, ordered_rows, packed_rows, step_batch
from egrsd_jax.model.decoder import forward, init_params, output_head
from egrsd_jax.model.sharding import make_mesh, tree_shardings
from egrsd_jax.objective.gate import entropy_gate, gate_arguments
from egrsd_jax.objective.losses import egrsd_loss, grpo_loss
from egrsd_jax.objective.methods import METHODS, method_settings
from egrsd_jax.objective.settings import MethodSettings, contrasts, teacher_schedule
from egrsd_jax.objective.signals import Signals
from egrsd_jax.policy import Policy, student
from egrsd_jax.train.batch_signals import CompletionInputs
from egrsd_jax.train.state import init_state, make_optimizer, teacher
from egrsd_jax.train.step import make_update
from tests.model.examples import CONFIG as TINY

MODEL = TINY.replace(
    vocab_size=40,
    hidden_size=16,
    intermediate_size=24,
    num_layers=2,
    head_dim=8,
    max_positions=128,
    rematerialise="full",
)
ROWS = 7  # not a multiple of the micro-batches below: they are filled up with empty rows
LORA, FULL = LoraSettings(rank=4, alpha=8.0), LoraSettings(rank=0)
KEY = np.asarray(jax.random.key_data(jax.random.key(11)))
ROLLOUT = RolloutSettings(max_new_tokens=16)
TRAIN = TrainSettings(batch_size=16, learning_rate=1e-2, max_grad_norm=1e9)  # unclipped, so that a wrong scale shows
OTHERS = ("grpo", "rlsd", "dr_grpo", "pw_opsd", "gates", "crisp", "sdft", "paced", "sft", "ssd", "rlad", "sign")
CASES = {
    "egrsd": method_settings("egrsd", gamma=0.7, window=0),
    "cl_egrsd": method_settings("cl_egrsd", gamma=0.7, window=2, denominator="lookahead", reduction="sequence"),
    "sequence maximum": method_settings("egrsd", gamma=0.7, window=0, scope="sequence", score_temperature=1.3),
    "log_vocab": method_settings("egrsd", gamma=0.7, window=0, scope="log_vocab"),
    "reversed gate": method_settings("egrsd", gamma=0.9, gate="reversed"),
    "gap, up": method_settings("egrsd", gamma=0.9, signal="entropy_gap", gate_direction="up"),
    "surprisal, agreement": method_settings("cl_egrsd", gamma=0.9, window=2, signal="surprisal", agreement=0.4),
    "own entropy": method_settings("gate_only", gamma=0.9, signal="student_entropy", scope="sequence"),
    "averaged teacher": method_settings("egrsd", gamma=0.7, teacher="ema"),
    "current teacher": method_settings("egrsd", gamma=0.7, teacher="current"),
    "grpo_group, kl": method_settings("grpo_group", kl=0.3),
    "opsd, no clip": method_settings("opsd", beta=0.3, entry_clip=0.0),
    "sdpo": method_settings("sdpo", top_k=5),
    "sdpo, renormalised": method_settings("sdpo", top_k=5, rest="renormalise", ratio_cap=1.1),
    "sdar": method_settings("sdar", distill_weight=0.7, kl=0.3),
    "sdpg": method_settings("sdpg", distill_weight=0.7, anchor_weight=0.3),
    "fixed_negative": method_settings("fixed_negative", lowest_share=0.4),
    "rlcsd": method_settings("rlcsd", contrasts=3, contrast_scale=0.8, contrast_strength=0.9, modulated_weight=0.6),
    "eopd": method_settings("eopd", top_k=4, entropy_threshold=3.4),
    "reopold, later": method_settings("reopold", exploration_steps=1),
    "dapo, kl, paced": method_settings("dapo", kl=0.3, pace_right=1.0),
    **{name: method_settings(name) for name in OTHERS},
}
QUICK = ("egrsd", "cl_egrsd")  # cases that are not marked as slow
STEP = 4  # gradient steps before the one that is tested


def data():
    """Ragged prompts and completions, one of them empty, and advantages of both signs and zero."""
    draw = np.random.default_rng(3)

    def tokens(low: int, high: int) -> list[int]:
        return draw.integers(0, MODEL.vocab_size, draw.integers(low, high)).tolist()

    students = [tokens(2, 6) for _ in range(ROWS)]
    teachers = [tokens(6, 14) for _ in range(ROWS)]
    completions = [tokens(3, 12) for _ in range(ROWS - 1)] + [[]]
    return students, teachers, completions


def inputs_of(batch) -> CompletionInputs:
    """Advantages of both signs and zero, weights, who wrote it, and a sampler that is a little off."""
    advantage = np.array([1.2, -0.7, 0.0, 0.4, -1.5, 0.9, 0.3], np.float32)
    weight = np.array([1.0, 0.5, 0.2, 1.0, 0.1, 0.7, 1.0], np.float32)
    demonstration = np.array([1, 0, 1, 0, 0, 1, 0], bool)
    sampled = -3.7 + np.random.default_rng(5).normal(0, 0.2, batch.mask_BT.shape)
    return CompletionInputs(advantage, weight, demonstration, sampled.astype(np.float32))


def base_and_state(config: Config, mesh):
    """Base weights, and a state of a test's own: a step donates it."""
    base, state = base_and_first_state(config.lora, config.train, teacher_schedule(config.method), mesh)
    state = jax.tree.map(lambda leaf: jax.device_put(np.array(leaf), leaf.sharding), state)
    return base, state, make_optimizer(config.train)


@cache  # of 43 tests nearly all begin at the same weights
def base_and_first_state(lora: LoraSettings, train: TrainSettings, schedule, mesh):
    def make_base():
        return jax.tree.map(lambda leaf: leaf * 2, init_params(jax.random.key(0), MODEL))

    def moved(trainable):  # away from B = 0, where half of an adapter's gradient vanishes
        return jax.tree.map(
            lambda leaf: leaf + 0.05 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), trainable
        )

    base = jax.jit(make_base, out_shardings=tree_shardings(jax.eval_shape(make_base), mesh))()
    state = init_state(jax.random.key(1), base, MODEL, lora, make_optimizer(train), mesh, schedule=schedule)
    if lora.rank:
        place = jax.jit(moved, out_shardings=tree_shardings(state.trainable, mesh))
        state = state._replace(trainable=place(state.trainable))
        if state.teacher:
            state = state._replace(teacher=jax.tree.map(lambda leaf: 0.5 * leaf, place(state.teacher)))
    return base, state


@cache  # the whole batch in one piece is what several tests compare with
def updated(config: Config, rows: int | tuple[Shape, ...], mesh):
    if isinstance(rows, int):
        config = replace_train(config, rows)
    base, state, optimizer = base_and_state(config, mesh)
    batch = make_batch(*data())
    update = make_update(config, MODEL, optimizer, mesh, state)
    step = arranged(batch, rows)
    if contrasts(config.method):
        step = with_contrasts(step, batch, rows)
    return update(state.learned, base, step, inputs_of(batch), np.int32(STEP), KEY)


def replace_train(config: Config, micro_batch_size: int | None) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, micro_batch_size=micro_batch_size))


def arranged(batch, rows: int | tuple[Shape, ...]):
    """The batch as the update takes it: so many rows of one completion each at a time, or packed into these shapes."""
    lengths = batch.completion_length_B.tolist()
    completions = [row[:length] for row, length in zip(batch.completion_BT.tolist(), lengths, strict=True)]
    views = [
        [row[:start] for row, start in zip(tokens.tolist(), starts.tolist(), strict=True)]
        for tokens, starts in (
            (batch.student_tokens_BS, batch.student_start_B),
            (batch.teacher_tokens_BU, batch.teacher_start_B),
        )
    ]
    lay_out: Any = ordered_rows if isinstance(rows, int) else packed_rows
    most = batch.mask_BT.shape[1]
    views = [lay_out(prompts, completions, rows, max_new_tokens=most) for prompts in views]
    return step_batch(*views, completions, max_new_tokens=most)


def wrong_prompts() -> list[list[list[int]]]:
    """Up to three other prompts of the teacher's for each completion; none for the last, which is empty."""
    draw = np.random.default_rng(8)
    counts = [3, 1, 2, 3, 1, 2, 0]
    return [[draw.integers(0, MODEL.vocab_size, draw.integers(5, 13)).tolist() for _ in range(n)] for n in counts]


def with_contrasts(step, batch, rows: int | tuple[Shape, ...]):
    """The step with these prompts, in rows as `train.collect` lays them out."""
    prompts, completions = [], []
    for row, shown in enumerate(wrong_prompts()):
        tokens = batch.completion_BT[row, : batch.completion_length_B[row]].tolist()
        prompts += [*shown, *[[1]] * (3 - len(shown))]
        completions += [*[tokens] * len(shown), *[[]] * (3 - len(shown))]
    lay_out: Any = ordered_rows if isinstance(rows, int) else packed_rows
    laid_out = lay_out(prompts, completions, rows, max_new_tokens=batch.mask_BT.shape[1])
    return step._replace(
        contrast=laid_out, contrast_BK=np.array([len(text) > 0 for text in completions]).reshape(-1, 3)
    )


def dense_modulation(dense, policy, batch, right, method: MethodSettings):
    """What each token's advantage moves by, and what the token counts, one completion and one prompt at a time."""
    moved = []
    for row, shown in enumerate(wrong_prompts()):
        text, length = batch.completion_BT[row], int(batch.completion_length_B[row])
        wrong = []
        for prompt in shown:
            tokens = np.array([[*prompt, *text]], np.int32)
            logp = dense(policy, tokens, np.array([len(prompt)], np.int32))[0]
            wrong.append(jnp.exp(jnp.take_along_axis(logp, text[:, None], axis=1)[:, 0]))
        contrast = right[row] - jnp.log(sum(wrong) / len(wrong)) if wrong else jnp.zeros(len(text))
        moved.append(jnp.where(jnp.arange(len(text)) < length, jnp.tanh(contrast / method.contrast_scale), 0))
    moved = method.contrast_strength * jnp.stack(moved)
    moved = jnp.where(jnp.abs(moved) > method.least_modulation, moved, 0)
    real, apart = jnp.float32(batch.mask_BT.sum()), jnp.sum(moved != 0, dtype=jnp.float32)
    return moved, jnp.where(moved != 0, method.modulated_weight * real / apart, real / (real - apart))


def restated(config: Config, mesh):
    """The same step in a few lines with dense logits: loss, and gradient."""
    base, state, _ = base_and_state(config, mesh)
    batch, method = make_batch(*data()), config.method
    rows, spec = inputs_of(batch), METHODS[method.name]

    def dense(policy, tokens, start):
        logits = forward(policy.params, MODEL, tokens, lora=policy.lora) @ output_head(policy.params, MODEL)
        at = start[:, None] - 1 + np.arange(batch.mask_BT.shape[1], dtype=np.int32)[None]
        return jax.nn.log_softmax(jnp.take_along_axis(logits / method.score_temperature, at[:, :, None], axis=1))

    def scores(logp):
        chosen = jnp.take_along_axis(logp, batch.completion_BT[:, :, None], axis=2)[..., 0]
        return chosen, -jnp.sum(jnp.exp(logp) * logp, axis=-1)

    def loss(trainable):
        mine = dense(student(trainable, base, config.lora), batch.student_tokens_BS, batch.student_start_B)
        logp, entropy = scores(mine)
        bar = jnp.quantile(jax.lax.stop_gradient(entropy)[batch.mask_BT], 1 - getattr(method, "kept_share", 0.5))
        at_first = dense(Policy(base, None), batch.student_tokens_BS, batch.student_start_B)
        signals = Signals(batch.mask_BT, logp, rows.sampled_logp_BT, *rows[:3], np.int32(STEP))
        signals = signals._replace(
            student_entropy_BT=entropy,
            student_entropy_threshold=bar,
            initial_logp_BT=scores(at_first)[0] if method.scores_initial else None,
        )
        if method.name == "fixed_negative":
            real = jax.lax.stop_gradient(jnp.where(batch.mask_BT, logp, jnp.inf))
            count = jnp.sum(batch.mask_BT, dtype=jnp.float32)
            kept = jnp.floor(method.lowest_share * count)
            highest = jnp.sort(real.ravel())[kept.astype(int) - 1]
            signals = signals._replace(lowest_BT=jnp.where(real <= highest, count / kept, 0))
        if spec.teacher:
            policy = teacher(state.learned, base, config.lora, method.teacher)
            theirs = jax.lax.stop_gradient(dense(policy, batch.teacher_tokens_BU, batch.teacher_start_B))
            own_entropy = entropy
            chosen, entropy = scores(theirs)
            gate = None
            if spec.gated:
                known = {"teacher_entropy": entropy, "student_entropy": own_entropy, "surprisal": -logp}
                known["entropy_gap"] = jnp.maximum(entropy - own_entropy, 0)
                gate = dense_gate(jax.lax.stop_gradient(known[method.signal]), batch.mask_BT, method)
                apart = rows.advantage_B[:, None] * jax.lax.stop_gradient(chosen - logp) < 0
                gate = gate * jnp.where(apart, method.agreement, 1)
            signals = signals._replace(teacher_logp_BT=chosen, teacher_entropy_BT=entropy, gate_BT=gate)
            if contrasts(method):
                moved, split = dense_modulation(dense, policy, batch, chosen, method)
                signals = signals._replace(modulation_BT=moved, split_BT=split)
            if spec.divergence:
                signals = signals._replace(divergence_BT=dense_divergence(mine, theirs, spec.divergence, method))
        losses = jnp.where(batch.mask_BT, spec.token_loss(signals, method), 0)
        length = jnp.sum(batch.mask_BT, axis=1, dtype=jnp.float32)
        if method.reduction == "token":
            return jnp.sum(losses) / jnp.sum(length)
        divisor = jnp.maximum(length, 1) if method.reduction == "sequence" else config.rollout.max_new_tokens
        return jnp.sum(jnp.sum(losses, axis=1) / divisor) / jnp.sum(length > 0, dtype=jnp.float32)

    return jax.jit(jax.value_and_grad(loss))(state.trainable)


def dense_gate(entropy, mask, method: MethodSettings):
    gate = entropy_gate(entropy, mask, **gate_arguments(method, MODEL.vocab_size))
    if method.gate_direction == "up":  # of gamma h + (1 - gamma), the mirror of 1 - gamma h
        assert (method.floor, method.scope, method.window) == (0.1, "batch", 0)
        highest = jnp.maximum(jnp.max(jnp.where(mask, entropy, 0)), 1.0)
        gate = jnp.where(mask, jnp.maximum(0.1, 1 - method.gamma + method.gamma * entropy / highest), 0)
    if method.gate == "entropy":
        return gate
    assert method.gate == "reversed"
    order = jnp.argsort(gate[mask])
    return jnp.zeros_like(gate).at[mask].set(jnp.zeros(mask.sum()).at[order].set(jnp.sort(gate[mask])[::-1]))


def dense_divergence(mine, theirs, over: str, method: MethodSettings):
    """Of two dense log-probabilities [B, T, V]: forward KL at beta 0, reverse at 1, generalised Jensen-Shannon else."""
    if over != "whole":
        chosen = jax.lax.top_k(theirs if over == "teacher_top" else mine, method.top_k)[1]
        mine, theirs = (jnp.take_along_axis(logp, chosen, axis=-1) for logp in (mine, theirs))
        if over == "teacher_top" or getattr(method, "rest", "bucket") == "renormalise":
            mine, theirs = jax.nn.log_softmax(mine), jax.nn.log_softmax(theirs)
        else:
            mine, theirs = (
                jnp.concatenate([logp, jnp.log1p(-jnp.exp(logp).sum(-1, keepdims=True))], axis=-1)
                for logp in (mine, theirs)
            )
    p, q = jnp.exp(theirs), jnp.exp(mine)
    beta = 1.0 if method.name == "sdpg" else getattr(method, "beta", 0.0)
    if beta in (0.0, 1.0):
        entries = q * (mine - theirs) if beta else p * (theirs - mine)
    else:
        between = jnp.log(beta * p + (1 - beta) * q)
        entries = beta * p * (theirs - between) + (1 - beta) * q * (mine - between)
    clip = getattr(method, "entry_clip", 0.0)
    return jnp.sum(jnp.minimum(entries, clip) if clip else entries, axis=-1)


SHARED = (Shape(2, 48, 32),)  # three completions of the student's to a row, two of the teacher's
TWO_SHAPES = (Shape(1, 32, 16), Shape(2, 24, 16))


def gradient_of(result) -> dict:
    """The gradient that a step saw: Adam's first moment after one unclipped step, over 1 - b1."""
    return jax.tree.map(lambda moment: moment / (1 - TRAIN.adam_b1), result.learned.optimizer[1][0].mu)


def assert_same_gradient(actual, expected):
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    chex.assert_trees_all_close(jax.device_get(actual), jax.device_get(expected), rtol=1e-4, atol=1e-6 * largest)


def assert_same_to_a_millionth(actual, expected, *, gradient_limit: float = 1e-6):
    """Loss, and gradient by its norm, which single numbers near 0 do not decide."""
    np.testing.assert_allclose(actual.metrics["loss"], expected.metrics["loss"], rtol=1e-6, atol=1e-6)
    gradient, wanted = (jax.device_get(gradient_of(result)) for result in (actual, expected))
    apart = optax.tree.norm(jax.tree.map(jnp.subtract, gradient, wanted))
    np.testing.assert_array_less(apart, gradient_limit * optax.tree.norm(wanted))


@pytest.mark.parametrize(
    ("name", "lora"),
    [
        *(pytest.param(name, LORA, marks=[] if name in QUICK else pytest.mark.slow) for name in CASES),
        pytest.param("egrsd", FULL, marks=pytest.mark.slow),
    ],
)
def test_step_equals_its_plain_restatement(name, lora):
    config = Config(lora=lora, train=TRAIN, method=CASES[name], rollout=ROLLOUT)
    mesh = make_mesh(devices=jax.devices()[:1])
    loss, gradient = restated(config, mesh)
    result = updated(config, ROWS, mesh)
    np.testing.assert_allclose(result.metrics["loss"], loss, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result.metrics["gradient_norm"], optax.tree.norm(gradient), rtol=1e-5)
    assert_same_gradient(gradient_of(result), gradient)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [("cl_egrsd", 1), ("egrsd", 3), ("reopold, later", 2), ("sdpo", 2), ("dr_grpo", 3), ("reversed gate", 3)],
)
def test_micro_batches_change_nothing(name, size):
    config = Config(lora=LORA, train=TRAIN, method=CASES[name], rollout=ROLLOUT)
    mesh = make_mesh(devices=jax.devices()[:1])
    whole, parts = updated(config, ROWS, mesh), updated(config, size, mesh)
    assert set(parts.metrics) == set(whole.metrics)
    for figure, value in whole.metrics.items():
        np.testing.assert_allclose(parts.metrics[figure], value, rtol=1e-5, atol=1e-6, err_msg=figure)
    assert_same_gradient(gradient_of(parts), gradient_of(whole))
    np.testing.assert_allclose(parts.tokens.student_logp, whole.tokens.student_logp, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("cl_egrsd", SHARED),
        *(
            pytest.param(name, rows, marks=pytest.mark.slow)
            for name, rows in [
                ("egrsd", TWO_SHAPES),
                ("reopold, later", SHARED),
                ("sdpo", SHARED),
                ("rlcsd", TWO_SHAPES),
                ("opsd, no clip", TWO_SHAPES),
                ("pw_opsd", SHARED),
                ("dr_grpo", SHARED),
                ("grpo_group, kl", SHARED),
                ("reversed gate", SHARED),
                ("sequence maximum", SHARED),
            ]
        ),
    ],
)
def test_completions_that_share_rows_change_nothing(name, rows):
    """Neither loss and gradient nor the numbers of any token, compared with a row for each completion."""
    config = Config(lora=LORA, train=TRAIN, method=CASES[name], rollout=ROLLOUT)
    mesh = make_mesh(devices=jax.devices()[:1])
    whole, shared = updated(config, ROWS, mesh), updated(config, rows, mesh)
    # A divergence is a sum of small differences: micro-batches alone move its gradient by a part in a million.
    assert_same_to_a_millionth(shared, whole, gradient_limit=3e-6 if METHODS[config.method.name].divergence else 1e-6)
    for figure, value in whole.metrics.items():
        np.testing.assert_allclose(shared.metrics[figure], value, rtol=1e-5, atol=1e-6, err_msg=figure)
    for field, expected in whole.tokens.known().items():
        np.testing.assert_allclose(getattr(shared.tokens, field), expected, rtol=1e-5, atol=1e-5, err_msg=field)


@pytest.mark.parametrize("kind", ["sequence", pytest.param("token", marks=pytest.mark.slow)])
def test_completions_of_an_older_student_count_by_how_likely_they_have_become(kind):
    """As if each completion counted by `min(rho, cap)`; in micro-batches, and not at all at age 0."""
    mesh, batch, cap = make_mesh(devices=jax.devices()[:1]), make_batch(*data()), 1.05
    rollout = dataclasses.replace(ROLLOUT, ahead=1)
    method = method_settings("egrsd", gamma=0.7, importance=kind, importance_cap=cap)
    config = replace_train(Config(lora=LORA, train=TRAIN, method=method, rollout=rollout), 2)
    plain = Config(lora=LORA, train=TRAIN, method=CASES["egrsd"], rollout=ROLLOUT)

    def older(trainable):
        return jax.tree.map(lambda leaf: 0.7 * leaf, trainable)

    base, state, optimizer = base_and_state(plain, mesh)
    on_policy = make_update(plain, MODEL, optimizer, mesh, state)
    off_policy = make_update(config, MODEL, optimizer, mesh, state)

    def result_of(update, step, *, trainable=None, inputs=None, rows=ROWS, version=()):
        _, fresh, _ = base_and_state(plain, mesh)
        learned = fresh.learned if trainable is None else fresh.learned._replace(trainable=trainable)
        inputs = inputs_of(batch) if inputs is None else inputs
        return update(learned, base, arranged(batch, rows), inputs, np.int32(step), KEY, *version)

    version = older(state.trainable)
    result = result_of(off_policy, STEP, rows=2, version=[version])
    scored_then = result_of(on_policy, STEP, trainable=older(state.trainable)).tokens.student_logp
    np.testing.assert_allclose(result.tokens.version_logp, scored_then, rtol=1e-5, atol=1e-5)

    change = np.where(batch.mask_BT, result.tokens.student_logp - scored_then, 0)
    change = change.sum(1, keepdims=True) * np.ones_like(change) if kind == "sequence" else change
    weight = np.minimum(np.exp(change), cap)
    assert weight[batch.mask_BT].min() < 0.98
    assert weight[batch.mask_BT].max() == np.float32(cap)
    np.testing.assert_allclose(result.tokens.importance[batch.mask_BT], weight[batch.mask_BT], rtol=1e-4)
    if kind == "sequence":
        inputs = inputs_of(batch)
        weighted = inputs._replace(weight_B=inputs.weight_B * weight[:, 0].astype(np.float32))
        expected = result_of(on_policy, STEP, inputs=weighted)
        np.testing.assert_allclose(result.metrics["loss"], expected.metrics["loss"], rtol=1e-4)
        assert_same_gradient(gradient_of(result), gradient_of(expected))

    first, alone = result_of(off_policy, 0, rows=2, version=[version]), result_of(on_policy, 0)
    assert float(first.metrics["importance_std"]) == 0
    np.testing.assert_allclose(first.metrics["loss"], alone.metrics["loss"], rtol=1e-5)
    assert_same_gradient(gradient_of(first), gradient_of(alone))


@pytest.mark.slow
@pytest.mark.parametrize("lora", [LORA, FULL], ids=["lora", "full"])
def test_eight_devices_give_what_one_gives(lora):
    """The same loss, gradient and update on fsdp x tensor, each in its shards."""
    config = Config(lora=lora, train=TRAIN, method=CASES["cl_egrsd"], rollout=ROLLOUT)
    one = updated(config, 4, make_mesh(devices=jax.devices()[:1]))
    eight = updated(config, 4, make_mesh(data=1, fsdp=4, tensor=2))
    np.testing.assert_allclose(eight.metrics["loss"], one.metrics["loss"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(eight.metrics["gradient_norm"], one.metrics["gradient_norm"], rtol=1e-5)
    assert_same_gradient(gradient_of(eight), gradient_of(one))
    # Adam's first step is the learning rate times nearly the gradient's sign, whatever its size
    large = jax.tree.map(lambda leaf: np.abs(leaf) > 1e-4, jax.device_get(gradient_of(one)))
    for moved, expected, mask in zip(
        *map(jax.tree.leaves, (eight.learned.trainable, one.learned.trainable, large)), strict=True
    ):
        np.testing.assert_allclose(np.asarray(moved)[mask], np.asarray(expected)[mask], rtol=1e-4, atol=1e-4)
    mesh = make_mesh(data=1, fsdp=4, tensor=2)
    for tree in (eight.learned.trainable, eight.learned.optimizer):
        for leaf, wanted in zip(*map(jax.tree.leaves, (tree, tree_shardings(tree, mesh))), strict=True):
            assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cl_egrsd", "sdpo", "rlcsd"])
def test_completions_that_share_rows_on_eight_devices_give_what_one_gives(name):
    """Rows of two lengths, split over fsdp; the teacher's hidden states cross from its rows to the student's."""
    config = Config(lora=LORA, train=TRAIN, method=CASES[name], rollout=ROLLOUT)
    one, mesh = updated(config, ROWS, make_mesh(devices=jax.devices()[:1])), make_mesh(data=1, fsdp=4, tensor=2)
    eight = updated(config, (Shape(4, 32, 16), Shape(4, 24, 16)), mesh)
    assert_same_to_a_millionth(eight, updated(config, 4, mesh))
    assert_same_to_a_millionth(eight, one, gradient_limit=3e-6)  # partial sums over tensor are a part in a million
    np.testing.assert_allclose(eight.tokens.student_logp, one.tokens.student_logp, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_steps_of_any_lengths_compile_one_update():
    """Prompts and completions of other lengths, and another number of rows, at every step."""
    config = Config(lora=LORA, train=TRAIN, method=CASES["egrsd"], rollout=ROLLOUT)
    mesh = make_mesh(devices=jax.devices()[:1])
    base, state, optimizer = base_and_state(config, mesh)
    draw, learned = np.random.default_rng(0), state.learned
    prompts = [[3] * length for step in range(5) for length in draw.integers(1, 8 * (step + 1), ROWS)]
    shapes = choose_shapes(list(map(len, prompts)), max_new_tokens=16, micro_batch_tokens=64)  # a row at a time
    packed, in_order = (
        make_update(replace_train(config, size), MODEL, optimizer, mesh, state) for size in (None, ROWS)
    )
    counts, sizes = set(), []
    for step in range(5):
        asked = prompts[step * ROWS : (step + 1) * ROWS]
        completions = [[5] * length for length in draw.integers(1, 3 * (step + 1) + 1, ROWS)]
        rows = packed_rows(asked, completions, shapes, max_new_tokens=16)
        counts.add(int(rows[0].micro_batches))
        batch = step_batch(rows, rows, completions, max_new_tokens=16)
        learned = packed(learned, base, batch, inputs_of(batch), np.int32(step), KEY).learned
        rows = ordered_rows(asked, completions, ROWS, max_new_tokens=16)
        batch = step_batch(rows, rows, completions, max_new_tokens=16)
        learned = in_order(learned, base, batch, inputs_of(batch), np.int32(step), KEY).learned
        sizes.append((packed._cache_size(), in_order._cache_size()))
    assert len(counts) > 1
    assert sizes[-1][0] == sizes[1][0]  # nothing new after the second step, the first with a state that a step left
    assert sizes[-1][1] > sizes[1][1]  # so that the count would show another program


@pytest.mark.slow
def test_devices_of_fsdp_share_the_rows():
    """Eight devices hold an eighth of the activations each: none of them computes all rows."""
    config = Config(lora=LORA, train=TRAIN, method=CASES["egrsd"], rollout=ROLLOUT)
    draw = np.random.default_rng(0)
    prompts, completions = (draw.integers(0, MODEL.vocab_size, (8, 64)).tolist() for _ in range(2))
    batch = make_batch(prompts, prompts, completions)
    rows = CompletionInputs(
        np.ones(8, np.float32), np.ones(8, np.float32), np.zeros(8, bool), np.zeros((8, 64), np.float32)
    )
    inputs = arranged(batch, 8), rows

    def temporary_bytes(mesh) -> int:
        base, state, optimizer = base_and_state(config, mesh)
        update = make_update(config, MODEL, optimizer, mesh, state)
        lowered = update.lower(state.learned, base, *inputs, np.int32(0), KEY)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(make_mesh(fsdp=8)) < temporary_bytes(make_mesh(devices=jax.devices()[:1])) / 3


def test_base_gets_no_gradient_and_survives_the_step():
    """With an adapter the base weights are the teacher too: a step must leave them as they are, and usable."""
    config = Config(lora=LORA, train=TRAIN, method=CASES["egrsd"], rollout=ROLLOUT)
    mesh = make_mesh(devices=jax.devices()[:1])
    base, state, optimizer = base_and_state(config, mesh)
    before = jax.device_get(base)
    batch = make_batch(*data())
    update = make_update(config, MODEL, optimizer, mesh, state)
    result = update(state.learned, base, arranged(batch, ROWS), inputs_of(batch), np.int32(0), KEY)
    chex.assert_trees_all_equal(jax.device_get(base), before)
    chex.assert_trees_all_equal_shapes(result.learned.optimizer[1][0].mu, result.learned.trainable)


def test_zero_advantages_change_nothing():
    config = Config(lora=LORA, train=TRAIN, method=CASES["egrsd"], rollout=ROLLOUT)
    mesh = make_mesh(devices=jax.devices()[:1])
    base, state, optimizer = base_and_state(config, mesh)
    before = jax.device_get(state.trainable)
    batch = make_batch(*data())
    rows = inputs_of(batch)._replace(advantage_B=np.zeros(ROWS, np.float32))
    update = make_update(config, MODEL, optimizer, mesh, state)
    result = update(state.learned, base, arranged(batch, ROWS), rows, np.int32(0), KEY)
    chex.assert_trees_all_equal(jax.device_get(result.learned.trainable), before)
    assert result.metrics["loss"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("lora", [LORA, FULL], ids=["lora", "full"])
def test_without_privilege_and_gate_the_update_is_that_of_grpo(lora):
    """Teacher's weights and prompt are the student's: delta is 0, w is 1, and with gamma 0 nothing is left but A."""
    mesh = make_mesh(devices=jax.devices()[:1])
    students, _, completions = data()
    batch = make_batch(students, students, completions)

    def result_of(method: MethodSettings):
        config = Config(lora=lora, train=TRAIN, method=method, rollout=ROLLOUT)
        base, state, optimizer = base_and_state(config, mesh)
        update = make_update(config, MODEL, optimizer, mesh, state)
        return update(state.learned, base, arranged(batch, ROWS), inputs_of(batch), np.int32(0), KEY)

    egrsd = result_of(method_settings("direction", teacher="current", privilege="none"))
    grpo = result_of(method_settings("grpo"))
    np.testing.assert_allclose(egrsd.tokens.weight[batch.mask_BT], 1, rtol=0, atol=2e-6)
    np.testing.assert_allclose(egrsd.metrics["loss"], grpo.metrics["loss"], rtol=1e-5)
    assert_same_gradient(gradient_of(egrsd), gradient_of(grpo))


@pytest.mark.slow
def test_the_step_is_the_public_loss():
    """What the trainer minimises for EGRSD and GRPO is what `egrsd_loss` and `grpo_loss` give to others."""
    mesh = make_mesh(devices=jax.devices()[:1])
    batch = make_batch(*data())
    rows = inputs_of(batch)._replace(weight_B=np.ones(ROWS, np.float32))
    for method in (method_settings("cl_egrsd", gamma=0.7, window=2), method_settings("grpo")):
        config = Config(lora=LORA, train=TRAIN, method=method, rollout=ROLLOUT)
        base, state, optimizer = base_and_state(config, mesh)
        update = make_update(config, MODEL, optimizer, mesh, state)
        result = update(state.learned, base, arranged(batch, ROWS), rows, np.int32(0), KEY)
        tokens, end = result.tokens, (rows.advantage_B, batch.mask_BT)
        if method.name == "grpo":
            loss, _ = grpo_loss(tokens.student_logp, *end)
        else:
            loss, _ = egrsd_loss(
                tokens.student_logp, tokens.teacher_logp, tokens.teacher_entropy, *end, gamma=0.7, window=2
            )
        np.testing.assert_allclose(result.metrics["loss"], loss, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("schedule", "moved"), [("ema", 0.75), ("copy", 1.0), ("frozen", None), ("current", None)])
def test_teachers_that_follow_the_student(schedule, moved):
    """EMA moves a quarter of the way here; a copy comes on steps that its period divides, and on no others."""
    mesh = make_mesh(devices=jax.devices()[:1])
    paces = {"ema": {"teacher_decay": 0.25}, "copy": {"teacher_every": STEP}}
    method = method_settings("egrsd", teacher=schedule, **paces.get(schedule, {}))
    config = Config(lora=LORA, train=TRAIN, method=method, rollout=ROLLOUT)
    base, state, optimizer = base_and_state(config, mesh)
    before = jax.device_get(state.teacher)
    batch = make_batch(*data())
    update = make_update(config, MODEL, optimizer, mesh, state)
    result = update(state.learned, base, arranged(batch, ROWS), inputs_of(batch), np.int32(STEP - 1), KEY)
    if moved is None:
        assert result.learned.teacher == {}
        return
    expected = jax.tree.map(
        lambda old, new: old + moved * (new - old), before, jax.device_get(result.learned.trainable)
    )
    chex.assert_trees_all_close(jax.device_get(result.learned.teacher), expected, rtol=1e-5, atol=1e-7)
    result = update(result.learned, base, arranged(batch, ROWS), inputs_of(batch), np.int32(STEP), KEY)
    if schedule == "copy":
        chex.assert_trees_all_close(jax.device_get(result.learned.teacher), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_dropout_is_drawn_anew_each_step_and_does_not_depend_on_micro_batches():
    mesh = make_mesh(devices=jax.devices()[:1])
    config = Config(
        lora=dataclasses.replace(LORA, dropout=0.5), train=TRAIN, method=method_settings("grpo"), rollout=ROLLOUT
    )
    dropped, parts, shared = (updated(config, rows, mesh) for rows in (ROWS, 2, SHARED))
    kept = updated(dataclasses.replace(config, lora=LORA), ROWS, mesh)
    assert_same_gradient(gradient_of(parts), gradient_of(dropped))
    assert_same_gradient(gradient_of(shared), gradient_of(dropped))
    assert abs(float(dropped.metrics["gradient_norm"]) / float(kept.metrics["gradient_norm"]) - 1) > 1e-3
    np.testing.assert_allclose(parts.metrics["loss"], dropped.metrics["loss"], rtol=1e-5)
