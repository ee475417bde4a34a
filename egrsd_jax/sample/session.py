"""From settings to completions: streamed, shown whole, or added to a file."""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax

from egrsd_jax.data.detokenizer import Detokenizer
from egrsd_jax.data.prompts import thinking_note
from egrsd_jax.data.tokenizer import check_token_ids
from egrsd_jax.evaluate.policies import LoadedPolicy, built_in_model, load_policy
from egrsd_jax.evaluate.settings import DEFAULT_MAX_ROWS, OTHER_MAX_ROWS
from egrsd_jax.model.sharding import make_mesh
from egrsd_jax.rollout.engine import Engine, engine_for, sample_keys
from egrsd_jax.rollout.requests import Completion, Request, Sampling
from egrsd_jax.runs.progress import EvaluationProgress
from egrsd_jax.sample.completions import CompletionsFile
from egrsd_jax.sample.prompts import Prompt, encode_prompt, read_prompts
from egrsd_jax.sample.screen import Screen
from egrsd_jax.sample.settings import SampleSettings
from egrsd_jax.sample.text import CLOSE, OPEN, ThinkingText


@dataclass(frozen=True)
class Session:
    """A policy, the prompts as it reads them, how they are completed, and the engine that does it."""

    settings: SampleSettings
    policy: LoadedPolicy
    prompts: list[Prompt]
    encoded: list[list[int]]
    thinking: bool
    sampling: Sampling
    engine: Engine

    @property
    def places(self) -> list[tuple[int, int]]:
        """Every completion that is wanted: its prompt's index and its number."""
        return [(index, number) for index in range(len(self.prompts)) for number in range(self.settings.samples)]

    def requests(self, places: Sequence[tuple[int, int]]) -> list[Request]:
        """What the engine is asked. A key depends on the seed and the place alone."""
        keys = sample_keys(jax.random.key(self.settings.policy.seed), *zip(*places, strict=True))
        return [Request(self.encoded[place[0]], self.sampling, key) for place, key in zip(places, keys, strict=True)]

    @property
    def note(self) -> str | None:
        """A word where the chat template does not do what --thinking or --no-thinking asks for."""
        asked = self.settings.policy.thinking
        return None if asked is None else thinking_note(self.policy.tokenizer, {"--thinking": asked})

    def text(self, completion: Completion) -> str:
        """A completion as text, without special tokens."""
        return str(self.policy.tokenizer.decode(completion.tokens, skip_special_tokens=True))

    def end_of(self, completion: Completion) -> str:
        """Why it ended: `end`, the model's own; `stop`, a stop text; or `length`."""
        if completion.ended == "length":
            return "length"
        return "end" if completion.tokens[-1] in self.policy.stop_ids else "stop"


def open_session(settings: SampleSettings) -> Session:
    """Reads prompts and model, and checks that they go together.

    Raises ValueError or OSError, one line that says how to fix it.
    """
    built_in = built_in_model(settings.policy)
    prompts = read_prompts(settings, built_in=built_in)
    mesh = make_mesh(*settings.policy.mesh)
    policy = load_policy(settings.policy, mesh)
    rules = settings.protocol(built_in=built_in)
    encoded = [
        encode_prompt(
            policy.tokenizer, prompt, raw=settings.raw, thinking=rules.thinking, system=settings.policy.system or ""
        )
        for prompt in prompts
    ]
    _check_lengths(policy, prompts, encoded, rules.max_new_tokens)
    max_rows = settings.policy.max_rows or (DEFAULT_MAX_ROWS.get(built_in or "", OTHER_MAX_ROWS))
    engine = engine_for(
        policy.model,
        mesh,
        policy.stop_ids,
        encoded,
        max_rows=min(max_rows, len(prompts) * settings.samples),
        max_new_tokens=rules.max_new_tokens,
        policy=policy.weights,
        tokenizer=policy.tokenizer,
        cache_dtype=settings.cache_dtype,
        weights_dtype=settings.policy.weights_dtype,
    )
    sampling = Sampling.of(rules, min_p=settings.min_p, stop=settings.stop)
    return Session(settings, policy, prompts, encoded, rules.thinking, sampling, engine)


def stream(session: Session, screen: Screen) -> Completion:
    """Shows the completion of one prompt as it is sampled."""
    text, parts = Detokenizer(session.policy.tokenizer, skip_special_tokens=True), _thinking_text(session)
    started, first = time.perf_counter(), 0.0

    def on_tokens(_: int, tokens: list[int]) -> None:
        nonlocal first
        first = first or time.perf_counter() - started
        screen.show(parts.add(text.add(tokens)))

    try:
        _, completion = next(session.engine.generate(session.requests(session.places), on_tokens=on_tokens))
    finally:
        screen.show([*parts.add(text.end()), *parts.end()])
        screen.end_line()
    seconds = time.perf_counter() - started
    count = len(completion.tokens)
    screen.say(
        f"{count:,} tokens in {seconds:.1f} s ({count / seconds:,.0f} tokens/s; the first after {first:.1f} s, "
        f"compiling included); {_why(session, completion)}"
    )
    return completion


def show_each(session: Session, screen: Screen) -> list[Completion]:
    """Shows several completions of one prompt, each whole as it ends, under its number."""
    started, completions = time.perf_counter(), []
    for number, completion in session.engine.generate(session.requests(session.places)):
        completions.append(completion)
        tokens = f"{len(completion.tokens):,} tokens, {_why(session, completion)}"
        screen.heading(f"completion {number + 1} of {len(session.places)}: {tokens}")
        parts = _thinking_text(session)
        screen.show([*parts.add(session.text(completion)), *parts.end()])
        screen.end_line()
    seconds, count = time.perf_counter() - started, sum(len(completion.tokens) for completion in completions)
    screen.say(
        f"{count:,} tokens in {seconds:.1f} s ({count / seconds:,.0f} tokens/s, compiling included); mean length "
        f"{count / len(completions):,.1f}, cut off {sum(not completion.stopped for completion in completions)} of "
        f"{len(completions)}"
    )
    return completions


def complete_file(session: Session) -> Path:
    """Adds every completion that is not there yet to the file of completions; returns it.

    Raises ValueError, before anything is sampled, where completions that are there have other settings.
    """
    file = CompletionsFile(completions_path(session.settings))
    with file.locked():
        have = file.bind(_regime(session))
        for note in file.notes:
            Screen().say(f"warning: {note}")
        missing = [place for place in session.places if (session.prompts[place[0]].id, place[1]) not in have]
        total, engine = len(session.places), session.engine

        def on_tokens(_: int, tokens: list[int]) -> None:
            progress.advance(0, len(tokens), engine.occupancy)

        with EvaluationProgress(bar_width=12) as progress:
            progress.start(session.policy.label, done=total - len(missing), total=total)
            for number, completion in _sampled(session, missing, on_tokens):
                file.append(_row(session, missing[number], completion))
                progress.advance(1, 0, engine.occupancy)
    return file.path


def completions_path(settings: SampleSettings) -> Path:
    """Where the completions of a file go: NAME.completions.jsonl next to it by default."""
    assert settings.file is not None
    return settings.to or settings.file.with_name(f"{settings.file.stem}.completions.jsonl")


def _sampled(session: Session, places: Sequence[tuple[int, int]], on_tokens) -> Iterator[tuple[int, Completion]]:
    return session.engine.generate(session.requests(places), on_tokens=on_tokens) if places else iter(())


def _row(session: Session, place: tuple[int, int], completion: Completion) -> dict[str, Any]:
    prompt = session.prompts[place[0]]
    return {
        "id": prompt.id,
        "sample": place[1],
        "prompt": prompt.text,
        "text": session.text(completion),
        "tokens": len(completion.tokens),
        "ended": session.end_of(completion),
        "seconds": round(completion.seconds, 6),
    }


def _regime(session: Session) -> dict[str, Any]:
    """What the completions of a file depend on, and under `free` what they do not."""
    settings = session.settings
    own = [(prompt.id, prompt.text, *([prompt.system] if prompt.system else [])) for prompt in session.prompts]
    prompts = json.dumps(own)
    return {
        "model": session.policy.hash,
        "dtype": session.policy.dtype,
        "cache_dtype": settings.cache_dtype or session.policy.dtype,
        **({} if (weights := settings.policy.weights_dtype) is None else {"weights_dtype": weights}),
        "seed": settings.policy.seed,
        "prompts": hashlib.sha256(prompts.encode()).hexdigest(),
        "raw": settings.raw,
        "thinking": session.thinking,
        **({} if settings.policy.system is None else {"system": settings.policy.system}),
        **asdict(session.sampling),
        "stop": list(session.sampling.stop),
        "free": {"label": session.policy.label, "file": str(settings.file), "samples": settings.samples},
    }


def _check_lengths(policy: LoadedPolicy, prompts: list[Prompt], encoded: list[list[int]], new: int) -> None:
    check_token_ids(policy.tokenizer, encoded, policy.model.vocab_size, "a prompt")
    longest, prompt = max(zip(map(len, encoded), prompts, strict=True))
    if longest + new > policy.model.max_positions:
        raise ValueError(
            f"{prompt.place} has {longest:,} tokens, which with --max_new_tokens {new:,} is over the model's "
            f"{policy.model.max_positions:,} positions"
        )


def _thinking_text(session: Session) -> ThinkingText:
    """For the completion of the first prompt, which may end within the thinking."""
    prompt = str(session.policy.tokenizer.decode(session.encoded[0][-16:], skip_special_tokens=False))
    return ThinkingText(thinking=prompt.rfind(OPEN) > prompt.rfind(CLOSE))


def _why(session: Session, completion: Completion) -> str:
    never = ", and no stop text came" if session.sampling.stop else ""
    return {
        "end": f"it ended by itself{never}",
        "stop": "a stop text ended it",
        "length": f"cut off at --max_new_tokens {session.sampling.max_new_tokens:,}{never}",
    }[session.end_of(completion)]
