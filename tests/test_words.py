"""House words: phrases that a reader would have to translate, and names that do not say what they hold.

`python tests/test_words.py [PATH ...]` prints what is left, one line per place, of the whole checkout or of some paths.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# What is not written, and what is written instead.
PHRASES = {
    r"\bg(?:o|oes|oing|one) on\b|\bwent on\b": "resume, continue",
    r"\b(?:held|holds?) (?:\w+ )?against\b": "compared with",
    r"\bwould be right\b": "how to fix it",
    r"\brows busy\b": "batch occupancy",
    r"\b(?:one|a (?:line|row|file|list|entry|folder|number|point|panel|process)) an? "
    r"(?:cell|chip|completion|device|field|host|layer|line|problem|row|run|sample|seed|station|step|token|turn)\b": (
        "one per X, a line per X"
    ),
    r"\bis nobody's\b": "belongs to no one; say to what it does not belong",
    r"\bbeside\b": "next to, in addition to",
    r"\b(?:stands?|stood|standing)\b(?! for\b)": "is, is at, is in",
    r"\b(?:lie|lies|lay|lying)\b": "is, is at, is sharded as",
    r"\b(?:tells?|told)\b(?! (?:\w+ )?apart\b)": "returns, logs, reports, says which",
    r"\blook(?:s|ed|ing)? at\b": "attends to, reads, compares, analysed",
    r"\bpictures?\b": "plot, image",
    r"\b(?:right|verified) (?:answer|completion|derivation|reference|sample|solution)s?\b": "correct",
    r"\bdraw(?:n|s)? (?:\w+ )?(?:token|completion|sample)s?\b": "sampled, samples",
    r"\b(?:token|completion|sample)s? (?:(?:is|are|was|were|as|that|it|they) )*dr(?:awn|aws?|ew)\b": "sampled, samples",
    r"\bembedded (?:model|task|run)|\bincluded (?:model|task)": "built-in",
}
PATTERNS = {re.compile(pattern, re.IGNORECASE): instead for pattern, instead in PHRASES.items()}

NAMES = frozenset({"found", "each", "mine", "theirs", "told", "said", "seen"})
NAMED = ("egrsd_jax", "launch", "benchmarks", "examples")  # where no value is called so; tests may say `found`

THIS = Path(__file__).name
MADE = frozenset({"runs", "site", "build"})  # folders at the top that commands make


def files(root: Path, *suffixes: str) -> list[Path]:
    """The sources and documents of a checkout, of a folder in it, or the one file given."""
    if root.is_file():
        return [root] if root.suffix in suffixes and root.name != THIS else []
    found = [file for file in root.rglob("*") if file.suffix in suffixes and file.name != THIS]
    parts = {file: file.relative_to(root).parts for file in found}
    return sorted(
        file for file in found if parts[file][0] not in MADE and not any(part.startswith(".") for part in parts[file])
    )


def phrases(text: str) -> Iterator[tuple[int, str, str]]:
    """(line, phrase, what to write) of every replaced phrase, also where it runs over the end of a line."""
    joined = re.sub(r"\n[ \t#>]*", lambda gap: " " * len(gap[0]), text)
    # One blank for each run of blanks, and where in the text each character was.
    kept = [place for place, mark in enumerate(joined) if mark != " " or joined[place - 1 : place] != " "]
    flat = "".join(joined[place] for place in kept)
    for pattern, instead in PATTERNS.items():
        for match in pattern.finditer(flat):
            yield text.count("\n", 0, kept[match.start()]) + 1, match[0], instead


def names(source: str) -> Iterator[tuple[int, str]]:
    """(line, name) wherever a value is given one of the names: assigned, looped over, an argument, a pattern."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.MatchAs):
            name = node.name or ""
        else:
            continue
        if name in NAMES:
            yield node.lineno, name


def left(paths: list[Path]) -> list[str]:
    """One line per place that is to be reworded: file, line, what it says, what to write."""
    lines = []
    for path in paths:
        for file in files(path, ".py", ".md"):
            place = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
            text = file.read_text(encoding="utf-8")
            for line, phrase, instead in phrases(text):
                lines.append(f"{place}:{line}: {phrase!r}; write: {instead}")
            if file.suffix == ".py" and place.parts[0] in NAMED:
                lines += [f"{place}:{line}: the name {name!r}; name what it holds" for line, name in names(text)]
    return lines


def test_no_replaced_phrase_and_no_name_that_says_nothing():
    assert left([ROOT]) == []


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("The run goes\n    on from its checkpoint.", "goes on"),
        ("# is held\n# against the reference", "held against"),
        ("and what would be right", "would be right"),
        ("keeps its rows busy", "rows busy"),
        ("writes a line a sample", "a line a sample"),
        ("The claim is nobody's.", "is nobody's"),
        ("it stands\nbeside the file", "beside"),
        ("the right answers", "right answers"),
        ("the tokens that it draws", "tokens that it draws"),
    ],
)
def test_a_replaced_phrase_is_found_over_the_end_of_a_line(text, phrase):
    assert phrase in [found for _, found, _ in phrases(text)]


@pytest.mark.parametrize("text", ["x stands for y", "the two can be told apart", "right-padded", "drawn as a line"])
def test_plain_words_are_left_alone(text):
    assert list(phrases(text)) == []


@pytest.mark.parametrize(
    "source",
    [
        "found = 1",
        "found: int = 1",
        "a, (found, b) = 1, (2, 3)",
        "for found in x: pass",
        "[found for found in x]",
        "def f(*, found): pass",
        "lambda found: 1",
        "if (found := 1): pass",
        "with x as found: pass",
    ],
)
def test_a_name_that_says_nothing_is_found_wherever_it_is_bound(source):
    assert [name for _, name in names(source)] == ["found"]


def test_a_method_or_a_text_may_use_the_word():
    assert list(names("x.found('each')\nfound(told=3)")) == []


if __name__ == "__main__":
    remaining = left([Path(argument).resolve() for argument in sys.argv[1:]] or [ROOT])
    print(*remaining, f"{len(remaining)} left", sep="\n")
