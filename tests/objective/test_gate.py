"""The gate against the worked example, the float64 reference and its two laws; float32 tolerance 1e-6."""

from itertools import pairwise

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from egrsd_jax.objective.gate import (
    agreement_factor,
    entropy_gate,
    entropy_maximum,
    gate,
    gate_signal,
    lookahead_min,
)
from egrsd_jax.objective.methods import method_settings
from egrsd_jax.objective.settings import GateKind
from tests.objective import reference
from tests.objective.examples import POISON, random_batch, rows, with_extra_padding, worked_example

dims = chex.Dimensions(B=5, T=6)
# XLA flushes subnormal numbers to zero, and so they are left out.
ENTROPIES = arrays(np.float32, dims["BT"], elements=st.floats(0, 5, width=32, allow_subnormal=False))
LENGTHS = st.lists(st.integers(0, 6), min_size=5, max_size=5)

# Every open choice of the gate; `batch` also with a maximum that was computed elsewhere.
GATES = [
    {"scope": "batch", "denominator": "raw"},
    {"scope": "batch", "denominator": "lookahead"},
    {"scope": "batch", "entropy_max": 4.5},
    {"scope": "sequence", "denominator": "raw"},
    {"scope": "sequence", "denominator": "lookahead"},
    {"scope": "log_vocab", "vocab_size": 151936},
]


def close(actual, expected):
    chex.assert_type(actual, jnp.float32)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


def prefix_mask(lengths, width=6):
    return np.arange(width)[None, :] < np.array(lengths)[:, None]


class TestWorkedExample:
    BATCH = worked_example()

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"gamma": 0.3}, [0.8, 0.99, 0.95, 0.85, 0.97, 0.7, 0.75]),
            ({"gamma": 0.3, "window": 1}, [0.99, 0.99, 0.95, 0.85, 0.97, 0.75, 0.75]),
            ({"gamma": 1}, [1 / 3, 29 / 30, 5 / 6, 0.5, 0.9, 0.1, 1 / 6]),
            ({"gamma": 1.0, "window": 1}, [29 / 30, 29 / 30, 5 / 6, 0.5, 0.9, 1 / 6, 1 / 6]),
            ({"gamma": 1.0, "window": 1, "denominator": "lookahead"}, [0.96, 0.96, 0.8, 0.4, 0.88, 0.1, 0.1]),
        ],
    )
    def test_gate(self, options, expected):
        omega_BT = entropy_gate(self.BATCH.entropy_BT, self.BATCH.mask_BT, **options)
        close(omega_BT[self.BATCH.mask_BT], expected)

    @pytest.mark.parametrize(
        ("options", "normaliser"),
        [({}, 3.0), ({"denominator": "lookahead"}, 2.5), ({"scope": "sequence"}, [[2.0], [3.0], [1.0], [1.0], [1.0]])],
    )
    def test_the_value_has_the_entropy_after_the_lookahead_and_what_divided_it(self, options, normaliser):
        value = gate(self.BATCH.entropy_BT, self.BATCH.mask_BT, gamma=0.3, window=1, **options)
        close(value.entropy_BT[self.BATCH.mask_BT], [0.1, 0.1, 0.5, 1.5, 0.3, 2.5, 2.5])
        close(value.normaliser, normaliser)
        weights = 1 - 0.3 * value.entropy_BT / value.normaliser
        close(value.omega_BT[self.BATCH.mask_BT], weights[self.BATCH.mask_BT])
        assert not np.any(value.omega_BT[~self.BATCH.mask_BT])

    def test_maximum(self):
        close(entropy_maximum(self.BATCH.entropy_BT, self.BATCH.mask_BT), 3.0)
        close(entropy_maximum(self.BATCH.entropy_BT, self.BATCH.mask_BT, window=1), 3.0)
        close(entropy_maximum(self.BATCH.entropy_BT, self.BATCH.mask_BT, window=1, denominator="lookahead"), 2.5)

    def test_lookahead_of_one(self):
        ahead_BT = lookahead_min(self.BATCH.entropy_BT, self.BATCH.mask_BT, 1)
        close(ahead_BT[self.BATCH.mask_BT], [0.1, 0.1, 0.5, 1.5, 0.3, 2.5, 2.5])


class TestLookahead:
    @settings(max_examples=40, deadline=None)
    @given(entropy_BT=ENTROPIES, lengths=LENGTHS, window=st.integers(0, 8))
    def test_agrees_with_the_reference(self, entropy_BT, lengths, window):
        mask_BT = prefix_mask(lengths)
        ahead_BT = lookahead_min(np.where(mask_BT, entropy_BT, POISON[0]), mask_BT, window)
        chex.assert_shape(ahead_BT, dims["BT"])
        np.testing.assert_array_equal(ahead_BT, reference.lookahead_min(entropy_BT, mask_BT, window))

    @settings(max_examples=20, deadline=None)
    @given(entropy_BT=ENTROPIES, lengths=LENGTHS)
    def test_a_longer_window_never_raises_it_and_none_changes_nothing(self, entropy_BT, lengths):
        mask_BT = prefix_mask(lengths)
        ahead = [lookahead_min(entropy_BT, mask_BT, window) for window in (0, 1, 2, 5, 50)]
        np.testing.assert_array_equal(ahead[0], np.where(mask_BT, entropy_BT, 0))
        for shorter, longer in pairwise(ahead):
            assert np.all(np.asarray(longer) <= np.asarray(shorter))
        np.testing.assert_array_equal(ahead[-1], ahead[-2])

    def test_a_hole_in_the_mask_is_left_out_too(self):
        ahead_BT = lookahead_min([[3.0, np.nan, 2.0, 5.0]], [[1, 0, 1, 1]], 2)
        np.testing.assert_array_equal(ahead_BT, [[2.0, 0.0, 2.0, 5.0]])

    @pytest.mark.parametrize("shape", [(0, 4), (3, 0), (2, 1)])
    def test_degenerate_shapes(self, shape):
        chex.assert_shape(lookahead_min(np.ones(shape), np.ones(shape), 3), shape)
        chex.assert_shape(entropy_gate(np.ones(shape), np.ones(shape), gamma=0.5, window=3), shape)


class TestGate:
    @pytest.mark.parametrize("choice", GATES, ids=str)
    @pytest.mark.parametrize(("gamma", "window"), [(0.0, 2), (0.3, 0), (1.0, 2)])
    def test_agrees_with_the_reference(self, choice, gamma, window):
        batch = random_batch(0)
        options = {"gamma": gamma, "window": window, **choice}
        omega_BT = entropy_gate(batch.entropy_BT, batch.mask_BT, **options)
        close(omega_BT, reference.entropy_gate(batch.entropy_BT, batch.mask_BT, **options))

    @settings(max_examples=30, deadline=None)
    @given(
        entropy_BT=ENTROPIES,
        lengths=LENGTHS,
        gamma=st.floats(0, 1),
        floor=st.floats(0, 1, width=32, allow_subnormal=False),
        window=st.integers(0, 6),
        choice=st.sampled_from(GATES),
    )
    def test_lies_between_floor_and_one_and_is_zero_on_padding(self, entropy_BT, lengths, gamma, floor, window, choice):
        mask_BT = prefix_mask(lengths)
        options = {"gamma": gamma, "floor": floor, "window": window, **choice}
        omega_BT = np.asarray(entropy_gate(entropy_BT, mask_BT, **options))
        close(jnp.asarray(omega_BT), reference.entropy_gate(entropy_BT, mask_BT, **options))
        assert np.all(omega_BT[mask_BT] >= np.float32(floor))
        assert np.all(omega_BT[mask_BT] <= 1)
        assert np.all(omega_BT[~mask_BT] == 0)

    @pytest.mark.parametrize("scope", ["batch", "sequence"])
    def test_a_maximum_below_one_nat_counts_as_one(self, scope):
        omega_BT = entropy_gate([[0.2, 0.5]], [[1, 1]], gamma=0.4, scope=scope)
        close(omega_BT, [[0.92, 0.8]])
        close(entropy_gate([[0.2, 0.5]], [[1, 1]], gamma=0.4, entropy_max=0.5), [[0.92, 0.8]])
        close(entropy_maximum([[0.2, 0.5]], [[1, 1]]), 1.0)

    def test_each_sequence_by_its_own_maximum(self):
        omega_BT = entropy_gate([[2.0, 1.0], [4.0, 1.0]], [[1, 1], [1, 1]], gamma=0.8, scope="sequence")
        close(omega_BT, [[0.2, 0.6], [0.2, 0.8]])

    def test_log_vocab_has_no_floor(self):
        close(entropy_gate([[np.log(2.0)]], [[1]], gamma=0.5, scope="log_vocab", vocab_size=2), [[0.5]])

    @pytest.mark.parametrize("dtype", [np.bool_, np.int32, np.float32, jnp.bfloat16])
    def test_any_dtype_of_mask(self, dtype):
        batch = random_batch(1)
        expected_BT = reference.entropy_gate(batch.entropy_BT, batch.mask_BT, gamma=0.5, window=2)
        close(entropy_gate(batch.entropy_BT, jnp.asarray(batch.mask_BT, dtype), gamma=0.5, window=2), expected_BT)

    def test_bfloat16_entropy_is_computed_in_float32(self):
        batch = random_batch(2)
        entropy_BT = jnp.asarray(batch.entropy_BT, jnp.bfloat16)
        expected_BT = reference.entropy_gate(entropy_BT.astype(jnp.float32), batch.mask_BT, gamma=0.5, window=2)
        close(entropy_gate(entropy_BT, batch.mask_BT, gamma=0.5, window=2), expected_BT)

    @pytest.mark.parametrize("choice", GATES[1::2], ids=str)
    def test_poison_in_padding_reaches_no_gradient(self, choice):
        batch = random_batch(3)
        gradient_BT = jax.grad(
            lambda entropy_BT: entropy_gate(entropy_BT, batch.mask_BT, gamma=0.3, window=2, **choice).sum()
        )(batch.entropy_BT)
        chex.assert_tree_all_finite(gradient_BT)
        np.testing.assert_array_equal(gradient_BT[~batch.mask_BT], 0.0)
        assert np.any(gradient_BT[batch.mask_BT] != 0)

    @pytest.mark.parametrize("choice", GATES, ids=str)
    def test_order_and_extra_padding_change_nothing(self, choice):
        batch = random_batch(4)
        options = {"gamma": 0.7, "window": 2, **choice}
        omega_BT = entropy_gate(batch.entropy_BT, batch.mask_BT, **options)
        order = np.array([3, 0, 4, 2, 1])
        shuffled = rows(batch, order)
        np.testing.assert_array_equal(entropy_gate(shuffled.entropy_BT, shuffled.mask_BT, **options), omega_BT[order])
        larger = with_extra_padding(batch)
        larger_BT = np.asarray(entropy_gate(larger.entropy_BT, larger.mask_BT, **options))
        np.testing.assert_array_equal(larger_BT[larger.mask_BT], np.asarray(omega_BT)[batch.mask_BT])

    @pytest.mark.parametrize("denominator", ["raw", "lookahead"])
    def test_a_part_with_the_maximum_of_the_whole_is_that_part_of_the_whole(self, denominator):
        batch = random_batch(5)
        options = {"window": 2, "denominator": denominator}
        whole_BT = entropy_gate(batch.entropy_BT, batch.mask_BT, gamma=1.0, **options)
        entropy_max = entropy_maximum(batch.entropy_BT, batch.mask_BT, **options)
        for part in (slice(0, 2), slice(2, 5)):
            piece = rows(batch, part)
            omega_BT = entropy_gate(piece.entropy_BT, piece.mask_BT, gamma=1.0, entropy_max=entropy_max, **options)
            np.testing.assert_array_equal(omega_BT, whole_BT[part])

    def test_traced_gamma_compiles_once_and_agrees_with_eager(self):
        batch = random_batch(6)
        chex.clear_trace_counter()
        traced = jax.jit(chex.assert_max_traces(entropy_gate, n=1), static_argnames="window")
        for gamma in (0.1, 0.5, 1.0):
            omega_BT = traced(batch.entropy_BT, batch.mask_BT, gamma=gamma, window=2)
            close(omega_BT, entropy_gate(batch.entropy_BT, batch.mask_BT, gamma=gamma, window=2))


class TestChord:
    @settings(max_examples=30, deadline=None)
    @given(steepness=st.floats(0, 9), entropy_BT=ENTROPIES)
    def test_never_lies_under_the_curve_it_is_the_chord_of(self, steepness, entropy_BT):
        gamma = steepness / (1 + steepness)  # at most 0.9, where the floor does not bind
        omega_BT = np.asarray(entropy_gate(entropy_BT, np.ones_like(entropy_BT), gamma=gamma))
        normalised_BT = entropy_BT / max(entropy_BT.max(), 1.0)
        assert np.all(omega_BT >= 1 / (1 + steepness * normalised_BT) - 1e-6)

    @pytest.mark.parametrize("steepness", [0.0, 0.5, 3.0, 9.0])
    def test_meets_it_at_both_ends(self, steepness):
        omega_BT = entropy_gate([[0.0, 3.0]], [[1, 1]], gamma=steepness / (1 + steepness))
        close(omega_BT, [[1.0, 1 / (1 + steepness)]])


# Filters of (h_0, ..., h_W) that are monotone in each argument, at most h_0, and c on a constant input c.
FILTERS = {
    "least": min,
    "none": lambda h: h[0],
    "capped mean": lambda h: min(h[0], np.mean(h)),
    "capped median": lambda h: min(h[0], np.median(h)),
    "capped last": lambda h: min(h[0], h[-1]),
    "capped maximum of the rest": lambda h: min(h[0], max(h[1:], default=h[0])),
    "halfway to the least": lambda h: (h[0] + min(h)) / 2,
    "geometric mean with the least": lambda h: np.sqrt(h[0] * min(h)),
    "capped decaying mean": lambda h: min(h[0], np.average(h, weights=0.5 ** np.arange(len(h)))),
}


class TestMinimumRestoresTheMost:
    @pytest.mark.parametrize("name", FILTERS)
    def test_the_filters_are_what_the_law_speaks_of(self, name):
        rng = np.random.default_rng(0)
        for _ in range(50):
            h = rng.exponential(1.0, 4)
            raised = h + rng.exponential(0.5) * (np.arange(4) == rng.integers(4))
            assert FILTERS[name](list(h)) <= h[0] + 1e-12
            assert FILTERS[name](list(raised)) >= FILTERS[name](list(h)) - 1e-12
            assert FILTERS[name]([h[0]] * 4) == pytest.approx(h[0], rel=1e-12)

    @pytest.mark.parametrize("gamma", [0.3, 1.0])
    @pytest.mark.parametrize("name", sorted(set(FILTERS) - {"least"}))
    def test_every_other_filter_restores_less(self, name, gamma):
        batch, window = random_batch(7), 3
        entropy_max = entropy_maximum(batch.entropy_BT, batch.mask_BT)
        filtered_BT = reference.padded(
            [
                [FILTERS[name](sequence[t : t + window + 1]) for t in range(len(sequence))]
                for sequence in reference.sequences_of(batch.entropy_BT, batch.mask_BT)
            ],
            batch.mask_BT,
        )
        options = {"gamma": gamma, "entropy_max": entropy_max}
        ours_BT = np.asarray(entropy_gate(batch.entropy_BT, batch.mask_BT, window=window, **options))
        theirs_BT = np.asarray(entropy_gate(filtered_BT, batch.mask_BT, **options))
        assert np.all(ours_BT >= theirs_BT - 1e-6)
        least_BT = reference.lookahead_min(batch.entropy_BT, batch.mask_BT, window)
        strictly_BT = batch.mask_BT & (ours_BT > 0.1) & (filtered_BT > least_BT + 1e-3)
        assert strictly_BT.any()
        assert np.all(ours_BT[strictly_BT] > theirs_BT[strictly_BT])


class TestBadArguments:
    ENTROPY = np.ones((2, 3))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"gamma": 1.1}, r"gamma must be a number in \[0, 1\]; got 1.1"),
            ({"gamma": -0.1}, "gamma must be"),
            ({"gamma": None}, "gamma must be"),
            ({"gamma": 0.3, "window": -1}, "window must be a Python int .* at least 0; got -1"),
            ({"gamma": 0.3, "window": 1.0}, "window must be"),
            ({"gamma": 0.3, "floor": 1.5}, r"floor must be a number in \[0, 1\]; got 1.5"),
            ({"gamma": 0.3, "scope": "device"}, "scope must be one of 'batch', 'sequence', 'log_vocab'; got 'device'"),
            ({"gamma": 0.3, "denominator": "max"}, "denominator must be one of 'raw', 'lookahead'; got 'max'"),
            ({"gamma": 0.3, "scope": "log_vocab"}, "vocab_size must be a vocabulary size >= 2 .*; got None"),
            ({"gamma": 0.3, "scope": "log_vocab", "vocab_size": 1}, "vocab_size must be .*; got 1"),
            ({"gamma": 0.3, "entropy_max": 0.0}, "entropy_max must be an entropy above 0, in nats; got 0.0"),
            ({"gamma": 0.3, "entropy_max": 2.0, "scope": "sequence"}, "entropy_max must be None .*; got 2.0"),
        ],
    )
    def test_is_named_with_its_value_and_what_is_right(self, options, message):
        with pytest.raises(ValueError, match=message):
            entropy_gate(self.ENTROPY, self.ENTROPY, **options)

    def test_a_traced_window_is_refused(self):
        with pytest.raises(ValueError, match="window must be a Python int"):
            jax.jit(lookahead_min)(self.ENTROPY, self.ENTROPY, 2)

    def test_disagreeing_shapes_are_named(self):
        for function in (
            lambda e, m: lookahead_min(e, m, 1),
            entropy_maximum,
            lambda e, m: entropy_gate(e, m, gamma=0.3),
        ):
            with pytest.raises(
                ValueError, match=r"mask_BT has shape \(2, 4\), so its T is 4, but T is 3 in entropy_BT"
            ):
                function(self.ENTROPY, np.ones((2, 4)))
            with pytest.raises(ValueError, match="entropy_BT must have 2 dimension"):
                function(np.ones(3), np.ones(3))

    def test_the_maximum_checks_its_choices(self):
        with pytest.raises(ValueError, match="denominator must be one of"):
            entropy_maximum(self.ENTROPY, self.ENTROPY, denominator="ahead")
        with pytest.raises(ValueError, match="window must be"):
            entropy_maximum(self.ENTROPY, self.ENTROPY, window=-2, denominator="lookahead")


def test_egrsd_and_cl_egrsd_are_two_points_of_the_gate():
    assert method_settings("egrsd").kind == GateKind()
    assert method_settings("cl_egrsd").kind == GateKind(lookahead=3)
    assert method_settings("cl_egrsd").is_papers_gate
    assert not method_settings("egrsd", signal="surprisal").is_papers_gate
    assert not method_settings("egrsd", gate_direction="up").is_papers_gate
    assert not method_settings("egrsd", agreement=0.5).is_papers_gate
    with pytest.raises(ValueError, match=r"method\.agreement is 1\.5; it must be between 0 and 1"):
        method_settings("egrsd", agreement=1.5)
    with pytest.raises(ValueError, match=r"method\.signal is surprisal, and direction has it fixed at teacher_entropy"):
        method_settings("direction", signal="surprisal")


def test_each_signal_is_read_of_the_token_and_never_negative():
    teacher, student, logp = np.float32([[2.0, 0.5]]), np.float32([[0.5, 1.5]]), np.float32([[-0.25, -3.0]])
    wanted = {
        "teacher_entropy": [[2.0, 0.5]],
        "student_entropy": [[0.5, 1.5]],
        "entropy_gap": [[1.5, 0.0]],
        "surprisal": [[0.25, 3.0]],
    }
    for signal, values in wanted.items():
        np.testing.assert_array_equal(gate_signal(signal, teacher, student, logp), np.float32(values))
    with pytest.raises(ValueError, match="signal"):
        gate_signal("entropy", teacher, student, logp)


def test_up_is_down_mirrored_and_keeps_the_floor():
    signal, mask = np.float32([[0.0, 1.0, 2.0, 4.0, 9.0]]), np.array([[1, 1, 1, 1, 0]])
    up = gate(signal, mask, gamma=0.95, direction="up").omega_BT
    np.testing.assert_allclose(up, [[0.1, 0.2875, 0.525, 1.0, 0.0]], rtol=1e-6)
    with pytest.raises(ValueError, match="direction"):
        gate(signal, mask, gamma=0.5, direction="sideways")


def test_a_disagreement_is_delta_and_the_advantage_with_opposite_signs():
    delta = np.float32([[0.5, -0.5, 0.0], [0.5, -0.5, 0.0], [0.5, -0.5, 0.0]])
    factor = agreement_factor(delta, np.float32([2.0, -1.0, 0.0]), 0.25)
    np.testing.assert_array_equal(factor, [[1, 0.25, 1], [0.25, 1, 1], [1, 1, 1]])
