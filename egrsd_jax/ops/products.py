"""Matrix products: what they are computed in and rounded to, chosen in this one place by dtype, platform and shape.

- float32 operands are not rounded. By default accelerators do so: to TF32 on GPUs, to bfloat16 on TPUs.
- bfloat16 operands lose nothing in a bfloat16 product, which accumulates in float32 everywhere. Accelerators round the
  result within the product. XLA's CPU backend (jax 0.10) instead converts both operands to float32 first, and reaches
  half of the rate of the same product with a float32 result, which its library multiplies as bfloat16 where the
  processor can. So on such a CPU every product asks for float32 and is rounded afterwards, forward and backward.
"""

import math
import string
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike

# The name, for policies of `jax.checkpoint`, of every product without batch axes: of activations with weights.
WEIGHT_PRODUCT = "product with weights"

# How Linux names the ability to multiply bfloat16: x86 (Cooper Lake, Sapphire Rapids, Zen 4 and later) and ARM.
_PROCESSOR_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def product(subscripts: str, left: jax.Array, right: jax.Array, *, dtype: DTypeLike | None = None) -> jax.Array:
    """`jnp.einsum` of two arrays of one dtype, with a result in `dtype` (by default theirs).

    The subscripts name the result, and an index occurs in two or three of left, right and result. Gradients have the
    operands' dtype. Where the result is bfloat16, so is its cotangent, and both products of the backward pass take it
    as it is; a float32 cotangent is not rounded.
    """
    subscripts = _without_ellipsis(subscripts, left.ndim, right.ndim)
    result: Any
    if left.dtype == right.dtype == jnp.bfloat16:
        result = _product(subscripts, np.dtype(dtype or left.dtype), left, right)
    else:
        wide = np.promote_types(left.dtype, right.dtype).itemsize >= 4
        precision = lax.Precision.HIGHEST if wide else None
        result = jnp.einsum(subscripts, left, right, precision=precision, preferred_element_type=dtype)
    of_left, of_right, of_result = _operands(subscripts)
    has_batch = set(of_left) & set(of_right) & set(of_result)
    return result if has_batch else checkpoint_name(result, WEIGHT_PRODUCT)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _product(subscripts: str, dtype: np.dtype, left: jax.Array, right: jax.Array) -> jax.Array:
    return _multiply(subscripts, dtype, left, right)


def _forward(subscripts, dtype, left, right):
    return _multiply(subscripts, dtype, left, right), (left, right)


def _backward(subscripts, dtype, operands, bar):
    # JAX's own rule would multiply a float32 cotangent, that of the result before it was rounded.
    del dtype
    left, right = operands
    of_left, of_right, of_result = _operands(subscripts)
    left_bar = _multiply(f"{of_result},{of_right}->{of_left}", left.dtype, bar, right)
    right_bar = _multiply(f"{of_result},{of_left}->{of_right}", right.dtype, bar, left)
    return left_bar, right_bar


_product.defvjp(_forward, _backward)


def _multiply(subscripts: str, dtype: np.dtype, left: jax.Array, right: jax.Array) -> jax.Array:
    """The product itself, rounded to `dtype`."""
    if left.dtype != right.dtype:  # the cotangent of a float32 result
        left, right = left.astype(jnp.float32), right.astype(jnp.float32)
    return _by_platform(subscripts, dtype, processor_multiplies_bfloat16(), left, right)


# Jitted, so that layers that are unrolled are traced once.
@partial(jax.jit, static_argnums=(0, 1, 2))
def _by_platform(subscripts: str, dtype: np.dtype, native: bool, left: jax.Array, right: jax.Array) -> jax.Array:
    """The product as it is made on the platform that is compiled for, which need not be this process's own."""
    accumulator = np.promote_types(left.dtype, dtype)

    def plain(left: jax.Array, right: jax.Array) -> jax.Array:
        return jnp.einsum(subscripts, left, right, preferred_element_type=accumulator).astype(dtype)

    def on_cpu(left: jax.Array, right: jax.Array) -> jax.Array:
        if native and left.dtype == jnp.bfloat16:
            return _for_library(subscripts, left, right).astype(dtype)
        # Where bfloat16 is multiplied in software, that is slower: 20 GFLOP/s where float32 has 130.
        left, right = left.astype(jnp.float32), right.astype(jnp.float32)
        return jnp.einsum(subscripts, left, right).astype(dtype)

    # Any: JAX types what it calls by none of its parameters.
    multiply: Any = jax.custom_batching.custom_vmap(partial(lax.platform_dependent, cpu=on_cpu, default=plain))

    @multiply.def_vmap
    def multiply_many(axis_size, in_batched, left, right):
        # One more index, so that the arrangement for the library is that of the whole product.
        del axis_size
        of_left, of_right, of_result = _operands(subscripts)
        new = next(name for name in string.ascii_letters if name not in subscripts)
        of_left, of_right = (new * yes + of for yes, of in zip(in_batched, (of_left, of_right), strict=True))
        return _by_platform(f"{of_left},{of_right}->{new}{of_result}", dtype, native, left, right), True

    return multiply(left, right)


def _for_library(subscripts: str, left: jax.Array, right: jax.Array) -> jax.Array:
    """A bfloat16 product with a float32 result, arranged so that XLA on CPU (jax 0.10, 0.12) leaves it to its library.

    It is made of matrices [batch, rows, inner] and [batch, inner or columns, columns or inner]. Three other forms are
    slow or fail:

    - A single row or column: XLA multiplies by a vector itself, and converts the whole matrix to float32 first, which
      takes twenty times as long as two rows do (4,096²). So there are never fewer than two.
    - A left matrix [inner, rows], as in a weight's gradient: converted to float32 as well, at a quarter of the rate.
      With `inner` as two axes XLA transposes that matrix, and the library multiplies it.
    - Rows that are two axes with something between them: XLA refuses the product at run time ("BF16 x BF16 = F32").
    """
    of_left, of_right, of_result = _operands(subscripts)
    batch = [axis for axis in of_result if axis in of_left and axis in of_right]
    if next((axis for axis in of_result if axis not in batch), "-") in of_right:  # then the result is not transposed
        left, right, of_left, of_right = right, left, of_right, of_left
    inner = [axis for axis in of_left if axis in of_right and axis not in batch]
    rows, columns = ([axis for axis in axes if axis not in (*batch, *inner)] for axes in (of_left, of_right))
    sizes = dict(zip(of_left + of_right, left.shape + right.shape, strict=True))

    # From here on an index each: b batch, m rows, n columns, and k inner, or k and l.
    groups = {"b": batch, "m": rows, "n": columns, "k": inner}
    counts = {name: math.prod(sizes[axis] for axis in axes) for name, axes in groups.items()}
    shapes: dict[str, tuple[int, ...]] = {name: (count,) for name, count in counts.items()}
    right_form = "bkn" if _starts_with(inner, of_right, batch) else "bnk"
    left_form = "bkm" if _starts_with(inner, of_left, batch) and counts["m"] > 1 else "bmk"
    if left_form == "bkm":
        shapes["k"] = _two_factors(counts["k"])

    def arranged(operand: jax.Array, axes: str, form: str) -> jax.Array:
        operand = operand.transpose([axes.index(axis) for name in form for axis in groups[name]])
        operand = operand.reshape([size for name in form for size in shapes[name]])
        return operand if batch else operand[0]

    def at_least_two(operand: jax.Array, axis: int) -> jax.Array:
        return jnp.concatenate([operand, operand], axis=axis) if operand.shape[axis] == 1 else operand

    forms = [form.replace("k", "kl"[: len(shapes["k"])]) for form in (left_form, right_form, "bmn")]
    if not batch:
        forms = [form.replace("b", "") for form in forms]
    left = at_least_two(arranged(left, of_left, left_form), forms[0].index("m"))
    right = at_least_two(arranged(right, of_right, right_form), forms[1].index("n"))
    result = jnp.einsum("{},{}->{}".format(*forms), left, right, preferred_element_type=jnp.float32)
    axes = [*batch, *rows, *columns]
    result = result[..., : counts["m"], : counts["n"]].reshape([sizes[axis] for axis in axes])
    return result.transpose([axes.index(axis) for axis in of_result])


def _starts_with(inner: list[str], axes: str, batch: list[str]) -> bool:
    """Whether an operand's axes, those of the batch left out, start with the inner ones."""
    return [axis for axis in axes if axis not in batch][: len(inner)] == inner


def _two_factors(number: int) -> tuple[int, int]:
    """The number as a product of two, the second as small as it can be and over 1."""
    small = next((factor for factor in range(2, math.isqrt(number) + 1) if number % factor == 0), max(number, 1))
    return number // small, small


@cache
def processor_multiplies_bfloat16() -> bool:
    """Whether this machine's processor has instructions for it; False where Linux does not say so."""
    try:
        return lists_bfloat16(Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        return False


def lists_bfloat16(cpuinfo: str) -> bool:
    """Whether Linux's description of the processors has such instructions in its list of abilities."""
    lines = (line.partition(":") for line in cpuinfo.lower().splitlines())
    abilities = (text.split() for name, _, text in lines if name.strip() in ("flags", "features"))
    return not _PROCESSOR_FLAGS.isdisjoint(next(abilities, ()))


def _operands(subscripts: str) -> tuple[str, str, str]:
    """The axes of left, right and result."""
    operands, result = subscripts.split("->")
    left, right = operands.split(",")
    return left, right, result


def _without_ellipsis(subscripts: str, left_ndim: int, right_ndim: int) -> str:
    """The subscripts with capital letters in place of every `...`."""
    for axes, ndim in zip(_operands(subscripts)[:2], (left_ndim, right_ndim), strict=True):
        if "..." in axes:
            return subscripts.replace("...", string.ascii_uppercase[: ndim - len(axes) + 3])
    return subscripts
