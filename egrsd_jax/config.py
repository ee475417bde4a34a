"""The whole run as one value: frozen dataclasses, one a station of the training line. Imports no jax.

A field's default is the published setting where the paper states one. YAML files under `configs/` and the command line
change fields; `launch/` reads both into a `Config`.
"""

from dataclasses import dataclass, field, replace
from math import inf
from typing import Literal, NamedTuple

from egrsd_jax.data.prompts import STUDENT_TEMPLATE, TEACHER_TEMPLATE


@dataclass(frozen=True)
class RunSettings:
    """Where a run keeps what it leaves.

    Args:
        dir: folder of all runs.
        name: this run's folder inside it. By default it is made of the model, the method and the seed.
        coordinator: for several hosts, `auto` on a TPU pod or under Slurm, else the first host's ADDRESS:PORT.
        hosts: how many hosts take part, where the coordinator is an address.
        host: which of them this one is, from 0.
    """

    dir: str = "runs"
    name: str | None = None
    coordinator: str | None = None
    hosts: int | None = None
    host: int | None = None


@dataclass(frozen=True)
class ModelSettings:
    """The model that is trained, and the mesh it lies on.

    Args:
        path: a Hugging Face folder, a hub repository such as Qwen/Qwen3-4B, or `arithmetic`, the embedded model.
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
    """

    rank: int = 64
    alpha: float = 128.0


@dataclass(frozen=True)
class DataSettings:
    r"""The problems to train on.

    Args:
        path: a .jsonl or .parquet file, a Hugging Face data set name, or `arithmetic`, the embedded task.
        name: the data set's configuration on the hub, such as `main` of openai/gsm8k.
        split: the data set's split on the hub.
        problem: column of the problem.
        solution: column of the reference solution, which the teacher alone sees.
        answer: column of the final answer; where it is missing, the solution's last \boxed{} or its #### counts.
        on_bad_row: a row with an empty problem, solution or answer is an error, or is skipped and counted.
        max_prompt_tokens: problems whose student or teacher prompt is longer are skipped and counted.
        train_problems: how many problems the embedded task draws; files and data sets are read whole.
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
        student_thinking: thinking mode of the chat template for the student. On, a small cap cuts most completions off.
        teacher_thinking: thinking mode of the chat template for the teacher.
    """

    student: str = STUDENT_TEMPLATE
    teacher: str = TEACHER_TEMPLATE
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
        samples_per_problem: completions of each problem in a step.
        slots: completions decoded side by side; by default all of a step's.
    """

    temperature: float = 1.1
    top_p: float = 0.95
    top_k: int = 20
    min_p: float = 0.0
    max_new_tokens: int = 1024
    samples_per_problem: int = 1
    slots: int | None = None


@dataclass(frozen=True)
class RewardSettings:
    """From a graded completion to its advantage.

    Args:
        length_bonus: beta_L; a right completion earns 1 + beta_L (1 - length / L_max), a wrong one 0.
        advantage: whitened by the running moments of all earlier rewards, or standardised within a problem's group.
        warmup_steps: steps before the running moments are used.
        warmup_baseline: what is subtracted from the reward until then.
        min_std: below this running standard deviation the advantage is not divided by it.
        ddof: 0 divides the running variance by n, 1 by n - 1.
    """

    length_bonus: float = 0.5
    advantage: Literal["running", "group"] = "running"
    warmup_steps: int = 10
    warmup_baseline: float = 0.5
    min_std: float = 1e-6
    ddof: Literal[0, 1] = 0


@dataclass(frozen=True)
class MethodSettings:
    """The objective. The name picks the method and its published gamma and window.

    Args:
        name: egrsd, cl_egrsd (causal lookahead), direction (gamma 0, no gate) or grpo (no teacher at all).
        gamma: strength of the entropy gate, 0 to 1.
        window: W, tokens that the lookahead minimum sees ahead.
        epsilon: the likelihood ratio is clipped to 1 - epsilon .. 1 + epsilon.
        floor: the least weight that the gate leaves.
        scope: what the entropy is divided by: the largest of the batch, of the sequence, or log of the vocabulary.
        denominator: take that largest value before (raw) or after (lookahead) the lookahead minimum.
        reduction: mean over all tokens of the step, or over sequences of each one's mean.
        score_temperature: divides the logits before log-probabilities and entropies are taken.
    """

    name: Literal["egrsd", "cl_egrsd", "direction", "grpo"] = "egrsd"
    gamma: float | None = None
    window: int | None = None
    epsilon: float = 0.2
    floor: float = 0.1
    scope: Literal["batch", "sequence", "log_vocab"] = "batch"
    denominator: Literal["raw", "lookahead"] = "raw"
    reduction: Literal["token", "sequence"] = "token"
    score_temperature: float = 1.0


@dataclass(frozen=True)
class TrainSettings:
    """The gradient steps.

    Args:
        steps: how many; each is one batch of fresh completions and one update.
        batch_size: completions a step.
        micro_batch_size: completions whose gradient is taken at once; by default all. It never changes the result, and
            is rounded up to a multiple of the devices that share a batch.
        learning_rate: AdamW's, constant after the warm-up.
        warmup_steps: steps over which the learning rate rises from 0.
        max_grad_norm: the gradient's global norm is clipped to this.
        adam_b1: decay of the gradient's running mean.
        adam_b2: decay of the running mean of its square.
        adam_eps: added to the square root of that mean.
        weight_decay: decoupled weight decay.
        checkpoint_every: steps between checkpoints; the last step always leaves one.
        keep_checkpoints: how many are kept, the newest.
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
    sample_every: int = 10


@dataclass(frozen=True)
class EvaluationSettings:
    """Accuracy and length on held-out problems, before and after.

    Args:
        path: a file or data set as under `data`, or `arithmetic`; none evaluates nothing.
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
        slots: completions decoded side by side.
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
    slots: int = 16
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

    def __post_init__(self):
        _check(self)

    def resolved(self) -> "Config":
        """The same run with every default that depends on another field filled in, and every other one left alone."""
        published = PUBLISHED_GATE[self.method.name]
        rollout, train = self.rollout, self.train
        return replace(
            self,
            method=replace(
                self.method,
                gamma=published.gamma if self.method.gamma is None else self.method.gamma,
                window=published.window if self.method.window is None else self.method.window,
            ),
            rollout=replace(rollout, slots=rollout.slots or train.batch_size),
            train=replace(train, micro_batch_size=train.micro_batch_size or train.batch_size),
        )


class Gate(NamedTuple):
    """gamma and window of the entropy gate."""

    gamma: float
    window: int


# What each method name means where gamma and window are not given: the paper's settings for Qwen3-4B.
PUBLISHED_GATE = {"egrsd": Gate(0.3, 0), "cl_egrsd": Gate(0.3, 3), "direction": Gate(0.0, 0), "grpo": Gate(0.0, 0)}


def _check(config: Config) -> None:
    """Raises ValueError for fields that contradict each other or lie outside their range."""
    method, rollout, train, reward = config.method, config.rollout, config.train, config.reward
    gamma, window = method.gamma, method.window
    per_problem, batch = rollout.samples_per_problem, train.batch_size
    micro, evaluation, data = train.micro_batch_size, config.evaluation, config.data
    for good, message in (
        (gamma is None or 0 <= gamma <= 1, f"method.gamma is {gamma}; it must be between 0 and 1"),
        (window is None or window >= 0, f"method.window is {window}; it must be at least 0"),
        (
            method.name != "egrsd" or not window,
            f"method.window is {window}, and egrsd looks at no later token; use cl_egrsd",
        ),
        (method.name != "cl_egrsd" or window != 0, "method.window is 0, which makes cl_egrsd egrsd; use egrsd"),
        (
            method.name not in ("direction", "grpo") or not (gamma or window),
            f"method.name {method.name} has no gate, but method.gamma is {gamma} and method.window {window}",
        ),
        (0 <= method.epsilon < 1, f"method.epsilon is {method.epsilon}; it must be at least 0 and under 1"),
        (0 <= method.floor <= 1, f"method.floor is {method.floor}; it must be between 0 and 1"),
        (method.score_temperature > 0, f"method.score_temperature is {method.score_temperature}; it must be over 0"),
        (config.seed >= 0, f"seed is {config.seed}; it must be at least 0"),
        (config.lora.rank >= 0, f"lora.rank is {config.lora.rank}; it must be at least 0, and 0 trains all weights"),
        (train.steps >= 1, f"train.steps is {train.steps}; it must be at least 1"),
        (batch >= 1, f"train.batch_size is {batch}; it must be at least 1"),
        (0 < train.learning_rate < inf, f"train.learning_rate is {train.learning_rate}; it must be over 0 and finite"),
        (train.warmup_steps >= 0, f"train.warmup_steps is {train.warmup_steps}; it must be at least 0"),
        (0 <= train.adam_b1 < 1, f"train.adam_b1 is {train.adam_b1}; it must be at least 0 and under 1"),
        (0 <= train.adam_b2 < 1, f"train.adam_b2 is {train.adam_b2}; it must be at least 0 and under 1"),
        (train.adam_eps > 0, f"train.adam_eps is {train.adam_eps}; it must be over 0"),
        (0 <= train.weight_decay < inf, f"train.weight_decay is {train.weight_decay}; it must be at least 0"),
        (0 < config.lora.alpha < inf, f"lora.alpha is {config.lora.alpha}; it must be over 0 and finite"),
        (reward.length_bonus >= 0, f"reward.length_bonus is {reward.length_bonus}; it must be at least 0"),
        (reward.min_std > 0, f"reward.min_std is {reward.min_std}; it must be over 0"),
        (reward.warmup_steps >= 0, f"reward.warmup_steps is {reward.warmup_steps}; it must be at least 0"),
        (data.max_prompt_tokens >= 1, f"data.max_prompt_tokens is {data.max_prompt_tokens}; it must be at least 1"),
        (data.train_problems >= 1, f"data.train_problems is {data.train_problems}; it must be at least 1"),
        (
            evaluation.problems is None or evaluation.problems >= 2,
            f"evaluation.problems is {evaluation.problems}; it must be at least 2, or null for all",
        ),
        *_sampling_checks("rollout", rollout),
        *_sampling_checks("evaluation", evaluation),
        (train.max_grad_norm > 0, f"train.max_grad_norm is {train.max_grad_norm}; it must be over 0"),
        (train.checkpoint_every >= 1, f"train.checkpoint_every is {train.checkpoint_every}; it must be at least 1"),
        (train.keep_checkpoints >= 1, f"train.keep_checkpoints is {train.keep_checkpoints}; it must be at least 1"),
        (train.sample_every >= 1, f"train.sample_every is {train.sample_every}; it must be at least 1"),
        (
            micro is None or 1 <= micro <= batch,
            f"train.micro_batch_size is {micro}; it must be 1 to train.batch_size, {batch}",
        ),
        (
            per_problem >= 1 and batch % max(per_problem, 1) == 0,
            f"rollout.samples_per_problem is {per_problem}; it must divide train.batch_size, {batch}",
        ),
        (
            reward.advantage != "group" or per_problem > 1,
            "reward.advantage is group, which compares completions of one problem; "
            "rollout.samples_per_problem must be at least 2",
        ),
        (rollout.slots is None or rollout.slots >= 1, f"rollout.slots is {rollout.slots}; it must be at least 1"),
        (evaluation.slots >= 1, f"evaluation.slots is {evaluation.slots}; it must be at least 1"),
        (evaluation.samples >= 1, f"evaluation.samples is {evaluation.samples}; it must be at least 1"),
        (evaluation.every >= 0, f"evaluation.every is {evaluation.every}; it must be at least 0, and 0 is never"),
    ):
        if not good:
            raise ValueError(message)


def _sampling_checks(section: str, rules: RolloutSettings | EvaluationSettings) -> list[tuple[bool, str]]:
    """The ranges of a section that says how completions are sampled."""
    ranges = [
        ("temperature", 0 <= rules.temperature < inf, "at least 0 (0 is greedy)"),
        ("top_p", 0 < rules.top_p <= 1, "over 0 and at most 1 (1 is no limit)"),
        ("top_k", rules.top_k >= 0, "at least 0 (0 is no limit)"),
        ("max_new_tokens", rules.max_new_tokens >= 1, "at least 1"),
    ]
    if isinstance(rules, RolloutSettings):
        ranges.append(("min_p", 0 <= rules.min_p <= 1, "between 0 and 1 (0 is no limit)"))
    return [(good, f"{section}.{name} is {getattr(rules, name)}; it must be {want}") for name, good, want in ranges]
