"""The method of a run: one name, and the published setting that it stands for. Imports no jax."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

MethodName = Literal[
    "egrsd", "cl_egrsd", "direction", "rlsd",
    "grpo", "grpo_group", "dr_grpo", "dapo",
    "opsd", "pw_opsd", "crisp", "eopd", "reopold", "sdpo", "sdft", "gates", "paced",
    "sft", "ssd",
]  # fmt: skip


@dataclass(frozen=True)
class MethodSettings:
    """The objective. The name picks the method; fields left at null take the setting it was published with.

    Args:
        name: egrsd, cl_egrsd (causal lookahead), direction (gamma 0, no gate), rlsd; without a teacher grpo,
            grpo_group, dr_grpo, dapo; by divergences opsd, pw_opsd, crisp, sdpo, sdft, paced; and eopd, reopold,
            gates, sft, ssd. docs/methods.md has the equation and the settings of each.
        gamma: strength of the entropy gate, 0 to 1.
        window: W, tokens that the lookahead minimum sees ahead.
        epsilon: a likelihood ratio is clipped to 1 - epsilon .. 1 + epsilon; 0 makes every w 1, the gate alone.
        epsilon_high: the upper side of the policy ratio's clip; epsilon by default, but for dapo.
        floor: the least weight that the gate leaves.
        scope: what the entropy is divided by: the largest of the batch, of the sequence, or log of the vocabulary.
        denominator: take that largest value before (raw) or after (lookahead) the lookahead minimum.
        gate: `entropy`, or a control that gives the same weights to other tokens: at `random`, `reversed` (most to the
            least sure), by `position` (least to the first).
        teacher: the teacher's weights: `frozen` initial ones, `ema` of the student's, a `copy` of them every
            teacher_every steps, or the `current` ones.
        teacher_decay: of the exponential moving average.
        teacher_every: steps between copies.
        privilege: what the teacher's prompt has beside the problem: its `reference` solution, `none` (the student's
            prompt), a `wrong` reference (every digit another one), an `other` problem's, or a request to be `concise`.
        kl: weight of the k3 estimate of KL to the initial model.
        mixing: lambda of RLSD at the first step, from where it falls to 0 in a line.
        mixing_steps: steps until it is 0; the whole run by default.
        beta: of the divergence: 0 is forward KL, 1 reverse KL, between them the generalised Jensen-Shannon divergence.
        entry_clip: each vocabulary entry adds at most this to a token's divergence, nats; 0 is no limit.
        top_k: tokens that a divergence looks at; all where the vocabulary has no more.
        entropy_threshold: teacher entropy, nats, above which EOPD adds its divergence.
        mixture: lambda of REOPOLD, whose token rewards end below at log(lambda / (1 - lambda)).
        exploration_steps: steps in which REOPOLD keeps every token whose reward is not below that.
        kept_share: of the tokens that REOPOLD keeps after that, those of highest student entropy.
        consensus: how many of a problem's teacher completions must agree for GATES to keep it.
        policy_weight: of the policy gradient beside GATES' likelihood.
        delta_clip: in it log p_T - log p_S is limited to plus and minus this, nats.
        pace_right: a, and
        pace_wrong: b: every completion counts p^a (1 - p)^b, p the pass rate of the student on its problem.
        reduction: mean over all tokens of the step, over sequences of each one's mean, or over sequences of each one's
            sum divided by rollout.max_new_tokens (constant).
        score_temperature: divides the logits before log-probabilities, entropies and divergences are taken.
    """

    name: MethodName = "egrsd"
    gamma: float | None = None
    window: int | None = None
    epsilon: float | None = None
    epsilon_high: float | None = None
    floor: float | None = None
    scope: Literal["batch", "sequence", "log_vocab"] | None = None
    denominator: Literal["raw", "lookahead"] | None = None
    gate: Literal["entropy", "random", "reversed", "position"] | None = None
    teacher: Literal["frozen", "ema", "copy", "current"] | None = None
    teacher_decay: float | None = None
    teacher_every: int | None = None
    privilege: Literal["reference", "none", "wrong", "other", "concise"] | None = None
    kl: float | None = None
    mixing: float | None = None
    mixing_steps: int | None = None
    beta: float | None = None
    entry_clip: float | None = None
    top_k: int | None = None
    entropy_threshold: float | None = None
    mixture: float | None = None
    exploration_steps: int | None = None
    kept_share: float | None = None
    consensus: int | None = None
    policy_weight: float | None = None
    delta_clip: float | None = None
    pace_right: float | None = None
    pace_wrong: float | None = None
    reduction: Literal["token", "sequence", "constant"] | None = None
    score_temperature: float | None = None

    def resolved(self, *, rollout_temperature: float = 1.0, steps: int = 1) -> "MethodSettings":
        """The same method with its published setting wherever a field that it uses was left open.

        `rollout_temperature` divides the logits in the methods that were published so; `steps` is the run's length.
        """
        defaults = {**published(self.name).settings}
        depending = {
            "mixing_steps": steps,
            "epsilon_high": defaults.get("epsilon") if self.epsilon is None else self.epsilon,
        }
        defaults |= {field: depending[field] for field, value in defaults.items() if value is None}
        if published(self.name).scores_at_rollout_temperature:
            defaults["score_temperature"] = rollout_temperature or 1.0  # greedy rollouts are scored as they are
        return replace(self, **{field: value for field, value in defaults.items() if getattr(self, field) is None})


@dataclass(frozen=True)
class Published:
    """What a name stands for: the fields that the method uses, and what other stations of the run do for it.

    A field at None takes its value from another field or from the run: `MethodSettings.resolved` says which.
    """

    settings: dict[str, Any]
    advantage: Literal["running", "group", "group_centred"] = "running"
    samples_per_problem: int = 1
    scores_at_rollout_temperature: bool = False


_TEACHER = {"teacher": "frozen", "teacher_decay": 0.99, "teacher_every": 50, "privilege": "reference"}
_GATED = {
    **_TEACHER, "epsilon": 0.2, "floor": 0.1, "scope": "batch", "denominator": "raw", "gate": "entropy",
}  # fmt: skip
_RATIO = {"epsilon": 0.2, "epsilon_high": None, "kl": 0.0}
_EVERY = {"reduction": "token", "score_temperature": 1.0, "pace_right": 0.0, "pace_wrong": 0.0}
_BY_SEQUENCE = {"reduction": "sequence"}
_OPSD = {**_TEACHER, "beta": 0.0, "entry_clip": 0.05}

# The sources are those of docs/methods.md; gamma and window are the paper's for Qwen3-4B (arXiv 2605.13255).
_PUBLISHED = {
    "egrsd": Published({**_GATED, "gamma": 0.3, "window": 0}),
    "cl_egrsd": Published({**_GATED, "gamma": 0.3, "window": 3}),
    "direction": Published({**_GATED, "gamma": 0.0, "window": 0}),
    "rlsd": Published({**_TEACHER, "epsilon": 0.2, "mixing": 1.0, "mixing_steps": None}),
    "grpo": Published({}),
    "grpo_group": Published({**_RATIO, **_BY_SEQUENCE}, advantage="group", samples_per_problem=8),
    "dr_grpo": Published({**_RATIO, "reduction": "constant"}, advantage="group_centred", samples_per_problem=8),
    "dapo": Published({**_RATIO, "epsilon_high": 0.28}, advantage="group", samples_per_problem=8),
    "opsd": Published(_OPSD, scores_at_rollout_temperature=True),
    "pw_opsd": Published({**_OPSD, **_BY_SEQUENCE}, scores_at_rollout_temperature=True),
    "crisp": Published({**_TEACHER, "privilege": "concise", "beta": 1.0}),
    "eopd": Published({**_TEACHER, "epsilon": 0.2, "epsilon_high": None, "top_k": 16, "entropy_threshold": 0.8}),
    "reopold": Published({**_TEACHER, "mixture": 0.1, "exploration_steps": 50, "kept_share": 0.2}),
    "sdpo": Published({**_TEACHER, "teacher": "ema", "teacher_decay": 0.95, "beta": 0.5, "top_k": 100}),
    "sdft": Published({**_TEACHER, "teacher": "ema", "beta": 1.0}),
    "gates": Published(
        {**_TEACHER, "consensus": 4, "policy_weight": 0.1, "delta_clip": 1.0},
        samples_per_problem=16,
    ),
    "paced": Published(
        {**_OPSD, "entry_clip": 0.0, "pace_right": 1.0, "pace_wrong": 1.0},
        samples_per_problem=8,
        scores_at_rollout_temperature=True,
    ),
    "sft": Published({}),
    "ssd": Published({}),
}


def published(name: str) -> Published:
    """The published setting of a method."""
    found = _PUBLISHED[name]
    return replace(found, settings={**_EVERY, **found.settings})


def method_checks(method: MethodSettings) -> list[tuple[bool, str]]:
    """(holds, message) of everything that the fields of a method must satisfy, resolved or not."""
    used = published(method.name).settings
    checks = []
    for field in fields(method):
        value = getattr(method, field.name)
        if field.name == "name" or value is None:
            continue
        others = [name for name in _PUBLISHED if field.name in published(name).settings]
        checks.append(
            (
                field.name in used,
                f"method.{field.name} is {value}, and {method.name} has no use for it; {', '.join(others)} would have; "
                "leave it at null",
            )
        )
        if field.name in _RANGES:
            good, want = _RANGES[field.name]
            checks.append((good(value), f"method.{field.name} is {value}; it must be {want}"))
    gamma, window, schedule = method.gamma, method.window, method.resolved().teacher
    for name, needed in {"teacher_decay": "ema", "teacher_every": "copy"}.items():
        value = getattr(method, name)
        checks.append(
            (
                value in (None, used.get(name)) or schedule in (None, needed),
                f"method.{name} is {value}, and a teacher that is {schedule} has no use for it; "
                f"set method.teacher to {needed}, or leave it at null",
            )
        )
    checks += [
        (
            method.name != "egrsd" or not window,
            f"method.window is {window}, and egrsd looks at no later token; use cl_egrsd",
        ),
        (method.name != "cl_egrsd" or window != 0, "method.window is 0, which makes cl_egrsd egrsd; use egrsd"),
        (
            method.name != "direction" or not (gamma or window),
            f"method.name direction has no gate, but method.gamma is {gamma} and method.window {window}",
        ),
        (
            method.name != "direction" or method.gate in (None, "entropy"),
            f"method.name direction has no gate, but method.gate is {method.gate}; use egrsd",
        ),
        (
            method.name != "sft" or not (method.pace_right or method.pace_wrong),
            "method.pace_right and pace_wrong look at pass rates, and in sft nobody tries a problem",
        ),
    ]
    return checks


_UNIT = (lambda value: 0 <= value <= 1, "between 0 and 1")
_SOME = (lambda value: value >= 1, "at least 1")
_NOT_NEGATIVE = (lambda value: 0 <= value < float("inf"), "at least 0")
_POSITIVE = (lambda value: 0 < value < float("inf"), "over 0")

_RANGES = {
    "gamma": _UNIT,
    "window": _NOT_NEGATIVE,
    "epsilon": (lambda value: 0 <= value < 1, "at least 0 and under 1"),
    "epsilon_high": _NOT_NEGATIVE,
    "floor": _UNIT,
    "teacher_decay": _UNIT,
    "teacher_every": _SOME,
    "kl": _NOT_NEGATIVE,
    "mixing": _UNIT,
    "mixing_steps": _SOME,
    "beta": _UNIT,
    "entry_clip": _NOT_NEGATIVE,
    "top_k": _SOME,
    "entropy_threshold": _NOT_NEGATIVE,
    "mixture": (lambda value: 0 < value < 1, "over 0 and under 1"),
    "exploration_steps": _NOT_NEGATIVE,
    "kept_share": (lambda value: 0 < value <= 1, "over 0 and at most 1"),
    "consensus": _SOME,
    "policy_weight": _NOT_NEGATIVE,
    "delta_clip": _POSITIVE,
    "pace_right": _NOT_NEGATIVE,
    "pace_wrong": _NOT_NEGATIVE,
    "score_temperature": _POSITIVE,
}
