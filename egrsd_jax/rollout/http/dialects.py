"""The fields of each server: from a request to those of /v1/completions, and from its answer to a completion.

Every sampling field is always sent: a server takes what is left out from the model's generation_config.json (top_k 20
for Qwen3), and would then sample from another distribution than was asked for. Imports no jax.
"""

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from egrsd_jax.rollout.http.server import ServerError
from egrsd_jax.rollout.requests import Completion, Request

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Tokens:
    """vLLM (0.10.2 or later) and SGLang: prompts are token ids, and token ids come back.

    `logp` are the server's: vLLM's by its default `--logprobs-mode raw_logprobs`. SGLang's are of the logits divided by
    the temperature, so they are taken at temperature 1 and 0 (where it divides by nothing) and are NaN at others.
    SGLang follows a request's seed under `--enable-deterministic-inference` alone.
    """

    def __init__(self, kind: Literal["vllm", "sglang"], stop_ids: Sequence[int]):
        self._kind, self._stop_ids = kind, list(stop_ids)

    def fields(self, request: Request, *, logp: bool) -> dict[str, Any]:
        """The fields that ask for a request's completion, but for the model's name."""
        sampling = request.sampling
        return {
            "prompt": [int(token) for token in request.prompt],
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "min_p": sampling.min_p,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "stop": list(sampling.stop),
            "stop_token_ids": self._stop_ids,
            "seed": _seed(request),
            "return_token_ids": True,
            **({"logprobs": 1} if logp else {}),
        }

    def completion(self, request: Request, answer: dict[str, Any]) -> Completion:
        """The completion of an answer. Raises ServerError for an answer that contradicts itself or the request."""
        choice, count = _choice(request, answer)
        if (tokens := choice.get("token_ids")) is None:
            raise ServerError(
                "the server returned no token_ids, though return_token_ids asked for them; it takes vLLM 0.10.2 or "
                "later, or an SGLang whose /v1/completions has that field"
            )
        if not tokens or len(tokens) != count:
            raise ServerError(f"the server returned {len(tokens)} token ids and counts {count}")
        logp = np.full(count, np.nan, np.float32)
        if choice.get("logprobs") and (self._kind == "vllm" or request.sampling.temperature in (0, 1)):
            logp = np.array(choice["logprobs"]["token_logprobs"], np.float32)
        return Completion(tokens, logp, self._ended(request, tokens, choice["finish_reason"]))

    def _ended(self, request: Request, tokens: list[int], reason: str) -> Literal["stop", "length"]:
        """By the last token first: a stop token at the cap, vLLM calls `length`."""
        if tokens[-1] in self._stop_ids:
            return "stop"
        if reason == "stop" and not request.sampling.stop:
            raise ServerError(
                f"the server ended a completion with token {tokens[-1]}, which is no stop token here "
                f"({', '.join(map(str, self._stop_ids))}): is it the same model?"
            )
        return "stop" if reason == "stop" else "length"


class Text:
    """`transformers serve`: prompts are texts, and text comes back, without its special tokens.

    Tokens are found by encoding that text. They are as many as the server counts, and -1, all of them, where
    the encoding has another number; the last is also -1 where it is a stop token and there are several. `logp` is NaN.
    The server seeds one generator for all requests, so sampled completions repeat only if they are asked for one at a
    time. It must run without `--continuous-batching`, which samples as the first request asked for.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", stop_ids: Sequence[int]):
        self._tokenizer, self._stop_ids = tokenizer, list(stop_ids)

    def fields(self, request: Request, *, logp: bool) -> dict[str, Any]:  # noqa: ARG002  (it returns none)
        """The fields that ask for a request's completion, but for the model's name.

        One token more than is wanted is asked for: a stop token at the cap would be called `length`, and the
        text does not show it. Raises ValueError for a prompt whose text is not encoded as the prompt.
        """
        prompt = [int(token) for token in request.prompt]
        text = self._tokenizer.decode(prompt)
        if self._tokenizer(text)["input_ids"] != prompt:
            raise ValueError(f"its tokens are not those of its text, which is what this server takes: {text[:80]!r}")
        return {"prompt": text, "seed": _seed(request), "generation_config": json.dumps(self._generation(request))}

    def _generation(self, request: Request) -> dict[str, Any]:
        sampling = request.sampling
        rules = {
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
        }
        return {
            "max_new_tokens": sampling.max_new_tokens + 1,
            "do_sample": sampling.temperature > 0,
            **(rules if sampling.temperature > 0 else {}),
            "repetition_penalty": 1.0,
            "eos_token_id": self._stop_ids,
            "pad_token_id": self._stop_ids[0],
            **({"stop_strings": list(sampling.stop)} if sampling.stop else {}),
        }

    def completion(self, request: Request, answer: dict[str, Any]) -> Completion:
        """The completion of an answer. Raises ServerError for an answer that contradicts itself or the request."""
        choice, count = _choice(request, answer)
        text, most = choice["text"], request.sampling.max_new_tokens
        tokens = self._tokenizer.encode(text, add_special_tokens=False)
        if count > most:  # cut off; the one too many is not in the text where it is a stop token
            exact, tokens = len(tokens) in (most, count), tokens[:most]
            text = str(self._tokenizer.decode(tokens, skip_special_tokens=True)) if exact else text
        else:
            if len(tokens) == count - 1:
                tokens.append(self._stop_ids[0] if len(self._stop_ids) == 1 else -1)
            exact = len(tokens) == count
        kept = min(count, most)
        return Completion(
            tokens if exact else [-1] * kept,
            np.full(kept, np.nan, np.float32),
            "length" if count > most else "stop",
            text=text,
        )


def _choice(request: Request, answer: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The one choice of an answer, and how many tokens the server counts in it."""
    (choice,), usage = answer["choices"], answer["usage"]
    count, reason = usage["completion_tokens"], choice["finish_reason"]
    if usage["prompt_tokens"] != len(request.prompt):
        raise ServerError(
            f"the server read {usage['prompt_tokens']} tokens where the prompt has {len(request.prompt)}: "
            "is it the same model, with the same tokenizer?"
        )
    if reason not in ("stop", "length"):
        raise ServerError(f"the server ended a completion by {reason!r}; it can be used by 'stop' and 'length' alone")
    if reason == "length" and count < request.sampling.max_new_tokens:
        raise ServerError(
            f"the server cut a completion off after {count} tokens, and {request.sampling.max_new_tokens} were asked "
            "for; start it with a longer context (--max-model-len, --context-length)"
        )
    return choice, count


def _seed(request: Request) -> int:
    """A hash of a request's key, 63 bits: a key that is a small number has them in one word alone, and torch's random
    numbers on a CPU take no more than the lower half of a seed."""
    return int.from_bytes(blake2b(np.asarray(request.key, "<u4").tobytes(), digest_size=8).digest()) >> 1
