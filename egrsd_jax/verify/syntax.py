r"""The syntax tree of one answer, its tokens, and how both answers say that it is to be read.

First part of algebra: **syntax** -> symbols, parser -> values -> points, relations, sets. It imports no sympy and
evaluates nothing.
"""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from egrsd_jax.verify.functions import GREEK


class Unreadable(ValueError):
    """An answer that is no mathematics that can be compared; its message completes "cannot be read: "."""


class Node(NamedTuple):
    """A kind and its parts: other nodes, or the text of a leaf.

    `number` digits; `repeating` start, period; `base` digits, base; `name` text; `sum`, `product` nodes; `power` base,
    exponent; `quotient` above, below; `call` function, nodes; `log` base or None, node; `derivative` name, variable or
    None, order, sign; `applied` name, nodes; `series` command, index, start, end, body; `integral` variable, start,
    end, body; `relation` sides and signs in turn.
    """

    kind: str
    parts: tuple[Any, ...]


@dataclass(frozen=True)
class Reading:
    """What the spelling of one answer alone does not say, and that of both does (`reading.reading_of`)."""

    functions: frozenset[str] = frozenset()  # names that brackets behind them are the argument of, not a factor
    variable: str = ""  # by which primes differentiate
    arguments_dropped: bool = False  # theta(t) is theta, as in an equation with derivatives by t
    common_logarithm: bool = False  # \log is to base ten
    fold_case: bool = False  # R is r
    fractional_parts: bool = False  # \{x\} is x - floor(x), and no set


_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\d+(?:\.\d+)?|'+|!!|\s+|.", re.DOTALL)


def tokens(text: str) -> list[str]:
    """The tokens of normalised text, blanks left out."""
    return [token for token in _TOKEN.findall(text) if not token.isspace()]


def is_name(token: str) -> bool:
    """Whether a token is a letter, Latin or Greek, that may stand for a quantity."""
    return (len(token) == 1 and token.isascii() and token.isalpha()) or token in GREEK


class Cursor:
    """The tokens of one text, and the place up to which they have been taken."""

    def __init__(self, text: str, reading: Reading) -> None:
        self._tokens = tokens(text)
        self._position = 0
        self._reading = reading

    @property
    def token(self) -> str:
        """The next token; empty at the end."""
        return self._tokens[self._position] if self._position < len(self._tokens) else ""

    def rest(self) -> str:
        """What has not been taken yet, shortened."""
        return "".join(self._tokens[self._position :])[:30]

    def _ahead(self, by: int = 1) -> str:
        at = self._position + by
        return self._tokens[at] if 0 <= at < len(self._tokens) else ""

    def _take(self, expected: str | None = None) -> str:
        token = self.token
        if not token or (expected is not None and token != expected):
            raise Unreadable(
                f"{expected or 'more'} is missing before {self.rest()!r}" if token else "it ends too early"
            )
        self._position += 1
        return token

    def _raw_group(self) -> str:
        """The text of the next group, or the next token."""
        if self.token != "{":
            return self._take()
        self._take()
        depth, start = 1, self._position
        while depth:
            depth += {"{": 1, "}": -1}.get(self._take(), 0)
        return "".join(self._tokens[start : self._position - 1])
