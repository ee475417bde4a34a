"""A chat template without its default system turn. It is run, in transformers' sandbox, to see what it writes."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_PRINTED = re.compile(r"\{\{-?\s*(?P<quote>['\"])(?P<text>(?:(?!(?P=quote))[^\\]|\\.)*)(?P=quote)\s*-?\}\}", re.DOTALL)
_USER = {"role": "user", "content": "How many are seven and five?"}
_ANSWER = {"role": "assistant", "content": "Twelve."}
_SYSTEM = {"role": "system", "content": "Answer in one word."}
_PROBES = (  # a system turn of the caller's own stays what it is
    ([_SYSTEM, _USER], False),
    ([_SYSTEM, _USER], True),
    ([_SYSTEM, _USER, _ANSWER, _USER], True),
)


def without_default_system(tokenizer: "PreTrainedTokenizerFast") -> str:
    """The tokenizer's chat template without the system turn that it writes where a conversation has none.

    The turn is a text that the template prints as it is. A text is the turn if without it conversations that begin with
    the user come out without that text at their start and are otherwise the same, and conversations with a system turn
    of their own are the same. Raises ValueError where there is no template, or no such text.
    """
    template = tokenizer.chat_template
    if not isinstance(template, str):
        raise ValueError("the file has no chat template, so there is no default system turn to leave out")

    def written(own: str, messages: list[dict[str, str]], begin_answer: bool) -> str:
        done = tokenizer.apply_chat_template(
            messages, chat_template=own, tokenize=False, add_generation_prompt=begin_answer
        )
        assert isinstance(done, str)
        return done

    plain, begun = written(template, [_USER], False), written(template, [_USER], True)
    for match in _PRINTED.finditer(template):
        shorter = template[: match.start()] + template[match.end() :]
        alone = written(shorter, [_USER], False)
        turn = _removed(plain, alone)
        if (
            "system" in turn
            and _removed(begun, written(shorter, [_USER], True)) == turn
            and all(written(template, *probe) == written(shorter, *probe) for probe in _PROBES)
        ):
            return shorter
    raise ValueError(
        "the chat template writes no default system turn that could be left out; import the model with its template"
    )


def _removed(before: str, after: str) -> str:
    """What was taken away from one place of `before` to give `after`; empty where it is more than that."""
    count = len(before) - len(after)
    start = next((i for i, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), len(after))
    if count <= 0 or before[:start] + before[start + count :] != after:
        return ""
    return before[start : start + count]
