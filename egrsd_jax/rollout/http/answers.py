"""What is read from a server's answer, each field checked; and the seed of a request. Imports no jax."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np

from egrsd_jax.rollout.http.server import ServerError
from egrsd_jax.rollout.requests import Request


def field(answer: Any, *path: str, kind: type | None = None) -> Any:
    """The field at a path of names, such as usage, completion_tokens.

    Raises ServerError that names what is missing, and what is there, or a value that is not of its kind.
    """
    value = answer
    for depth, name in enumerate(path):
        if not isinstance(value, Mapping) or value.get(name) is None:
            there = ", ".join(sorted(map(str, value))) if isinstance(value, Mapping) else "no fields"
            place = f" in {'.'.join(path[:depth])}" if depth else ""
            raise ServerError(f"the server's answer has no field {name!r}{place}, which is needed; it has {there}")
        value = value[name]
    if kind is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        raise ServerError(f"the server's answer has {value!r:.80} as {'.'.join(path)}, and that is no {kind.__name__}")
    return value


def choice_of(request: Request, answer: Any) -> tuple[dict[str, Any], int]:
    """The one choice of an answer, and how many tokens the server counts in it. Raises ServerError for an answer that
    lacks a field or contradicts the request."""
    choices = field(answer, "choices", kind=list)
    if len(choices) != 1:
        raise ServerError(f"the server's answer has {len(choices)} choices, and one was asked for")
    read, count = (field(answer, "usage", name, kind=int) for name in ("prompt_tokens", "completion_tokens"))
    reason = field(choices[0], "finish_reason")
    if read != len(request.prompt):
        raise ServerError(
            f"the server read {read} tokens where the prompt has {len(request.prompt)}: "
            "is it the same model, with the same tokenizer and chat template?"
        )
    if reason not in ("stop", "length"):
        raise ServerError(f"the server ended a completion by {reason!r}; it can be used by 'stop' and 'length' alone")
    if reason == "length" and count < request.sampling.max_new_tokens:
        raise ServerError(
            f"the server cut a completion off after {count} tokens, and {request.sampling.max_new_tokens} were asked "
            "for; start it with a longer context (--max-model-len, --context-length)"
        )
    return choices[0], count


def check_token_ids(tokens: list[Any], vocab_size: int | None) -> None:
    """Raises ServerError for what is no id of the vocabulary."""
    for token in tokens:
        if not isinstance(token, int) or isinstance(token, bool) or token < 0:
            raise ServerError(f"the server returned {token!r:.80} as a token id")
        if vocab_size is not None and token >= vocab_size:
            raise ServerError(
                f"the server returned token id {token}, and the model's vocabulary ends at {vocab_size - 1}: "
                "is it the same model?"
            )


def seed_of(request: Request) -> int:
    """A hash of a request's key, 63 bits: a key that is a small number has them in one word alone, and torch's random
    numbers on a CPU take no more than the lower half of a seed."""
    return int.from_bytes(blake2b(np.asarray(request.key, "<u4").tobytes(), digest_size=8).digest()) >> 1
