"""Which completions of a step count, and how much: dynamic filtering, pacing by pass rate, consensus of a teacher.

Plain NumPy on the host: these read grades and answers, G consecutive completions for each problem.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np


def mixed_groups(correct_B: np.ndarray, group_size: int) -> np.ndarray:
    """True for completions of problems that some, but not all, of the G completions solve (DAPO, arXiv 2503.14476).

    It uses accuracy: a length-shaped reward differs within a group that is all correct, and teaches nothing there
    but length. Raises ValueError if `group_size` does not divide B.
    """
    rate_N = pass_rate(correct_B, group_size)
    return np.repeat((rate_N > 0) & (rate_N < 1), group_size)


def pace_weight(correct_B: np.ndarray, group_size: int, *, right: float = 1.0, wrong: float = 1.0) -> np.ndarray:
    """`p^right (1 - p)^wrong`, float32 [B], p the pass rate of the completion's problem (PACED, arXiv 2603.11178).

    Largest where the problem is within reach and not yet learned; 0 where all or none are correct, unless that exponent
    is 0. Raises ValueError if `group_size` does not divide B.
    """
    rate_N = pass_rate(correct_B, group_size)
    return np.repeat(rate_N**right * (1 - rate_N) ** wrong, group_size).astype(np.float32)


def pass_rate(correct_B: np.ndarray, group_size: int) -> np.ndarray:
    """Share of correct completions of each problem, [B / G]. Raises ValueError if `group_size` does not divide B."""
    if group_size < 1 or len(correct_B) % group_size:
        raise ValueError(f"group_size must divide the {len(correct_B)} completions; got {group_size}")
    return np.asarray(correct_B, bool).reshape(-1, group_size).mean(axis=1)


def shortest_correct(correct_B: np.ndarray, length_B: np.ndarray, group_size: int) -> np.ndarray:
    """True for the shortest correct completion of each problem, the first of equally short ones (OASIS, 2609.37915).

    None of a problem that no completion solves. Raises ValueError if `group_size` does not divide B.
    """
    pass_rate(correct_B, group_size)
    chosen_B = np.zeros(len(correct_B), bool)
    for first in range(0, len(correct_B), group_size):
        correct = np.flatnonzero(correct_B[first : first + group_size]) + first
        if len(correct):
            chosen_B[correct[np.argmin(np.asarray(length_B)[correct])]] = True
    return chosen_B


def shown_attempts(correct_B: np.ndarray, length_B: np.ndarray, group_size: int) -> np.ndarray:
    """Which completion of its problem the teacher reads for each of them, an index into B (OASIS, arXiv 2609.37915).

    The shortest wrong one, or where all others are correct the shortest of those; never the completion itself. Raises
    ValueError if `group_size` does not divide B or is 1.
    """
    pass_rate(correct_B, group_size)
    if group_size < 2:
        raise ValueError("a completion alone has no other of its problem; group_size must be at least 2")
    correct, length = np.asarray(correct_B, bool), np.asarray(length_B)
    shown_B = np.zeros(len(correct), int)
    for row in range(len(correct)):
        first = row - row % group_size
        others = [other for other in range(first, first + group_size) if other != row]
        shown_B[row] = min(others, key=lambda other: (correct[other], length[other], other))
    return shown_B


def others(wanted_B: np.ndarray, group_size: int) -> list[list[int]]:
    """For every completion the others of its problem that are wanted, indices into B: the next ones first, and those
    before it after the last.

    Raises ValueError if `group_size` does not divide B.
    """
    pass_rate(wanted_B, group_size)
    others_B = []
    for row in range(len(wanted_B)):
        first = row - row % group_size
        order = [first + (row - first + step) % group_size for step in range(1, group_size)]
        others_B.append([other for other in order if wanted_B[other]])
    return others_B


def consensus(answers: Sequence[str | None], least: int) -> list[bool]:
    """Which of one problem's answers are the most frequent one, where at least `least` agree; else none.

    The gate of GATES (arXiv 2602.20574), which needs no reference answer. None is no answer. Of answers that are
    equally frequent the first one given counts.
    """
    most_common = Counter(answer for answer in answers if answer is not None).most_common(1)
    if not most_common or most_common[0][1] < least:
        return [False] * len(answers)
    return [answer == most_common[0][0] for answer in answers]
