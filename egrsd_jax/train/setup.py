"""Everything a run needs before its first step, read and checked before anything is written."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import optax

from egrsd_jax.compilation import keep_programs
from egrsd_jax.config import Config, EvaluationSettings
from egrsd_jax.data.packing import Shapes, choose_shapes
from egrsd_jax.data.prefix import Prefixes, common_prefix
from egrsd_jax.data.privilege import teacher_problems, teacher_templates
from egrsd_jax.data.problems import Problem, load_problems
from egrsd_jax.data.prompts import (
    EncodedProblems,
    encode_problems,
    encode_reference,
    encode_student,
    encode_teacher,
    thinking_note,
)
from egrsd_jax.data.tasks.registry import BUILT_IN_SEED, BUILT_IN_TASKS
from egrsd_jax.data.tokenizer import FILES_BESIDE_WEIGHTS, check_token_ids, load_tokenizer
from egrsd_jax.evaluate.benchmarks import BUILT_IN_PROBLEMS, built_in_problems
from egrsd_jax.evaluate.held_out import HeldOut, problem_set
from egrsd_jax.model.config import ModelConfig, read_config
from egrsd_jax.model.decoder import Params
from egrsd_jax.model.hf.adapter_config import CONFIG as ADAPTER_CONFIG
from egrsd_jax.model.hf.adapter_config import read_adapter_config
from egrsd_jax.model.hf.hub import load_pretrained, resolve_folder
from egrsd_jax.model.hf.peft import WEIGHTS as ADAPTER_WEIGHTS
from egrsd_jax.model.hf.peft import load_adapter
from egrsd_jax.model.hosts import check_same, is_first_host, join_hosts, naming_lost_hosts, on_first_host
from egrsd_jax.model.sharding import batch_shards, make_mesh
from egrsd_jax.objective.method import PAPER_SAMPLING
from egrsd_jax.objective.methods import METHODS
from egrsd_jax.objective.settings import (
    TeacherSettings,
    privilege,
    reads_completions,
    shows_completion,
    teacher_schedule,
    watches,
)
from egrsd_jax.ops.attention import shares_prefix
from egrsd_jax.rollout.engine import engine_for
from egrsd_jax.rollout.first_host import FirstHostEngine
from egrsd_jax.rollout.http.engine import API_KEY
from egrsd_jax.rollout.requests import Sampler, Sampling
from egrsd_jax.rollout.served.engine import ServedEngine
from egrsd_jax.rollout.served.weights import SharedFolder
from egrsd_jax.runs import fingerprint, stopping
from egrsd_jax.runs.folder import RunFolder
from egrsd_jax.runs.trackers import NO_TENSORBOARD, check_tracker, is_installed
from egrsd_jax.train.checkpoint import Checkpoints
from egrsd_jax.train.state import TrainState, init_state, make_optimizer
from egrsd_jax.train.stored import StoredCompletions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to start, or to resume from its newest checkpoint."""

    config: Config
    folder: RunFolder
    checkpoints: Checkpoints
    mesh: jax.sharding.Mesh
    model: ModelConfig
    base: Params
    tokenizer: "PreTrainedTokenizerBase"
    problems: EncodedProblems
    held_out: HeldOut | None
    optimizer: optax.GradientTransformation
    state: TrainState
    engine: Sampler
    stop_ids: tuple[int, ...]  # tokens that end a completion
    stored: StoredCompletions | None  # where rollout.stored names some
    prefixes: Prefixes  # what prompts begin with and rows leave out
    shapes: Shapes | None  # of the update's rows, where completions share them
    notes: list[str]
    compilation_cache: str  # the line about it


@naming_lost_hosts()
def prepare(config: Config) -> Prepared:
    """Reads the model, the data and the newest checkpoint of a run.

    Raises ValueError or OSError, with a message of one line that says how to fix it, for anything about the
    configuration, the files or the data that prevents the run.
    """
    config = with_adapter(config)
    place = config.run.coordinator, config.run.hosts, config.run.host
    join_hosts(*place, heartbeat=config.run.heartbeat, end=stopping.end_with)
    stopping.listen()  # jax.distributed takes SIGTERM for itself
    run_folder = RunFolder(config, writes=is_first_host())
    run_folder.check()
    compilation_cache = keep_programs(config.run.compilation_cache)
    if is_first_host():
        check_tracker(config.run.track)
    mesh = make_mesh(config.model.data, config.model.fsdp, config.model.tensor)
    problems, notes = read_problems(config)  # before the model: a mistake in a file is reported at once
    if config.run.track == "auto" and not is_installed("tensorboard"):
        notes.append(NO_TENSORBOARD)
    folder = resolve_folder(config.model.path)
    read_config(folder)
    tokenizer, stop_ids = load_tokenizer(folder)
    wanted = {f"prompt.{name}": getattr(config.prompt, name) for name in ("student_thinking", "teacher_thinking")}
    if note := thinking_note(tokenizer, wanted):
        notes.append(note)
    if (note := sampling_note(config)) is not None:
        notes.append(note)
    if config.prompt.answer_format != "boxed" and r"\boxed" in config.prompt.student:
        notes.append(
            f"answers are read as prompt.answer_format {config.prompt.answer_format}; prompt.student asks for a box"
        )
    encoded = encode_fitting(config, tokenizer, problems, notes)
    held_out = _held_out(config, tokenizer)

    served = _served(config, folder, stop_ids, encoded, held_out, run_folder.path) if config.rollout.servers else None
    of_weights = fingerprint.begin_of_weights(folder)  # while they are loaded
    model, base = load_pretrained(folder, mesh=mesh, dtype=config.model.param_dtype)
    model = model.replace(dtype=config.model.dtype, rematerialise=config.model.rematerialise)
    check_token_ids(tokenizer, (*encoded.student_prompts, *encoded.teacher_prompts), model.vocab_size, "a prompt")
    check_positions(config, model, held_out)
    optimizer = make_optimizer(config.train)
    key = jax.random.key(config.seed)
    schedule, start = teacher_schedule(config.method), None
    if config.lora.path is not None:
        start = load_adapter(config.lora.path, model, mesh=mesh).layers
        notes.append(
            f"{config.lora.path} is trained further, with its rank {config.lora.rank} and alpha {config.lora.alpha:g}"
        )
    teacher = {"schedule": schedule, "start": start, "watches": watches(config.method)}
    state = init_state(key, base, model, config.lora, optimizer, mesh, **teacher, ahead=config.rollout.ahead)
    digests, places = _fingerprints(config, folder, of_weights(), encoded, held_out)
    is_of = {"weights": partial(fingerprint.is_of_weights, folder)}
    run_folder.begin(digests, places, is_of)
    stored = _stored(config, digests, encoded, is_of)
    if stored is not None:
        notes += [*stored.notes, f"{config.rollout.stored} has {len(stored):,} completions; what it lacks is added"]
    prefixes = shared_prefixes(config, model, encoded)
    checkpoints = Checkpoints(run_folder.checkpoints, config, older=config.run.older_checkpoint)
    restored = checkpoints.restore(state)
    notes += checkpoints.notes
    return Prepared(
        config=config,
        folder=run_folder,
        checkpoints=checkpoints,
        mesh=mesh,
        model=model,
        base=base,
        tokenizer=tokenizer,
        problems=encoded,
        held_out=held_out,
        optimizer=optimizer,
        state=restored or state,
        engine=served or _engine(config, model, mesh, stop_ids, encoded, held_out),
        stop_ids=stop_ids,
        stored=stored,
        prefixes=prefixes,
        shapes=row_shapes(config, encoded, batch_shards(mesh), prefixes),
        notes=notes,
        compilation_cache=compilation_cache,
    )


def sampling_note(config: Config) -> str | None:
    """Says where the run does not sample as its method was published with; None where it does.

    EGRSD's paper samples all methods alike, so the methods that have its sampling by default are not named.
    """
    method = METHODS[config.method.name]
    if method.sampling == PAPER_SAMPLING:
        return None
    actual = {name: getattr(config.rollout, name) for name in method.sampling._fields}
    differing = {name: value for name, value in method.sampling._asdict().items() if value != actual[name]}
    if not differing:
        return None
    published = ", ".join(f"rollout.{name} {value:g}" for name, value in differing.items())
    chosen = ", ".join(f"{actual[name]:g}" for name in differing)
    return f"{method.name} was published with {published}; this run has {chosen}"


def with_adapter(config: Config) -> Config:
    """With the rank and alpha of the adapter that is trained further, where there is one. Errors are those of
    `read_adapter_config`."""
    if config.lora.path is None:
        return config
    adapter = read_adapter_config(Path(config.lora.path))
    rank = adapter.largest_rank
    return replace(config, lora=replace(config.lora, rank=rank, alpha=adapter.scale * rank))


def _fingerprints(
    config: Config, folder: Path, of_weights: str, encoded: EncodedProblems, held_out: HeldOut | None
) -> tuple[dict[str, str], dict[str, str]]:
    """What the run depends on besides its settings, and in words what each is. Raises ValueError where hosts differ."""
    rows = [(problem.id, problem.problem, problem.solution, problem.answer) for problem in encoded.problems]
    digests = {
        "weights": (of_weights, f"the weights in {folder}"),
        "tokenizer": (
            fingerprint.of_files(folder / name for name in FILES_BESIDE_WEIGHTS),
            f"config.json, the tokenizer or the chat template in {folder}",
        ),
        "data": (fingerprint.of_rows(rows), f"the rows of {config.data.path} that are used"),
    }
    if config.lora.path is not None:
        files = [Path(config.lora.path) / name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)]
        digests["adapter"] = fingerprint.of_files(files), f"the adapter in {config.lora.path}"
    if held_out is not None:
        asked = [(repr(prompt), answer) for prompt, answer in zip(held_out.prompts, held_out.answers, strict=True)]
        digests["evaluation"] = fingerprint.of_rows(asked), f"the held-out problems of {config.evaluation.path}"
    for digest, words in digests.values():
        check_same(words, digest)
    return {name: digest for name, (digest, _) in digests.items()}, {
        name: words for name, (_, words) in digests.items()
    }


def _stored(
    config: Config, digests: dict[str, str], encoded: EncodedProblems, is_of: dict[str, fingerprint.IsOf]
) -> StoredCompletions | None:
    """The completions that runs share, bound to all that they depend on."""
    if config.rollout.stored is None:
        return None
    depends_on: dict[str, Any] = {name: digests[name] for name in ("weights", "adapter") if name in digests}
    depends_on["prompts"] = fingerprint.of_rows((repr(prompt),) for prompt in encoded.student_prompts)
    sampling = Sampling.of(config.rollout)
    depends_on |= {name: getattr(sampling, name) for name in ("temperature", "top_p", "top_k", "min_p")}
    depends_on |= {"max_new_tokens": sampling.max_new_tokens, "score_temperature": config.method.score_temperature}
    depends_on["dtype"] = " ".join(
        map(str, (config.model.dtype, config.model.param_dtype, config.rollout.weights_dtype))
    )
    return StoredCompletions(Path(config.rollout.stored), depends_on, writes=is_first_host(), is_of=is_of)


def _engine(
    config: Config,
    model: ModelConfig,
    mesh: jax.sharding.Mesh,
    stop_ids: tuple[int, ...],
    encoded: EncodedProblems,
    held_out: HeldOut | None,
) -> Sampler:
    """One engine for rollouts and held-out evaluations, with room for the longest prompt of both."""
    prompts = _prompts_to_complete(config, encoded)
    new_tokens = config.rollout.max_new_tokens
    if held_out is not None:
        prompts += held_out.prompts
        new_tokens = max(new_tokens, held_out.sampling.max_new_tokens)
    return engine_for(
        model,
        mesh,
        stop_ids,
        prompts,
        max_rows=config.rollout.max_rows,
        max_new_tokens=new_tokens,
        weights_dtype=config.rollout.weights_dtype,
        score_temperature=config.method.score_temperature,
    )


def _served(*arguments: Any) -> Sampler:
    """The engine of `_served_engine`; of several hosts the first one has it, and asks for all."""
    engine = on_first_host(lambda: _served_engine(*arguments), "take the servers of rollout.server")
    return engine if jax.process_count() == 1 else FirstHostEngine(engine)


def _served_engine(
    config: Config,
    folder: Path,
    stop_ids: tuple[int, ...],
    encoded: EncodedProblems,
    held_out: HeldOut | None,
    run: Path,
) -> ServedEngine:
    """The servers of `rollout.server`, checked, for rollouts and held-out evaluations. Errors are `ServedEngine`'s."""
    settings, model = config.rollout, read_config(folder)
    if config.method.score_temperature != 1.0:
        raise ValueError(
            f"method.score_temperature is {config.method.score_temperature}, and a server's log-probabilities are of "
            "the logits as they are; set it to 1, or sample without rollout.server"
        )
    shared = SharedFolder(
        run / "served" if settings.shared is None else Path(settings.shared),
        on_server=settings.shared_on_server,
        run=str(run.absolute()),
        base_model=config.model.path,
        model=model,
        dtype=config.model.dtype,
    )
    engine = ServedEngine(
        settings.servers,
        stop_ids,
        shared,
        trains="adapter" if config.lora.rank else "all",
        vocab_size=model.vocab_size,
        model=settings.served,
        in_flight=settings.in_flight,
        wait=settings.server_wait,
        timeout=settings.server_timeout,
        api_key=os.environ.get(API_KEY),
    )
    prompts = _prompts_to_complete(config, encoded)
    longest = max(map(len, prompts)) + settings.max_new_tokens
    if held_out is not None:
        longest = max(longest, max(map(len, held_out.prompts)) + held_out.sampling.max_new_tokens)
    engine.check(prompts[0], Sampling.of(settings), longest)
    return engine


def _prompts_to_complete(config: Config, encoded: EncodedProblems) -> list[Sequence[int]]:
    """The prompts of the policies that write."""
    teachers = encoded.teacher_prompts if METHODS[config.method.name].writer == "both" else []
    return [*encoded.student_prompts, *teachers]


def needs_solution(config: Config) -> bool:
    """Whether the method learns from reference solutions or shows the teacher any; others train without."""
    shown = privilege(config.method) if isinstance(config.method, TeacherSettings) else "none"
    without = ("none", "concise", "answer", "attempt", "own")
    return shown not in without or METHODS[config.method.name].writer == "reference"


def read_problems(config: Config) -> tuple[list[Problem], list[str]]:
    """The problems to train on, and a note on rows that were skipped."""
    data = config.data
    if data.path in BUILT_IN_TASKS:
        return BUILT_IN_TASKS[data.path].problems(data.train_problems, seed=BUILT_IN_SEED, held_out=False), []
    loaded = load_problems(
        data.path,
        problem=data.problem,
        solution=data.solution,
        answer=data.answer,
        split=data.split,
        name=data.name,
        on_bad_row=data.on_bad_row,
        needs_solution=needs_solution(config),
    )
    first = loaded.skipped[:1]
    return loaded.problems, [f"{len(loaded.skipped)} rows skipped; row {row.number}: {row.reason}" for row in first]


def encode_fitting(config: Config, tokenizer, problems: list[Problem], notes: list[str]) -> EncodedProblems:
    """Both prompts of the problems that fit, the teacher's with what `method.privilege` shows.

    Every method and control arm skips what the reference solution makes too long, so that a seed draws the same
    problems in the same order in all of them. An arm that shows something longer still, and a method that learns
    solutions too long for a completion, skip more. `notes` gets a line on each. Raises ValueError where too few fit.
    """
    shown_to_teacher, most, templates = (
        privilege(config.method),
        config.data.max_prompt_tokens,
        config.prompt.templates(),
    )
    encoded = encode_problems(
        tokenizer, templates, problems, max_prompt_tokens=most, needs_solution=needs_solution(config)
    )
    if encoded.too_long:
        first = encoded.too_long[0]
        notes.append(
            f"{len(encoded.too_long)} problems skipped: a prompt is longer than data.max_prompt_tokens {most}; "
            f"{first.id} takes {max(first.student_tokens, first.teacher_tokens)}"
        )
    if shown_to_teacher != "reference":
        arm = teacher_templates(templates, shown_to_teacher, config.prompt.concise)
        if shows_completion(config.method):  # the rollout has them; until then the answer alone
            shown = [replace(problem, solution=problem.answer) for problem in encoded.problems]
        else:
            shown = teacher_problems(encoded.problems, shown_to_teacher, seed=config.seed)
        encoded = encoded._replace(teacher_prompts=[encode_teacher(tokenizer, arm, problem) for problem in shown])
        what = f"a teacher's prompt with method.privilege {shown_to_teacher} is longer than data.max_prompt_tokens"
        encoded = _without_long(encoded, encoded.teacher_prompts, most, what, notes)
    if METHODS[config.method.name].writer == "reference":
        references = [encode_reference(tokenizer, problem) for problem in encoded.problems]
        what = "a reference solution is longer than rollout.max_new_tokens"
        encoded = _without_long(encoded, references, config.rollout.max_new_tokens, what, notes)
    needed = config.train.batch_size // (config.rollout.samples_per_problem)
    if len(encoded.problems) < needed:
        raise ValueError(f"{len(encoded.problems)} problems fit, and a step takes {needed}; lower train.batch_size")
    return encoded


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


def _without_long(
    encoded: EncodedProblems, texts: list[list[int]], most: int, what: str, notes: list[str]
) -> EncodedProblems:
    """Without the problems whose text, one per problem, is longer than `most` tokens."""
    lengths = [len(text) for text in texts]
    too_long = sum(length > most for length in lengths)
    if too_long == len(texts):
        raise ValueError(f"every problem is skipped: {what} {most}; they take {min(lengths)} to {max(lengths)} tokens")
    if too_long:
        notes.append(f"{too_long} problems skipped: {what} {most}; the longest takes {max(lengths)}")
    fits = [length <= most for length in lengths]
    return EncodedProblems(
        problems=list(compress(encoded.problems, fits)),
        student_prompts=list(compress(encoded.student_prompts, fits)),
        teacher_prompts=list(compress(encoded.teacher_prompts, fits)),
        too_long=encoded.too_long,
    )


def _held_out(config: Config, tokenizer) -> HeldOut | None:
    settings = config.evaluation
    if settings.path is None:
        return None
    problems = _held_out_problems(settings)
    templates = config.prompt.templates(thinking=settings.thinking)
    return HeldOut(
        of=problem_set(settings, len(problems)),
        prompts=[encode_student(tokenizer, templates, problem) for problem in problems],
        answers=[problem.answer for problem in problems],
        samples=settings.samples,
        sampling=Sampling.of(settings),
        key=jax.random.key(BUILT_IN_SEED),
    )


def _held_out_problems(settings: EvaluationSettings) -> list[Problem]:
    if settings.path in BUILT_IN_TASKS:
        return built_in_problems(settings.path, settings.problems or BUILT_IN_PROBLEMS)
    loaded = load_problems(
        str(settings.path),
        problem=settings.problem,
        solution=None,
        answer=settings.answer,
        split=settings.split,
        name=settings.name,
        limit=settings.problems,
    )
    return loaded.problems


def check_positions(config: Config, model: ModelConfig, held_out: HeldOut | None) -> None:
    """Raises ValueError where a prompt with a whole completion may be longer than what the model was made for."""
    longest = {"data.max_prompt_tokens + rollout.max_new_tokens": _longest_training(config)}
    if held_out is not None:
        longest["a held-out prompt + evaluation.max_new_tokens"] = (
            max(map(len, held_out.prompts)) + config.evaluation.max_new_tokens
        )
    for what, tokens in longest.items():
        if tokens > model.max_positions:
            raise ValueError(f"{what} is {tokens}, more than the model's {model.max_positions} positions")


def _longest_training(config: Config) -> int:
    return config.data.max_prompt_tokens + config.rollout.max_new_tokens
