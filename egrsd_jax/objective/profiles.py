"""Where the update falls: profiles over teacher entropy and over position, and how many tokens really share it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from egrsd_jax.ops.arguments import check_number, check_shapes, check_static_int
from egrsd_jax.ops.masked import (
    fill_padding,
    is_real,
    masked_count,
    masked_max,
    masked_mean,
    masked_quantile,
    masked_sum,
)


class EntropyDeciles(NamedTuple):
    """Token statistics by entropy, least entropy first; each of shape [bins], float32. An empty bin has zeros.

    Attributes:
        tokens: how many tokens a bin has.
        entropy_max: its largest entropy, nats.
        delta_abs_mean: mean of |log p_T - log p_S|, nats.
        weight_abs_mean: mean of |w omega|; None where there are no weights.
    """

    tokens: jax.Array
    entropy_max: jax.Array
    delta_abs_mean: jax.Array
    weight_abs_mean: Any


def entropy_deciles(
    entropy_BT: ArrayLike, delta_BT: ArrayLike, weight_BT: ArrayLike | None, mask_BT: ArrayLike, *, bins: int = 10
) -> EntropyDeciles:
    """Mean |delta| and mean |w omega| in each decile of teacher entropy.

    Bin k holds the tokens with `q_k < H <= q_(k+1)`, q_k the quantile k / bins over completion tokens; the least
    entropy is in bin 0. Equal entropies are never parted, so bins may differ in size, and one may be empty.

    Args:
        entropy_BT: teacher entropy in nats, before the lookahead; anything in padding.
        delta_BT: `log p_T - log p_S`, nats.
        weight_BT: `w * omega`, the product of `ratio_weight` and `entropy_gate`; None for a method that has neither.
        mask_BT: non-zero on completion tokens.
        bins: how many, at least 1.

    Raises:
        ValueError: shapes disagree, or `bins` is not an int of at least 1.
    """
    weights = {} if weight_BT is None else {"weight_BT": weight_BT}
    check_shapes(entropy_BT=entropy_BT, delta_BT=delta_BT, **weights, mask_BT=mask_BT)
    bins = check_static_int("bins", bins, 1)
    entropy_BT = fill_padding(entropy_BT, mask_BT)
    edges = masked_quantile(entropy_BT, mask_BT, jnp.arange(1, bins, dtype=jnp.float32) / bins)
    bin_BT = jnp.searchsorted(edges, entropy_BT, side="left")
    delta_abs_BT = jnp.abs(fill_padding(delta_BT, mask_BT))
    weight_abs_BT = None if weight_BT is None else jnp.abs(fill_padding(weight_BT, mask_BT))

    def one_bin(k: jax.Array) -> EntropyDeciles:
        inside_BT = is_real(mask_BT) & (bin_BT == k)
        return EntropyDeciles(
            tokens=masked_count(inside_BT),
            entropy_max=masked_max(entropy_BT, inside_BT, initial=0.0),
            delta_abs_mean=masked_mean(delta_abs_BT, inside_BT),
            weight_abs_mean=None if weight_abs_BT is None else masked_mean(weight_abs_BT, inside_BT),
        )

    return jax.vmap(one_bin)(jnp.arange(bins))


class FirstTokens(NamedTuple):
    """Delta at the first tokens of completions, one entry per token; each of shape [count]. Zeros where there is none.

    Attributes:
        tokens: completions that reach the token.
        delta_mean: mean of log p_T - log p_S, nats.
        delta_abs_mean: mean of its size, nats.
    """

    tokens: jax.Array
    delta_mean: jax.Array
    delta_abs_mean: jax.Array


def first_tokens(delta_BT: ArrayLike, mask_BT: ArrayLike, *, count: int = 32) -> FirstTokens:
    """Mean delta and |delta| at the first, second, ... token of the completions.

    Where the teacher's prompt opens another turn than the student's, or a thought, these are large and the rest is not.

    Args:
        delta_BT: `log p_T - log p_S`, nats.
        mask_BT: non-zero on completion tokens, which come first in a row.
        count: how many tokens, at least 1.

    Raises:
        ValueError: shapes disagree, or `count` is not an int of at least 1.
    """
    check_shapes(delta_BT=delta_BT, mask_BT=mask_BT)
    count = check_static_int("count", count, 1)
    delta_BT = fill_padding(delta_BT, mask_BT)[:, :count]
    real_BT = is_real(mask_BT)[:, :count]
    tokens = jnp.sum(real_BT, axis=0, dtype=jnp.float32)
    sums = (tokens, jnp.sum(delta_BT, axis=0), jnp.sum(jnp.abs(delta_BT), axis=0))
    tokens, delta, size = (jnp.pad(values, (0, count - values.shape[0])) for values in sums)
    there = jnp.maximum(tokens, 1.0)
    return FirstTokens(tokens, delta / there, size / there)


class PositionProfile(NamedTuple):
    """Token statistics by place in the completion, first tokens first; each of shape [bins]. An empty bin has zeros.

    Attributes:
        tokens: how many tokens a bin has.
        entropy_mean: mean teacher entropy, nats.
        delta_mean: mean of log p_T - log p_S, nats.
        delta_abs_mean: mean of its size, nats.
        weight_mean: mean of w omega; None where there are no weights.
    """

    tokens: jax.Array
    entropy_mean: jax.Array
    delta_mean: jax.Array
    delta_abs_mean: jax.Array
    weight_mean: Any


def position_profile(
    entropy_BT: ArrayLike, delta_BT: ArrayLike, weight_BT: ArrayLike | None, mask_BT: ArrayLike, *, bins: int = 10
) -> PositionProfile:
    """Mean entropy, delta, |delta| and weight in each tenth of the completions, by t / T of each one.

    Args:
        entropy_BT: teacher entropy, nats; anything in padding.
        delta_BT: `log p_T - log p_S`, nats.
        weight_BT: w omega; None for a method that has neither.
        mask_BT: non-zero on completion tokens, which come first in a row.
        bins: how many equal parts a completion has, at least 1.

    Raises:
        ValueError: shapes disagree, or `bins` is not an int of at least 1.
    """
    weights = {} if weight_BT is None else {"weight_BT": weight_BT}
    check_shapes(entropy_BT=entropy_BT, delta_BT=delta_BT, **weights, mask_BT=mask_BT)
    bins = check_static_int("bins", bins, 1)
    before_BT = jnp.cumsum(is_real(mask_BT), axis=1) - 1  # whole numbers: no token sits on a rounded edge
    length_B1 = jnp.maximum(jnp.sum(is_real(mask_BT), axis=1, keepdims=True), 1)
    bin_BT = before_BT * bins // length_B1

    def one_bin(k: jax.Array) -> PositionProfile:
        inside_BT = is_real(mask_BT) & (bin_BT == k)
        return PositionProfile(
            tokens=masked_count(inside_BT),
            entropy_mean=masked_mean(entropy_BT, inside_BT),
            delta_mean=masked_mean(delta_BT, inside_BT),
            delta_abs_mean=masked_mean(jnp.abs(jnp.asarray(delta_BT)), inside_BT),
            weight_mean=None if weight_BT is None else masked_mean(weight_BT, inside_BT),
        )

    return jax.vmap(one_bin)(jnp.arange(bins))


def effective_tokens(weight_BT: ArrayLike, mask_BT: ArrayLike) -> jax.Array:
    """`(sum |c|)^2 / sum c^2` over the tokens' weights c: how many equally weighted tokens would weigh as much (Kish).

    As many as there are tokens where all weigh the same, 0 where none weighs anything; a float32 scalar.
    """
    check_shapes(weight_BT=weight_BT, mask_BT=mask_BT)
    size_BT = jnp.abs(fill_padding(weight_BT, mask_BT))
    squares = masked_sum(jnp.square(size_BT), mask_BT)
    return jnp.square(masked_sum(size_BT, mask_BT)) / jnp.where(squares > 0, squares, 1.0)


def floor_share(omega_BT: ArrayLike, mask_BT: ArrayLike, floor: ArrayLike) -> jax.Array:
    """Share of the tokens whose gate is at its floor; 0 without a token."""
    check_number("floor", floor, lambda least: 0 <= least <= 1, "a number in [0, 1]")
    return masked_mean(fill_padding(omega_BT, mask_BT) <= jnp.asarray(floor, jnp.float32), mask_BT)
