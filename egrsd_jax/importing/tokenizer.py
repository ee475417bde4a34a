"""The tokenizer in a GGUF file as the files that transformers loads.

The file names how text is cut into pieces before pairs are merged and does not describe it; the names are llama.cpp's.
What a name means is written down here, and a name that is not is refused: the wrong cut gives wrong tokens, silently.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from egrsd_jax.importing.gguf_file import GgufFile

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # tokenizer.ggml.token_type
SPACE = "▁"  # SentencePiece's mark of a space
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class PreTokenizer:
    """How text is cut before pairs are merged.

    Attributes:
        pattern: pieces are its matches; None leaves the cut to GPT-2's own pattern.
        digits: each digit is a piece before anything else is cut.
        nfc: text is brought to Unicode's composed form first.
        whole_words: a piece that is a token is taken whole, whatever its merges are.
        begins: a text begins with the token for it where the file does not say whether it does.
    """

    pattern: str | None = None
    digits: bool = False
    nfc: bool = False
    whole_words: bool = False
    begins: bool = False


_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{_REST}"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}{_REST}"
PRE_TOKENIZERS = {
    "gpt-2": PreTokenizer(),
    "smollm": PreTokenizer(digits=True),
    "qwen2": PreTokenizer(_QWEN2, nfc=True),
    "deepseek-r1-qwen": PreTokenizer(_QWEN2),
    "llama-bpe": PreTokenizer(_LLAMA3, whole_words=True, begins=True),
    "llama3": PreTokenizer(_LLAMA3, whole_words=True, begins=True),
    "llama-v3": PreTokenizer(_LLAMA3, whole_words=True, begins=True),
    "smaug-bpe": PreTokenizer(_LLAMA3),  # Llama 3's cut alone, as in SmolLM3
}
_ROLES = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
_LLAMA3_ENDS = ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")


def make_tokenizer(file: GgufFile, vocabulary_size: int, *, pre: str | None = None) -> "PreTrainedTokenizerFast":
    """The tokenizer of a GGUF file, chat template included. `pre` names the pre-tokenizer where the file does not.

    Raises ValueError for a kind of tokenizer or a pre-tokenizer that is not known, and for token ids without an
    embedding.
    """
    from transformers import PreTrainedTokenizerFast  # imported late: two seconds

    tokens, kind = file.value("tokenizer.ggml.tokens"), file.value("tokenizer.ggml.model")
    if len(tokens) > vocabulary_size:
        raise ValueError(f"{file.name} has {len(tokens)} tokens and embeddings of {vocabulary_size}")
    if kind not in ("gpt2", "llama"):
        raise ValueError(f"{file.name}: tokenizers of the kind {kind!r} are not imported; gpt2 and llama are")
    template = file.values.get("tokenizer.chat_template")
    if not isinstance(template, str | None):
        raise ValueError(f"{file.name}: tokenizer.chat_template is {template!r:.80}; it is a text")
    cut = _pre_tokenizer(file, pre) if kind == "gpt2" else None
    try:
        tokenizer = _sentence_piece(file) if cut is None else _byte_level(file, cut)
    except ValueError:
        raise
    except Exception as error:  # tokenizers raises Exception itself
        raise ValueError(
            f"{file.name}: no tokenizer can be made of its tokens and merges ({str(error).splitlines()[0]}); download "
            "it again, or take the file of another converter"
        ) from None
    _add_tokens(tokenizer, tokens, _token_types(file))
    roles = {role: tokens[token] for role, token in token_ids(file).items()}
    begins = file.values.get("tokenizer.ggml.add_bos_token", cut is None or cut.begins)  # as in llama.cpp
    if begins and "bos_token" in roles:
        _begin_with(tokenizer, roles["bos_token"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **roles,
        chat_template=template,
        clean_up_tokenization_spaces=False,
        model_max_length=file.value(f"{file.value('general.architecture')}.context_length"),
    )


def token_ids(file: GgufFile) -> dict[str, int]:
    """The ids of the tokens with a role: bos_token, eos_token, pad_token, unk_token, as far as the file has them."""
    return _ids(file, _ROLES)


def stop_ids(file: GgufFile) -> list[int]:
    """The ids that end a completion: of a document, of a turn, of a message. Files name one of Llama 3's; the others
    have their names, which llama.cpp goes by too."""
    ids = _ids(file, {f"{name}_token": name for name in ("eos", "eot", "eom")}).values()
    pairs = enumerate(zip(file.value("tokenizer.ggml.tokens"), _token_types(file), strict=True))
    return sorted({*ids, *(index for index, (token, kind) in pairs if kind == CONTROL and token in _LLAMA3_ENDS)})


def _ids(file: GgufFile, roles: dict[str, str]) -> dict[str, int]:
    ids = {role: file.values.get(f"tokenizer.ggml.{name}_token_id") for role, name in roles.items()}
    count = len(file.value("tokenizer.ggml.tokens"))
    for role, token in ids.items():
        if token is not None and not 0 <= token < count:
            raise ValueError(f"{file.name}: {role} is {token}, and there are {count} tokens")
    return {role: token for role, token in ids.items() if token is not None}


def _pre_tokenizer(file: GgufFile, pre: str | None) -> PreTokenizer:
    name = file.values.get("tokenizer.ggml.pre")
    if pre is not None and name not in (None, "default", pre):
        raise ValueError(f"{file.name} names the pre-tokenizer {name!r} itself; leave {pre!r} out")
    chosen = pre or name
    if chosen not in PRE_TOKENIZERS:
        what = "names no pre-tokenizer" if chosen in (None, "default") else f"has the pre-tokenizer {chosen!r}"
        raise ValueError(
            f"{file.name} {what}; known are {', '.join(PRE_TOKENIZERS)}"
            + ("; --pre-tokenizer chooses one" if chosen in (None, "default") else "")
        )
    return PRE_TOKENIZERS[chosen]


def _token_types(file: GgufFile) -> list[int]:
    tokens = file.value("tokenizer.ggml.tokens")
    kinds = file.values.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    if len(kinds) != len(tokens):
        raise ValueError(f"{file.name} has {len(tokens)} tokens and {len(kinds)} entries of tokenizer.ggml.token_type")
    return kinds


def _vocabulary(file: GgufFile) -> dict[str, int]:
    """Tokens to ids, without the rows that only pad the embedding."""
    vocabulary: dict[str, int] = {}
    for index, (token, kind) in enumerate(zip(file.value("tokenizer.ggml.tokens"), _token_types(file), strict=True)):
        if kind == UNUSED:
            continue
        if token in vocabulary:
            raise ValueError(f"{file.name}: the tokens {vocabulary[token]} and {index} are both {token!r}")
        vocabulary[token] = index
    return vocabulary


def _byte_level(file: GgufFile, pre: PreTokenizer) -> "Tokenizer":
    """Byte-level BPE (arXiv 1909.03341's GPT-2 form), cut as `pre` says."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    merges = [tuple(merge.split(" ", 1)) for merge in file.value("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(_vocabulary(file), merges, ignore_merges=pre.whole_words))
    if pre.nfc:
        tokenizer.normalizer = normalizers.NFC()
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if pre.digits else []
    if pre.pattern is not None:
        steps.append(pre_tokenizers.Split(Regex(pre.pattern), behavior="isolated"))
    prefix = bool(file.values.get("tokenizer.ggml.add_space_prefix", False))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=pre.pattern is None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _sentence_piece(file: GgufFile) -> "Tokenizer":
    """SentencePiece's BPE (arXiv 1808.06226), which merges the pair whose token has the highest score."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    vocabulary = _vocabulary(file)
    unknown = file.values.get("tokenizer.ggml.unknown_token_id", 0)
    model = models.BPE(
        vocabulary,
        list(_merges(file, vocabulary)),
        unk_token=file.value("tokenizer.ggml.tokens")[unknown],
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    prefix = file.values.get("tokenizer.ggml.add_space_prefix", True)
    begin = [normalizers.Prepend(SPACE)] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*begin, normalizers.Replace(" ", SPACE)])
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    return tokenizer


def _merges(file: GgufFile, vocabulary: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Every pair of tokens that joins to a token: by the joined one's score, the highest first, then by the ids of the
    two, as transformers orders them."""
    scores = file.value("tokenizer.ggml.scores")
    pairs = []
    for token, index in vocabulary.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocabulary and right in vocabulary:
                pairs.append((-scores[index], vocabulary[left], vocabulary[right], left, right))
    yield from ((left, right) for *_, left, right in sorted(pairs))


def _add_tokens(tokenizer: "Tokenizer", tokens: list[str], kinds: list[int]) -> None:
    """Control tokens are special, and those that a user defined are cut out of text whole and stay in it."""
    from tokenizers import AddedToken

    for kind, special in ((CONTROL, True), (UNKNOWN, True), (USER_DEFINED, False)):
        chosen = [token for token, own in zip(tokens, kinds, strict=True) if own == kind]
        added = [AddedToken(token, special=special, normalized=False) for token in chosen]
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(added)


def _begin_with(tokenizer: "Tokenizer", token: str) -> None:
    from tokenizers import processors

    own = tokenizer.post_processor
    template = processors.TemplateProcessing(
        single=f"{_quoted(token)} $A",
        pair=f"{_quoted(token)} $A {_quoted(token)}:1 $B:1",
        special_tokens=[(_quoted(token), tokenizer.token_to_id(token))],
    )
    tokenizer.post_processor = template if own is None else processors.Sequence([own, template])


def _quoted(token: str) -> str:
    """A token as a template writes it. Raises ValueError for one with a space or a colon, which separate there."""
    if re.search(r"[\s:$]", token):
        raise ValueError(f"the token that begins a text is {token!r}, which the tokenizers library cannot put in front")
    return token
