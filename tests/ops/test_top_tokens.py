"""The likeliest tokens, and log-probabilities of given ones, against the dense form."""

import re
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from egrsd_jax.ops.scores import token_scores
from egrsd_jax.ops.top_tokens import token_logps, top_tokens

DIMS = chex.Dimensions(B=2, T=3, D=5, K=4)


def problem(vocab_size, dtype=np.float32, seed=0, dims=DIMS):
    """Hidden states, a head, K token ids a position (the first of them twice), and a cotangent."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, vocab_size, dims["BTK"])
    ids[..., -1] = ids[..., 0]
    return (
        jnp.asarray(rng.normal(size=dims["BTD"]), dtype),
        jnp.asarray(rng.normal(size=(*dims["D"], vocab_size)), dtype),
        jnp.asarray(ids, jnp.int32),
        jnp.asarray(rng.normal(size=dims["BTK"]), np.promote_types(dtype, np.float32)),
    )


def dense_logps(hidden_BTD, head_DV, ids_BTK, temperature=1.0):
    logits_BTV = jnp.einsum("btd,dv->btv", hidden_BTD, head_DV) / temperature
    return jnp.take_along_axis(jax.nn.log_softmax(logits_BTV, axis=-1), ids_BTK, axis=-1)


@partial(jax.jit, static_argnums=0)
def value_and_gradients(logps, hidden, head, ids, bar):
    """The log-probabilities, and what `bar` pulls back to hidden states and head."""
    value, pull = jax.vjp(lambda hidden, head: logps(hidden, head, ids), hidden, head)
    return value, pull(bar)


class TestTopTokens:
    @pytest.mark.parametrize(
        ("vocab_size", "chunk_size", "k"),
        # 31 is prime and has one stripe; 80 has 16 of 5 entries, of which a chunk takes 1 or 2.
        [(31, 1, 4), (31, 7, 31), (31, 31, 1), (80, 7, 9), (80, 40, 4), (80, None, 80)],
    )
    def test_they_are_the_dense_ones(self, vocab_size, chunk_size, k):
        hidden, head, *_ = problem(vocab_size)
        ids = top_tokens(hidden, head, k, chunk_size=chunk_size)
        np.testing.assert_array_equal(ids, jnp.argsort(-(hidden @ head), axis=-1, stable=True)[..., :k])
        assert ids.dtype == jnp.int32

    @pytest.mark.parametrize("chunk_size", [7, 40, 80])
    def test_of_equals_the_lower_id_comes_first(self, chunk_size):
        rng = np.random.default_rng(0)
        head = jnp.asarray(rng.integers(0, 3, (1, 80)), jnp.bfloat16)  # 80 logits of three values
        ids = top_tokens(jnp.ones((2, 3, 1), jnp.bfloat16), head, 40, chunk_size=chunk_size)
        expected = np.argsort(-np.float32(head[0]), stable=True)[:40]
        np.testing.assert_array_equal(ids, np.broadcast_to(expected, (2, 3, 40)))

    def test_a_head_with_the_vocabulary_first_gives_the_same(self):
        hidden, head, *_ = problem(80)
        ours = top_tokens(hidden, head.T, 4, chunk_size=40, vocabulary_axis=0)
        np.testing.assert_array_equal(ours, top_tokens(hidden, head, 4, chunk_size=40))

    def test_a_loss_that_chooses_its_tokens_is_differentiated_through_their_scores_alone(self):
        hidden, head, *_ = problem(48)

        def loss(hidden, ids=None):
            ids = top_tokens(hidden, head, 3, chunk_size=16) if ids is None else ids
            return jnp.sum(token_logps(hidden, head, ids, chunk_size=16))

        fixed = jax.grad(loss)(hidden, top_tokens(hidden, head, 3, chunk_size=16))
        np.testing.assert_array_equal(jax.grad(loss)(hidden), fixed)

    def test_a_nan_position_has_some_token_ids_and_leaves_the_others_alone(self):
        hidden, head, *_ = problem(48)
        clean = top_tokens(hidden, head, 4, chunk_size=16)
        sick = top_tokens(hidden.at[0, 1].set(jnp.nan), head, 4, chunk_size=16)
        np.testing.assert_array_equal(sick[1], clean[1])
        assert jnp.all((sick >= 0) & (sick < 48))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"k": 0}, "k must be a Python int"),
            ({"k": 32}, "k must be at most the 31 vocabulary entries; got 32"),
            ({"head_DV": jnp.zeros((4, 31))}, r"head_DV has shape \(4, 31\)"),
            ({"chunk_size": 0}, "chunk_size must be a Python int"),
        ],
    )
    def test_a_bad_argument_is_named(self, change, message):
        hidden, head, *_ = problem(31)
        with pytest.raises(ValueError, match=message):
            top_tokens(**{"hidden_BTD": hidden, "head_DV": head, "k": 4} | change)


class TestTokenLogps:
    @pytest.mark.parametrize(
        ("vocab_size", "chunk_size", "vocabulary_axis"),
        [(31, 1, 1), (31, 7, 0), (31, 31, 1), (80, 7, 1), (80, None, 0)],
    )
    def test_chunked_equals_dense_in_float64(self, vocab_size, chunk_size, vocabulary_axis):
        def ours_of(hidden, head, ids):
            options = {"chunk_size": chunk_size, "vocabulary_axis": vocabulary_axis}
            return token_logps(hidden, head if vocabulary_axis else head.T, ids, temperature=0.7, **options)

        with jax.enable_x64(True):
            arguments = problem(vocab_size, np.float64)
            ours = value_and_gradients(ours_of, *arguments)
            dense = value_and_gradients(partial(dense_logps, temperature=0.7), *arguments)
            chex.assert_trees_all_close(ours, dense, atol=1e-13, rtol=1e-12)
            assert ours[0].dtype == jnp.float64

    def test_of_one_token_they_are_its_score(self):
        hidden, head, ids, _ = problem(48)
        scores = token_scores(hidden, head, ids[..., 0], chunk_size=20)
        logps = token_logps(hidden, head, ids[..., :1], chunk_size=20)
        np.testing.assert_allclose(logps[..., 0], scores.logp_BT, atol=1e-6)
        assert jnp.all(logps <= 0)

    def test_bfloat16_products_accumulate_in_float32(self):
        dims = chex.Dimensions(B=2, T=8, D=64, K=4)
        hidden, head, ids, bar = problem(96, jnp.bfloat16, dims=dims)
        ours, ours_bar = value_and_gradients(partial(token_logps, chunk_size=32), hidden, head, ids, bar)
        upcast = hidden.astype(jnp.float32), head.astype(jnp.float32)
        dense, dense_bar = value_and_gradients(dense_logps, *upcast, ids, bar)
        # bf16 times bf16 is exact in float32, so the values owe nothing to bf16.
        chex.assert_trees_all_close(ours, dense, atol=1e-4)
        for gradient, exact in zip(ours_bar, dense_bar, strict=True):
            assert gradient.dtype == jnp.bfloat16
            error = jnp.linalg.norm(gradient.astype(jnp.float32) - exact) / jnp.linalg.norm(exact)
            assert error < 2**-8  # one rounding of ∂z and one of the result, 2^-9 each at most

    def test_a_masked_position_contributes_exactly_nothing(self):
        hidden, head, ids, bar = problem(48)
        bar = bar.at[0, 1].set(0).at[1, 2, 0].set(0)  # of the second position only one token is left out
        logps_of = partial(token_logps, chunk_size=20)
        _, clean = value_and_gradients(logps_of, hidden, head, ids, bar)
        logps, ours = value_and_gradients(logps_of, hidden.at[0, 1].set(jnp.nan), head, ids, bar)
        chex.assert_trees_all_equal(ours, clean)
        assert jnp.all(ours[0][0, 1] == 0)
        assert jnp.all(ours[0][1, 2] != 0)
        assert jnp.all(jnp.isnan(logps[0, 1]))

    @pytest.mark.parametrize("vocabulary_axis", [0, 1])
    @pytest.mark.parametrize("shape_BT", [(2, 0), (0, 3)])
    def test_no_positions_have_no_tokens_and_no_gradient(self, shape_BT, vocabulary_axis):
        hidden, head, ids, bar = problem(31, dims=chex.Dimensions(B=shape_BT[0], T=shape_BT[1], D=5, K=4))
        options = {"chunk_size": 7, "vocabulary_axis": vocabulary_axis}
        head = head if vocabulary_axis else head.T
        assert top_tokens(hidden, head, 4, **options).shape == ids.shape
        logps, (hidden_bar, head_bar) = value_and_gradients(partial(token_logps, **options), hidden, head, ids, bar)
        assert logps.shape == ids.shape
        assert hidden_bar.shape == hidden.shape
        np.testing.assert_array_equal(head_bar, jnp.zeros_like(head))

    def test_an_id_that_would_wrap_into_the_vocabulary_scores_nan(self):
        with jax.enable_x64(True):
            hidden, head, ids, _ = problem(48)
            logps = token_logps(hidden, head, ids.astype(jnp.int64).at[0, 0, 1].set(2**32 + 3), chunk_size=20)
            outside = jnp.zeros(DIMS["BTK"], bool).at[0, 0, 1].set(True)
            np.testing.assert_array_equal(jnp.isnan(logps), outside)

    def test_an_id_outside_the_vocabulary_scores_nan(self):
        hidden, head, ids, _ = problem(48)
        ids = ids.at[0, 0, 0].set(-1).at[1, 2, 3].set(48)
        outside = jnp.zeros(DIMS["BTK"], bool).at[0, 0, 0].set(True).at[1, 2, 3].set(True)
        np.testing.assert_array_equal(jnp.isnan(token_logps(hidden, head, ids, chunk_size=20)), outside)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"ids_BTK": jnp.zeros((2, 3), jnp.int32)}, "ids_BTK must have 3 dimension"),
            ({"ids_BTK": jnp.zeros((2, 4, 1), jnp.int32)}, r"ids_BTK has shape \(2, 4, 1\).*T is 3 in hidden_BTD"),
            ({"ids_BTK": jnp.zeros((2, 3, 1))}, "ids_BTK must be integer; its dtype is float32"),
            ({"temperature": 0.0}, "temperature must be a positive finite number"),
        ],
    )
    def test_a_bad_argument_is_named(self, change, message):
        hidden, head, ids, _ = problem(31)
        with pytest.raises(ValueError, match=message):
            token_logps(**{"hidden_BTD": hidden, "head_DV": head, "ids_BTK": ids} | change)


class TestMemory:
    """What XLA says it holds, for shapes where a chunk is a 64th of the logits."""

    shapes = (
        jax.ShapeDtypeStruct((1, 256, 64), jnp.bfloat16),
        jax.ShapeDtypeStruct((64, 8192), jnp.bfloat16),
        jax.ShapeDtypeStruct((1, 256, 4), jnp.int32),
    )
    dense_logits = 256 * 8192 * 4
    head_bytes = 64 * 8192 * 2

    @staticmethod
    def loss(hidden, head, ids):
        return jnp.sum(token_logps(hidden, head, ids, chunk_size=128))

    def held(self, function, shapes=shapes):
        return jax.jit(function).lower(*shapes).compile().memory_analysis()

    def test_forward_holds_a_chunk(self):
        assert self.held(self.loss).temp_size_in_bytes < self.dense_logits / 8
        choose = partial(top_tokens, k=4, chunk_size=128)
        assert self.held(choose, self.shapes[:2]).temp_size_in_bytes < self.dense_logits / 8

    def test_backward_holds_chunks_beside_the_gradients(self):
        assert self.held(jax.grad(self.loss, (0, 1))).temp_size_in_bytes < self.dense_logits / 8

    def test_a_frozen_head_has_no_gradient_anywhere(self):
        # Every chunk of a head's gradient is written by a dynamic_update_slice: it must not even be traced.
        assert "dynamic_update_slice" in str(jax.make_jaxpr(jax.grad(self.loss, (0, 1)))(*self.shapes))
        assert "dynamic_update_slice" not in str(jax.make_jaxpr(jax.grad(self.loss))(*self.shapes))


@pytest.mark.slow
class TestSharding:
    """Eight devices: batch over data and fsdp, vocabulary over tensor."""

    dims = chex.Dimensions(B=8, T=3, D=4, K=4)

    def problem(self, vocabulary_axis):
        hidden, head, ids, bar = problem(96, dims=self.dims)
        return hidden, head if vocabulary_axis else head.T, ids, bar

    def on_mesh(self, vocabulary_axis, head_spec):
        mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
        batch, head = NamedSharding(mesh, P(("data", "fsdp"))), NamedSharding(mesh, head_spec)
        return jax.device_put(self.problem(vocabulary_axis), (batch, head, batch, batch))

    @pytest.mark.parametrize(("vocabulary_axis", "head_spec"), [(0, P("tensor", "fsdp")), (1, P(None, "tensor"))])
    def test_same_values_and_gradients_as_on_one_device(self, vocabulary_axis, head_spec):
        options = {"chunk_size": 32, "vocabulary_axis": vocabulary_axis}

        def results(hidden, head, ids, bar):
            logps, bars = value_and_gradients(partial(token_logps, **options), hidden, head, ids, bar)
            return top_tokens(hidden, head, 4, **options), logps, bars

        alone = jax.jit(results)(*self.problem(vocabulary_axis))
        arguments = self.on_mesh(vocabulary_axis, head_spec)
        place = (None, None, (None, arguments[1].sharding))
        sharded = jax.jit(results, out_shardings=place)(*arguments)
        np.testing.assert_array_equal(jax.device_get(sharded[0]), alone[0])
        chex.assert_trees_all_close(jax.device_get(sharded), jax.device_get(alone), atol=2e-6, rtol=2e-5)
        assert sharded[1].sharding.spec == P(("data", "fsdp"))

    def test_every_device_scans_its_own_part_of_the_vocabulary(self):
        hidden, head, ids, _ = self.on_mesh(1, P(None, "tensor"))

        def both(hidden, head, ids):
            return token_logps(hidden, head, ids, chunk_size=32), top_tokens(hidden, head, 4, chunk_size=32)

        forward = jax.jit(both).lower(hidden, head, ids).compile().as_text()
        collectives = re.findall(r"^.* (?:all-gather|all-reduce|all-to-all|collective-permute)\(.*$", forward, re.M)
        assert collectives
        assert not any("while/body" in line for line in collectives)
        # The stripes' best are gathered once, of this device's own 2 sequences: [B, T, 1, S · K].
        gathered = [line for line in collectives if "all-gather" in line]
        assert len(gathered) == 1
        assert "f32[2,3,1,64]" in gathered[0]


def test_bfloat16_is_ranked_in_float32_because_a_cpu_would_sort_it(monkeypatch):
    ranked, top_k = set(), jax.lax.top_k
    monkeypatch.setattr(jax.lax, "top_k", lambda x, k: (ranked.add(x.dtype.name), top_k(x, k))[1])
    hidden, head, *_ = problem(48, jnp.bfloat16)
    top_tokens(hidden, head, 3, chunk_size=19)  # shapes of its own: what is jitted is traced here
    assert ranked == {"float32"}
