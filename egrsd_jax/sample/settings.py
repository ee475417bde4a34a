"""What is to be completed, and how, as one frozen value. Imports no jax."""

from dataclasses import dataclass, field
from pathlib import Path

from egrsd_jax.data.tables import ENDINGS
from egrsd_jax.evaluate.benchmarks import BENCHMARKS, Protocol, with_overrides
from egrsd_jax.evaluate.settings import Settings
from egrsd_jax.ranges import require
from egrsd_jax.rollout.requests import Sampling

PROMPTS = (".txt", *ENDINGS)  # the kinds of files that prompts are read from
MAX_NEW_TOKENS = 1024  # what someone who looks on waits for; the paper's protocol has 32,768


@dataclass(frozen=True)
class SampleSettings:
    """One prompt, or a file of them.

    Attributes:
        policy: the model, and of the sampling temperature, top_p, top_k, max_new_tokens, thinking, system, seed,
            samples and max_rows; the other fields of an evaluation are not used.
        prompt: a user's turn; without it and `file` a built-in model is given one of its held-out problems.
        raw: the prompt is what the model reads, without the chat template.
        min_p, stop: as in `Sampling`.
        file: one prompt a line (.txt), or rows (.jsonl, .parquet) of which `column` holds the prompt; by default
            `prompt`, or `problem` where there is no such column.
        to: where the completions of `file` go; by default next to it.
        cache_dtype: of the key-value cache, float32, bfloat16 or int8; by default the model's.

    Raises ValueError of one line for values out of range and options that do not go together.
    """

    policy: Settings = field(default_factory=Settings)
    prompt: str | None = None
    raw: bool = False
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    file: Path | None = None
    column: str | None = None
    to: Path | None = None
    cache_dtype: str | None = None

    def __post_init__(self):
        Sampling(min_p=self.min_p, stop=self.stop)  # raises for what is out of range
        has_prompt, has_file = self.prompt is not None, self.file is not None
        require(
            (not (has_prompt and has_file), "give --prompt or --file, not both"),
            (self.prompt is None or self.prompt.strip() or (self.raw and self.prompt), "--prompt is empty"),
            (has_file or self.to is None, "--to is for the completions of a --file, and there is none"),
            (has_file or self.column is None, "--column is a column of a --file, and there is none"),
            (has_prompt or has_file or not self.raw, "--raw needs a --prompt or a --file"),
            (
                not self.raw or self.policy.thinking is None,
                "--raw leaves out the chat template, which is what --thinking and --no-thinking set",
            ),
            (self.file is None or self.file.is_file(), f"--file {self.file}: there is no such file"),
            (
                self.file is None or self.file.name.lower().endswith(PROMPTS),
                f"--file {self.file}: the name of a file of prompts ends in one of {', '.join(PROMPTS)}",
            ),
            (not self.raw or self.policy.system is None, "--raw leaves out the chat template, and so --system"),
            (
                self.column is None or self.file is None or self.file.suffix != ".txt",
                "--column: a .txt file has no columns",
            ),
        )

    @property
    def samples(self) -> int:
        """Completions of each prompt."""
        return self.policy.samples or 1

    def protocol(self, *, built_in: str | None) -> Protocol:
        """Sampling settings: the paper's evaluation protocol except for its length, with the given fields in place of
        its own."""
        given = self.policy
        return with_overrides(
            Protocol(max_new_tokens=MAX_NEW_TOKENS) if built_in is None else BENCHMARKS[built_in].protocol,
            temperature=given.temperature,
            top_p=given.top_p,
            top_k=given.top_k,
            max_new_tokens=given.max_new_tokens,
            thinking=given.thinking,
        )
