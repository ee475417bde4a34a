"""Who samples for a run: this process, or the servers of `rollout.server`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from egrsd_jax.config import Config
from egrsd_jax.data.prompts import EncodedProblems
from egrsd_jax.evaluate.held_out import HeldOut
from egrsd_jax.model.config import ModelConfig, read_config
from egrsd_jax.model.hosts import on_first_host
from egrsd_jax.objective.methods import METHODS
from egrsd_jax.rollout.engine import engine_for
from egrsd_jax.rollout.first_host import FirstHostEngine
from egrsd_jax.rollout.http.engine import API_KEY
from egrsd_jax.rollout.requests import Sampler, Sampling
from egrsd_jax.rollout.served.engine import ServedEngine
from egrsd_jax.rollout.served.weights import SharedFolder


def engine_here(
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


def engine_of_servers(*arguments: Any) -> Sampler:
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
