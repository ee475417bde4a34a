"""Makes a built-in model from nothing: supervised steps on worked completions until its measured accuracies are high
enough.

The plain prompt is taught with many re-checks and the privileged one with few. That gap is what training on the model's
own completions can then remove.
"""

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from egrsd_jax.data.batch import Batch, make_batch
from egrsd_jax.data.problems import Problem
from egrsd_jax.data.prompts import PromptTemplates, encode_student, encode_teacher
from egrsd_jax.data.tasks.arithmetic import write_tokenizer
from egrsd_jax.data.tasks.registry import MODELLED_TASKS
from egrsd_jax.data.tokenizer import load_tokenizer
from egrsd_jax.evaluate.benchmarks import built_in_problems
from egrsd_jax.evaluate.held_out import HeldOut, built_in_set
from egrsd_jax.evaluate.scores import Scores
from egrsd_jax.model.config import ModelConfig
from egrsd_jax.model.decoder import init_params
from egrsd_jax.model.hf.hub import save_pretrained
from egrsd_jax.model.sharding import make_mesh
from egrsd_jax.policy import Policy
from egrsd_jax.rollout.engine import engine_for
from egrsd_jax.rollout.grading import Grader
from egrsd_jax.rollout.requests import Sampling
from egrsd_jax.train.score import predict, scores
from egrsd_jax.verify.pool import GradingPool
from egrsd_jax.warmup.settings import WarmupSettings

MODEL = ModelConfig(
    vocab_size=0,  # the tokenizer's, filled in
    hidden_size=128,
    intermediate_size=384,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    rope_theta=10_000.0,
    rms_norm_eps=1e-6,
    tie_embeddings=True,
    max_positions=512,
    dtype="float32",
    rematerialise="none",
)
MODELS = {"arithmetic": MODEL, "orders": MODEL.replace(hidden_size=96, intermediate_size=256, head_dim=24)}
TEMPLATES = PromptTemplates("{problem}", "{problem} reference {solution}", student_thinking=True, teacher_thinking=True)
INITIAL_STD = 0.08  # about 1 / sqrt(hidden size); from 0.02 the same steps leave the plain model at chance


def warm_up(settings: WarmupSettings, folder: Path, say: Callable[[str], None]) -> None:
    """Writes a Hugging Face folder with the warmed-up model. Raises RuntimeError where it never becomes good enough."""
    settings, task = settings.resolved(), MODELLED_TASKS[settings.task]
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder, task.words)
    tokenizer, stop_ids = load_tokenizer(folder)
    config = MODELS[settings.task].replace(vocab_size=len(tokenizer))
    params = init_params(jax.random.key(settings.seed), config, std=INITIAL_STD)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(optax.warmup_constant_schedule(0.0, settings.learning_rate, 20), weight_decay=0.01),
    )
    state = optimizer.init(params)
    problems = task.problems(settings.steps * settings.batch_size, seed=settings.seed, held_out=False)
    plain, privileged = (
        held_out(settings.task, tokenizer, encode, settings.problems) for encode in (encode_student, encode_teacher)
    )
    engine = engine_for(
        config,
        make_mesh(devices=jax.devices()[:1]),
        stop_ids,
        [*plain.prompts, *privileged.prompts],
        max_rows=256,
        max_new_tokens=task.max_new_tokens,
    )
    with GradingPool() as pool:
        grader = Grader(tokenizer, pool)
        for step in range(1, settings.steps + 1):
            batch = _batch(settings, tokenizer, problems, step - 1)
            params, state, loss = _supervised_step(params, state, batch, config=config, optimizer=optimizer)
            if step % settings.evaluate_every:
                continue
            policy = Policy(params, None)
            measured = [side.evaluate(policy, engine, grader) for side in (plain, privileged)]
            say(_line(step, float(loss), *measured))
            if measured[0].accuracy >= settings.plain_accuracy and measured[1].accuracy >= settings.privileged_accuracy:
                eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
                save_pretrained(folder, config, params, eos_token_id=eos, pad_token_id=pad)
                (folder / "warmup.json").write_text(json.dumps(_record(settings, step, *measured), indent=2) + "\n")
                return
    raise RuntimeError(f"{settings.steps} steps did not reach the accuracies asked for; see the accuracies above")


@partial(jax.jit, static_argnames=("config", "optimizer"), donate_argnums=(0, 1))
def _supervised_step(params, state, batch: Batch, *, config: ModelConfig, optimizer: optax.GradientTransformation):
    """One AdamW step on the mean negative log-likelihood, in nats per token, of the completions in a batch."""

    def loss(params):
        prediction = predict(Policy(params, None), config, batch.student_tokens_BS, batch.student_before_BT)
        logp_BT = scores(prediction, batch.completion_BT, temperature=1.0).logp_BT
        return -jnp.mean(logp_BT, where=batch.mask_BT)

    value, gradient = jax.value_and_grad(loss)(params)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes Python, int32 and float32 numbers
        change, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, change), state, value


def _batch(settings: WarmupSettings, tokenizer, problems: list[Problem], step: int) -> Batch:
    """Worked completions of the step's problems, some under the plain prompt and the rest under the privileged one."""
    task, prompts, completions = MODELLED_TASKS[settings.task], [], []
    for row in range(settings.batch_size):
        problem = problems[step * settings.batch_size + row]
        is_plain = row < settings.plain_share * settings.batch_size
        encode = encode_student if is_plain else encode_teacher
        recheck = settings.plain_recheck if is_plain else settings.privileged_recheck
        source = random.Random(f"{settings.seed} {step} {row}")
        prompts.append(encode(tokenizer, TEMPLATES, problem))
        completions.append(tokenizer.encode(task.completion(problem, source, recheck or 0.0, not is_plain)))
    return make_batch(prompts, prompts, completions, prompt_buckets=[64], completion_buckets=[task.max_new_tokens])


def held_out(task: str, tokenizer, encode, count: int) -> HeldOut:
    """Held-out problems under one of the two prompts, one completion each at temperature 1."""
    problems = built_in_problems(task, count)
    return HeldOut(
        of=built_in_set(task, count),
        prompts=[encode(tokenizer, TEMPLATES, problem) for problem in problems],
        answers=[problem.answer for problem in problems],
        samples=1,
        sampling=Sampling(max_new_tokens=MODELLED_TASKS[task].max_new_tokens),
        key=jax.random.key(0),
    )


def _line(step: int, loss: float, plain: Scores, privileged: Scores) -> str:
    sides = (
        f"{name} {100 * evaluation.accuracy:.1f}% in {evaluation.mean_length:.1f} tokens"
        for name, evaluation in (("plain", plain), ("privileged", privileged))
    )
    return f"step {step}: loss {loss:.3f}, {', '.join(sides)}"


def _record(settings: WarmupSettings, step: int, plain: Scores, privileged: Scores) -> dict:
    """How the model was made, which is stored next to it."""
    return {
        "settings": vars(settings),
        "stopped_at_step": step,
        "plain": plain.summary(),
        "privileged": privileged.summary(),
    }
