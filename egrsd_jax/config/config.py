"""The sections of a run in one frozen value, with what is left open filled in, and checked together."""

import os
from dataclasses import dataclass, field, replace
from typing import Any

from egrsd_jax.config.data import DataSettings, PromptSettings
from egrsd_jax.config.model import LoraSettings, ModelSettings
from egrsd_jax.config.rollout import RolloutSettings
from egrsd_jax.config.run import RunSettings
from egrsd_jax.config.training import EvaluationSettings, RewardSettings, TrainSettings
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
from egrsd_jax.ranges import at_least, check_ranges, require

# Folders and files of this machine: shells leave the ~ of --model.path=~/models alone, and so do YAML files.
_PATHS = (("run", "dir"), ("model", "path"), ("lora", "path"), ("rollout", "shared"), ("rollout", "stored"))


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
        for section, name in _PATHS:
            settings = filled.get(section, getattr(self, section))
            if (path := getattr(settings, name) or "").startswith("~"):  # Path.expanduser raises for a user of no home
                filled[section] = replace(settings, **{name: os.path.expanduser(path)})  # noqa: PTH111
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
