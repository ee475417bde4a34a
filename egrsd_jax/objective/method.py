"""What a method is: one record with its settings, what it needs, its loss, and its row of docs/methods.md. No jax."""

from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from egrsd_jax.objective.settings import GateSettings, MethodSettings, TeacherSettings

if TYPE_CHECKING:
    import jax

    from egrsd_jax.objective.signals import Signals

# Signals of a step and the method's own settings to a number per token, [B, T]. A loss is not reduced: the step takes
# its mean over tokens or sequences. Gradients flow through the student's log-probabilities and the divergence alone.
TokenFunction = Callable[["Signals", Any], "jax.Array"]


class PublishedSampling(NamedTuple):
    """How a method's completions were sampled where it was published; the fields are those of `rollout`."""

    temperature: float
    top_p: float
    top_k: int


PAPER_SAMPLING = PublishedSampling(1.1, 0.95, 20)  # of EGRSD's paper, which has it for every method that it compares
WHOLE_SAMPLING = PublishedSampling(1.0, 1.0, 0)  # the policy's own distribution


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method, in one file of `egrsd_jax/objective/methods/`, which is all that the trainer knows of it.

    The module binds the record to the name `METHOD`. It is imported to read a configuration, so what needs jax is
    imported inside its functions.

    Args:
        order: place in lists and tables, smallest first.
        title: its label in tables and plots.
        description: what a model was trained by, for its card.
        arxiv: number of the paper there, or none.
        formula: the token loss in the notation of docs/methods.md.
        choices: what the source leaves open and was chosen here, for the same table.
        settings: its settings; the defaults are the published ones.
        token_loss: the loss of every token.
        advantage: how rewards become advantages, as published.
        samples_per_problem: completions of each problem in a step, as published.
        sampling: how they are sampled where `rollout` does not say, as published.
        token_weight: what the advantage is multiplied by, w of EGRSD, where a teacher weights it; none where a teacher
            replaces the advantage.
        writer: who writes the completions: the student, the initial model, the teacher for half of them (`both`), or
            nobody, where they are the reference solutions.
        mixed_groups_only: problems that all or none of the completions solve do not count.
        shortest_correct_only: of each problem the shortest correct completion counts alone.
    """

    order: int
    title: str
    description: str
    arxiv: str | None
    formula: str
    choices: str = ""
    settings: type[MethodSettings]
    token_loss: TokenFunction
    advantage: Literal["running", "group", "group_centred"] = "running"
    samples_per_problem: int = 1
    sampling: PublishedSampling = PAPER_SAMPLING
    token_weight: TokenFunction | None = None
    writer: Literal["student", "initial", "both", "reference"] = "student"
    mixed_groups_only: bool = False
    shortest_correct_only: bool = False

    @property
    def name(self) -> str:
        """What `--method.name` calls it."""
        return str(default_of(self.settings, "name"))

    @property
    def teacher(self) -> bool:
        """Whether there is a teacher."""
        return issubclass(self.settings, TeacherSettings)

    @property
    def gated(self) -> bool:
        """Whether the entropy gate weights its tokens."""
        return issubclass(self.settings, GateSettings)

    @property
    def divergence(self) -> str | None:
        """Over which tokens the step takes a divergence, in the words of `Divergence`; None where it takes none."""
        divergence = self.settings().divergence
        return None if divergence is None else divergence.over

    @property
    def own_fields(self) -> dict[str, Field[Any]]:
        """The settings that can be given, by name."""
        return {field.name: field for field in fields(self.settings) if field.init}

    def explanation(self, field: str) -> str:
        """What a setting is for: the words of the nearest class whose docstring has it.

        Raises ValueError where none has it.
        """
        from docstring_parser import parse  # imported late: the losses do without it

        for kind in self.settings.__mro__:
            for entry in parse(kind.__doc__ or "").params:
                if entry.arg_name == field and entry.description:
                    return " ".join(entry.description.split())
        raise ValueError(
            f"the docstring of {self.settings.__name__} does not explain {field}; add a line `{field}: ...` to its Args"
        )


def default_of(kind: type[MethodSettings], name: str) -> Any:
    """The published value of a setting. Raises KeyError where the class has no such field."""
    default = {field.name: field.default for field in fields(kind)}[name]
    if default is MISSING:
        raise TypeError(f"{kind.__name__}.{name} has no published value; give it a default")
    return default
