"""Which models a server lists, and what kind of server it is. Imports no jax."""

import http
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal, NamedTuple, get_args

from egrsd_jax.rollout.http.server import Server, ServerError

Kind = Literal["vllm", "sglang", "transformers", "completions", "chat"]
KINDS: tuple[Kind, ...] = get_args(Kind)
WAY_OUT = f"say what it speaks with --server_kind ({', '.join(KINDS)}); docs/evaluation.md says what each must return"


class Listed(NamedTuple):
    """A name that a server can be asked for; `parent` is the model of an adapter. What a server does not say is
    None."""

    name: str
    owner: str | None
    parent: str | None
    max_model_len: int | None


def listed_models(server: Server, kind: Kind | None, model: str | None) -> list[Listed]:
    """A server's list of models: asked for once, so that a wrong address is reported at once.

    Where both `kind` and `model` are given it is not needed, and a server without one has an empty list. Raises
    ServerError where it is needed and missing.
    """
    try:
        answer = server.ask("/v1/models", tries=1)
    except ServerError as error:
        if error.status == http.HTTPStatus.NOT_FOUND and (kind is None or model is None):
            raise ServerError(
                f"{error}; give the address of a server with OpenAI's API, up to its /v1", error.status
            ) from None
        if kind is None or model is None or error.status is None:
            raise
        return []
    entries = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "id" in entry for entry in entries):
        if kind is not None and model is not None:
            return []
        raise ServerError(
            f"{server.url}/v1/models is no list of models (data, each with an id): give --server_kind and --served"
        )
    return [
        Listed(
            str(entry["id"]),
            entry.get("owned_by"),
            entry.get("parent"),
            length if isinstance(length := entry.get("max_model_len"), int) else None,
        )
        for entry in entries
    ]


def kind_of(server: Server, listed: Sequence[Listed]) -> Kind:
    """Which of those that are known a server is. Raises ServerError for any other, which may sample otherwise than it
    is asked to: it must be said what it is."""
    owners = {entry.owner for entry in listed}
    if "vllm" in owners:
        return "vllm"
    if "sglang" in owners:
        return "sglang"
    with suppress(ServerError, KeyError, TypeError, AttributeError):
        paths = server.ask("/openapi.json", tries=1)["paths"]
        if {"/load_model", "/v1/completions"} <= paths.keys():
            return "transformers"
    says = ", ".join(sorted(str(owner) for owner in owners if owner)) or "nobody that it names"
    raise ServerError(
        f"{server.url} is neither vLLM, nor SGLang, nor a `transformers serve` that has /v1/completions (its models "
        f"are owned by {says}): {WAY_OUT}"
    )
