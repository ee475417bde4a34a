"""Divergences against the dense form: values, gradients, precision, memory, sharding."""

import re
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from egrsd_jax.ops.divergences import clipped_divergence, token_divergence, top_k_divergence
from egrsd_jax.ops.top_tokens import token_logps

DIMS = chex.Dimensions(B=2, T=3, D=5, E=4)  # E is the teacher's hidden size


def dense_from_logp(student_logp, teacher_logp, beta, clip=None):
    """The definitions, as they are written down."""
    p, q = jnp.exp(teacher_logp), jnp.exp(student_logp)
    if beta == 0:
        entries = p * (teacher_logp - student_logp)
    elif beta == 1:
        entries = q * (student_logp - teacher_logp)
    else:
        logm = jnp.log(beta * p + (1 - beta) * q)
        entries = beta * p * (teacher_logp - logm) + (1 - beta) * q * (student_logp - logm)
    return jnp.sum(entries if clip is None else jnp.minimum(entries, clip), axis=-1)


def dense_divergence(student_hidden, student_head, teacher_hidden, teacher_head, *, beta, clip=None, temperature=1.0):
    """The same by way of every logit at once."""

    def logp(hidden, head):
        return jax.nn.log_softmax(jnp.einsum("btd,dv->btv", hidden, head) / temperature, axis=-1)

    return dense_from_logp(logp(student_hidden, student_head), logp(teacher_hidden, teacher_head), beta, clip)


def problem(vocab_size, dtype=np.float32, seed=0, dims=DIMS):
    """Both models' hidden states and heads, and a cotangent."""
    rng = np.random.default_rng(seed)
    shapes = (dims["BTD"], (*dims["D"], vocab_size), dims["BTE"], (*dims["E"], vocab_size))
    models = tuple(jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)
    return models, jnp.asarray(rng.normal(size=dims["BT"]), np.promote_types(dtype, np.float32))


@partial(jax.jit, static_argnums=0)
def value_and_gradients(divergence, models, bar):
    """The divergence, and what `bar` pulls back to the student's hidden states and head."""
    value, pull = jax.vjp(lambda hidden, head: divergence(hidden, head, *models[2:]), *models[:2])
    return value, pull(bar)


@pytest.mark.parametrize(
    ("beta", "clip", "vocab_size", "chunk_size", "vocabulary_axis"),
    # 31 is prime and has one stripe; 80 has 16 of 5 entries, of which a chunk takes 1 or 2.
    [
        (0, None, 31, 1, 1),
        (0, 0.05, 80, 7, 0),
        (0.3, None, 31, 31, 1),
        (0.3, 0.01, 31, None, 1),
        (0.5, None, 80, 40, 0),
        (1, None, 31, 7, 1),
        (1, 0.05, 80, 40, 1),
    ],
)
def test_chunked_equals_dense_in_float64(beta, clip, vocab_size, chunk_size, vocabulary_axis):
    def ours_of(*models, **options):
        heads_as_asked = (model if i % 2 == 0 or vocabulary_axis else model.T for i, model in enumerate(models))
        return token_divergence(*heads_as_asked, **options, chunk_size=chunk_size, vocabulary_axis=vocabulary_axis)

    with jax.enable_x64(True):
        models, bar = problem(vocab_size, np.float64)
        options = {"beta": beta, "clip": clip, "temperature": 0.7}
        ours = value_and_gradients(partial(ours_of, **options), models, bar)
        dense = value_and_gradients(partial(dense_divergence, **options), models, bar)
        chex.assert_trees_all_close(ours, dense, atol=1e-13, rtol=1e-12)
        assert ours[0].dtype == jnp.float64
        if clip:  # the limit does bind
            assert jnp.all(ours[0] < dense_divergence(*models, beta=beta, temperature=0.7))


@pytest.mark.parametrize(("beta", "chunk_size"), [(0.0, None), (0.0, 4), (1.0, 3), (0.3, 4)])
def test_a_clip_counts_what_it_binds_and_changes_nothing(beta, chunk_size):
    """Entries and the teacher's mass at the clip, counted densely; the divergence and its gradients to the last bit."""
    models, bar = problem(11)
    options = {"beta": beta, "clip": 0.05, "temperature": 1.3, "chunk_size": chunk_size}
    plain = partial(token_divergence, **options)

    def counting(*readouts):
        return clipped_divergence(*readouts, **options).divergence

    both = [value_and_gradients(one, models, bar) for one in (plain, counting)]
    jax.tree.map(np.testing.assert_array_equal, *both)
    counted = clipped_divergence(*models, **options)
    q, p = (jax.nn.softmax(jnp.einsum("btd,dv->btv", *model) / 1.3, axis=-1) for model in (models[:2], models[2:]))
    middle = beta * p + (1 - beta) * q
    terms = {0.0: p * jnp.log(p / q), 1.0: q * jnp.log(q / p)}.get(
        beta, beta * p * jnp.log(p / middle) + (1 - beta) * q * jnp.log(q / middle)
    )
    np.testing.assert_array_equal(counted.entries, jnp.sum(terms >= 0.05, axis=-1))
    np.testing.assert_allclose(counted.mass, jnp.sum(jnp.where(terms >= 0.05, p, 0), axis=-1), rtol=1e-5)
    assert 0 < counted.entries.sum() < counted.entries.size * 11


def test_counting_without_a_clip_is_refused():
    with pytest.raises(ValueError, match="clipped_divergence counts what a clip binds"):
        clipped_divergence(*problem(5)[0], clip=None)  # pyright: ignore[reportArgumentType]


def test_models_that_nearly_agree_keep_their_digits_in_float32():
    # Logits near 60, whose log Σ e^z is rounded to 4e-6; the divergence is smaller than that.
    (hidden, head, *_), _ = problem(64, seed=1)
    shift = np.float32(60) * jnp.ones((*DIMS["BT"], 1))
    hidden, head = jnp.concatenate([hidden, shift], axis=-1), jnp.concatenate([head, jnp.ones((1, 64))])
    models = (hidden, head, hidden + jnp.float32(1e-3) * jnp.cos(hidden), head)
    for beta in (0.0, 1.0):
        ours = np.float64(token_divergence(*models, beta=beta, chunk_size=16))
        with jax.enable_x64(True):
            exact = jax.jit(partial(dense_divergence, beta=beta))(*(jnp.asarray(x, jnp.float64) for x in models))
            assert jnp.max(exact) < 4e-6
            np.testing.assert_allclose(ours, exact, atol=2e-7)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_equal_models_have_no_divergence_and_no_gradient(beta):
    (hidden, head, *_), bar = problem(48)
    value, (hidden_bar, head_bar) = value_and_gradients(
        partial(token_divergence, beta=beta, chunk_size=20), (hidden, head, hidden, head), bar
    )
    for result in (value, hidden_bar, head_bar):
        np.testing.assert_allclose(result, 0, atol=1e-9)  # not even rounding of one log-probability, which is 1e-7


def test_bfloat16_products_accumulate_in_float32_whatever_the_teacher_s_dtype():
    dims = chex.Dimensions(B=2, T=8, D=64, E=4)
    (hidden, head, *teacher), bar = problem(96, dims=dims)
    models = (hidden.astype(jnp.bfloat16), head.astype(jnp.bfloat16), *teacher)
    ours, ours_bar = value_and_gradients(partial(token_divergence, beta=0.5, chunk_size=32), models, bar)
    upcast = jax.tree.map(lambda x: x.astype(jnp.float32), models)
    dense, dense_bar = value_and_gradients(partial(dense_divergence, beta=0.5), upcast, bar)
    # bf16 times bf16 is exact in float32, so the value owes nothing to bf16.
    chex.assert_trees_all_close(ours, dense, atol=1e-5)
    for gradient, exact in zip(ours_bar, dense_bar, strict=True):
        assert gradient.dtype == jnp.bfloat16
        error = jnp.linalg.norm(gradient.astype(jnp.float32) - exact) / jnp.linalg.norm(exact)
        assert error < 2**-8  # one rounding of ∂z and one of the result, 2^-9 each at most


@pytest.mark.parametrize("sick", [0, 2])
def test_a_masked_position_contributes_exactly_nothing(sick):
    models, _ = problem(48)
    mask_BT = jnp.ones(DIMS["BT"], bool).at[0, 1].set(False).at[1, 2].set(False)
    poisoned = list(models)
    poisoned[sick] = jnp.where(mask_BT[..., None], models[sick], jnp.nan)

    @jax.jit
    def gradients(models):
        def loss(hidden, head):
            return jnp.sum(token_divergence(hidden, head, *models[2:], beta=0.3, chunk_size=20), where=mask_BT)

        return jax.grad(loss, (0, 1))(*models[:2])

    clean, ours = gradients(models), gradients(tuple(poisoned))
    chex.assert_trees_all_equal(ours, clean)
    assert jnp.all(ours[0][~mask_BT] == 0)
    assert jnp.all(ours[0][mask_BT] != 0)


@pytest.mark.parametrize("vocabulary_axis", [0, 1])
@pytest.mark.parametrize("shape_BT", [(2, 0), (0, 3)])
def test_no_tokens_have_no_divergence_and_no_gradient(shape_BT, vocabulary_axis):
    models, bar = problem(31, dims=chex.Dimensions(B=shape_BT[0], T=shape_BT[1], D=5, E=4))
    models = tuple(model if i % 2 == 0 or vocabulary_axis else model.T for i, model in enumerate(models))
    divergence = partial(token_divergence, beta=0.3, chunk_size=7, vocabulary_axis=vocabulary_axis)
    value, (hidden_bar, head_bar) = value_and_gradients(divergence, models, bar)
    assert value.shape == shape_BT
    assert hidden_bar.shape == models[0].shape
    np.testing.assert_array_equal(head_bar, jnp.zeros_like(models[1]))


def test_the_teacher_and_the_numbers_are_constants():
    (hidden, head, *_), _ = problem(31)

    def loss(hidden, teacher_hidden, temperature, clip):
        return jnp.sum(token_divergence(hidden, head, teacher_hidden, head, temperature=temperature, clip=clip))

    gradients = jax.grad(loss, (0, 1, 2, 3))(hidden, hidden + 0.1, 0.9, 0.1)
    assert jnp.all(gradients[0] != 0)
    assert all(jnp.all(gradient == 0) for gradient in gradients[1:])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), log_scale=st.floats(-6, 4), beta=st.sampled_from([0.0, 0.3, 0.5]))
def test_it_is_never_negative_and_mirrors_its_arguments(seed, log_scale, beta):
    (hidden, head, *_), _ = problem(48, seed=seed)
    other = hidden[::-1] * jnp.float32(np.exp(log_scale))
    forward = token_divergence(hidden, head, other, head, beta=beta, chunk_size=20)
    mirrored = token_divergence(other, head, hidden, head, beta=1 - beta, chunk_size=20)
    assert jnp.all(forward >= -1e-6)
    np.testing.assert_allclose(forward, mirrored, rtol=1e-5, atol=1e-6)  # beta = 0.5: symmetry


def test_jensen_shannon_of_models_that_share_no_token_is_the_entropy_of_beta():
    hidden, other = 1e3 * jnp.eye(4)[None, :2], 1e3 * jnp.eye(4)[None, 2:]
    value = token_divergence(hidden, jnp.eye(4), other, jnp.eye(4), beta=0.3)
    np.testing.assert_allclose(value, -0.3 * np.log(0.3) - 0.7 * np.log(0.7), rtol=1e-6)


class TestMemory:
    """What XLA says it holds, for shapes where a chunk is a 64th of the logits."""

    shapes = tuple(jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in 2 * [(1, 256, 64), (64, 8192)])
    dense_logits = 2 * 256 * 8192 * 4
    head_bytes = 64 * 8192 * 2

    @staticmethod
    def loss(*models):
        return jnp.sum(token_divergence(*models, beta=0.5, clip=0.1, chunk_size=128))

    def held(self, function):
        return jax.jit(function).lower(*self.shapes).compile().memory_analysis()

    def test_forward_holds_a_chunk_of_each_model(self):
        assert self.held(self.loss).temp_size_in_bytes < self.dense_logits / 16

    def test_backward_holds_chunks_beside_the_gradients(self):
        assert self.held(jax.grad(self.loss, (0, 1))).temp_size_in_bytes < self.dense_logits / 16

    def test_a_frozen_head_has_no_gradient_anywhere(self):
        # Every chunk of a head's gradient is written by a dynamic_update_slice: it must not even be traced.
        assert "dynamic_update_slice" in str(jax.make_jaxpr(jax.grad(self.loss, (0, 1)))(*self.shapes))
        assert "dynamic_update_slice" not in str(jax.make_jaxpr(jax.grad(self.loss))(*self.shapes))
        held = self.held(jax.grad(self.loss))
        assert held.temp_size_in_bytes + held.output_size_in_bytes < self.head_bytes


@pytest.mark.slow
class TestSharding:
    """Eight devices: batch over data and fsdp, vocabulary over tensor."""

    dims = chex.Dimensions(B=8, T=3, D=4, E=4)
    vocab_size = 96

    def problem(self, vocabulary_axis):
        (hidden, head, teacher_hidden, teacher_head), bar = problem(self.vocab_size, dims=self.dims)
        heads = (head, teacher_head) if vocabulary_axis else (head.T, teacher_head.T)
        return (hidden, heads[0], teacher_hidden, heads[1]), bar

    def on_mesh(self, vocabulary_axis, head_spec):
        mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
        models, bar = self.problem(vocabulary_axis)
        batch, head = NamedSharding(mesh, P(("data", "fsdp"))), NamedSharding(mesh, head_spec)
        return jax.device_put(models, (batch, head, batch, head)), jax.device_put(bar, batch)

    @pytest.mark.parametrize(("vocabulary_axis", "head_spec"), [(0, P("tensor", "fsdp")), (1, P(None, "tensor"))])
    def test_same_value_and_gradients_as_on_one_device(self, vocabulary_axis, head_spec):
        options = {"beta": 1.0, "clip": 0.1, "chunk_size": 32, "vocabulary_axis": vocabulary_axis}
        divergence = partial(token_divergence, **options)
        alone = value_and_gradients(divergence, *self.problem(vocabulary_axis))
        models, bar = self.on_mesh(vocabulary_axis, head_spec)
        place = (None, (None, models[1].sharding))
        sharded = jax.jit(lambda *a: value_and_gradients(divergence, *a), out_shardings=place)(models, bar)
        chex.assert_trees_all_close(jax.device_get(sharded), jax.device_get(alone), atol=2e-6, rtol=2e-5)
        assert sharded[0].sharding.spec == P(("data", "fsdp"))

    def test_every_device_scans_its_own_part_of_the_vocabulary(self):
        models, _ = self.on_mesh(1, P(None, "tensor"))
        forward = jax.jit(lambda *a: token_divergence(*a, chunk_size=32)).lower(*models).compile().as_text()
        collectives = re.findall(r"^.* (?:all-gather|all-reduce|all-to-all|collective-permute)\(.*$", forward, re.M)
        assert collectives
        assert not any("while/body" in line or "all-gather" in line for line in collectives)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student_hidden_BTD": jnp.zeros((2, 5))}, "student_hidden_BTD must have 3 dimension"),
        ({"student_head": jnp.zeros((4, 31))}, r"student_head_DV has shape \(4, 31\).*D is 5 in student_hidden_BTD"),
        ({"teacher_head": jnp.zeros((4, 31), jnp.int8)}, "teacher_head_DV must be floating; its dtype is int8"),
        ({"teacher_head": jnp.zeros((4, 30))}, "teacher_head has 30 vocabulary entries .* student_head has 31"),
        ({"teacher_hidden_BTD": jnp.zeros((2, 4, 4))}, r"teacher_hidden_BTD has B and T \(2, 4\)"),
        ({"beta": 1.5}, r"beta must be a Python number in \[0, 1\].*got 1.5"),
        ({"beta": jnp.zeros(())}, "beta must be a Python number"),
        ({"beta": np.nan}, "beta must be a Python number"),
        ({"clip": 0.0}, "clip must be a positive finite number, or None; got 0.0"),
        ({"temperature": -1.0}, "temperature must be a positive finite number"),
        ({"chunk_size": 0}, "chunk_size must be a Python int"),
        ({"vocabulary_axis": 2}, "vocabulary_axis must be one of 0, 1; got 2"),
    ],
)
def test_a_bad_argument_is_named(change, message):
    models, _ = problem(31)
    names = ("student_hidden_BTD", "student_head", "teacher_hidden_BTD", "teacher_head")
    with pytest.raises(ValueError, match=message):
        token_divergence(**dict(zip(names, models, strict=True)) | change)


def log_probabilities(k, vocab_size=12, dtype=np.float64, seed=0):
    """Both models' log-probabilities of the first k of a few tokens, and a cotangent."""
    rng = np.random.default_rng(seed)
    logits = jnp.asarray(rng.normal(size=(2, *DIMS["BT"], vocab_size)), dtype)
    student, teacher = jax.nn.log_softmax(logits, axis=-1)[..., :k]
    return student, teacher, jnp.asarray(rng.normal(size=DIMS["BT"]), dtype)


def dense_top_k(student_logp, teacher_logp, *, beta, rest):
    """The definition: normalise both, or append what is missing to one, then the divergence of the entries."""

    def whole(logp):
        mass = jnp.sum(jnp.exp(logp), axis=-1, keepdims=True)
        if rest == "renormalise":
            return logp - jnp.log(mass)
        return jnp.concatenate([logp, jnp.log(1 - mass)], axis=-1)

    return dense_from_logp(whole(student_logp), whole(teacher_logp), beta)


@partial(jax.jit, static_argnames=("divergence", "beta", "rest"))
def top_k_results(student, teacher, bar, *, beta, rest, divergence=top_k_divergence):
    """The divergence, and what `bar` pulls back to the two models' log-probabilities."""
    value, pull = jax.vjp(partial(divergence, beta=beta, rest=rest), student, teacher)
    return value, *pull(bar)


@pytest.mark.parametrize("rest", ["bucket", "renormalise"])
class TestTopK:
    @pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
    def test_value_and_gradient_in_float64(self, beta, rest):
        with jax.enable_x64(True):
            arguments = log_probabilities(5)
            value, student_bar, teacher_bar = top_k_results(*arguments, beta=beta, rest=rest)
            dense, dense_bar, _ = top_k_results(*arguments, beta=beta, rest=rest, divergence=dense_top_k)
            chex.assert_trees_all_close((value, student_bar), (dense, dense_bar), atol=1e-13, rtol=1e-11)
            assert jnp.all(teacher_bar == 0)  # a constant

    def test_equal_models_and_masked_positions_give_exactly_nothing(self, rest):
        student, teacher, bar = log_probabilities(5, dtype=np.float32)
        bar = bar.at[0, 1].set(0)
        sick = jnp.zeros(DIMS["BT"], bool).at[0, 1].set(True)[..., None]
        for beta in (0.0, 0.3):
            equal = top_k_results(student, student, bar, beta=beta, rest=rest)
            chex.assert_trees_all_close(equal, jax.tree.map(jnp.zeros_like, equal), atol=1e-9)
            clean = top_k_results(student, teacher, bar, beta=beta, rest=rest)
            poisoned = (jnp.where(sick, jnp.nan, logp) for logp in (student, teacher))
            ours = top_k_results(*poisoned, bar, beta=beta, rest=rest)
            chex.assert_trees_all_equal(ours[1:], clean[1:])
            assert jnp.all((ours[1] == 0) == sick)


def test_over_every_token_the_top_k_divergence_is_that_over_the_vocabulary():
    models, bar = problem(16, seed=3)
    every_BTV = jnp.broadcast_to(jnp.arange(16), (*DIMS["BT"], 16))

    def by_tokens(student_hidden, student_head, teacher_hidden, teacher_head, rest):
        student = token_logps(student_hidden, student_head, every_BTV, chunk_size=4)
        teacher = token_logps(teacher_hidden, teacher_head, every_BTV, chunk_size=4)
        return top_k_divergence(student, teacher, beta=0.3, rest=rest)

    whole = value_and_gradients(partial(token_divergence, beta=0.3), models, bar)
    for rest in ("bucket", "renormalise"):  # the bucket is empty here; what rounding leaves in it is a few 1e-7
        ours = value_and_gradients(partial(by_tokens, rest=rest), models, bar)
        chex.assert_trees_all_close(ours, whole, atol=5e-6)


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_a_bucket_that_rounding_empties_keeps_everything_finite(beta):
    student, teacher, _ = log_probabilities(12, dtype=np.float32)
    for excess in (0.0, 1e-6):  # log mass of about 0, to either side, and of clearly more than one
        above = student + jnp.float32(excess), teacher + jnp.float32(excess), jnp.ones(DIMS["BT"])
        value, gradient, _ = top_k_results(*above, beta=beta, rest="bucket")
        exact, renormalised, _ = top_k_results(*above, beta=beta, rest="renormalise")
        np.testing.assert_allclose(value, exact, atol=5e-6)
        # Once the tokens share all the mass, ∂/∂ log q may differ by a multiple of q alone.
        centred = gradient - jnp.exp(student) * jnp.sum(gradient, axis=-1, keepdims=True)
        np.testing.assert_allclose(centred, renormalised, atol=1e-5)


def test_a_teacher_with_an_empty_bucket_empties_the_student_s():
    teacher, student = jnp.log(jnp.asarray([[[0.75, 0.25]]])), jnp.log(jnp.asarray([[[0.5, 0.25]]]))
    for beta in (0.0, 1.0):
        value, gradient, _ = top_k_results(student, teacher, jnp.ones((1, 1)), beta=beta, rest="bucket")
        assert jnp.all(jnp.isfinite(value))
        assert jnp.sum(gradient) < 0  # more of the tokens, so less of the bucket


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": -0.1}, "beta must be a Python number in"),
        ({"rest": "drop"}, "rest must be one of 'bucket', 'renormalise'; got 'drop'"),
        ({"teacher_logp_BTK": jnp.zeros((2, 3, 4))}, r"teacher_logp_BTK has shape \(2, 3, 4\)"),
        ({"teacher_logp_BTK": jnp.zeros((2, 3, 5), jnp.int32)}, "teacher_logp_BTK must be floating"),
    ],
)
def test_a_bad_argument_of_the_top_k_divergence_is_named(change, message):
    arguments = {"student_logp_BTK": jnp.zeros((2, 3, 5)), "teacher_logp_BTK": jnp.zeros((2, 3, 5))}
    with pytest.raises(ValueError, match=message):
        top_k_divergence(**arguments | {"beta": 0.5, "rest": "bucket"} | change)
