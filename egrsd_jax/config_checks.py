"""What the fields of a configuration must satisfy, alone and together. Imports no jax."""

from math import inf
from typing import TYPE_CHECKING

from egrsd_jax.objective.settings import method_checks, published
from egrsd_jax.probes.settings import probe_checks

if TYPE_CHECKING:
    from egrsd_jax.config import Config, EvaluationSettings, RolloutSettings


def check(config: "Config") -> None:
    """Raises ValueError for fields that contradict each other or lie outside their range."""
    method, rollout, train, reward = config.method, config.rollout, config.train, config.reward
    per_problem = rollout.samples_per_problem or published(method.name).samples_per_problem
    advantage = reward.advantage or published(method.name).advantage
    batch, micro, evaluation, data = train.batch_size, train.micro_batch_size, config.evaluation, config.data
    settings = method.resolved()
    for good, message in (
        *method_checks(method),
        *probe_checks(config.probes),
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
        (0 <= config.lora.dropout < 1, f"lora.dropout is {config.lora.dropout}; it must be at least 0 and under 1"),
        (
            not (config.lora.rank == 0 and config.lora.dropout),
            "lora.dropout needs an adapter: lora.rank is 0, which trains all weights",
        ),
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
        (train.keep_best >= 0, f"train.keep_best is {train.keep_best}; it must be at least 0"),
        (train.sample_every >= 1, f"train.sample_every is {train.sample_every}; it must be at least 1"),
        (
            micro is None or micro >= 1,
            f"train.micro_batch_size is {micro}; it must be at least 1",
        ),
        (
            per_problem >= 1 and batch % max(per_problem, 1) == 0,
            f"rollout.samples_per_problem is {per_problem} ({method.name} was published with "
            f"{published(method.name).samples_per_problem}); it must divide train.batch_size, {batch}",
        ),
        (
            not advantage.startswith("group") or per_problem > 1,
            f"reward.advantage is {advantage}, which compares completions of one problem; "
            "rollout.samples_per_problem must be at least 2",
        ),
        (
            not (settings.pace_right or settings.pace_wrong) or per_problem > 1,
            "method.pace_right and pace_wrong look at the pass rate of a problem's completions; "
            "rollout.samples_per_problem must be at least 2",
        ),
        (
            method.name != "dapo" or per_problem > 1,
            "dapo drops problems that all completions solve, or none; rollout.samples_per_problem must be at least 2",
        ),
        (
            method.name != "gates" or (per_problem % 2 == 0 and per_problem // 2 >= (settings.consensus or 0)),
            f"gates lets the teacher write half of a problem's {per_problem} completions, and {settings.consensus} of "
            "these are to agree; rollout.samples_per_problem must be even and large enough",
        ),
        (rollout.slots is None or rollout.slots >= 1, f"rollout.slots is {rollout.slots}; it must be at least 1"),
        (evaluation.samples >= 1, f"evaluation.samples is {evaluation.samples}; it must be at least 1"),
        (evaluation.every >= 0, f"evaluation.every is {evaluation.every}; it must be at least 0, and 0 is never"),
    ):
        if not good:
            raise ValueError(message)


def _sampling_checks(section: str, rules: "RolloutSettings | EvaluationSettings") -> list[tuple[bool, str]]:
    """The ranges of a section that says how completions are sampled."""
    ranges = [
        ("temperature", 0 <= rules.temperature < inf, "at least 0 (0 is greedy)"),
        ("top_p", 0 < rules.top_p <= 1, "over 0 and at most 1 (1 is no limit)"),
        ("top_k", rules.top_k >= 0, "at least 0 (0 is no limit)"),
        ("max_new_tokens", rules.max_new_tokens >= 1, "at least 1"),
    ]
    min_p = getattr(rules, "min_p", None)  # evaluations have none
    if min_p is not None:
        ranges.append(("min_p", 0 <= min_p <= 1, "between 0 and 1 (0 is no limit)"))
    return [(good, f"{section}.{name} is {getattr(rules, name)}; it must be {want}") for name, good, want in ranges]
