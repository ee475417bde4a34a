"""What the rows of an update hold: their shapes, and the beginning that they leave out."""

from egrsd_jax.config import Config
from egrsd_jax.data.packing import Shapes, choose_shapes
from egrsd_jax.data.prefix import Prefixes, common_prefix
from egrsd_jax.data.prompts import EncodedProblems
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.objective.methods import METHODS
from egrsd_jax.objective.settings import reads_completions
from egrsd_jax.ops.attention import shares_prefix


def shared_prefixes(config: Config, model: ModelConfig, encoded: EncodedProblems) -> Prefixes:
    """What the update reads once instead of for every completion: nothing where attention or dropout forbids it."""
    if not shares_prefix(model.attention):
        return Prefixes()
    own = not config.lora.dropout  # each completion drops out other inputs of the student's adapter
    known = METHODS[config.method.name].teacher and not reads_completions(config.method)
    return Prefixes(
        student=common_prefix(encoded.student_prompts) if own else (),
        teacher=common_prefix(encoded.teacher_prompts) if known else (),
    )


def row_shapes(config: Config, encoded: EncodedProblems, shards: int, prefixes: Prefixes) -> Shapes | None:
    """The shapes of rows that completions share, by the lengths of all prompts after what these begin with; None where
    each has its own row."""
    if config.train.micro_batch_size:
        return None

    def shapes(lengths: list[int], prefix: tuple[int, ...]):
        return choose_shapes(
            [length - len(prefix) for length in lengths],
            max_new_tokens=config.rollout.max_new_tokens,
            shards=shards,
            micro_batch_tokens=config.train.micro_batch_tokens,
        )

    students = shapes([len(prompt) for prompt in encoded.student_prompts], prefixes.student)
    if not METHODS[config.method.name].teacher:
        return Shapes(students, ())
    teachers = [len(prompt) for prompt in encoded.teacher_prompts]
    if reads_completions(config.method):
        teachers = [longest_with_completion(config, length) for length in teachers]
    return Shapes(students, shapes(teachers, prefixes.teacher))


def longest_with_completion(config: Config, length: int) -> int:
    """Tokens that a teacher's prompt of so many may have once it shows a completion: a longer one does not count."""
    return min(length + config.rollout.max_new_tokens, max(length, config.data.max_prompt_tokens))
