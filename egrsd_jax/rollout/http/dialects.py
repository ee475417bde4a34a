"""The fields of each server: from a request to those of /v1/completions, and from its answer to a completion.

Every sampling field is always sent: a server takes what is left out from the model's generation_config.json (top_k 20
for Qwen3), and would then sample from another distribution than was asked for. Imports no jax.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from egrsd_jax.rollout.http.answers import check_token_ids, choice_of, field, seed_of
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

    path = "/v1/completions"
    surplus = 0  # tokens that are asked for beyond those that are wanted

    def __init__(self, kind: Literal["vllm", "sglang"], stop_ids: Sequence[int], vocab_size: int | None = None):
        self._kind, self._stop_ids, self._vocab_size = kind, list(stop_ids), vocab_size

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
            "seed": seed_of(request),
            "return_token_ids": True,
            **({"logprobs": 1} if logp else {}),
        }

    def completion(self, request: Request, answer: Any) -> Completion:
        """The completion of an answer. Raises ServerError for an answer that lacks a field, or contradicts itself or
        the request."""
        choice, count = choice_of(request, answer)
        if (tokens := choice.get("token_ids")) is None:
            raise ServerError(
                "the server returned no token_ids, though return_token_ids asked for them; it takes vLLM 0.10.2 or "
                "later, or an SGLang whose /v1/completions has that field"
            )
        if not isinstance(tokens, list):
            raise ServerError(f"the server returned {tokens!r:.80} as token ids")
        if not tokens or len(tokens) != count:
            raise ServerError(f"the server returned {len(tokens)} token ids and counts {count}")
        check_token_ids(tokens, self._vocab_size)
        logp = np.full(count, np.nan, np.float32)
        if choice.get("logprobs") is not None and (self._kind == "vllm" or request.sampling.temperature in (0, 1)):
            numbers = field(choice, "logprobs", "token_logprobs", kind=list)
            if other := [number for number in numbers if not isinstance(number, int | float | None)]:
                raise ServerError(f"the server returned {other[0]!r:.80} as a log-probability")
            logp = np.array(numbers, np.float32)
            if len(logp) != count:
                raise ServerError(f"the server returned {len(logp)} log-probabilities and counts {count} tokens")
        return Completion(tokens, logp, self._ended(request, tokens, field(choice, "finish_reason")))

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

    path = "/v1/completions"
    surplus = 1

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", stop_ids: Sequence[int]):
        self._tokenizer, self._stop_ids = tokenizer, list(stop_ids)

    def fields(self, request: Request, *, logp: bool) -> dict[str, Any]:  # noqa: ARG002  (it returns none)
        """The fields that ask for a request's completion, but for the model's name.

        One token more than is wanted is asked for: a stop token at the cap would be called `length`, and the
        text does not show it. Raises ValueError for a prompt whose text is not encoded as the prompt.
        """
        return {
            "prompt": self.text_of(request),
            "seed": seed_of(request),
            "generation_config": json.dumps(self._generation(request)),
        }

    def text_of(self, request: Request) -> str:
        """A prompt's text. Raises ValueError where that is not encoded as the prompt."""
        prompt = [int(token) for token in request.prompt]
        text = str(self._tokenizer.decode(prompt))
        if self._tokenizer(text)["input_ids"] != prompt:
            raise ValueError(f"its tokens are not those of its text, which is what this server takes: {text[:80]!r}")
        return text

    def said(self, choice: dict[str, Any]) -> str:
        """The text of a choice."""
        return field(choice, "text", kind=str)

    def _generation(self, request: Request) -> dict[str, Any]:
        sampling = request.sampling
        rules = {
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
        }
        return {
            "max_new_tokens": sampling.max_new_tokens + self.surplus,
            "do_sample": sampling.temperature > 0,
            **(rules if sampling.temperature > 0 else {}),
            "repetition_penalty": 1.0,
            "eos_token_id": self._stop_ids,
            "pad_token_id": self._stop_ids[0],
            **({"stop_strings": list(sampling.stop)} if sampling.stop else {}),
        }

    def completion(self, request: Request, answer: Any) -> Completion:
        """The completion of an answer. Raises ServerError for an answer that lacks a field, or contradicts itself or
        the request."""
        choice, count = choice_of(request, answer)
        text, most = self.said(choice), request.sampling.max_new_tokens
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
