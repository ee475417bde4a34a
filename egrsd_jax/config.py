"""The whole run as one value: frozen dataclasses, one per stage of training. Imports no jax.

A field's default is the published setting where the paper states one. A default of `OPEN` stands for a value that
follows from other fields; making a Config fills it in, so no field of a Config is open. Each section checks its own
fields, and Config what holds across them. `command_line.py` reads YAML files and options into a Config.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from egrsd_jax.data.prompts import (
    CONCISE_TEMPLATE,
    STUDENT_TEMPLATE,
    TEACHER_TEMPLATE,
    AnswerFormat,
    PromptTemplates,
)
from egrsd_jax.objective.methods import METHODS, method_settings
from egrsd_jax.objective.settings import (
    OPEN,
    MethodSettings,
    privilege,
    reads_completions,
    teacher_mix,
    teacher_schedule,
)
from egrsd_jax.probes.settings import ProbeSettings
from egrsd_jax.ranges import BELOW_ONE, SAMPLING_RANGES, UNIT, at_least, check_ranges, over, require

# Fields that earlier versions did not have. A checkpoint is bound to them where they are not at these values.
NEWER: dict[str, dict[str, Any]] = {
    "prompt": {"system": "", "examples": (), "answer_format": "boxed"},
    "lora": {"path": None},
    "rollout": {"ahead": 0, "stored": None},
    "method": {
        **{"negative_only": False, "clip_low": 0.2, "clip_high": 0.28},  # rlsd
        **{"signal": "teacher_entropy", "gate_direction": "down", "agreement": 1.0},  # the gate
        **{"teacher_growth": 0.2, "teacher_mix": 1.0, "retire_after": 0},  # the teacher
        **{"over": "top", "rest": "bucket", "ratio_cap": 0.0},  # sdpo
    },
}
SERVER_WAIT, SERVER_TIMEOUT, SERVER_IN_FLIGHT = 1800.0, 3600.0, 64

# What may change when a run is resumed: where and how fast it runs, not what it computes.
FREE = {
    "run": None,
    "probes": None,
    "model": ("data", "fsdp", "tensor", "rematerialise"),
    "rollout": (
        "max_rows",
        "server",
        "served",
        "shared",
        "shared_on_server",
        "in_flight",
        "server_wait",
        "server_timeout",
        "gap_warns",
        "gap_stops",
    ),
    "train": (
        "steps",
        "micro_batch_size",
        "micro_batch_tokens",
        "checkpoint_every",
        "keep_checkpoints",
        "keep_best",
        "sample_every",
    ),
    "evaluation": ("every",),
}


@dataclass(frozen=True)
class RunSettings:
    """Where a run keeps what it leaves.

    Args:
        dir: folder of all runs.
        name: this run's folder inside it. By default it is made of the model, the method and the seed.
        track: where metrics go besides metrics.jsonl: `auto` is TensorBoard where it is installed; `none`,
            `tensorboard`, or `wandb` or `trackio` next to it.
        coordinator: for several hosts, `auto` on a TPU pod or under Slurm, else the first host's ADDRESS:PORT.
        hosts: how many hosts take part, where the coordinator is an address.
        host: which of them this one is, from 0.
        heartbeat: seconds without a sign of life from a host after which the others end.
        grace: seconds that a run has, after Ctrl-C or SIGTERM, to end its step and write a checkpoint.
        restart: moves what an earlier run left in this run's folder aside, and starts over.
        older_checkpoint: where the newest checkpoint is damaged, resumes from the newest one that is whole.
        compilation_cache: folder of compiled programs, which a later start reads instead of compiling; `off` is none.
            `auto` is what EGRSD_COMPILATION_CACHE or JAX_COMPILATION_CACHE_DIR say, else the user's cache folder.
    """

    dir: str = "runs"
    name: str | None = None
    track: Literal["auto", "none", "tensorboard", "wandb", "trackio"] = "auto"
    coordinator: str | None = None
    hosts: int | None = None
    host: int | None = None
    heartbeat: int = 100
    grace: float = 25.0
    restart: bool = False
    older_checkpoint: bool = False
    compilation_cache: str = "auto"

    def __post_init__(self):
        check_ranges("run.", self, {"heartbeat": at_least(1), "grace": at_least(0)})
        fix = "it must be a folder, auto or off"
        require((bool(self.compilation_cache.strip()), f"run.compilation_cache is empty; {fix}"))


@dataclass(frozen=True)
class ModelSettings:
    """The model that is trained, and the mesh that it is sharded over.

    Args:
        path: a Hugging Face folder, a hub repository such as Qwen/Qwen3-4B, or a built-in model, `arithmetic` or
            `orders`.
        dtype: what matrices are multiplied in: bfloat16 or float32.
        param_dtype: what the base weights are kept in.
        rematerialise: what the backward pass computes again instead of keeping it: `none`; with `dots` all but products
            with weights; `full` everything but each layer's input, the least memory.
        data: devices over which the batch alone is split; -1 takes what the other two leave.
        fsdp: devices over which the batch and every weight are split; -1 takes what the other two leave.
        tensor: devices over which heads and hidden units are split.
    """

    path: str = "arithmetic"
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    param_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    rematerialise: Literal["none", "dots", "full"] = "full"
    data: int = 1
    fsdp: int = -1
    tensor: int = 1

    def __post_init__(self):
        for name in ("data", "fsdp", "tensor"):
            devices = getattr(self, name)
            fix = "it must be at least 1, or -1 for what the other two leave"
            require((devices == -1 or devices >= 1, f"model.{name} is {devices}; {fix}"))


@dataclass(frozen=True)
class LoraSettings:
    """The adapter on all seven projections of every layer.

    Args:
        rank: r; 0 trains all weights instead and keeps a frozen copy of them as the teacher.
        alpha: the adapter's output is scaled by alpha / rank.
        dropout: share of the adapter's inputs that are dropped while it is trained; not in sampling and scoring.
        path: a PEFT folder whose adapter is trained further; rank and alpha are then its own. The frozen teacher and
            the initial model are the base with it.
    """

    rank: int = 64
    alpha: float = 128.0
    dropout: float = 0.0
    path: str | None = None

    def __post_init__(self):
        require(
            (
                self.path is None or self.rank > 0,
                "lora.path names an adapter, and lora.rank is 0, which trains all weights; give a lora.rank over 0, "
                "which then becomes the adapter's own",
            ),
            (self.rank >= 0, f"lora.rank is {self.rank}; it must be at least 0, and 0 trains all weights"),
            (
                not (self.rank == 0 and self.dropout),
                "lora.dropout needs an adapter: lora.rank is 0, which trains all weights",
            ),
        )
        check_ranges("lora.", self, {"alpha": over(0), "dropout": BELOW_ONE})


@dataclass(frozen=True)
class DataSettings:
    r"""The problems to train on.

    Args:
        path: a file (.jsonl, .json, .csv, .tsv, .parquet, .arrow; .gz too) or a folder of them, a Hugging Face data set
            name, or a built-in task: `arithmetic`, `orders`, `words`, `words-easy`, `words-hard`, or
            `words-rechecked` and so on, whose references check steps.
        name: the data set's configuration, on the hub or in a folder, such as `main` of openai/gsm8k.
        split: the data set's split, on the hub or in a folder.
        problem: column of the problem, or a.b, the field b in the column a; of a conversation the user's turn.
        solution: column of the reference solution, which the teacher alone sees; of a conversation the model's turn. A
            method without a teacher that sees it needs none.
        answer: column of the final answer; where it is missing, the solution's last \boxed{} or its #### counts.
        on_bad_row: a row with an empty problem, solution or answer is an error, or is skipped and counted.
        max_prompt_tokens: problems whose student or teacher prompt is longer are skipped and counted.
        train_problems: how many problems a built-in task draws; files and data sets are read whole.
    """

    path: str = "arithmetic"
    name: str | None = None
    split: str = "train"
    problem: str = "problem"
    solution: str = "solution"
    answer: str = "answer"
    on_bad_row: Literal["error", "skip"] = "error"
    max_prompt_tokens: int = 8192
    train_problems: int = 20_000

    def __post_init__(self):
        check_ranges("data.", self, {"max_prompt_tokens": at_least(1), "train_problems": at_least(1)})


@dataclass(frozen=True)
class PromptSettings:
    """What the student and the teacher are asked; `{problem}` and `{solution}` are filled in.

    Args:
        student: the student's user turn.
        teacher: the teacher's user turn.
        concise: the teacher's user turn where method.privilege is `concise`; it has no solution.
        student_thinking: thinking mode of the chat template for the student. On, a small cap cuts most completions off.
        teacher_thinking: thinking mode of the chat template for the teacher.
        system: the system's turn that every prompt begins with; without one it is the one that the data has, if any.
        examples: worked problems that come before every prompt's own turn, a list of pairs of a problem, which is
            worded as the student's, and its solution, which is the model's turn.
        answer_format: where a completion has its answer: in a box, as its last number, or after the last of these words
            on their line. The templates have to ask for it.
    """

    student: str = STUDENT_TEMPLATE
    teacher: str = TEACHER_TEMPLATE
    concise: str = CONCISE_TEMPLATE
    student_thinking: bool = False
    teacher_thinking: bool = True
    system: str = ""
    examples: tuple[tuple[str, str], ...] = ()
    answer_format: AnswerFormat = "boxed"

    def __post_init__(self):
        require(
            (
                all(text.strip() for pair in self.examples for text in pair),
                "prompt.examples has an empty text; it is a list of pairs, a problem and its solution",
            )
        )

    def templates(self, *, thinking: bool | None = None) -> PromptTemplates:
        """What prompts are encoded with; `thinking` in the place of the student's own, where it is given."""
        return PromptTemplates(
            student=self.student,
            teacher=self.teacher,
            student_thinking=self.student_thinking if thinking is None else thinking,
            teacher_thinking=self.teacher_thinking,
            system=self.system,
            examples=self.examples,
        )


@dataclass(frozen=True)
class RolloutSettings:
    """How the student's completions are sampled.

    Args:
        temperature: divides the logits; 0 is greedy. By default what the method was published with, as the next two.
        top_p: the most likely tokens that together reach this probability; 1 is no limit.
        top_k: the k most likely tokens; 0 is no limit.
        min_p: tokens at least this much as likely as the most likely one; 0 is no limit.
        max_new_tokens: L_max, tokens of a completion at most, its end of turn included.
        samples_per_problem: completions of each problem in a step; by default what the method was published with.
        max_rows: completions decoded together, at most; by default all of a step's.
        weights_dtype: what prompts and sampled tokens are multiplied with, in evaluations too; by default model.dtype.
        server: address of a vLLM or SGLang server that samples instead of this process, evaluations included, with the
            weights of each step; several are separated by commas. It needs no memory for rollouts here.
        served: the model's name there, where a server has several.
        shared: folder that run and servers both read, where each step's weights are written for them; by default
            `served` in the run's folder.
        shared_on_server: that folder's path on the servers, where it is another one.
        in_flight: completions that each server is asked for at once.
        server_wait: seconds that a server which is gone or busy is waited for, in all, before the others do without it,
            or the run ends.
        server_timeout: seconds without a word after which a completion is asked for again.
        gap_warns: nats per token; a run warns where sampler and trainer differ by more, on average.
        gap_stops: nats per token; a run ends where they differ by more. By default 0.05 where both are here and
            multiply in float32, 0.5 with a server, else never.
        ahead: a step's completions are sampled by the student of so many steps before, at most. 0 is strictly
            on-policy. method.importance corrects for it; docs/cluster.md has what it is for.
        stored: a file of completions by the policy before training, from which every step takes its own. What it lacks
            is sampled and added, so that the first run fills it and later ones, of other methods too, sample nothing.
    """

    temperature: float = OPEN
    top_p: float = OPEN
    top_k: int = OPEN
    min_p: float = 0.0
    max_new_tokens: int = 1024
    samples_per_problem: int = OPEN
    max_rows: int = OPEN
    weights_dtype: Literal["float32", "bfloat16"] | None = None
    server: str | None = None
    served: str | None = None
    shared: str | None = None
    shared_on_server: str | None = None
    in_flight: int = SERVER_IN_FLIGHT
    server_wait: float = SERVER_WAIT
    server_timeout: float = SERVER_TIMEOUT
    gap_warns: float = 0.02
    gap_stops: float | None = None
    ahead: int = 0
    stored: str | None = None

    @property
    def servers(self) -> tuple[str, ...]:
        """The addresses of the servers; none where this process samples."""
        return () if self.server is None else tuple(url.strip() for url in self.server.split(","))

    def __post_init__(self):
        check_ranges(
            "rollout.",
            self,
            {
                **SAMPLING_RANGES,
                "min_p": UNIT.noted("0 is no limit"),
                "max_rows": at_least(1),
                "in_flight": at_least(1),
                "server_wait": at_least(0),
                "server_timeout": over(0),
                "gap_warns": over(0),
                "gap_stops": over(0),
                "ahead": at_least(0).noted("0 is on-policy"),
            },
        )
        _check_server(self)


def _check_server(settings: RolloutSettings) -> None:
    """Raises ValueError for fields about a server that contradict each other."""
    alone: dict[str, Any] = {"served": None, "shared": None, "shared_on_server": None}
    alone |= {"in_flight": SERVER_IN_FLIGHT, "server_wait": SERVER_WAIT, "server_timeout": SERVER_TIMEOUT}
    urls, warns, stops = settings.servers, settings.gap_warns, settings.gap_stops
    fix = "it must be an address such as http://localhost:8000, or several that are separated by commas"
    require(
        *(
            (urls or getattr(settings, name) == value, f"rollout.{name} is for a rollout.server, and there is none")
            for name, value in alone.items()
        ),
        *((url.startswith(("http://", "https://")), f"rollout.server has {url!r}; {fix}") for url in urls),
        (len(set(urls)) == len(urls), f"rollout.server {settings.server} names a server twice"),
        (
            not urls or settings.stored is None,
            "rollout.stored is sampled in this process, with the weights before training; leave out rollout.server",
        ),
        (
            not urls or settings.weights_dtype is None,
            "rollout.weights_dtype is not for a rollout.server: it has its own",
        ),
        (
            stops is None or stops >= warns,
            f"rollout.gap_stops is {stops}; it must be at least rollout.gap_warns, {warns}",
        ),
    )


@dataclass(frozen=True)
class RewardSettings:
    """From a graded completion to its advantage.

    Args:
        length_bonus: beta_L; a correct completion earns 1 + beta_L (1 - length / L_max), a wrong one 0.
        advantage: whitened by the running moments of all earlier rewards, standardised within a problem's group, or
            less the group's mean alone (group_centred); by default what the method was published with.
        warmup_steps: steps before the running moments are used.
        warmup_baseline: what is subtracted from the reward until then.
        min_std: below this running standard deviation the advantage is not divided by it.
        ddof: 0 divides the running variance by n, 1 by n - 1.
    """

    length_bonus: float = 0.5
    advantage: Literal["running", "group", "group_centred"] = OPEN
    warmup_steps: int = 10
    warmup_baseline: float = 0.5
    min_std: float = 1e-6
    ddof: Literal[0, 1] = 0

    def __post_init__(self):
        check_ranges("reward.", self, {"length_bonus": at_least(0), "warmup_steps": at_least(0), "min_std": over(0)})


@dataclass(frozen=True)
class TrainSettings:
    """The gradient steps.

    Args:
        steps: how many; each is one batch of fresh completions and one update.
        batch_size: completions a step.
        micro_batch_size: completions whose gradient is taken at once, each in a row of its own, as long as the step's
            longest; rounded up to a multiple of the devices that share a batch. None, the default, lets completions
            share rows of few lengths, which are chosen by the data: less padding, and no new shape during the run.
            Neither changes the result.
        micro_batch_tokens: where completions share rows, positions whose gradient is taken at once on each device, at
            most. None is one row for the longest prompt with a whole completion, or on a single device as many rows as
            512 positions hold; less than such a row is refused.
        learning_rate: AdamW's, constant after the warm-up.
        warmup_steps: steps over which the learning rate rises from 0.
        max_grad_norm: the gradient's global norm is clipped to this.
        adam_b1: decay of the gradient's running mean.
        adam_b2: decay of the running mean of its square.
        adam_eps: added to the square root of that mean.
        weight_decay: decoupled weight decay.
        checkpoint_every: steps between checkpoints; the last step always leaves one.
        keep_checkpoints: how many are kept, the newest.
        keep_best: how many are kept in addition, those with the best held-out evaluations.
        sample_every: steps between the sample completions shown and kept with their token weights.
    """

    steps: int = 100
    batch_size: int = 32
    micro_batch_size: int | None = None
    micro_batch_tokens: int | None = None
    learning_rate: float = 5e-6
    warmup_steps: int = 0
    max_grad_norm: float = 0.1
    adam_b1: float = 0.9
    adam_b2: float = 0.999
    adam_eps: float = 1e-8
    weight_decay: float = 0.0
    checkpoint_every: int = 25
    keep_checkpoints: int = 4
    keep_best: int = 1
    sample_every: int = 10

    def __post_init__(self):
        check_ranges(
            "train.",
            self,
            {
                "steps": at_least(1),
                "batch_size": at_least(1),
                "micro_batch_size": at_least(1).noted("null lets completions share rows"),
                "micro_batch_tokens": at_least(1).noted("null is one row"),
                "learning_rate": over(0),
                "warmup_steps": at_least(0),
                "max_grad_norm": over(0),
                "adam_b1": BELOW_ONE,
                "adam_b2": BELOW_ONE,
                "adam_eps": over(0),
                "weight_decay": at_least(0),
                "checkpoint_every": at_least(1),
                "keep_checkpoints": at_least(1),
                "keep_best": at_least(0),
                "sample_every": at_least(1),
            },
        )


@dataclass(frozen=True)
class EvaluationSettings:
    """Accuracy and length on held-out problems, before and after.

    Args:
        path: a file or data set as under `data`, or a built-in task; none evaluates nothing.
        name: the data set's configuration on the hub.
        split: the data set's split on the hub.
        problem: column of the problem.
        answer: column of the answer.
        problems: how many problems; none takes all.
        samples: completions of each problem.
        temperature: of sampling.
        top_p: of sampling.
        top_k: of sampling; 0 is no limit.
        max_new_tokens: tokens of a completion at most.
        thinking: thinking mode of the chat template.
        every: steps between evaluations on the way; 0 is only before and after.
    """

    path: str | None = None
    name: str | None = None
    split: str = "test"
    problem: str = "problem"
    answer: str = "answer"
    problems: int | None = None
    samples: int = 4
    temperature: float = 1.0
    top_p: float = 0.95
    top_k: int = 0
    max_new_tokens: int = 32_768
    thinking: bool = True
    every: int = 0

    def __post_init__(self):
        check_ranges(
            "evaluation.",
            self,
            {
                **SAMPLING_RANGES,
                "problems": at_least(2).noted("null takes all"),
                "samples": at_least(1),
                "every": at_least(0).noted("0 is never"),
            },
        )


@dataclass(frozen=True)
class Config:
    """A training run.

    Args:
        seed: of the problems' order, of sampling, and of the adapter's initial values.
        run: where the run keeps what it leaves.
        model: the model and its mesh.
        lora: the adapter.
        data: the problems.
        prompt: the prompts.
        rollout: sampling of the student's completions.
        reward: reward and advantage.
        method: the objective.
        train: the gradient steps.
        evaluation: held-out evaluation.
        probes: what is watched next to the reward, and when it alarms.
    """

    seed: int = 0
    run: RunSettings = field(default_factory=RunSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    data: DataSettings = field(default_factory=DataSettings)
    prompt: PromptSettings = field(default_factory=PromptSettings)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    reward: RewardSettings = field(default_factory=RewardSettings)
    method: MethodSettings = field(default_factory=lambda: method_settings("egrsd"))
    train: TrainSettings = field(default_factory=TrainSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    probes: ProbeSettings = field(default_factory=ProbeSettings)

    def __post_init__(self):
        method, batch = METHODS[self.method.name], self.train.batch_size
        rollout = _filled(
            self.rollout,
            **method.sampling._asdict(),
            samples_per_problem=method.samples_per_problem,
            max_rows=batch,
        )
        filled = {
            "method": self.method.in_run(rollout_temperature=rollout.temperature),
            "reward": _filled(self.reward, advantage=method.advantage),
            "rollout": rollout,
        }
        if self.train.micro_batch_size is not None:
            filled["train"] = replace(self.train, micro_batch_size=min(self.train.micro_batch_size, batch))
        for section, settings in filled.items():
            object.__setattr__(self, section, settings)
        self._check()

    def _check(self) -> None:
        """Raises ValueError for fields of different sections that contradict each other."""
        method, settings, batch = METHODS[self.method.name], self.method, self.train.batch_size
        group, published = self.rollout.samples_per_problem, method.samples_per_problem
        check_ranges("", self, {"seed": at_least(0)})
        require(
            (
                self.train.micro_batch_size is None or self.train.micro_batch_tokens is None,
                "train.micro_batch_size gives each completion a row of its own, and train.micro_batch_tokens is for "
                "rows that they share; give one of the two",
            ),
            (
                group >= 1 and batch % group == 0,
                f"rollout.samples_per_problem is {group} ({settings.name} was published with {published}); it must "
                f"divide train.batch_size, {batch}",
            ),
            (
                not self.reward.advantage.startswith("group") or group > 1,
                f"reward.advantage is {self.reward.advantage}, which compares completions of one problem; "
                "rollout.samples_per_problem must be at least 2",
            ),
            (
                not (settings.pace_right or settings.pace_wrong) or group > 1,
                "method.pace_right and pace_wrong weight by the pass rate of a problem's completions; "
                "rollout.samples_per_problem must be at least 2",
            ),
            (
                not self.rollout.ahead or method.writer == "student",
                f"rollout.ahead is {self.rollout.ahead}, and {settings.name} learns from completions that are not the "
                "student's alone; leave rollout.ahead at 0",
            ),
            (
                not (self.rollout.ahead and getattr(settings, "ratio_cap", 0)) or settings.importance == "none",
                f"method.ratio_cap and method.importance {settings.importance} both correct for completions of an "
                "older student; set method.ratio_cap to 0, or method.importance to none",
            ),
            (
                not (self.rollout.ahead and self.lora.dropout) or settings.importance == "none",
                f"method.importance {settings.importance} compares the student with the one that sampled, and "
                f"lora.dropout {self.lora.dropout} changes it at random; set lora.dropout to 0, or method.importance "
                "to none",
            ),
            (
                self.rollout.stored is None or not self.rollout.ahead,
                f"rollout.stored samples with the policy before training, and rollout.ahead is {self.rollout.ahead}; "
                "leave one of them out",
            ),
            (
                self.rollout.stored is None or method.writer in ("student", "initial"),
                f"rollout.stored has completions of the student's before training, and {settings.name} learns from "
                "others; leave it out",
            ),
            (
                self.rollout.stored is None or self.lora.path is None or teacher_schedule(settings) == "frozen",
                f"rollout.stored needs the adapter of lora.path as it was, and a teacher that is "
                f"{teacher_schedule(settings)} does not keep it; set method.teacher to frozen",
            ),
            (
                not method.mixed_groups_only or group > 1,
                f"{settings.name} drops problems that all completions solve, or none; rollout.samples_per_problem must "
                "be at least 2",
            ),
        )
        settings.check_group(group)
        require(
            (
                not (reads_completions(settings) or method.shortest_correct_only)
                or (group > 1 and method.writer == "student"),
                f"{settings.name} with method.privilege {privilege(settings)} compares the student's completions of "
                "one problem; rollout.samples_per_problem must be at least 2, and the student must write all of them",
            )
        )
        require(
            (
                self.lora.path is None or teacher_mix(settings) == 1,
                f"method.teacher_mix is {teacher_mix(settings)}, which mixes the teacher with the base, and lora.path "
                "begins with an adapter; leave method.teacher_mix at 1",
            )
        )


def _filled(section: Any, **values: Any) -> Any:
    """The section with `values` in the place of fields that are open."""
    is_open = {name: value for name, value in values.items() if getattr(section, name) is OPEN}
    return replace(section, **is_open) if is_open else section


def binding(settings: dict[str, Any]) -> dict[str, Any]:
    """Of a configuration's `asdict`, what a checkpoint is bound to: all but `FREE`, and what has no effect."""
    kept = dict(settings)
    if not settings["rollout"].get("ahead"):  # what corrects for older students then corrects nothing
        importance = ("importance", "importance_cap")
        kept["method"] = {name: value for name, value in settings["method"].items() if name not in importance}
    for section, fields in FREE.items():
        if fields is None:
            kept.pop(section, None)  # older runs have no probes
        else:
            kept[section] = {name: value for name, value in settings[section].items() if name not in fields}
    for section, defaults in NEWER.items():
        kept[section] = {
            name: _as_lists(value)
            for name, value in kept[section].items()
            if name not in defaults or _as_lists(value) != _as_lists(defaults[name])
        }
    return kept


def _as_lists(value: Any) -> Any:
    """Tuples as the lists that JSON and YAML have in their place."""
    return [_as_lists(entry) for entry in value] if isinstance(value, list | tuple) else value
