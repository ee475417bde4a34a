"""Reward and advantage, the gradient steps, and held-out evaluation before, between and after them."""

from dataclasses import dataclass
from typing import Literal

from egrsd_jax.objective.settings import OPEN
from egrsd_jax.ranges import BELOW_ONE, SAMPLING_RANGES, at_least, check_ranges, over


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
