"""What an evaluation is asked to do, as one frozen value. Imports no jax."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from egrsd_jax.data.prompts import NAMED_TEMPLATES, AnswerFormat
from egrsd_jax.ranges import SAMPLING_RANGES, Range, at_least, check_ranges, over, require
from egrsd_jax.rollout.http.models import KINDS, Kind

DEFAULT_MAX_ROWS = {"arithmetic": 256, "orders": 256}  # completions decoded together; any other benchmark:
OTHER_MAX_ROWS = 16
SERVER_KINDS = KINDS
PROMPTS = tuple(NAMED_TEMPLATES)
FOR_A_FILE = ("problem_column", "answer_column", "solution_column", "tolerance_column", "split", "configuration")
FOR_A_SERVER = ("served", "served_adapter", "in_flight", "server_kind", "server_wait", "server_timeout")


@dataclass(frozen=True)
class Settings:
    """An evaluation. None leaves a choice to the benchmark (its `Protocol`) or to the model.

    Attributes:
        model: a folder, a hub repository, or a built-in model, `arithmetic` or `orders`.
        run: instead of it, the folder of a training run; `step` picks one of its checkpoints.
        base: where the model of `run` is now, if it was moved.
        adapter: a PEFT folder, on top of `model`.
        benchmarks: names; by default the task of a built-in model, and the paper's six for others.
        data: a folder with the benchmarks' files; `files` names single ones.
        problem_column, answer_column, solution_column, tolerance_column: their names in these `files`; where the answer
            is in the solution, that column alone. `split` and `configuration` are those of a data set on the hub.
        samples, temperature, top_p, top_k, max_new_tokens, thinking: in place of the benchmark's own.
        prompt: the same; a template with {problem}, or the name of one.
        system: the system's turn; by default that of the run, or none.
        answer_format: where a completion has its answer; by default as the run reads it, or in a box.
        problems: only the first so many of each benchmark.
        max_rows: completions decoded together.
        server: the address of a server that samples the completions. `model` then names the folder or repository that
            tokenizer and configuration are read from; its weights are not.
        served: the model's name there, where it has several; `served_adapter` that of an adapter that it has loaded.
        in_flight: requests that the server has at once.
        server_kind: how it is spoken to, where its list of models does not say what it is.
        server_wait: seconds that one request waits between its tries, in all.
        server_timeout: seconds without a word after which a request is given up.
        dtype: of weights and of matrix products.
        weights_dtype: what is multiplied with, and nothing else, in another dtype than that.
        mesh: devices for data, fsdp and tensor; one of them may be -1 and takes what the others leave.
        to: the folder that results are kept in.
    """

    model: str = "arithmetic"
    run: Path | None = None
    step: int | None = None
    base: str | None = None
    adapter: Path | None = None
    benchmarks: tuple[str, ...] = ()
    data: Path | None = None
    files: dict[str, Path] = field(default_factory=dict)
    problem_column: str | None = None
    answer_column: str | None = None
    solution_column: str | None = None
    tolerance_column: str | None = None
    split: str | None = None
    configuration: str | None = None
    samples: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_new_tokens: int | None = None
    thinking: bool | None = None
    prompt: str | None = None
    system: str | None = None
    answer_format: AnswerFormat | None = None
    problems: int | None = None
    seed: int = 0
    max_rows: int | None = None
    server: str | None = None
    served: str | None = None
    served_adapter: str | None = None
    in_flight: int | None = None
    server_kind: Kind | None = None
    server_wait: float | None = None
    server_timeout: float | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    weights_dtype: Literal["float32", "bfloat16"] | None = None
    mesh: tuple[int, int, int] = (1, -1, 1)
    to: Path | None = None

    @property
    def prompt_name(self) -> str | None:
        """The name of the prompt, where it was given by name."""
        return self.prompt if self.prompt in NAMED_TEMPLATES else None

    @property
    def template(self) -> str | None:
        """The template of the user's turn; None where it is the benchmark's own."""
        return None if self.prompt is None else NAMED_TEMPLATES.get(self.prompt, self.prompt)

    def __post_init__(self):
        require(
            (self.step is None or self.run is not None, "--step names a checkpoint of a --run, and there is no --run"),
            (self.base is None or self.run is not None, "--base is where a --run's model is, and there is no --run"),
            (self.run is None or self.model == "arithmetic", "give --model or --run: a run names its own base model"),
            (self.run is None or self.adapter is None, "give --adapter or --run: a run has its own weights"),
            (self.run is None or self.dtype is None, "a --run is evaluated in its own model.dtype; leave out --dtype"),
            *_with_server(self),
            *(
                (self.files or getattr(self, name) is None, f"--{name} is for a --file NAME=FILE, and there is none")
                for name in FOR_A_FILE
            ),
        )
        if self.template is not None and "{problem}" not in self.template:
            raise ValueError(
                f"--prompt {self.prompt!r} is neither a template with {{problem}} nor one of {', '.join(PROMPTS)}"
            )
        check_ranges("--", self, _RANGES)
        if unused := sorted(set(self.files) - set(self.benchmarks)):
            raise ValueError(f"--file {unused[0]}=... is not among the benchmarks {', '.join(self.benchmarks)}")
        if len(set(self.benchmarks)) < len(self.benchmarks):
            raise ValueError(f"--benchmarks {' '.join(self.benchmarks)} names one twice")


def _with_server(settings: Settings) -> list[tuple[bool, str]]:
    """What is for a server alone, and what is not for one."""
    if settings.server is None:
        words = dict.fromkeys(FOR_A_SERVER, "is for a --server, and there is none")
    else:
        words = {
            "run": "is not for a --server: serve what `egrsd export` writes of it",
            "adapter": "is not for a --server: name one that it has loaded with --served_adapter",
            "dtype": "is not for a --server: it has its own",
            "weights_dtype": "is not for a --server: it has its own",
            "max_rows": "is not for a --server: give --in_flight",
            "mesh": "is not for a --server: it has devices of its own",
        }
    return [
        (getattr(settings, name) == getattr(Settings, name), f"--{name} {reason}") for name, reason in words.items()
    ]


_RANGES = {
    "samples": at_least(1),
    "problems": at_least(2).noted("one has no standard error"),
    **SAMPLING_RANGES,
    "max_rows": at_least(1),
    "in_flight": at_least(1),
    "server_wait": at_least(0),
    "server_timeout": over(0),
    "seed": Range(0, 2**32, excludes_most=True),
}
