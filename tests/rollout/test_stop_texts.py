"""The token that completes a stop text, however the completion is cut into chunks."""

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egrsd_jax.data.tokenizer import load_tokenizer
from egrsd_jax.model.hf.hub import resolve_folder
from egrsd_jax.rollout.stop_texts import StopTexts

STOPS = ("; 1", "}<|im_end|>", "+")
TEXT = r"<think> 3 * 2 = 6 ; 1 6 + 5 = 2 </think> \boxed{2}<|im_end|>"


@cache
def tokenizer_of(folder: Path):
    return load_tokenizer(folder)[0]


def end(tokenizer, tokens, stops, cuts) -> int | None:
    """Tokens up to the end, of a completion that comes in chunks."""
    texts, begun = StopTexts(tokenizer, stops), 0
    for cut in [*cuts, len(tokens)]:
        count = texts.end(tokens[begun:cut])
        if count is not None:
            return begun + count
        begun = cut
    return None


def first(tokenizer, tokens, stops) -> int | None:
    """The same by decoding every prefix."""
    texts = (tokenizer.decode(tokens[:count]) for count in range(len(tokens) + 1))
    return next((count for count, text in enumerate(texts) if any(stop in text for stop in stops)), None)


@settings(max_examples=60, deadline=None)
@given(st.sets(st.sampled_from(STOPS), min_size=1), st.sets(st.integers(0, 20)))
def test_it_is_found_across_chunks_and_special_tokens(stops, cuts):
    tokenizer = tokenizer_of(resolve_folder("arithmetic"))
    tokens = tokenizer.encode(TEXT.replace("}<", " }<"), add_special_tokens=False)
    cuts = sorted(min(cut, len(tokens)) for cut in cuts)
    assert end(tokenizer, tokens, tuple(stops), cuts) == first(tokenizer, tokens, stops)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("stop", ["字𠮷", "𠮷", "ï", "naïve 漢字", "d", "none"])
def test_it_is_found_where_characters_are_spread_over_tokens(shared_data, size, stop):
    tokenizer = tokenizer_of(shared_data / "qwen3_tokenizer")
    tokens = tokenizer.encode("naïve 漢字𠮷 👩‍👩‍👧 end", add_special_tokens=False)
    found = end(tokenizer, tokens, (stop,), range(size, len(tokens), size))
    assert found == first(tokenizer, tokens, (stop,))
