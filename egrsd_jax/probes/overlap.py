"""How much of a completion occurs in the reference word for word, beyond what the problem itself gives to quote."""

import re

_WORD = re.compile(r"\\?\w+|[^\w\s]")  # words, numbers, LaTeX commands, single signs


def shared_stretches(completion: str, reference: str, problem: str, n: int) -> tuple[int, int]:
    """(shared, all): the completion's stretches of n words that the reference has too, and all of them.

    Stretches that the problem has are left out of both: to quote the problem is no leak. Case and blanks do not count.
    """
    quoted, shown = set(_stretches(problem, n)), set(_stretches(reference, n))
    own = [stretch for stretch in _stretches(completion, n) if stretch not in quoted]
    return sum(stretch in shown for stretch in own), len(own)


def _stretches(text: str, n: int) -> list[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return list(zip(*(words[start:] for start in range(n)), strict=False))  # the shortest of these ends it
