"""A check of a preflight: what was measured, go, look or stop, and the reason."""

from dataclasses import dataclass, field
from typing import Any, Literal

Judgement = Literal["go", "look", "stop"]


@dataclass(frozen=True)
class Line:
    """A check: its name in the JSON, its title, what was measured, the verdict and its reason, and the numbers."""

    name: str
    title: str
    value: str
    judgement: Judgement
    reason: str
    numbers: dict[str, Any] = field(default_factory=dict)
