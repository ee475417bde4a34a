"""Matrix products that round nothing on the way in."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike


def product(subscripts: str, left: jax.Array, right: jax.Array, *, dtype: DTypeLike | None = None) -> jax.Array:
    """`jnp.einsum` of two arrays of one dtype, with a result in `dtype` (by default theirs).

    By default accelerators round float32 operands: to TF32 on GPUs, to bfloat16 on TPUs. What is asked for in float32
    is computed in it. Narrower operands lose nothing, and need none of the passes that this costs.
    """
    wide = np.promote_types(left.dtype, right.dtype).itemsize >= 4
    precision = lax.Precision.HIGHEST if wide else None
    return jnp.einsum(subscripts, left, right, precision=precision, preferred_element_type=dtype)
