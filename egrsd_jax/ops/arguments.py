"""Checks of arguments that work under `jit`: shapes always, values only where they are plain numbers.

A traced value has a shape but no number yet, so `check_number` lets it pass; what a function is given as a Python
number is always checked.
"""

import numbers
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np


def check_shapes(**arrays: Any) -> None:
    """Check that arrays have the shapes their names promise: `advantage_B` and `mask_BT` share one B.

    Args:
        **arrays: arrays (or what `jnp.asarray` takes); each name ends in `_` and one letter for each dimension.

    Raises:
        ValueError: an array has another number of dimensions than its name has letters, or a letter has two sizes.
    """
    bound: dict[str, tuple[int, str]] = {}
    for name, array in arrays.items():
        letters, shape = name.rpartition("_")[2], np.shape(array)
        if len(shape) != len(letters):
            raise ValueError(
                f"{name} must have {len(letters)} dimension(s), {' and '.join(letters)}; its shape is {shape}"
            )
        for letter, size in zip(letters, shape, strict=True):
            first_size, first_name = bound.setdefault(letter, (size, name))
            if size != first_size:
                raise ValueError(
                    f"{name} has shape {shape}, so its {letter} is {size}, but {letter} is {first_size} in "
                    f"{first_name} of shape {np.shape(arrays[first_name])}; they must agree"
                )


def check_same_shape(**arrays: Any) -> None:
    """Check that arrays of any rank all have the shape of the first one; else a ValueError that names both."""
    (first_name, first), *rest = arrays.items()
    for name, array in rest:
        if np.shape(array) != np.shape(first):
            raise ValueError(
                f"{name} has shape {np.shape(array)} and {first_name} has {np.shape(first)}; they must agree"
            )


def check_number(name: str, value: Any, accept: Callable[[Any], bool], wanted: str) -> None:
    """Check that `value` is one number and, where it is known now, that `accept(value)` holds.

    A `jax.Array`, traced or not, is checked for its shape alone: reading its value would fail under `jit` and wait for
    the device elsewhere.

    Raises:
        ValueError: names the argument, its value and what was wanted.
    """
    if isinstance(value, jax.Array):
        good = value.ndim == 0
    elif isinstance(value, np.ndarray):
        good = value.ndim == 0 and bool(accept(value))
    else:
        good = isinstance(value, numbers.Real) and bool(accept(value))
    if not good:
        raise ValueError(f"{name} must be {wanted}; got {value!r}")


def check_static_int(name: str, value: Any, minimum: int) -> int:
    """The value as an int, if it is a Python or NumPy integer of at least `minimum`; else a ValueError that names it.

    For arguments that decide shapes or the traced program, which an array cannot.
    """
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < minimum:
        raise ValueError(f"{name} must be a Python int (static under jit) of at least {minimum}; got {value!r}")
    return int(value)


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Check that `value` is one of `choices`; else a ValueError that names it and lists them."""
    if isinstance(value, jax.Array) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")
