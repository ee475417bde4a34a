"""The tokens that all prompts of a run begin with: the system's turn, and solved examples. Imports no jax."""

from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

SHORTEST = 32  # tokens; a shorter prefix costs a program more than it saves
MULTIPLE = 8  # of which a prefix's length is one, for the sake of aligned reads


class Prefixes(NamedTuple):
    """What all prompts of the student and all of the teacher begin with, token ids; the update reads either once."""

    student: tuple[int, ...] = ()
    teacher: tuple[int, ...] = ()


def common_prefix(prompts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """What the prompts begin with and is read once for all of them; empty where that is not worth it.

    Each prompt has at least one token after it. Prompts that are all the same have none: that one is read once anyhow.
    """
    different = {tuple(prompt) for prompt in prompts}
    if len(different) < 2:
        return ()
    first, last = min(different), max(different)  # what these two share all do
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    length = min(shared, min(map(len, different)) - 1)
    return first[: length // MULTIPLE * MULTIPLE] if length >= SHORTEST else ()
