"""Where a correct completion is left for the teacher's alternative, and whether entropy or position predicts the
outcome."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

UNSURE = 0.8  # quantile of the candidates' entropy above which a place counts as unsure
THIRDS = 3  # of the completion


@dataclass(frozen=True)
class Branch:
    """A place in a completion, its teacher entropy in nats, its relative position, and the token taken there."""

    completion: int
    place: int
    entropy: float
    position: float
    token: int


def choose_branches(
    entropies: Sequence[np.ndarray], alternatives: Sequence[np.ndarray], count: int, *, seed: int = 0
) -> list[Branch]:
    """At most `count` places, as many unsure as sure ones and from each third of the completions, chosen with `seed`.

    `alternatives` are the teacher's likeliest tokens other than the one that was written, [T] each; -1 where there
    is none. The last two tokens of a completion, which close it, are no places to branch at.
    """
    places = [
        Branch(row, place, float(entropy[place]), place / len(entropy), int(tokens[place]))
        for row, (entropy, tokens) in enumerate(zip(entropies, alternatives, strict=True))
        for place in range(max(len(entropy) - 2, 0))
        if tokens[place] >= 0
    ]
    if not places or not count:
        return []
    threshold = np.quantile([place.entropy for place in places], UNSURE)
    cells: dict[tuple[bool, int], list[Branch]] = {}
    for place in places:
        third = min(int(THIRDS * place.position), THIRDS - 1)
        cells.setdefault((place.entropy > threshold, third), []).append(place)
    source = np.random.default_rng(seed)
    shuffled = [[cell[index] for index in source.permutation(len(cell))] for _, cell in sorted(cells.items())]
    chosen: list[Branch] = []
    for turn in range(max(map(len, shuffled))):  # one of each cell a turn, so that none runs ahead
        chosen += [cell[turn] for cell in shuffled if turn < len(cell)]
    return chosen[:count]
