"""Servers that are known by what they speak alone: OpenAI's /v1/completions and /v1/chat/completions with text.

For proxies, llama.cpp's server and the like, by `--server_kind`. What an evaluation needs is checked in every answer:
the number of tokens that the server read, which must be the prompt's, the number that it sampled, and why it ended.
Imports no jax.
"""

from collections.abc import Iterator
from typing import Any

from egrsd_jax.rollout.http.answers import field, seed_of
from egrsd_jax.rollout.http.dialects import Text
from egrsd_jax.rollout.requests import Request

PLACE = "3f1c9a"  # a user's turn by which the chat template is taken apart


class Completions(Text):
    """/v1/completions that takes and returns text. It ends at the server's own stop tokens."""

    def fields(self, request: Request, *, logp: bool) -> dict[str, Any]:  # noqa: ARG002  (it returns none)
        """As `Text.fields`, with OpenAI's names and, for servers that have more, vLLM's."""
        return {"prompt": self.text_of(request), **_sampling_fields(request)}


class Chat(Text):
    """/v1/chat/completions: the user's turn is taken out of the prompt, and the server's template must give the same
    number of tokens again. A thought that it returns by itself (`reasoning_content`) is put before the text."""

    path = "/v1/chat/completions"

    def fields(self, request: Request, *, logp: bool) -> dict[str, Any]:  # noqa: ARG002  (it returns none)
        """As `Text.fields`; raises ValueError also for a prompt that is not one user's turn of the chat template."""
        turn, thinking = self._turn([int(token) for token in request.prompt])
        return {
            "messages": [{"role": "user", "content": turn}],
            "chat_template_kwargs": {"enable_thinking": thinking},
            **_sampling_fields(request),
        }

    def said(self, choice: dict[str, Any]) -> str:
        """The message of a choice, its thought included."""
        message = field(choice, "message", kind=dict)
        thought = message.get("reasoning_content") or message.get("reasoning")
        text = message.get("content") or ""
        # SGLang has null for a completion of its stop token alone; other fields are what a server made of a text.
        is_empty = "content" in message and not any(message.get(name) for name in ("tool_calls", "refusal"))
        if not isinstance(text, str) or (thought is None and not text and not is_empty):
            return field(message, "content", kind=str)
        if thought is None:
            return text
        return f"<think>{thought}</think>{text}" if text else f"<think>{thought}"

    def _turn(self, prompt: list[int]) -> tuple[str, bool]:
        """The user's turn, and whether thinking is on, of which the chat template makes this prompt."""
        for thinking in (True, False):
            before, _, after = self._rendered(PLACE, thinking).partition(PLACE)
            for turn in self._between(prompt, before, after):
                if self._encoded(self._rendered(turn, thinking)) == prompt:
                    return turn, thinking
        text = str(self._tokenizer.decode(prompt))
        raise ValueError(f"it is not one user's turn of the chat template, which is what a chat takes: {text[:80]!r}")

    def _between(self, prompt: list[int], before: str, after: str) -> Iterator[str]:
        """What may be between two parts of a template: by the prompt's tokens, or by its text where tokens run over
        from one part to the next."""
        first, last = self._encoded(before), self._encoded(after)
        end = len(prompt) - len(last)
        if len(first) <= end and prompt[: len(first)] == first and prompt[end:] == last:
            yield str(self._tokenizer.decode(prompt[len(first) : end]))
        text = str(self._tokenizer.decode(prompt))
        end = len(text) - len(after)
        if len(before) <= end and text.startswith(before) and text.endswith(after):
            yield text[len(before) : end]

    def _encoded(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _rendered(self, turn: str, thinking: bool) -> str:
        messages = [{"role": "user", "content": turn}]
        return str(
            self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
            )
        )


def _sampling_fields(request: Request) -> dict[str, Any]:
    sampling = request.sampling
    return {
        "max_tokens": sampling.max_new_tokens + Text.surplus,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or -1,
        "min_p": sampling.min_p,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        **({"stop": list(sampling.stop)} if sampling.stop else {}),
        "seed": seed_of(request) % 2**31,  # some servers take no more
        "n": 1,
    }
