"""The training run, read from top to bottom: sample, grade, score, update, log, checkpoint, evaluate."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax
import numpy as np

from egrsd_jax.canvas import NO_PLOTS, can_plot
from egrsd_jax.compilation import CompilationNotices, Programs, count_programs, listening
from egrsd_jax.data.prompts import thinking_note
from egrsd_jax.evaluate.scores import Scores
from egrsd_jax.evaluate.watch import alarms, best_steps, complaints
from egrsd_jax.model.hosts import (
    FirstHostFailed,
    is_first_host,
    naming_lost_hosts,
    on_any_host,
    put_global,
    wait_for_all,
)
from egrsd_jax.model.sharding import replicated
from egrsd_jax.objective.reward import merge_moments
from egrsd_jax.objective.settings import GateSettings
from egrsd_jax.policy import student
from egrsd_jax.probes.watch import as_row, metrics_of
from egrsd_jax.rollout.first_host import own_engine
from egrsd_jax.rollout.grading import Grader, unanswered
from egrsd_jax.rollout.http.server import ServerError
from egrsd_jax.rollout.served.engine import ServedEngine
from egrsd_jax.runs import lock, stopping
from egrsd_jax.runs.folder import steps_in_words
from egrsd_jax.runs.layout import evaluation_file
from egrsd_jax.train.collect import Rollout, arranged, padding_metrics
from egrsd_jax.train.divergence import what_diverged
from egrsd_jax.train.frontier import draw_frontier
from egrsd_jax.train.log import TokenRecord
from egrsd_jax.train.pipeline import Pipeline
from egrsd_jax.train.probing import Probes, kept_probes, probe
from egrsd_jax.train.sampler_gap import judge_gap, sampler_gap, why_no_gap
from egrsd_jax.train.setup import Prepared
from egrsd_jax.train.state import TrainState, next_older
from egrsd_jax.train.step import Update, batch_shardings, make_update
from egrsd_jax.train.terminal import Terminal
from egrsd_jax.verify.pool import GradingPool

MOSTLY_CUT_OFF = 0.5  # share of completions cut off at the limit above which the run warns

Evaluations = list[tuple[int, Scores]]


class StepLog(NamedTuple):
    """What a gradient step logs: scalars, profiles, and numbers of every token."""

    metrics: dict[str, float]
    profiles: dict[str, Any]
    tokens: TokenRecord


@naming_lost_hosts()
def train(run: Prepared) -> Evaluations:
    """Trains to the configured number of steps and returns the held-out evaluations with their steps.

    Everything that a run leaves is in its folder. A run that was killed resumes from its newest checkpoint and ends
    with the same numbers as one that was not.
    """
    config, state = run.config, run.state
    update = make_update(
        config, run.model, run.optimizer, run.mesh, state, stop_ids=run.stop_ids, prefixes=run.prefixes
    )
    notes = run.folder.open(int(state.step), [device.device_kind for device in run.mesh.devices.flat])
    wait_for_all("the run's folder is open")
    with (
        GradingPool() as pool,
        Terminal(int(state.step), config.train.steps, quiet=not is_first_host()) as terminal,
        listening(CompilationNotices(terminal.say)),
    ):
        if isinstance(server := own_engine(run.engine), ServedEngine):
            server.announce = terminal.warn
        _announce(run, terminal)
        probes, lacking = kept_probes(run)
        for note in notes + lacking:
            terminal.warn(note)
        grader = Grader(run.tokenizer, pool, answer_format=run.config.prompt.answer_format)
        evaluations, pipeline = _kept_evaluations(run, terminal), Pipeline(run, grader)
        saved = _Saved(run, probes, evaluations)
        try:
            evaluations += _evaluation(run, state, grader, pipeline, terminal)
            _watch(run, evaluations, terminal)
            programs = Programs()
            for step in range(int(state.step), config.train.steps):
                started = time.perf_counter()
                with _interruptible(), terminal.wait("sample", config.train.batch_size) as advance:
                    rollout = pipeline.rollout(state, on_completion=advance)
                collected = time.perf_counter()
                state, log = _learn(run, state, rollout, update)
                seconds = {"seconds_rollout": collected - started, "seconds_update": time.perf_counter() - collected}
                earlier, programs = programs, count_programs()
                if isinstance(server, ServedEngine):
                    seconds["seconds_push"] = server.seconds_push
                more = seconds | _probe(run, step, rollout, log, probes, terminal) | _compiled(programs.since(earlier))
                log = log._replace(metrics=log.metrics | more)
                _report(run, step, rollout, log, terminal)
                if _is_due(step + 1, config.train.checkpoint_every, config.train.steps) or _is_evaluated(run, step + 1):
                    saved.save(state)
                _stop_where_all_do()
                if new := _evaluation(run, state, grader, pipeline, terminal):
                    evaluations += new
                    _watch(run, evaluations, terminal)
        except stopping.Stopped:
            saved.save(state)
            run.folder.close()
            raise
        except (ServerError, FirstHostFailed) as error:
            saved.save(state)
            run.folder.close()
            raise ServerLost(f"{error}; nothing of this step is kept; the same command {saved.resumes()}") from None
        finally:
            pipeline.close()
        _close(run, evaluations, terminal)
        run.engine.close()
    return evaluations


class ServerLost(ServerError):
    """The servers that sample can no longer be waited for; the run is saved."""

    exit_code = 1  # a scheduler starts it again


class _Saved:
    """Which step the newest checkpoint is of, and what a signal that ends the run says about it.

    `probes` and `evaluations` are those until now, which the run adds to.
    """

    def __init__(self, run: Prepared, probes: Probes, evaluations: Evaluations):
        self._run, self._step = run, int(run.state.step)
        self._probes, self._evaluations = probes, evaluations
        self._announce()

    def save(self, state: TrainState) -> None:
        """A checkpoint of the state, unless its step has one."""
        if int(state.step) > self._step:
            evaluations = {str(step): scores.to_json() for step, scores in self._evaluations}
            history = {"probes": self._probes.watch.to_json(), "evaluations": evaluations}
            self._run.checkpoints.save(state, history)
            self._step = int(state.step)
            self._announce()

    def resumes(self) -> str:
        """What the same command does."""
        return f"resumes from the checkpoint of step {self._step}" if self._step else "starts again"

    def _announce(self) -> None:
        stopping.stops_within(self._run.config.run.grace, f"the same command {self.resumes()}")


def _interruptible() -> AbstractContextManager[None]:
    """What a signal may end in the middle; not where other hosts wait in the same collective."""
    return stopping.interruptible() if jax.process_count() == 1 else nullcontext()


def _stop_where_all_do() -> None:
    """Raises Stopped after the same step on every host, where a signal came to any. Raises Locked where this run was
    taken for dead and another writes its folder."""
    lock.check_held()
    if on_any_host(stopping.stopping()):
        raise stopping.Stopped(stopping.code())


def _learn(
    run: Prepared, state: TrainState, rollout: Rollout, update: Callable[..., Update]
) -> tuple[TrainState, StepLog]:
    """One gradient step on a rollout; its rewards join the running moments after it."""
    batch, inputs = arranged(run, rollout)
    padding = padding_metrics(batch)
    batch = jax.tree.map(put_global, batch, batch_shardings(batch, run.mesh))
    inputs, *step_and_key = put_global((inputs, np.int32(int(state.step)), np.asarray(state.key)), replicated(run.mesh))
    older = next_older(state)
    learned, *logged = update(state.learned, run.base, batch, inputs, *step_and_key, *state.older[:1])
    metrics, profiles, tokens = jax.device_get(logged)
    for leaf in jax.tree.leaves(state.older[:1]):
        leaf.delete()  # the state that the run began with refers to the first of them for as long as it runs
    metrics |= rollout.metrics | padding
    if (diverged := what_diverged(int(state.step), metrics)) is not None:
        raise FloatingPointError(diverged)
    if why_no_gap(run.config) is None:
        metrics |= sampler_gap(rollout, tokens.student_logp if tokens.version_logp is None else tokens.version_logp)
    problems = run.config.train.batch_size // run.config.rollout.samples_per_problem
    counted = {
        "moments": merge_moments(jax.tree.map(np.asarray, state.moments), rollout.moments),
        "step": np.int32(int(state.step) + 1),
        "position": np.int32(int(state.position) + problems),
    }
    state = TrainState(*learned, key=state.key, older=older, **put_global(counted, replicated(run.mesh)))
    return state, StepLog({name: float(value) for name, value in metrics.items()}, profiles, tokens)


def _probe(
    run: Prepared, step: int, rollout: Rollout, log: StepLog, probes: Probes, terminal: Terminal
) -> dict[str, float]:
    """Logs the step's probes and warns of alarms that begin with it. Returns the probes' metrics and their seconds."""
    started = time.perf_counter()
    tallies = probe(run, rollout, log.tokens, probes)
    if tallies:
        run.folder.log_probes(step, as_row(tallies) | {"fork_entropy": probes.watch.fork_entropy})
        for verdict in probes.watch.see(tallies):
            terminal.warn(f"step {step}: {verdict.text}")
            run.folder.log_alarm(step, verdict.probe.name, verdict.text)
    return metrics_of(tallies) | {"seconds_probes": time.perf_counter() - started}


def _compiled(programs: Programs) -> dict[str, float]:
    """The metrics of programs that were made since the last step's row."""
    compiled, cached, seconds = map(float, programs)
    return {"programs_compiled": compiled, "programs_cached": cached, "seconds_compilation": seconds}


def _report(run: Prepared, step: int, rollout: Rollout, log: StepLog, terminal: Terminal) -> None:
    """Metrics and profiles of every step, and samples with their token weights now and then.

    Raises FloatingPointError, after the metrics are logged, where sampler and trainer do not run the same weights.
    """
    metrics = log.metrics
    run.folder.log(step, metrics)
    run.folder.log_profiles(step, log.profiles)
    terminal.step(step + 1, metrics)
    warns = step == int(run.state.step) or step % run.config.train.sample_every == 0
    mostly_cut_off = metrics["cut_off_share"] > MOSTLY_CUT_OFF
    if mostly_cut_off and warns:
        terminal.warn(
            f"{100 * metrics['cut_off_share']:.0f}% of the completions reached rollout.max_new_tokens "
            f"{run.config.rollout.max_new_tokens} without an end and earn nothing; raise it"
            f"{', or turn prompt.student_thinking off' if _thinks_on_request(run) else ''}"
        )
    if warns:
        missing = {} if mostly_cut_off else unanswered(grade.missing for grade in rollout.grades)
        for line in complaints(len(rollout.grades), missing, int(metrics["ungradable"])):
            terminal.warn(f"step {step}: {line}")
    gap = metrics.get("sampler_logp_gap_mean")
    model, sampler = run.config.model.dtype, run.config.rollout.weights_dtype
    narrower = "bfloat16" if "bfloat16" in (model, sampler) else model
    limits = {"warns": run.config.rollout.gap_warns, "stops": run.config.rollout.gap_stops}
    served = bool(run.config.rollout.servers)
    if gap is not None and (warning := judge_gap(gap, dtype=narrower, step=step, served=served, **limits)):
        terminal.warn(warning)
    if step % run.config.train.sample_every == 0:
        shown = rollout.grades[0]
        answer = run.problems.problems[rollout.problem[0]].answer
        terminal.sample(step, metrics, shown.text, correct=shown.correct, answer=answer)
        run.folder.log_samples(_sample_rows(run, step, rollout, log.tokens))


def _thinks_on_request(run: Prepared) -> bool:
    """Whether the student thinks and would not with the field off: some chat templates leave no choice."""
    wanted = run.config.prompt.student_thinking
    return wanted and thinking_note(run.tokenizer, {"prompt.student_thinking": False}) is None


def _sample_rows(run: Prepared, step: int, rollout: Rollout, tokens: TokenRecord):
    """Every completion of a step with the numbers of its tokens, rounded to what a reader can use."""
    for row, (completion, grade) in enumerate(zip(rollout.completions, rollout.grades, strict=True)):
        length = len(completion.tokens)
        numbers = {name: np.round(array[row, :length].astype(float), 5) for name, array in tokens.known().items()}
        numbers["delta"] = np.round(numbers["teacher_logp"] - numbers["student_logp"], 5)
        yield {
            "step": step,
            "problem": run.problems.problems[rollout.problem[row]].id,
            "text": grade.text,
            "answer": grade.answer,
            "correct": grade.correct,
            "ungradable": grade.ungradable,
            "no_answer": grade.missing,
            "stopped": completion.stopped,
            "reward": float(rollout.reward[row]),
            "advantage": float(rollout.advantage[row]),
            "by_teacher": bool(rollout.by_teacher[row]),
            **({"version": rollout.version, "age": rollout.age} if run.config.rollout.ahead else {}),
            "tokens": completion.tokens,
            **{name: values.tolist() for name, values in numbers.items() if not np.isnan(values).any()},
        }


def _kept_evaluations(run: Prepared, terminal: Terminal) -> Evaluations:
    """Evaluations that this run made before it was last stopped. One whose file is gone is in the checkpoint, unless
    that is of an earlier version, and is written again."""
    if run.held_out is None:
        return []
    kept, evaluations, lacking = run.checkpoints.history.get("evaluations", {}), [], []
    for step in range(int(run.state.step)):
        if not _is_evaluated(run, step):
            continue
        name = evaluation_file(step)
        content = run.folder.read_json(name)
        if content is None and (content := kept.get(str(step))) is not None:
            run.folder.write_json(name, content)
            terminal.warn(f"{run.folder.path / name} is written again, from the checkpoint")
        if content is None:
            lacking.append(step)
        else:
            evaluations.append((step, run.held_out.read(content)))
    if lacking:
        terminal.warn(
            f"{run.folder.path} has no evaluations of {steps_in_words(lacking)}; alarms, the plot and "
            "train.keep_best are without them"
        )
    return evaluations


def _evaluation(
    run: Prepared, state: TrainState, grader: Grader, pipeline: Pipeline, terminal: Terminal
) -> Evaluations:
    """The held-out evaluation of this state, in a list, where one is due: at the start, at the end, as configured."""
    step = int(state.step)
    if run.held_out is None or not _is_evaluated(run, step):
        return []
    if (content := run.folder.read_json(evaluation_file(step))) is not None:
        return [(step, run.held_out.read(content))]
    terminal.say(f"evaluating {len(run.held_out.prompts)} held-out problems × {run.held_out.samples} at step {step}")
    policy = student(state.trainable, run.base, run.config.lora)
    count = len(run.held_out.prompts) * run.held_out.samples
    with _interruptible(), terminal.wait("evaluate", count) as advance:
        pipeline.finish_pending()
        evaluation = run.held_out.evaluate(policy, run.engine, grader, on_completion=advance)
    run.folder.write_json(evaluation_file(step), evaluation.to_json())
    return [(step, evaluation)]


def _watch(run: Prepared, evaluations: Evaluations, terminal: Terminal) -> None:
    """Warns of what is wrong with the newest evaluation, and keeps the checkpoints of the best ones."""
    if evaluations:
        trained = [entry for entry in evaluations if entry[0] > 0]  # step 0 has no checkpoint: it is the base model
        run.checkpoints.keep(best_steps(trained, max(len(trained), 1))[: run.config.train.keep_best])
        for alarm in alarms(evaluations, run.config.probes):
            terminal.warn(alarm.text)
            run.folder.log_alarm(evaluations[-1][0], alarm.probe, alarm.text)


def _close(run: Prepared, evaluations: Evaluations, terminal: Terminal) -> None:
    """The closing table and the frontier plot."""
    terminal.end()
    if evaluations:
        title = f"{run.config.method.name} on {run.config.evaluation.path}, seed {run.config.seed}"
        if not can_plot():
            terminal.say(f"no {run.folder.frontier.name}: {NO_PLOTS}")
        elif is_first_host():
            draw_frontier(run.folder.frontier, evaluations, title)
        terminal.closing_table(evaluations, title)
    programs = count_programs()
    terminal.say(
        f"{programs.compiled} programs compiled, {programs.cached} read from the compilation cache, "
        f"{programs.seconds:.1f} s together"
    )
    terminal.say(f"configuration, metrics, samples, checkpoints: {run.folder.path}")
    run.checkpoints.close()
    run.folder.close()


def _announce(run: Prepared, terminal: Terminal) -> None:
    """Prints what is about to run, what was left out of the data, and what is not measured."""
    config, state = run.config, run.state
    trained = sum(leaf.size for leaf in jax.tree.leaves(state.trainable))
    base = sum(leaf.size for leaf in jax.tree.leaves(run.base))
    what = "all weights" if config.lora.rank == 0 else f"LoRA r={config.lora.rank}"
    method = config.method
    gate = f" (gamma {method.gamma}, window {method.window})" if isinstance(method, GateSettings) else ""
    mesh = " x ".join(f"{axis} {size}" for axis, size in run.mesh.shape.items())
    kind = run.mesh.devices.flat[0].device_kind
    terminal.say(f"{method.name}{gate} on {config.model.path}: {base:,} parameters, {trained:,} trained ({what})")
    terminal.say(
        f"{len(run.problems.problems):,} problems, {config.train.batch_size} completions per step, mesh {mesh} ({kind})"
    )
    if run.shapes is not None:
        rows = ", ".join(f"{shape.rows} × {shape.positions:,}" for shapes in run.shapes for shape in shapes)
        terminal.say(f"the update's rows, chosen by the prompts: {rows} positions; completions share them")
    terminal.say(run.compilation_cache)
    for note in run.notes:
        terminal.warn(note)
    if reason := why_no_gap(config):
        terminal.say(f"sampler_logp_gap is not measured: {reason}")
    if int(state.step) >= config.train.steps:
        terminal.say(f"this run is at step {int(state.step)} already; a larger --train.steps would resume from there")
    elif int(state.step):
        terminal.say(f"resuming from the checkpoint of step {int(state.step)}")


def _is_evaluated(run: Prepared, step: int) -> bool:
    return run.held_out is not None and (
        step == 0 or _is_due(step, run.config.evaluation.every, run.config.train.steps)
    )


def _is_due(step: int, every: int, last: int) -> bool:
    return step == last or (every > 0 and step > 0 and step % every == 0)
