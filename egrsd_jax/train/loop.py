"""The training run, read from top to bottom: draw, grade, score, update, log, keep."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from egrsd_jax.config import Config
from egrsd_jax.data.batch import Batch, make_batch, micro_batches, split_rows
from egrsd_jax.data.order import problem_indices
from egrsd_jax.evaluate.grading import Grade, Grader
from egrsd_jax.evaluate.held_out import Evaluation
from egrsd_jax.model.hosts import is_first_host, place, wait_for_all
from egrsd_jax.model.sharding import batch_sharding, batch_shards, replicated, round_up
from egrsd_jax.objective.diagnostics import rollout_metrics
from egrsd_jax.objective.reward import RunningMoments, group_advantage, shaped_reward, update_moments, whiten
from egrsd_jax.report.frontier import draw_frontier
from egrsd_jax.report.terminal import Terminal
from egrsd_jax.rollout.engine import Completion, Sampling, sample_keys
from egrsd_jax.train.setup import Prepared
from egrsd_jax.train.state import TrainState, student
from egrsd_jax.train.step import TokenRecord, Update, make_update
from egrsd_jax.verify.pool import GradingPool

MOSTLY_CUT_OFF = 0.5  # share of completions without an end above which the run says so
LOGP_GAP = 0.02  # nats, mean, between the sampler's and the trainer's log-probabilities above which it says so

Evaluations = list[tuple[int, Evaluation]]


class Rollout(NamedTuple):
    """A step's completions, one a row: which problem, what was said, its grade, reward and advantage."""

    problem: np.ndarray  # index into the problems, [rows]
    completions: list[Completion]
    grades: list[Grade]
    reward: jax.Array
    advantage: jax.Array
    metrics: dict[str, Any]


def train(run: Prepared) -> Evaluations:
    """Trains to the configured number of steps and returns the held-out evaluations with their steps.

    Everything that a run leaves is in its folder. A run that was killed goes on from its newest checkpoint, to the end
    that it would have come to.
    """
    config, state = run.config, run.state
    update = make_update(config, run.model, run.optimizer, run.mesh, state)
    run.folder.open(int(state.step), [device.device_kind for device in run.mesh.devices.flat])
    wait_for_all("the run's folder is open")
    with GradingPool() as pool, Terminal(int(state.step), config.train.steps, quiet=not is_first_host()) as terminal:
        _announce(run, terminal)
        grader = Grader(run.tokenizer, pool)
        evaluations = _kept_evaluations(run) + _evaluation(run, state, grader, terminal)
        for step in range(int(state.step), config.train.steps):
            started = time.perf_counter()
            rollout = _draw(run, state, grader)
            drawn = time.perf_counter()
            state, tokens, metrics = _learn(run, state, rollout, update)
            seconds = {"seconds_rollout": drawn - started, "seconds_update": time.perf_counter() - drawn}
            _report(run, step, rollout, tokens, metrics | seconds, terminal)
            if _is_due(step + 1, config.train.checkpoint_every, config.train.steps):
                run.checkpoints.save(state)
            evaluations += _evaluation(run, state, grader, terminal)
        _close(run, evaluations, terminal)
    return evaluations


def _draw(run: Prepared, state: TrainState, grader: Grader) -> Rollout:
    """Completions of the next problems, graded and rewarded; the advantage looks at earlier steps' rewards alone."""
    config, rules = run.config, run.config.rollout
    distinct = config.train.batch_size // rules.samples_per_problem
    order = problem_indices(config.seed, int(state.position), distinct, len(run.problems.problems))
    rows = np.repeat(order, rules.samples_per_problem)
    policy = student(state.trainable, run.base, config.lora)
    moments = jax.tree.map(np.asarray, state.moments)
    completions = run.engine.generate(
        *policy,
        [run.problems.student_prompts[row] for row in rows],
        sample_keys(jax.random.wrap_key_data(jnp.asarray(np.asarray(state.key))), int(state.step), len(rows)),
        Sampling(rules.temperature, rules.top_k, rules.top_p, rules.min_p, rules.max_new_tokens),
        score_temperature=config.method.score_temperature,
    )
    grades = grader.grade(completions, [run.problems.problems[row].answer for row in rows])
    correct = np.array([grade.correct for grade in grades])
    length = np.array([len(completion.tokens) for completion in completions], np.float32)
    reward = shaped_reward(correct, length, max_length=rules.max_new_tokens, beta=config.reward.length_bonus)
    cut_off = np.array([not completion.stopped for completion in completions])
    metrics: dict[str, Any] = rollout_metrics(reward, correct, cut_off, length, moments, ddof=config.reward.ddof)
    metrics["ungradable"] = sum(grade.ungradable is not None for grade in grades)
    return Rollout(rows, completions, grades, reward, _advantage(config, reward, moments, int(state.step)), metrics)


def _advantage(config: Config, reward_B: jax.Array, moments: RunningMoments, step: int) -> jax.Array:
    settings = config.reward
    if settings.advantage == "group":
        return group_advantage(reward_B, config.rollout.samples_per_problem)
    return whiten(
        reward_B,
        moments,
        step,
        warmup_steps=settings.warmup_steps,
        warmup_baseline=settings.warmup_baseline,
        min_std=settings.min_std,
        ddof=settings.ddof,
    )


def _learn(
    run: Prepared, state: TrainState, rollout: Rollout, update: Callable[..., Update]
) -> tuple[TrainState, TokenRecord, dict[str, float]]:
    """One gradient step on a rollout; its rewards join the running moments after it."""
    batch, advantage = place(_batch(run, rollout), batch_sharding(run.mesh, axis=1))
    result = update(state.trainable, state.optimizer, run.base, batch, advantage)
    tokens, metrics = jax.device_get((result.tokens, result.metrics | rollout.metrics))
    if not np.isfinite(metrics["gradient_norm"]):
        raise FloatingPointError(
            f"the gradient of step {int(state.step)} is not finite (loss {float(metrics['loss'])}); the newest "
            "checkpoint is from before it. A lower train.learning_rate or model.dtype float32 may help"
        )
    metrics |= _logp_gap(rollout.completions, tokens.student_logp)
    problems = run.config.train.batch_size // run.config.rollout.samples_per_problem
    known = {
        "moments": update_moments(jax.tree.map(np.asarray, state.moments), rollout.reward),
        "step": np.int32(int(state.step) + 1),
        "position": np.int32(int(state.position) + problems),
    }
    state = TrainState(result.trainable, result.optimizer, key=state.key, **place(known, replicated(run.mesh)))
    return state, tokens, {name: float(value) for name, value in metrics.items()}


def _batch(run: Prepared, rollout: Rollout) -> tuple[Batch, jax.Array]:
    """The rollout in micro-batches [M, B, ...], filled up with empty rows where it does not divide."""
    size = round_up(run.config.train.micro_batch_size or len(rollout.completions), batch_shards(run.mesh))
    batch = make_batch(
        [run.problems.student_prompts[row] for row in rollout.problem],
        [run.problems.teacher_prompts[row] for row in rollout.problem],
        [completion.tokens for completion in rollout.completions],
        rows_multiple=size,
    )
    spare = len(batch.mask_BT) - len(rollout.completions)
    return micro_batches(batch, size), split_rows(jnp.pad(rollout.advantage, (0, spare)), size)


def _logp_gap(completions: list[Completion], student_logp_BT: np.ndarray) -> dict[str, float]:
    """How far the sampler's log-probabilities are from the trainer's, in nats: near 0 unless one has other weights."""
    gaps = [
        np.abs(row[: len(completion.tokens)] - completion.logp)
        for row, completion in zip(student_logp_BT, completions, strict=False)  # rows that fill the batch come last
    ]
    gap = np.concatenate(gaps)
    return {"sampler_logp_gap_mean": float(gap.mean()), "sampler_logp_gap_max": float(gap.max())}


def _report(
    run: Prepared, step: int, rollout: Rollout, tokens: TokenRecord, metrics: dict[str, float], terminal: Terminal
):
    """Metrics of every step, and samples with their token weights now and then."""
    run.folder.log(step, metrics)
    terminal.step(step + 1, metrics)
    told = step == int(run.state.step) or step % run.config.train.sample_every == 0
    if metrics["cut_off_share"] > MOSTLY_CUT_OFF and told:
        terminal.warn(
            f"{100 * metrics['cut_off_share']:.0f}% of the completions reached rollout.max_new_tokens "
            f"{run.config.rollout.max_new_tokens} without an end and earn nothing; raise it, or turn "
            "prompt.student_thinking off"
        )
    if metrics["sampler_logp_gap_mean"] > LOGP_GAP:
        terminal.warn(
            f"sampler and trainer differ by {metrics['sampler_logp_gap_mean']:.3f} nats a token at step {step}"
        )
    if step % run.config.train.sample_every == 0:
        shown = rollout.grades[0]
        answer = run.problems.problems[rollout.problem[0]].answer
        terminal.sample(step, metrics, shown.text, correct=shown.correct, answer=answer)
        run.folder.log_samples(_sample_rows(run, step, rollout, tokens))


def _sample_rows(run: Prepared, step: int, rollout: Rollout, tokens: TokenRecord):
    """Every completion of a step with the numbers of its tokens, rounded to what a reader can use."""
    for row, (completion, grade) in enumerate(zip(rollout.completions, rollout.grades, strict=True)):
        length = len(completion.tokens)
        numbers = {name: np.round(array[row, :length].astype(float), 5) for name, array in tokens._asdict().items()}
        numbers["delta"] = np.round(numbers["teacher_logp"] - numbers["student_logp"], 5)
        yield {
            "step": step,
            "problem": run.problems.problems[rollout.problem[row]].id,
            "text": grade.text,
            "answer": grade.answer,
            "correct": grade.correct,
            "ungradable": grade.ungradable,
            "stopped": completion.stopped,
            "reward": float(rollout.reward[row]),
            "advantage": float(rollout.advantage[row]),
            "tokens": completion.tokens,
            **{name: values.tolist() for name, values in numbers.items() if not np.isnan(values).any()},
        }


def _kept_evaluations(run: Prepared) -> Evaluations:
    """Evaluations that this run made before it was last stopped."""
    steps = (step for step in range(int(run.state.step)) if _is_evaluated(run, step))
    kept = ((step, run.folder.read_json(_evaluation_file(step))) for step in steps)
    return [(step, Evaluation.from_json(content)) for step, content in kept if content is not None]


def _evaluation(run: Prepared, state: TrainState, grader: Grader, terminal: Terminal) -> Evaluations:
    """The held-out evaluation of this state, in a list, where one is due: at the start, at the end, as configured."""
    step = int(state.step)
    if run.held_out is None or not _is_evaluated(run, step):
        return []
    if (content := run.folder.read_json(_evaluation_file(step))) is not None:
        return [(step, Evaluation.from_json(content))]
    terminal.say(f"evaluating {len(run.held_out.prompts)} held-out problems × {run.held_out.samples} at step {step}")
    policy = student(state.trainable, run.base, run.config.lora)
    found = run.held_out.evaluate(policy, run.evaluation_engine, grader)
    run.folder.write_json(_evaluation_file(step), found.to_json())
    return [(step, found)]


def _close(run: Prepared, evaluations: Evaluations, terminal: Terminal) -> None:
    """The closing table and the picture."""
    terminal.end()
    if evaluations:
        title = f"{run.config.method.name} on {run.config.evaluation.path}, seed {run.config.seed}"
        if is_first_host():
            draw_frontier(run.folder.frontier, evaluations, title)
        terminal.closing_table(evaluations, title)
    terminal.say(f"configuration, metrics, samples, checkpoints: {run.folder.path}")
    run.folder.close()
    run.checkpoints.close()


def _announce(run: Prepared, terminal: Terminal) -> None:
    """What is about to run, in three lines, and what was left out of the data."""
    config, state = run.config, run.state
    trained = sum(leaf.size for leaf in jax.tree.leaves(state.trainable))
    base = sum(leaf.size for leaf in jax.tree.leaves(run.base))
    what = "all weights" if config.lora.rank == 0 else f"LoRA r={config.lora.rank}"
    method = config.method
    gate = "" if method.name == "grpo" else f" (gamma {method.gamma}, window {method.window})"
    mesh = " x ".join(f"{axis} {size}" for axis, size in run.mesh.shape.items())
    kind = run.mesh.devices.flat[0].device_kind
    terminal.say(f"{method.name}{gate} on {config.model.path}: {base:,} parameters, {trained:,} trained ({what})")
    terminal.say(
        f"{len(run.problems.problems):,} problems, {config.train.batch_size} completions a step, mesh {mesh} ({kind})"
    )
    for note in run.notes:
        terminal.warn(note)
    if int(state.step) >= config.train.steps:
        terminal.say(
            f"this run stands at step {int(state.step)} already; a larger --train.steps would go on from there"
        )
    elif int(state.step):
        terminal.say(f"going on from the checkpoint of step {int(state.step)}")


def _is_evaluated(run: Prepared, step: int) -> bool:
    return step == 0 or _is_due(step, run.config.evaluation.every, run.config.train.steps)


def _is_due(step: int, every: int, last: int) -> bool:
    return step == last or (every > 0 and step > 0 and step % every == 0)


def _evaluation_file(step: int) -> str:
    return f"evaluation_step{step}.json"
