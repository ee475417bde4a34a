"""A completion with all that the probes read, and what each probe counts in it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from egrsd_jax.probes.settings import ProbeSettings
from egrsd_jax.probes.statistics import Tally
from egrsd_jax.probes.text_signals import count_phrases, first_stated, shared_stretches
from egrsd_jax.probes.token_signals import loop_period, repeated_stretches

FORK_QUANTILE = 0.7  # of the untrained model's teacher entropy: where the paper's regimes put their upper threshold
FORK_WINDOW = 5  # tokens that the paper's study of regimes looks ahead

Group = Literal["all", "right", "wrong"]
GROUP_WORDS = {"right": "correct", "wrong": "wrong"}  # as they are shown; columns and files keep the names of `Group`
Tallies = dict[str, dict[Group, Tally]]


@dataclass(frozen=True)
class Observed:
    """A completion, its problem, and the numbers of its tokens, [T]; None where the method has no such number.

    `weight` is |A w omega|, what the update multiplies the token's gradient by; `style` and `fork` are masks. `tokens`
    are the completion's own ids, its end of turn included.
    """

    text: str
    problem: str
    reference: str
    answer: str | None
    correct: bool
    stopped: bool
    length: int
    style: np.ndarray
    weight: np.ndarray | None = None
    delta: np.ndarray | None = None
    fork: np.ndarray | None = None
    tokens: Sequence[int] = ()


def tallies(observed: Sequence[Observed], settings: ProbeSettings) -> Tallies:
    """Every probe's sums over all completions, the correct ones and the wrong ones."""
    sums: Tallies = {}
    for name, counted in COUNTED.items():
        pairs = [counted(completion, settings) for completion in observed]
        correct = [pair for pair, completion in zip(pairs, observed, strict=True) if completion.correct]
        wrong = [pair for pair, completion in zip(pairs, observed, strict=True) if not completion.correct]
        sums[name] = {"all": Tally.of(pairs), "right": Tally.of(correct), "wrong": Tally.of(wrong)}
    return sums


def fork_entropy(entropies: Iterable[np.ndarray]) -> float:
    """The entropy, nats, above which tokens count as forks: the 70th percentile over some completions' tokens."""
    return float(np.quantile(np.concatenate(list(entropies)), FORK_QUANTILE))


def fork_masks(entropies: Sequence[np.ndarray], least: float) -> list[np.ndarray]:
    """Of each completion, bool [T]: where the teacher is unsure, at least `least` nats, here and for a whole window."""
    return [_least_ahead(entropy) >= np.float32(least) for entropy in entropies]


def _least_ahead(entropy: np.ndarray) -> np.ndarray:
    """`objective.gate.lookahead_min` of one completion, in NumPy: lengths differ, and jax would compile for many."""
    beyond = np.full(FORK_WINDOW, np.inf, np.float32)
    return sliding_window_view(np.concatenate([entropy.astype(np.float32), beyond]), FORK_WINDOW + 1).min(axis=1)


def _accuracy(completion: Observed, _: ProbeSettings) -> tuple[float, float]:
    return completion.correct, 1


def _length(completion: Observed, _: ProbeSettings) -> tuple[float, float]:
    return completion.length, 1


def _cut_off(completion: Observed, _: ProbeSettings) -> tuple[float, float]:
    return not completion.stopped, 1


def _hesitation(completion: Observed, settings: ProbeSettings) -> tuple[float, float]:
    return count_phrases(completion.text, settings.hesitations), completion.length


def _mention(completion: Observed, settings: ProbeSettings) -> tuple[float, float]:
    return count_phrases(completion.text, settings.mentions) > 0, 1


def _overlap(completion: Observed, settings: ProbeSettings) -> tuple[float, float]:
    return shared_stretches(completion.text, completion.reference, completion.problem, settings.overlap_words)


def _early(completion: Observed, settings: ProbeSettings) -> tuple[float, float]:
    if completion.answer is None:
        return 0, 0
    place = first_stated(completion.text, completion.answer)
    return place is not None and place <= settings.early_within, 1


def _fork(completion: Observed, _: ProbeSettings) -> tuple[float, float]:
    return (0, 0) if completion.fork is None else (completion.fork.sum(), completion.length)


def _style_tokens(completion: Observed, _: ProbeSettings) -> tuple[float, float]:
    return completion.style.sum(), completion.length


def _style_weight(completion: Observed, _: ProbeSettings) -> tuple[float, float]:
    return (0, 0) if completion.weight is None else (completion.weight[completion.style].sum(), completion.weight.sum())


def _style_delta(completion: Observed, _: ProbeSettings) -> tuple[float, float]:
    if completion.delta is None:
        return 0, 0
    apart = np.abs(completion.delta)
    return apart[completion.style].sum(), apart.sum()


def _delta_positive(completion: Observed, _: ProbeSettings) -> tuple[float, float]:
    return (0, 0) if completion.delta is None else ((completion.delta > 0).sum(), completion.length)


def _no_answer(completion: Observed, _: ProbeSettings) -> tuple[float, float]:
    return completion.answer is None, 1


def _loop(completion: Observed, settings: ProbeSettings) -> tuple[float, float]:
    written = completion.tokens[:-1] if completion.stopped else completion.tokens  # without the end of the turn
    return loop_period(written, settings.loop_tokens) is not None, 1


def _repeat(completion: Observed, settings: ProbeSettings) -> tuple[float, float]:
    return repeated_stretches(completion.tokens, settings.repeat_tokens)


# (numerator, denominator) of one completion; a denominator of 0 leaves it out
COUNTED: dict[str, Callable[[Observed, ProbeSettings], tuple[float, float]]] = {
    "accuracy": _accuracy,
    "length": _length,
    "cut_off": _cut_off,
    "hesitation": _hesitation,
    "mention": _mention,
    "overlap": _overlap,
    "early": _early,
    "fork": _fork,
    "style_tokens": _style_tokens,
    "style_weight": _style_weight,
    "style_delta": _style_delta,
    "delta_positive": _delta_positive,
    "no_answer": _no_answer,
    "loop": _loop,
    "repeat": _repeat,
}
