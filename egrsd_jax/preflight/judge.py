"""From a preflight's numbers to its lines: each a check with what was measured, go, look or stop, and the reason. Pure.

`stop`: the run as it is configured cannot learn from this, or would learn something else. `look`: it can, and a number
is worth a thought before it is paid for.
"""

from collections.abc import Callable, Sequence

from egrsd_jax.preflight.checks import completions, signal, turns
from egrsd_jax.preflight.checks.line import Judgement, Line
from egrsd_jax.preflight.measure import Measured

ORDER: tuple[Judgement, ...] = ("go", "look", "stop")


def lines(measured: Measured) -> list[Line]:
    """Every check that the method has a use for, in the order in which they are shown."""
    judged = [check(measured) for check in CHECKS]
    return [line for line in judged if line is not None]


def verdict(judged: Sequence[Line]) -> Judgement:
    """The worst of them."""
    return ORDER[max(ORDER.index(line.judgement) for line in judged)]


def _end_of_turn(measured: Measured) -> Line:
    return turns.end_of_turn(measured.turns)


def _opening(measured: Measured) -> Line:
    return turns.opening(measured.turns, teaches=measured.privileged is not None)


CHECKS: tuple[Callable[[Measured], Line | None], ...] = (
    completions.accuracy,
    completions.gap,
    completions.groups,
    completions.cut_off,
    completions.answers,
    completions.ungradable,
    _end_of_turn,
    _opening,
    signal.first_tokens,
    signal.noise,
    signal.sampler,
    signal.clip,
    signal.entry_clip,
    signal.gate,
    signal.regimes,
)
