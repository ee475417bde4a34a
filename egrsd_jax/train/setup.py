"""Everything a run needs before its first step, read and checked before anything is written."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import optax

from egrsd_jax.compilation import keep_programs
from egrsd_jax.config import Config
from egrsd_jax.data.packing import Shapes
from egrsd_jax.data.prefix import Prefixes
from egrsd_jax.data.prompts import (
    EncodedProblems,
    thinking_note,
)
from egrsd_jax.data.tokenizer import FILES_BESIDE_WEIGHTS, check_token_ids, load_tokenizer
from egrsd_jax.evaluate.held_out import HeldOut
from egrsd_jax.model.config import ModelConfig, read_config
from egrsd_jax.model.decoder import Params
from egrsd_jax.model.hf.adapter_config import CONFIG as ADAPTER_CONFIG
from egrsd_jax.model.hf.adapter_config import read_adapter_config
from egrsd_jax.model.hf.hub import load_pretrained, resolve_folder
from egrsd_jax.model.hf.peft import WEIGHTS as ADAPTER_WEIGHTS
from egrsd_jax.model.hf.peft import load_adapter
from egrsd_jax.model.hosts import check_same, is_first_host, join_hosts, naming_lost_hosts
from egrsd_jax.model.sharding import batch_shards, make_mesh
from egrsd_jax.objective.method import PAPER_SAMPLING
from egrsd_jax.objective.methods import METHODS
from egrsd_jax.objective.settings import teacher_schedule, watches
from egrsd_jax.rollout.requests import Sampler, Sampling
from egrsd_jax.runs import fingerprint, stopping
from egrsd_jax.runs.folder import RunFolder
from egrsd_jax.runs.trackers import NO_TENSORBOARD, check_tracker, is_installed
from egrsd_jax.train.checkpoint import Checkpoints
from egrsd_jax.train.engines import engine_here, engine_of_servers
from egrsd_jax.train.problems import check_positions, encode_fitting, read_held_out, read_problems
from egrsd_jax.train.rows import row_shapes, shared_prefixes
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
    held_out = read_held_out(config, tokenizer)

    servers = config.rollout.servers
    served = engine_of_servers(config, folder, stop_ids, encoded, held_out, run_folder.path) if servers else None
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
        engine=served or engine_here(config, model, mesh, stop_ids, encoded, held_out),
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
    digests = {
        "weights": (of_weights, f"the weights in {folder}"),
        "tokenizer": (
            fingerprint.of_files(folder / name for name in FILES_BESIDE_WEIGHTS),
            f"config.json, the tokenizer or the chat template in {folder}",
        ),
        "data": (
            fingerprint.of_rows(problem.texts for problem in encoded.problems),
            f"the rows of {config.data.path} that are used",
        ),
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
