"""The whole run as one value: frozen dataclasses, one a station of the training line. Imports no jax.

A field's default is the published setting where the paper states one. YAML files under `configs/` and the command line
change fields; `launch/` reads both into a `Config`.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from egrsd_jax.config_checks import check
from egrsd_jax.data.prompts import CONCISE_TEMPLATE, STUDENT_TEMPLATE, TEACHER_TEMPLATE
from egrsd_jax.objective.settings import MethodSettings, published
from egrsd_jax.probes.settings import ProbeSettings

# What may change while a run is gone on with: where and how fast it runs, not what it computes.
FREE = {
    "run": None,
    "probes": None,
    "model": ("data", "fsdp", "tensor", "rematerialise"),
    "rollout": ("slots",),
    "train": ("steps", "micro_batch_size", "checkpoint_every", "keep_checkpoints", "keep_best", "sample_every"),
    "evaluation": ("slots", "every"),
}


@dataclass(frozen=True)
class RunSettings:
    """Where a run keeps what it leaves.

    Args:
        dir: folder of all runs.
        name: this run's folder inside it. By default it is made of the model, the method and the seed.
        track: where metrics go besides metrics.jsonl: `none`, `tensorboard`, or TensorBoard and `wandb` or `trackio`.
        coordinator: for several hosts, `auto` on a TPU pod or under Slurm, else the first host's ADDRESS:PORT.
        hosts: how many hosts take part, where the coordinator is an address.
        host: which of them this one is, from 0.
    """

    dir: str = "runs"
    name: str | None = None
    track: Literal["none", "tensorboard", "wandb", "trackio"] = "tensorboard"
    coordinator: str | None = None
    hosts: int | None = None
    host: int | None = None


@dataclass(frozen=True)
class ModelSettings:
    """The model that is trained, and the mesh it lies on.

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


@dataclass(frozen=True)
class LoraSettings:
    """The adapter on all seven projections of every layer.

    Args:
        rank: r; 0 trains all weights instead and keeps a frozen copy of them as the teacher.
        alpha: the adapter's output is scaled by alpha / rank.
        dropout: share of the adapter's inputs that are dropped while it is trained; not in sampling and scoring.
    """

    rank: int = 64
    alpha: float = 128.0
    dropout: float = 0.0


@dataclass(frozen=True)
class DataSettings:
    r"""The problems to train on.

    Args:
        path: a .jsonl or .parquet file, a Hugging Face data set name, or a built-in task, `arithmetic` or `orders`.
        name: the data set's configuration on the hub, such as `main` of openai/gsm8k.
        split: the data set's split on the hub.
        problem: column of the problem.
        solution: column of the reference solution, which the teacher alone sees.
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


@dataclass(frozen=True)
class PromptSettings:
    """What the student and the teacher are asked; `{problem}` and `{solution}` are filled in.

    Args:
        student: the student's user turn.
        teacher: the teacher's user turn.
        concise: the teacher's user turn where method.privilege is `concise`; it has no solution.
        student_thinking: thinking mode of the chat template for the student. On, a small cap cuts most completions off.
        teacher_thinking: thinking mode of the chat template for the teacher.
    """

    student: str = STUDENT_TEMPLATE
    teacher: str = TEACHER_TEMPLATE
    concise: str = CONCISE_TEMPLATE
    student_thinking: bool = False
    teacher_thinking: bool = True


@dataclass(frozen=True)
class RolloutSettings:
    """How the student's completions are sampled.

    Args:
        temperature: divides the logits; 0 is greedy.
        top_p: the most likely tokens that together reach this probability; 1 is no limit.
        top_k: the k most likely tokens; 0 is no limit.
        min_p: tokens at least this much as likely as the most likely one; 0 is no limit.
        max_new_tokens: L_max, tokens of a completion at most, its end of turn included.
        samples_per_problem: completions of each problem in a step; by default what the method was published with.
        slots: completions decoded side by side; by default all of a step's.
    """

    temperature: float = 1.1
    top_p: float = 0.95
    top_k: int = 20
    min_p: float = 0.0
    max_new_tokens: int = 1024
    samples_per_problem: int | None = None
    slots: int | None = None


@dataclass(frozen=True)
class RewardSettings:
    """From a graded completion to its advantage.

    Args:
        length_bonus: beta_L; a right completion earns 1 + beta_L (1 - length / L_max), a wrong one 0.
        advantage: whitened by the running moments of all earlier rewards, standardised within a problem's group, or
            less the group's mean alone (group_centred); by default what the method was published with.
        warmup_steps: steps before the running moments are used.
        warmup_baseline: what is subtracted from the reward until then.
        min_std: below this running standard deviation the advantage is not divided by it.
        ddof: 0 divides the running variance by n, 1 by n - 1.
    """

    length_bonus: float = 0.5
    advantage: Literal["running", "group", "group_centred"] | None = None
    warmup_steps: int = 10
    warmup_baseline: float = 0.5
    min_std: float = 1e-6
    ddof: Literal[0, 1] = 0


@dataclass(frozen=True)
class TrainSettings:
    """The gradient steps.

    Args:
        steps: how many; each is one batch of fresh completions and one update.
        batch_size: completions a step.
        micro_batch_size: completions whose gradient is taken at once, at most; by default all. It never changes the
            result, and is rounded up to a multiple of the devices that share a batch.
        learning_rate: AdamW's, constant after the warm-up.
        warmup_steps: steps over which the learning rate rises from 0.
        max_grad_norm: the gradient's global norm is clipped to this.
        adam_b1: decay of the gradient's running mean.
        adam_b2: decay of the running mean of its square.
        adam_eps: added to the square root of that mean.
        weight_decay: decoupled weight decay.
        checkpoint_every: steps between checkpoints; the last step always leaves one.
        keep_checkpoints: how many are kept, the newest.
        keep_best: how many are kept beside these, those with the best held-out evaluations.
        sample_every: steps between the sample completions shown and kept with their token weights.
    """

    steps: int = 100
    batch_size: int = 32
    micro_batch_size: int | None = None
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
        probes: what is watched beside the reward, and when it alarms.
    """

    seed: int = 0
    run: RunSettings = field(default_factory=RunSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    data: DataSettings = field(default_factory=DataSettings)
    prompt: PromptSettings = field(default_factory=PromptSettings)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    reward: RewardSettings = field(default_factory=RewardSettings)
    method: MethodSettings = field(default_factory=MethodSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    probes: ProbeSettings = field(default_factory=ProbeSettings)

    def __post_init__(self):
        check(self)

    def resolved(self) -> "Config":
        """The same run with every default that depends on another field filled in, and every other one left alone."""
        rollout, train, name = self.rollout, self.train, self.method.name
        return replace(
            self,
            method=self.method.resolved(rollout_temperature=rollout.temperature, steps=train.steps),
            reward=replace(self.reward, advantage=self.reward.advantage or published(name).advantage),
            rollout=replace(
                rollout,
                slots=rollout.slots or train.batch_size,
                samples_per_problem=rollout.samples_per_problem or published(name).samples_per_problem,
            ),
            train=replace(train, micro_batch_size=min(train.micro_batch_size or train.batch_size, train.batch_size)),
        )


def binding(settings: dict[str, Any]) -> dict[str, Any]:
    """Of a resolved configuration's `asdict`, what a checkpoint is bound to: all but `FREE`."""
    kept = dict(settings)
    for section, fields in FREE.items():
        if fields is None:
            kept.pop(section, None)  # older runs have no probes
        else:
            kept[section] = {name: value for name, value in settings[section].items() if name not in fields}
    return kept
