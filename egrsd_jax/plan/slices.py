"""Slices of TPUs that Google Cloud rents: libtpu compiles for many more, such as v6e:2x2x2 and v5e:32x32.

From the pages "TPU v5e", "TPU v5p", "TPU v6e" and "TPU7x (Ironwood)" of docs.cloud.google.com/tpu, as of their stored
versions of 2026. Sizes are chips along each axis; a chip of a tpu7x is two devices. Imports no jax.
"""

from typing import NamedTuple

_PLANE = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_SMALL = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))


class Slices(NamedTuple):
    """The slices of one kind: those that are listed; and, of three axes, every 4A x 4B x 4C with A <= B <= C that has
    at most `most` chips."""

    listed: tuple[tuple[int, ...], ...]
    most: int

    def has(self, shape: tuple[int, ...]) -> bool:
        """Whether there is a slice of this shape."""
        if shape in self.listed:
            return True
        is_cubes = len(shape) == 3 and all(size % 4 == 0 for size in shape) and list(shape) == sorted(shape)
        return is_cubes and self.is_torus and product(shape) <= self.most

    @property
    def is_torus(self) -> bool:
        """Whether slices have three axes."""
        return len(self.listed[-1]) == 3

    def words(self) -> str:
        """What there is, for a message."""
        listed = ", ".join("x".join(map(str, shape)) for shape in self.listed)
        cubes = f", and multiples of four in ascending order up to {self.most:,} chips, such as 4x4x8"
        return listed + (cubes if self.is_torus else "")


SLICES = {
    "v5e": Slices(_PLANE, 256),
    "v6e": Slices(_PLANE, 256),
    "v5p": Slices(_SMALL, 6144),
    "tpu7x": Slices(_SMALL, 9216),
}


def product(shape: tuple[int, ...]) -> int:
    """The chips of a slice."""
    chips = 1
    for size in shape:
        chips *= size
    return chips


def slice_warning(kind: str, shape: tuple[int, ...]) -> str | None:
    """What to say of a topology that nobody can rent; None where it can be."""
    slices = SLICES[kind]
    if slices.has(shape):
        return None
    name = "x".join(map(str, shape))
    return (
        f"{kind}:{name} is no slice that Google Cloud lists, though libtpu compiles for it; there are {slices.words()}"
    )
