"""Chunked scores against the dense form: values, gradients, memory, sharding."""

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

import egrsd_jax
from egrsd_jax.ops.scores import TokenScores, token_scores
from egrsd_jax.ops.vocabulary import vocabulary_chunks

DIMS = chex.Dimensions(B=2, T=3, D=5)


def dense_scores(hidden_BTD, head_DV, targets_BT, temperature=1.0):
    """The same scores by way of every logit at once."""
    logits_BTV = jnp.einsum("btd,dv->btv", hidden_BTD, head_DV) / temperature
    logp_BTV = jax.nn.log_softmax(logits_BTV, axis=-1)
    logp_BT = jnp.take_along_axis(logp_BTV, targets_BT[..., None], axis=-1)[..., 0]
    return TokenScores(logp_BT, -jnp.sum(jnp.exp(logp_BTV) * logp_BTV, axis=-1))


def problem(vocab_size, dtype=np.float32, seed=0, dims=DIMS):
    """Hidden states, a head, targets, and a cotangent for each output."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=dims["BTD"])
    head = rng.normal(size=(*dims["D"], vocab_size))
    targets = rng.integers(0, vocab_size, dims["BT"])
    bars = rng.normal(size=(2, *dims["BT"]))
    return (
        jnp.asarray(hidden, dtype),
        jnp.asarray(head, dtype),
        jnp.asarray(targets, jnp.int32),
        TokenScores(*(jnp.asarray(bar, np.promote_types(dtype, np.float32)) for bar in bars)),
    )


def values_and_gradients(scores_of, hidden, head, bars):
    """The scores, and what `bars` pull back to hidden states and head."""
    return jax.jit(pulled_back, static_argnums=0)(scores_of, hidden, head, bars)


def pulled_back(scores_of, hidden, head, bars):
    scores, pull = jax.vjp(scores_of, hidden, head)
    return scores, pull(bars)


@pytest.mark.parametrize(
    ("vocab_size", "chunk_size"),
    # 31 is prime and has one stripe; 80 has 16 of 5 entries, of which a chunk takes 1 or 2.
    [(31, 1), (31, 7), (31, 31), (31, None), (80, 7), (80, 40)],
)
def test_chunked_equals_dense_in_float64(vocab_size, chunk_size):
    with jax.enable_x64(True):
        hidden, head, targets, bars = problem(vocab_size, np.float64)
        ours = values_and_gradients(
            lambda h, w: token_scores(h, w, targets, temperature=0.7, chunk_size=chunk_size), hidden, head, bars
        )
        dense = values_and_gradients(lambda h, w: dense_scores(h, w, targets, 0.7), hidden, head, bars)
        chex.assert_trees_all_close(ours, dense, atol=1e-13, rtol=1e-12)
        assert ours[0].logp_BT.dtype == jnp.float64


def test_a_head_with_the_vocabulary_first_gives_the_same():
    with jax.enable_x64(True):
        hidden, head, targets, bars = problem(48, np.float64)
        plain, (hidden_bar, head_bar) = values_and_gradients(
            lambda h, w: token_scores(h, w, targets, chunk_size=20), hidden, head, bars
        )
        tied, (tied_hidden_bar, tied_head_bar) = values_and_gradients(
            lambda h, w: token_scores(h, w, targets, chunk_size=20, vocabulary_axis=0), hidden, head.T, bars
        )
        expected = plain, hidden_bar, head_bar.T
        chex.assert_trees_all_close((tied, tied_hidden_bar, tied_head_bar), expected, atol=1e-13, rtol=1e-12)


def test_float32_stays_close_to_float64():
    hidden, head, targets, bars = problem(257)
    ours = values_and_gradients(lambda h, w: token_scores(h, w, targets, chunk_size=50), hidden, head, bars)
    with jax.enable_x64(True):
        exact = values_and_gradients(
            lambda h, w: dense_scores(h, w, targets),
            *jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (hidden, head, bars)),
        )
    chex.assert_trees_all_close(*jax.tree.map(np.float64, (ours, exact)), atol=2e-6, rtol=2e-6)
    chex.assert_trees_all_equal_dtypes(ours, jax.tree.map(np.float32, ours))


@pytest.mark.parametrize("output", ["logp_BT", "entropy_BT"])
def test_one_output_alone_is_differentiated_exactly(output):
    hidden, head, targets, bars = problem(31)

    def loss(scores_of):
        return lambda h, w: jnp.sum(getattr(scores_of(h, w, targets), output) * bars.logp_BT)

    ours = jax.jit(jax.grad(loss(lambda *a: token_scores(*a, chunk_size=8)), (0, 1)))(hidden, head)
    dense = jax.jit(jax.grad(loss(dense_scores), (0, 1)))(hidden, head)
    chex.assert_trees_all_close(ours, dense, atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize("others", [0, 1])
def test_gradients_do_not_depend_on_what_was_differentiated_before(others):
    """JAX traces the scores once, and its derivatives of them share what they keep."""
    hidden, head, targets, _ = problem(37)

    def gradients(arguments, entropy_alone=False):
        def loss(hidden, head):
            logp_BT, entropy_BT = token_scores(hidden, head, targets, chunk_size=8)
            return jnp.sum(entropy_BT if entropy_alone else logp_BT - entropy_BT)

        return jax.jit(jax.grad(loss, arguments))(hidden, head)

    expected = gradients((0, 1))
    jax.clear_caches()
    gradients((0, 1), entropy_alone=True)
    gradients(others)
    chex.assert_trees_all_close(gradients((0, 1)), expected, atol=1e-6)


def test_bfloat16_products_accumulate_in_float32():
    dims = chex.Dimensions(B=2, T=8, D=64)
    hidden, head, targets, bars = problem(96, jnp.bfloat16, dims=dims)
    ours, ours_bar = values_and_gradients(lambda h, w: token_scores(h, w, targets, chunk_size=32), hidden, head, bars)
    upcast = (hidden.astype(jnp.float32), head.astype(jnp.float32))
    dense, dense_bar = values_and_gradients(lambda h, w: dense_scores(h, w, targets), *upcast, bars)
    # bf16 times bf16 is exact in float32, so the scores owe nothing to bf16; a bf16 accumulator would be off by 0.1.
    chex.assert_trees_all_close(ours, dense, atol=1e-4)
    for gradient, exact in zip(ours_bar, dense_bar, strict=True):
        assert gradient.dtype == jnp.bfloat16
        error = jnp.linalg.norm(gradient.astype(jnp.float32) - exact) / jnp.linalg.norm(exact)
        assert error < 2**-8  # one rounding of ∂z and one of the result, 2^-9 each at most


def test_hidden_states_and_head_of_different_dtypes():
    hidden, head, targets, bars = problem(48)
    ours = values_and_gradients(
        lambda h, w: token_scores(h, w, targets, chunk_size=20), hidden, head.astype(jnp.bfloat16), bars
    )
    rounded = head.astype(jnp.bfloat16).astype(jnp.float32)
    dense, (hidden_bar, _) = values_and_gradients(lambda h, w: dense_scores(h, w, targets), hidden, rounded, bars)
    chex.assert_trees_all_close((ours[0], ours[1][0]), (dense, hidden_bar), atol=1e-5)
    assert ours[1][1].dtype == jnp.bfloat16


@pytest.mark.slow
class TestLogpOfAFrozenHead:
    """The gradient of log p alone, where the head is not differentiated: found in the forward pass."""

    @staticmethod
    def gradient(hidden, head, targets, bar, **options):
        def loss(hidden):
            return jnp.sum(token_scores(hidden, head, targets, **options).logp_BT * bar)

        return jax.jit(jax.grad(loss))(hidden)

    @staticmethod
    def dense(hidden, head, targets, bar, temperature=1.0):
        return jax.jit(jax.grad(lambda h: jnp.sum(dense_scores(h, head, targets, temperature).logp_BT * bar)))(hidden)

    @pytest.mark.parametrize("vocabulary_axis", [0, 1])
    @pytest.mark.parametrize(("vocab_size", "chunk_size"), [(31, 1), (31, 7), (31, 31), (31, None), (80, 7), (80, 40)])
    def test_it_equals_dense_in_float64(self, vocab_size, chunk_size, vocabulary_axis):
        with jax.enable_x64(True):
            hidden, head, targets, bars = problem(vocab_size, np.float64)
            laid = head if vocabulary_axis else head.T
            ours = self.gradient(
                hidden,
                laid,
                targets,
                bars.logp_BT,
                temperature=0.7,
                chunk_size=chunk_size,
                vocabulary_axis=vocabulary_axis,
            )
            dense = self.dense(hidden, head, targets, bars.logp_BT, 0.7)
            chex.assert_trees_all_close(ours, dense, atol=1e-13, rtol=1e-12)

    @pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
    def test_float32_is_close_to_float64_from_flat_to_nearly_certain(self, scale):
        hidden, head, targets, bars = problem(257)
        ours = self.gradient(hidden * scale, head, targets, bars.logp_BT, chunk_size=50)
        with jax.enable_x64(True):
            wide = (jnp.asarray(x, jnp.float64) for x in (hidden * scale, head, bars.logp_BT))
            wide_hidden, wide_head, wide_bar = wide
            exact = self.dense(wide_hidden, wide_head, targets, wide_bar)
        np.testing.assert_allclose(ours, exact, rtol=1e-4, atol=1e-5)

    def test_bfloat16_keeps_its_precision_where_the_target_is_nearly_certain(self):
        # Position by position: the gradient is as small as 1 - p, and so must be its error.
        dims = chex.Dimensions(B=2, T=8, D=64)
        hidden, head, targets, bars = problem(96, jnp.bfloat16, dims=dims)
        target_BTD = jnp.moveaxis(jnp.take(head, targets, axis=1), 0, 2).astype(jnp.float32)
        hidden = (0.15 * target_BTD).astype(jnp.bfloat16)
        ours = self.gradient(hidden, head, targets, bars.logp_BT, chunk_size=32).astype(jnp.float32)
        wide = hidden.astype(jnp.float32), head.astype(jnp.float32)
        exact = self.dense(*wide, targets, bars.logp_BT)
        certain_BT = dense_scores(*wide, targets).logp_BT
        assert -0.1 < jnp.median(certain_BT) < -1e-4
        error_BT = jnp.linalg.norm(ours - exact, axis=-1) / jnp.linalg.norm(exact, axis=-1)
        assert jnp.all(error_BT < 2**-7)  # two roundings, 2^-9 each at most, as everywhere

    def test_a_masked_position_contributes_exactly_nothing(self):
        hidden, head, targets, bars = problem(48)
        bar_BT = bars.logp_BT.at[0, 1].set(0)
        clean, poisoned = (
            self.gradient(h, head, targets, bar_BT, chunk_size=20) for h in (hidden, hidden.at[0, 1].set(jnp.nan))
        )
        np.testing.assert_array_equal(poisoned, clean)
        assert jnp.all(clean[0, 1] == 0)
        assert jnp.all(clean[bar_BT != 0] != 0)

    def test_a_target_outside_the_vocabulary_pulls_as_with_a_trained_head(self):
        hidden, head, targets, bars = problem(48)
        targets = targets.at[0, 0].set(-1).at[1, 2].set(48)

        def loss(hidden, head):
            return jnp.sum(token_scores(hidden, head, targets, chunk_size=20).logp_BT * bars.logp_BT)

        frozen, (trained, _) = jax.jit(jax.grad(loss))(hidden, head), jax.jit(jax.grad(loss, (0, 1)))(hidden, head)
        np.testing.assert_allclose(frozen, trained, atol=1e-5)

    def test_scores_do_not_depend_on_being_differentiated(self):
        hidden, head, targets, _ = problem(48)
        plain = token_scores(hidden, head, targets, chunk_size=20)
        differentiated, _ = jax.jit(lambda h: jax.vjp(lambda h: token_scores(h, head, targets, chunk_size=20), h))(
            hidden
        )
        chex.assert_trees_all_close(differentiated, plain, rtol=1e-6)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_masked_position_contributes_exactly_nothing(poison):
    hidden, head, targets, _ = problem(48)
    mask_BT = jnp.ones(DIMS["BT"], bool).at[0, 1].set(False).at[1, 2].set(False)

    def loss(hidden, head):
        scores = token_scores(hidden, head, targets, chunk_size=20)
        return jnp.sum(scores.logp_BT - 0.3 * scores.entropy_BT, where=mask_BT)

    gradients = jax.jit(jax.grad(loss, (0, 1)))
    clean, poisoned = gradients(hidden, head), gradients(jnp.where(mask_BT[..., None], hidden, poison), head)
    chex.assert_trees_all_equal(poisoned, clean)
    assert jnp.all(poisoned[0][~mask_BT] == 0)
    assert jnp.all(jnp.isfinite(poisoned[1]))


def test_a_nan_position_leaves_the_others_alone():
    hidden, head, targets, bars = problem(48)
    poisoned = hidden.at[0, 1].set(jnp.nan)

    def scores_of(hidden, head):
        return token_scores(hidden, head, targets, chunk_size=20)

    clean, (clean_bar, _) = values_and_gradients(scores_of, hidden, head, bars)
    ours, (hidden_bar, _) = values_and_gradients(scores_of, poisoned, head, bars)
    others = jnp.ones(DIMS["BT"], bool).at[0, 1].set(False)
    for got, expected in ((ours.logp_BT, clean.logp_BT), (ours.entropy_BT, clean.entropy_BT), (hidden_bar, clean_bar)):
        np.testing.assert_array_equal(got[others], expected[others])
        assert jnp.all(jnp.isnan(got[0, 1]))


class TestMemory:
    """What XLA says it holds, for shapes where a chunk is a 64th of the logits."""

    shapes = (
        jax.ShapeDtypeStruct((1, 256, 64), jnp.bfloat16),
        jax.ShapeDtypeStruct((64, 8192), jnp.bfloat16),
        jax.ShapeDtypeStruct((1, 256), jnp.int32),
    )
    dense_logits = 256 * 8192 * 4
    head_bytes = 64 * 8192 * 2

    def compiled(self, function, shapes=shapes):
        return jax.jit(function).lower(*shapes).compile()

    @staticmethod
    def loss(hidden, head, targets, **options):
        scores = token_scores(hidden, head, targets, chunk_size=128, **options)
        return jnp.sum(scores.logp_BT - 0.3 * scores.entropy_BT)

    @pytest.mark.parametrize("vocabulary_axis", [0, 1])
    def test_forward_holds_a_chunk_and_never_a_copy_of_the_head(self, vocabulary_axis):
        hidden, head, targets = self.shapes
        head = jax.ShapeDtypeStruct(head.shape if vocabulary_axis else head.shape[::-1], head.dtype)
        forward = self.compiled(
            lambda *a: token_scores(*a, chunk_size=128, vocabulary_axis=vocabulary_axis), (hidden, head, targets)
        )
        temporary = forward.memory_analysis().temp_size_in_bytes
        assert temporary < self.dense_logits / 16
        assert temporary < self.head_bytes

    def test_few_tokens_and_a_wide_model_hold_no_more_of_the_head_than_a_chunk(self):
        shapes = ((1, 128, 2560), jnp.bfloat16), ((151_936, 2560), jnp.bfloat16), ((1, 128), jnp.int32)

        def held(function):
            return self.compiled(function, [jax.ShapeDtypeStruct(*shape) for shape in shapes]).memory_analysis()

        def loss(*arguments):
            return jnp.sum(jnp.stack(token_scores(*arguments, vocabulary_axis=0)))

        # Two chunks in float32, of the head or of logits, whichever are the larger.
        assert held(loss).temp_size_in_bytes < 2 * 4 * 2**23
        assert held(jax.grad(loss, (0, 1))).temp_size_in_bytes < 2 * 4 * 2**25

    def test_backward_holds_chunks_beside_the_gradients(self):
        backward = self.compiled(jax.grad(self.loss, (0, 1)))
        assert backward.memory_analysis().temp_size_in_bytes < self.dense_logits / 8

    def test_a_frozen_head_has_no_gradient_anywhere(self):
        def stopped(hidden, head, targets):
            return self.loss(hidden, jax.lax.stop_gradient(head), targets)

        # Every chunk of a head's gradient is made by a product of its own and written by a dynamic_update_slice. They
        # must not even be traced: outside of jit no compiler would remove what is not used.
        trained = str(jax.make_jaxpr(jax.grad(self.loss, (0, 1)))(*self.shapes))
        assert "dynamic_update_slice" in trained
        for frozen in (jax.grad(self.loss), jax.grad(stopped, (0, 1))):
            program = str(jax.make_jaxpr(frozen)(*self.shapes))
            assert "dynamic_update_slice" not in program
        # Nor does the compiled program hold anything of the head's size.
        held = self.compiled(jax.grad(self.loss)).memory_analysis()
        assert held.temp_size_in_bytes + held.output_size_in_bytes < self.head_bytes

    def test_log_p_of_a_frozen_head_makes_no_logits_a_second_time(self):
        def products(loss):
            counted = self.compiled(jax.grad(loss)).cost_analysis()
            return round(counted["flops"] / (2 * 256 * 64 * 128))  # a loop's body is counted once, as one chunk

        def logp_alone(hidden, head, targets):
            return jnp.sum(token_scores(hidden, head, targets, chunk_size=128).logp_BT)

        assert products(logp_alone) == 2  # logits, and the head's entries by their probabilities
        assert products(self.loss) == 3  # logits, logits again, and the pull back

    def test_frozen_and_trained_heads_agree_on_the_hidden_gradient(self):
        hidden, head, targets, _ = problem(31)
        frozen = jax.jit(jax.grad(self.loss))(hidden, head, targets)
        trained, _ = jax.jit(jax.grad(self.loss, (0, 1)))(hidden, head, targets)
        np.testing.assert_array_equal(frozen, trained)
        assert jnp.all(trained != 0)


@pytest.mark.slow
class TestSharding:
    """Eight devices: batch over data and fsdp, vocabulary over tensor, and the head's D over fsdp or whole."""

    dims = chex.Dimensions(B=8, T=3, D=4)
    vocab_size = 96

    @staticmethod
    def on_mesh(head_spec, hidden, head, targets, bars):
        mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
        batch, head_place = NamedSharding(mesh, P(("data", "fsdp"))), NamedSharding(mesh, head_spec)
        return jax.device_put((hidden, head, targets, bars), (batch, head_place, batch, batch))

    @staticmethod
    def results(scores_of, hidden, head, targets, bars):
        """Scores with both gradients, and the gradient of log p alone of a frozen head, which has a path of its own."""
        trained = pulled_back(lambda h, w: scores_of(h, w, targets), hidden, head, bars)
        frozen_bar = jax.grad(lambda h: jnp.sum(scores_of(h, head, targets).logp_BT * bars.logp_BT))(hidden)
        return trained, frozen_bar

    @pytest.mark.parametrize("chunk_size", [1, 7, 96, None])
    @pytest.mark.parametrize(
        ("vocabulary_axis", "head_spec"),
        [(0, P("tensor", "fsdp")), (1, P("fsdp", "tensor")), (1, P(None, "tensor"))],  # the trainer's comes first
    )
    def test_same_as_dense_whatever_masked_positions_hold(self, vocabulary_axis, head_spec, chunk_size):
        ours_of = partial(token_scores, chunk_size=chunk_size, vocabulary_axis=vocabulary_axis)
        with jax.enable_x64(True):
            hidden, head, targets, bars = problem(self.vocab_size, np.float64, dims=self.dims)
            head = head if vocabulary_axis else head.T
            mask_BT = jnp.arange(8 * 3).reshape(self.dims["BT"]) % 5 != 1
            bars = jax.tree.map(lambda bar: jnp.where(mask_BT, bar, 0), bars)
            (dense, dense_bars), dense_frozen_bar = self.results(
                lambda h, w, t: dense_scores(h, w if vocabulary_axis else w.T, t), hidden, head, targets, bars
            )
            dense = jax.tree.map(lambda score: jnp.where(mask_BT, score, jnp.nan), dense)

            hidden = jnp.where(mask_BT[..., None], hidden, jnp.nan)
            arguments = self.on_mesh(head_spec, hidden, head, targets, bars)
            places = (None, (None, arguments[1].sharding)), None
            ours = jax.jit(partial(self.results, ours_of), out_shardings=places)(*arguments)
            expected = (dense, dense_bars), dense_frozen_bar
            chex.assert_trees_all_close(*jax.device_get((ours, expected)), atol=1e-13, rtol=1e-12)

        (scores, (hidden_bar, head_bar)), frozen_bar = ours
        assert scores.logp_BT.sharding.spec == P(("data", "fsdp"))
        assert head_bar.sharding.spec == head_spec
        for bar in jax.device_get((hidden_bar, frozen_bar)):
            assert np.all(bar[~mask_BT] == 0)

    @pytest.mark.parametrize(("vocabulary_axis", "head_spec"), [(0, P("tensor")), (1, P(None, "tensor"))])
    def test_every_device_scans_its_own_part_of_the_vocabulary(self, vocabulary_axis, head_spec):
        hidden, head, targets, bars = problem(self.vocab_size, dims=self.dims)
        *arguments, _ = self.on_mesh(head_spec, hidden, head if vocabulary_axis else head.T, targets, bars)
        scores_of = partial(token_scores, chunk_size=32, vocabulary_axis=vocabulary_axis)
        forward = jax.jit(scores_of).lower(*arguments).compile().as_text()
        collectives = re.findall(r"^.* (?:all-gather|all-reduce|all-to-all|collective-permute)\(.*$", forward, re.M)
        assert len(collectives) == 2  # the maximum over devices, then the sums
        assert not any("while/body" in line or "all-gather" in line for line in collectives)


def test_a_new_temperature_compiles_nothing():
    hidden, head, targets, _ = problem(31)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def scores(temperature):
        return token_scores(hidden, head, targets, temperature=temperature, chunk_size=8)

    for temperature in (1.0, 0.6, 1.3):
        chex.assert_trees_all_close(scores(temperature), dense_scores(hidden, head, targets, temperature), atol=5e-6)


def test_no_gradient_flows_to_the_temperature():
    hidden, head, targets, _ = problem(31)
    gradient = jax.grad(lambda t: jnp.sum(token_scores(hidden, head, targets, temperature=t).entropy_BT))(0.9)
    assert gradient == 0


def test_uniform_logits_have_the_entropy_of_the_vocabulary():
    _, head, targets, _ = problem(31)
    scores = token_scores(jnp.zeros(DIMS["BTD"]), head, targets, chunk_size=8)
    np.testing.assert_allclose(scores.entropy_BT, np.log(31), rtol=1e-6)
    np.testing.assert_allclose(scores.logp_BT, -np.log(31), rtol=1e-6)


def test_a_certain_token_has_no_entropy_at_all():
    targets = jnp.asarray([[0, 1], [2, 3]], jnp.int32)
    hidden = 1e3 * jax.nn.one_hot(targets, 4)
    scores = token_scores(hidden, jnp.eye(4), targets, chunk_size=2)
    np.testing.assert_array_equal(scores.entropy_BT, 0)
    np.testing.assert_array_equal(scores.logp_BT, 0)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), log_scale=st.floats(-8, 8))
def test_entropy_is_never_negative_and_log_p_never_positive(seed, log_scale):
    hidden, head, targets, _ = problem(48, seed=seed)
    scores = token_scores(hidden * jnp.float32(np.exp(log_scale)), head, targets, chunk_size=20)
    assert jnp.all(scores.entropy_BT >= 0)
    assert jnp.all(scores.entropy_BT <= np.log(48) * (1 + 1e-6))
    assert jnp.all(scores.logp_BT <= 0)


def test_a_target_outside_the_vocabulary_scores_nan():
    hidden, head, targets, _ = problem(48)
    scores = token_scores(hidden, head, targets.at[0, 0].set(-1).at[1, 2].set(48), chunk_size=20)
    outside = jnp.zeros(DIMS["BT"], bool).at[0, 0].set(True).at[1, 2].set(True)
    np.testing.assert_array_equal(jnp.isnan(scores.logp_BT), outside)
    np.testing.assert_allclose(scores.entropy_BT, dense_scores(hidden, head, targets).entropy_BT, atol=2e-6)


@pytest.mark.parametrize(("dtype", "target"), [(np.int64, 2**32 + 3), (np.int64, -(2**32) + 3), (np.uint64, 2**63 + 3)])
def test_a_target_that_would_wrap_into_the_vocabulary_scores_nan(dtype, target):
    with jax.enable_x64(True):
        hidden, head, targets, _ = problem(48)
        scores = token_scores(hidden, head, targets.astype(dtype).at[0, 1].set(dtype(target)))
        np.testing.assert_array_equal(jnp.isnan(scores.logp_BT), jnp.zeros(DIMS["BT"], bool).at[0, 1].set(True))


@pytest.mark.parametrize("vocabulary_axis", [0, 1])
@pytest.mark.parametrize("shape_BT", [(2, 0), (0, 3)])
def test_no_tokens_have_no_scores_and_no_gradient(shape_BT, vocabulary_axis):
    hidden, head, targets, bars = problem(31, dims=chex.Dimensions(B=shape_BT[0], T=shape_BT[1], D=5))
    scores_of = partial(token_scores, targets_BT=targets, chunk_size=7, vocabulary_axis=vocabulary_axis)
    head = head if vocabulary_axis else head.T
    scores, (hidden_bar, head_bar) = values_and_gradients(lambda h, w: scores_of(h, w), hidden, head, bars)
    frozen = jax.grad(lambda h: jnp.sum(scores_of(h, head).logp_BT))(hidden)
    assert scores.logp_BT.shape == scores.entropy_BT.shape == shape_BT
    assert hidden_bar.shape == frozen.shape == hidden.shape
    np.testing.assert_array_equal(head_bar, jnp.zeros_like(head))


@pytest.mark.parametrize(("dtype", "precision"), [(jnp.float32, "HIGHEST"), (jnp.bfloat16, "DEFAULT")])
def test_products_do_not_round_what_they_take(dtype, precision):
    """On a GPU or a TPU they might; on a CPU only the program shows it."""
    hidden, head, targets, _ = problem(31, dtype)

    def loss(hidden, head):
        return jnp.sum(token_scores(hidden, head, targets, chunk_size=31).entropy_BT)

    program = jax.jit(jax.grad(loss, (0, 1))).lower(hidden, head).as_text()
    products = re.findall(r"^.*dot_general.*[<x]5x.*$", program, re.M)  # of operands with the hidden size
    # Logits twice, and a gradient each of hidden states and head; jax 0.12 writes a function that is called twice once.
    assert len(products) == 4 or (dtype == jnp.bfloat16 and len(products) == 3)
    assert all(f"precision = [{precision}, {precision}]" in line for line in products)


@given(
    tokens=st.integers(0, 10**6),
    hidden_size=st.integers(0, 10**4),
    vocab_size=st.integers(1, 200_000),
    chunk_size=st.integers(1, 300_000),
)
def test_chunks_cover_the_vocabulary_and_keep_to_their_size(tokens, hidden_size, vocab_size, chunk_size):
    for asked in (chunk_size, None):
        chunks = vocabulary_chunks(tokens, hidden_size, vocab_size, asked)
        assert chunks.stripes * chunks.stripe_size == vocab_size
        assert 1 <= chunks.width <= chunks.stripe_size
        assert asked is None or chunks.stripes * chunks.width <= asked


def test_default_chunk_of_the_paper_s_vocabulary():
    chunks = vocabulary_chunks(2 * 1024, 1024, 151_936, None)
    assert (chunks.stripes, chunks.stripes * chunks.width) == (16, 4096)
    many_tokens = vocabulary_chunks(32 * 1024, 1024, 151_936, None)
    assert many_tokens.stripes * many_tokens.width == 2048
    few_tokens = vocabulary_chunks(128, 1024, 151_936, None)
    assert few_tokens.stripes * few_tokens.width == 8192


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_BTD": jnp.zeros((2, 5))}, "hidden_BTD must have 3 dimension"),
        ({"hidden_BTD": jnp.zeros((2, 3, 5), jnp.int32)}, "hidden_BTD must be floating; its dtype is int32"),
        ({"head_DV": jnp.zeros((4, 31))}, r"head_DV has shape \(4, 31\).*D is 5 in hidden_BTD"),
        ({"head_DV": jnp.zeros((5, 31)), "vocabulary_axis": 0}, r"head_VD has shape \(5, 31\).*D is 5 in hidden_BTD"),
        ({"head_DV": jnp.zeros((5, 0))}, "head_DV must have at least one vocabulary entry"),
        ({"head_DV": jnp.zeros((5, 31), jnp.int8)}, "head_DV must be floating; its dtype is int8"),
        ({"targets_BT": jnp.zeros((2, 4), jnp.int32)}, r"targets_BT has shape \(2, 4\).*T is 3 in hidden_BTD"),
        ({"targets_BT": jnp.zeros((2, 3))}, "targets_BT must be integer; its dtype is float32"),
        ({"temperature": 0.0}, "temperature must be a positive finite number; got 0.0"),
        ({"temperature": np.float32(-1)}, "temperature must be a positive finite number"),
        ({"temperature": np.nan}, "temperature must be a positive finite number; got nan"),
        ({"temperature": jnp.ones(2)}, "temperature must be a positive finite number"),
        ({"chunk_size": 0}, "chunk_size must be a Python int"),
        ({"chunk_size": 2.0}, "chunk_size must be a Python int"),
        ({"vocabulary_axis": 2}, "vocabulary_axis must be one of 0, 1; got 2"),
    ],
)
def test_a_bad_argument_is_named(change, message):
    hidden, head, targets, _ = problem(31)
    arguments = {"hidden_BTD": hidden, "head_DV": head, "targets_BT": targets} | change
    positional = [arguments.pop(name) for name in ("hidden_BTD", "head_DV", "targets_BT")]
    with pytest.raises(ValueError, match=message):
        token_scores(*positional, **arguments)


def test_it_is_a_public_name():
    assert egrsd_jax.token_scores is token_scores
