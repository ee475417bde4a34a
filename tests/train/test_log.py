"""What a step logs against plain NumPy, the limits of the sampler's gap, and docs/metrics.md."""

import math
import re
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.config import Config, LoraSettings, ModelSettings
from egrsd_jax.objective.methods import METHODS, method_settings
from egrsd_jax.objective.settings import KeptTokensSettings, MethodSettings, contrasts
from egrsd_jax.objective.signals import Signals
from egrsd_jax.probes.observed import COUNTED
from egrsd_jax.rollout.requests import Completion
from egrsd_jax.runs.files import read_rows
from egrsd_jax.train import loop
from egrsd_jax.train.log import Watched, step_metrics, step_profiles, token_record, watched_metrics
from egrsd_jax.train.sampler_gap import judge_gap, sampler_gap, why_no_gap
from tests.commands import ROOT, finish, start
from tests.objective.methods import FILES
from tests.objective.restated import restated as restated_losses

B, T, VOCABULARY = 5, 9, 40
LENGTHS = np.array([9, 4, 0, 7, 2])
TEACHERS = [name for name, method in METHODS.items() if method.teacher]
WEIGHTED = [name for name, method in METHODS.items() if method.token_weight]
CASES = {
    **{name: method_settings(name) for name in METHODS},
    "egrsd, strong gate": method_settings("egrsd", gamma=0.95),
    "egrsd, gate alone": method_settings("egrsd", epsilon=0.0, scope="sequence"),
    "cl_egrsd, lookahead": method_settings("cl_egrsd", gamma=1.0, window=2, denominator="lookahead"),
    "rlsd, later": method_settings("rlsd", mixing=0.9, mixing_steps=4),
    "rlsd, negative alone": method_settings("rlsd", negative_only=True),
    "dapo, kl": method_settings("dapo", kl=0.3),
    "reopold, exploring": method_settings("reopold", exploration_steps=1),
}


def resolved(case: str) -> MethodSettings:
    return CASES[case].in_run(rollout_temperature=1.1)


def signals(settings: MethodSettings) -> Signals:
    """A step's signals as the method asks for them: every sign of A, paced completions, an empty row, padding 0."""
    method, draw = METHODS[settings.name], np.random.default_rng(1)
    mask = np.arange(T)[None] < LENGTHS[:, None]

    def of(low, high):
        return np.where(mask, draw.uniform(low, high, (B, T)), 0).astype(np.float32)

    student, teacher, sampled, initial = of(-3, -0.1), of(-3, -0.1), of(-0.4, 0.4), of(-3, -0.1)
    entropy, own_entropy, divergence, gate = of(0, 3), of(0, 2), of(0, 1), of(0.2, 1)
    gate[0, :2] = gate[3, 4] = settings.floor if method.gated else 0.1
    return Signals(
        mask_BT=mask,
        student_logp_BT=student,
        sampled_logp_BT=student + sampled,
        advantage_B=np.array([1.2, -0.7, 0.5, 0.0, -2.0], np.float32),
        weight_B=np.array([0.25, 0.1, 1.0, 0.2, 0.4], np.float32),
        demonstration_B=np.array([True, False, False, True, False]),
        step=np.int32(3),
        teacher_logp_BT=teacher if method.teacher else None,
        teacher_entropy_BT=entropy if method.teacher else None,
        gate_BT=gate if method.gated else None,
        divergence_BT=divergence if method.divergence else None,
        clipped_entries_BT=np.where(mask & (divergence > 0.5), 3, 0).astype(np.float32) if clips(settings) else None,
        clipped_mass_BT=np.where(divergence > 0.5, 0.25 * divergence, 0) if clips(settings) else None,
        student_entropy_BT=own_entropy if isinstance(settings, KeptTokensSettings) else None,
        student_entropy_threshold=np.float32(1.1) if isinstance(settings, KeptTokensSettings) else None,
        initial_logp_BT=initial if settings.scores_initial else None,
        lowest_BT=np.where(initial < -1.5, 2, 0).astype(np.float32) if method.name == "fixed_negative" else None,
        modulation_BT=np.where(initial < -1, sampled, 0) if contrasts(settings) else None,
        split_BT=divergence if contrasts(settings) else None,
    )


def clips(settings: MethodSettings) -> bool:
    """Whether a divergence with a clip is taken."""
    return settings.divergence is not None and settings.divergence.entry_clip is not None


def tokens_of(found: Signals, settings: MethodSettings) -> dict[str, np.ndarray]:
    """The numbers of every token one after the other, in float64."""
    rows, columns = np.nonzero(found.mask_BT)

    def flat(array_BT):
        return None if array_BT is None else np.asarray(array_BT, float)[rows, columns]

    per_row = {"A": found.advantage_B, "c": found.weight_B, "by_teacher": found.demonstration_B}
    tokens = {name: np.asarray(array_B, float)[rows] for name, array_B in per_row.items()}
    tokens |= {name.removesuffix("_BT"): flat(array) for name, array in found._asdict().items() if name.endswith("_BT")}
    tokens |= {"row": rows, "column": columns}
    if METHODS[settings.name].teacher:
        tokens["delta"] = tokens["teacher_logp"] - tokens["student_logp"]
        tokens["ratio"] = np.exp(np.sign(tokens["A"]) * tokens["delta"])
    if settings.name in WEIGHTED:
        tokens["w"] = np.clip(tokens["ratio"], 1 - settings.epsilon, 1 + settings.epsilon)
    if settings.name == "rlsd":
        mixing = settings.mixing * (max(0.0, 1 - 3 / settings.mixing_steps) if settings.mixing_steps else 1)
        mixed = 1 - mixing + mixing * tokens["w"]
        tokens["w"] = np.where(tokens["A"] < 0, mixed, 1) if settings.negative_only else mixed
    return tokens


def coefficient(s: dict[str, np.ndarray], m: MethodSettings) -> np.ndarray | None:
    """What each token's gradient of log p_S is multiplied by, from the methods' equations."""
    if METHODS[m.name].divergence:
        return None
    if m.name in FILES:
        _, slope_BT, _ = restated_losses(FILES[m.name].restatement, signals(m), m)
        return -slope_BT[s["row"], s["column"]]
    if m.name in WEIGHTED:
        return s["c"] * s["A"] * s["w"] * (s["gate"] if METHODS[m.name].gated else 1)
    if m.name == "grpo":
        return s["c"] * s["A"]
    if m.name in ("grpo_group", "dr_grpo", "dapo"):
        rho = np.exp(s["student_logp"] - s["sampled_logp"])
        clipped = np.where(s["A"] > 0, rho > 1 + m.epsilon_high, rho < 1 - m.epsilon)
        pull = 0.0 if not m.kl else m.kl * np.expm1(s["initial_logp"] - s["student_logp"])
        return s["c"] * (np.where(clipped, 0, s["A"] * rho) + pull)
    if m.name == "reopold":
        least = math.log(m.mixture / (1 - m.mixture))
        kept = s["delta"] >= least if m.exploration_steps > 3 else s["student_entropy"] >= 1.1
        return s["c"] * np.where(kept, np.maximum(s["delta"], least), 0)
    if m.name == "gates":
        bounded = m.policy_weight * np.clip(s["delta"], -m.delta_clip, m.delta_clip)
        return s["c"] * np.where(s["by_teacher"], 1, bounded)
    return s["c"]


def restated(case: str) -> dict[str, float]:
    """Every scalar of `step_metrics`, token by token."""
    m, signs = resolved(case), np.array([1.2, -0.7, 0.0, -2.0])  # of the rows that have tokens
    s = tokens_of(signals(m), m)
    found = {
        "tokens": LENGTHS.sum(),
        "sequences": 4,
        "advantage_positive": np.mean(signs > 0),
        "advantage_negative": np.mean(signs < 0),
        "advantage_zero": np.mean(signs == 0),
    }
    if (c := coefficient(s, m)) is not None:
        found["effective_tokens"] = np.abs(c).sum() ** 2 / (c**2).sum()
    if METHODS[m.name].divergence:
        found["divergence_mean"] = s["divergence"].mean()
    if clips(m):
        found["clipped_entries_share"] = s["clipped_entries"].mean() / VOCABULARY
        found["clipped_mass_share"] = s["clipped_mass"].mean()
        found["clipped_tokens_share"] = (s["divergence"] > 0.5).mean()
    if contrasts(m):
        found |= {"modulated_share": (s["modulation"] != 0).mean(), "modulation_mean": s["modulation"].mean()}
    if METHODS[m.name].teacher:
        found |= {"delta_mean": s["delta"].mean(), "delta_abs_mean": np.abs(s["delta"]).mean()}
        found |= {"entropy_mean": s["teacher_entropy"].mean(), **regimes(s, m)}
    if m.name in WEIGHTED:
        found["weight_clipped_low"] = np.mean(s["ratio"] < 1 - m.epsilon)
        found["weight_clipped_high"] = np.mean(s["ratio"] > 1 + m.epsilon)
    if METHODS[m.name].gated:
        found |= {"gate_mean": s["gate"].mean(), "gate_min": s["gate"].min()}
        found["gate_at_floor"] = np.mean(s["gate"] <= np.float32(m.floor))
    return found


def regimes(s: dict[str, np.ndarray], m: MethodSettings) -> dict[str, float]:
    """Shares, and with a gate what a lookahead restores; of methods without one with the study's window of 5."""
    window, H = getattr(m, "window", 0) or 5, s["teacher_entropy"]
    places = list(zip(s["row"], s["column"], H, strict=True))
    ahead = [min(h for row, u, h in places if row == at and t <= u <= t + window) for at, t, _ in places]
    ahead = np.array(ahead)
    source = ahead if getattr(m, "denominator", "raw") == "lookahead" else H
    by_sequence = getattr(m, "scope", "batch") == "sequence"
    same = (s["row"][:, None] == s["row"]) if by_sequence else np.ones((len(H), len(H)), bool)
    largest = np.array([max(1.0, source[each].max()) for each in same])
    low, high = np.quantile(H / largest, [0.5, 0.7])
    regime = np.full(len(H), "mid", "<U5")
    regime[(H / largest >= high) & (ahead / largest <= low)] = "pivot"
    regime[(H / largest >= high) & (ahead / largest >= high)] = "fork"
    regime[H / largest <= low] = "lock"
    names = ("lock", "fork", "pivot", "mid")
    found = {f"{name}_share": np.mean(regime == name) for name in names}
    if not METHODS[m.name].gated:
        return found
    restored = np.subtract(*(np.clip(1 - m.gamma * h / largest, m.floor, 1) for h in (ahead, H)))
    found |= {f"{name}_restored": restored[regime == name].mean() if name in regime else 0.0 for name in names}
    return found | {"restored_weight": restored.mean(), "entropy_max": largest.max()}


@pytest.mark.parametrize("case", CASES)
def test_metrics_are_those_of_plain_numpy(case):
    settings = resolved(case)
    found, expected = step_metrics(signals(settings), settings, VOCABULARY), restated(case)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-5, atol=1e-6, err_msg=name)


def watched(settings: MethodSettings) -> Watched:
    """What no loss reads, of the same completions; the last token of each ends it."""
    draw, given = np.random.default_rng(2), signals(settings)
    entropy, student_end, teacher_end = (draw.uniform(0, 1, (B, T)).astype(np.float32) for _ in range(3))
    ends = np.arange(T)[None] == LENGTHS[:, None] - 1
    return Watched(entropy, student_end, None if given.teacher_logp_BT is None else teacher_end, ends)


@pytest.mark.parametrize("name", ["egrsd", "grpo"])
def test_what_no_loss_reads_is_logged_as_plain_numpy_has_it(name):
    settings = resolved(name)
    given, more = signals(settings), watched(settings)
    mask, ends = np.asarray(given.mask_BT), np.asarray(more.ends_BT)
    expected = {
        "student_entropy_mean": more.student_entropy_BT[mask].mean(),
        "end_mass_student": more.student_end_BT[mask & ~ends].mean(),
        "end_mass_student_at_end": more.student_end_BT[mask & ends].mean(),
    }
    if name == "egrsd":
        expected |= {
            "entropy_gap_mean": (np.asarray(given.teacher_entropy_BT) - more.student_entropy_BT)[mask].mean(),
            "end_mass_teacher": more.teacher_end_BT[mask & ~ends].mean(),
            "end_mass_teacher_at_end": more.teacher_end_BT[mask & ends].mean(),
        }
    found = watched_metrics(more, given)
    assert found.keys() == expected.keys()
    for column, value in expected.items():
        np.testing.assert_allclose(found[column], value, rtol=2e-6, err_msg=column)
    assert watched_metrics(Watched(), given) == {}


@pytest.mark.parametrize("name", METHODS)
def test_profiles_and_tokens_have_what_the_method_has(name):
    settings = resolved(name)
    given = signals(settings)
    record, profiles, mask = token_record(given, settings), step_profiles(given, settings), given.mask_BT
    known = {column for column, array in record.known().items() if not np.isnan(np.asarray(array)[mask]).any()}
    teacher, has_weight = name in TEACHERS, name in WEIGHTED
    weights = {"weight", "gate"} if has_weight or not teacher else set()
    assert all(
        np.isnan(np.asarray(array)[~mask]).all() for array in record.known().values()
    )  # 0 would read as a probability of 1
    assert known == {"student_logp", *(("teacher_logp", "teacher_entropy") if teacher else ()), *weights}
    if not teacher:
        assert profiles == {}
        return
    s = tokens_of(given, settings)
    decile = np.searchsorted(np.quantile(s["teacher_entropy"], np.arange(1, 10) / 10), s["teacher_entropy"])
    tenth = 10 * s["column"] // LENGTHS[s["row"]]
    expected = {
        "entropy_deciles": {"delta_abs_mean": means(np.abs(s["delta"]), decile)},
        "positions": {
            "entropy_mean": means(s["teacher_entropy"], tenth),
            "delta_mean": means(s["delta"], tenth),
            "delta_abs_mean": means(np.abs(s["delta"]), tenth),
        },
    }
    largest = [s["teacher_entropy"][decile == k].max(initial=0) for k in range(10)]
    expected["entropy_deciles"]["entropy_max"] = np.array(largest)
    for columns, bins in ((expected["entropy_deciles"], decile), (expected["positions"], tenth)):
        columns["tokens"] = np.bincount(bins, minlength=10)
    expected["first_tokens"] = {
        "tokens": np.bincount(s["column"], minlength=32),
        "delta_mean": means(s["delta"], s["column"], 32),
        "delta_abs_mean": means(np.abs(s["delta"]), s["column"], 32),
    }
    if has_weight:
        update = s["w"] * (1 if s["gate"] is None else s["gate"])
        np.testing.assert_allclose(np.asarray(record.weight * record.gate)[mask], update, rtol=2e-6)
        expected["entropy_deciles"]["weight_abs_mean"] = means(np.abs(update), decile)
        expected["positions"]["weight_mean"] = means(update, tenth)
    assert {each: columns.keys() for each, columns in profiles.items()} == {
        each: columns.keys() for each, columns in expected.items()
    }
    for each, columns in expected.items():
        for column, values in columns.items():
            np.testing.assert_allclose(profiles[each][column], values, rtol=2e-5, atol=1e-6, err_msg=f"{each} {column}")


def means(values: np.ndarray, bins: np.ndarray, count: int = 10) -> np.ndarray:
    return np.array([values[bins == k].mean() if (bins == k).any() else 0.0 for k in range(count)])


class TestGap:
    @pytest.mark.parametrize(
        ("dtype", "rule"),
        [
            ("float32", "in float32, where rounding is under 0.001; above 0.05 the run ends"),
            (
                "bfloat16",
                "bfloat16 rounds, or they do not run the same weights; model.dtype float32 shows which, and "
                "is what to train a small model in",
            ),
        ],
    )
    def test_a_small_one_is_silent_and_a_larger_one_is_told_with_the_rule(self, dtype, rule):
        assert judge_gap(0.02, dtype=dtype, step=7) is None
        warning = judge_gap(0.021, dtype=dtype, step=7)
        assert warning is not None
        assert warning.startswith("sampler and trainer differ by 0.021 nats per token at step 7, more than 0.02")
        assert warning.endswith(rule)

    def test_float32_ends_above_its_limit_and_bfloat16_at_none(self):
        assert judge_gap(0.05, dtype="float32", step=7)
        assert judge_gap(3.0, dtype="bfloat16", step=7)
        with pytest.raises(FloatingPointError, match=r"differ by 0\.051 .* step 7, .* in float32, .* weights"):
            judge_gap(0.051, dtype="float32", step=7)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("gap", [math.nan, math.inf])
    def test_what_is_no_number_ends_every_run(self, gap, dtype):
        with pytest.raises(FloatingPointError, match=rf"differ by {gap} nats"):
            judge_gap(gap, dtype=dtype, step=7)

    def test_the_student_is_measured_wherever_it_writes(self):
        unmeasured = [name for name in METHODS if why_no_gap(Config(method=method_settings(name)))]
        assert unmeasured == ["sft", "ssd"]
        dropping = Config(method=method_settings("gates"), lora=LoraSettings(dropout=0.1))
        assert "lora.dropout 0.1" in (why_no_gap(dropping) or "")

    def test_what_the_teacher_wrote_is_left_out(self):
        completions = [Completion([1, 2], np.full(2, logp, np.float32), "stop") for logp in (-1.0, -5.0, -9.0)]
        kept, by_teacher = np.array([True, True, False]), np.array([False, True, False])
        rollout = loop.Rollout(*[None] * 12)._replace(completions=completions, counts=kept, by_teacher=by_teacher)
        found = sampler_gap(rollout, np.full((4, 3), -1.25))
        assert found == {"sampler_logp_gap_mean": 0.25, "sampler_logp_gap_max": 0.25}

    @pytest.mark.parametrize(
        ("gap", "warned"), [(0.01, False), (0.03, True), (0.06, None), (math.nan, None), (None, False)]
    )
    def test_the_loop_acts_on_it(self, gap, warned):
        config = Config(model=ModelSettings(dtype="float32"))
        run = SimpleNamespace(config=config, state=SimpleNamespace(step=0), folder=Mock())
        terminal = Mock()
        metrics = {"cut_off_share": 0.0} | ({} if gap is None else {"sampler_logp_gap_mean": gap})
        log = loop.StepLog(metrics, {}, None)
        if warned is None:
            with pytest.raises(FloatingPointError):
                loop._report(run, 1, None, log, terminal)
            run.folder.log.assert_called_once()
        else:
            loop._report(run, 1, None, log, terminal)
            assert terminal.warn.called == warned

    @pytest.mark.parametrize(
        ("unanswered", "ungradable", "cut_off", "begins"),
        [
            (4, 0, 0.0, []),
            (5, 0, 0.0, ["step 1: 50.0% of the completions have no answer (5 no box)"]),
            (6, 0, 0.6, ["60% of the completions reached rollout.max_new_tokens"]),  # one line for one fault
            (0, 1, 0.0, ["step 1: 10.0% of the completions have an answer that could not be graded"]),
        ],
    )
    def test_the_loop_warns_of_what_has_no_answer(self, unanswered, ungradable, cut_off, begins):
        run = SimpleNamespace(config=Config(), state=SimpleNamespace(step=1), folder=Mock())
        grades = [SimpleNamespace(missing=None if row >= unanswered else "no box") for row in range(10)]
        terminal = Mock()
        log = loop.StepLog({"cut_off_share": cut_off, "ungradable": ungradable}, {}, None)
        loop._report(run, 1, SimpleNamespace(grades=grades), log, terminal)
        warned = [call.args[0] for call in terminal.warn.call_args_list]
        assert [line.startswith(start) for line, start in zip(warned, begins, strict=True)] == [True] * len(begins)

    @pytest.mark.parametrize(("dropout", "lines"), [(0.0, 0), (0.1, 1)])
    def test_the_run_says_at_its_start_that_it_is_not_measured(self, dropout, lines):
        config, terminal = Config(lora=LoraSettings(dropout=dropout)), Mock()
        run = SimpleNamespace(
            config=config,
            state=SimpleNamespace(trainable={}, step=jnp.int32(0)),
            base={},
            mesh=SimpleNamespace(shape={}, devices=np.array([Mock()])),
            problems=SimpleNamespace(problems=[]),
            shapes=None,
            notes=[],
            compilation_cache="compilation cache: off",
        )
        loop._announce(run, terminal)
        said = [call.args[0] for call in terminal.say.call_args_list]
        assert sum(line.startswith("sampler_logp_gap is not measured: ") for line in said) == lines


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """One step of GATES, whose teacher writes half of the completions."""
    folder = tmp_path_factory.mktemp("runs")
    arguments = [
        f"--config={ROOT / 'configs/arithmetic.yaml'}",
        *("--method.name=gates", "--method.consensus=1", "--rollout.samples_per_problem=4", "--data.train_problems=64"),
        *("--train.steps=1", "--train.batch_size=16", "--train.micro_batch_size=16"),
        *("--evaluation.path=null", "--evaluation.problems=null", f"--run.dir={folder}", "--run.name=gates"),
    ]
    finish(start("train.py", *arguments))
    return folder / "gates"


@pytest.mark.slow
def test_a_run_of_gates_measures_the_students_completions(run):
    [row] = read_rows(run / "metrics.jsonl")
    written = [row for row in read_rows(run / "samples.jsonl") if not row["by_teacher"]]
    assert len(written) == 8
    assert row["counted_share"] > 0
    assert row["delta_abs_mean"] > 0.01  # the teacher's completions are not the student's
    assert 0 < row["sampler_logp_gap_max"] < 1e-3


def tables(section: str) -> list[list[str]]:
    """The cells of every row of the tables in a section of docs/metrics.md, without their heads."""
    text = (ROOT / "docs/metrics.md").read_text(encoding="utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
    return [re.split(r"(?<!\\)\| ", row) for row in rows[1:]]


def named(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


@pytest.mark.slow
def test_the_page_has_every_metric_and_no_other(run):
    yielded = {name for row in read_rows(run / "metrics.jsonl") for name in row}
    for case in CASES:
        settings = resolved(case)
        yielded |= step_metrics(signals(settings), settings, VOCABULARY).keys()
        yielded |= watched_metrics(watched(settings), signals(settings)).keys()
    settings = resolved("egrsd")
    given = signals(settings)
    older = given._replace(version_logp_BT=given.sampled_logp_BT, importance_BT=np.ones((B, T), np.float32))
    yielded |= step_metrics(older, settings, VOCABULARY).keys()
    yielded |= {"rollout_version", "rollout_age", "seconds_sampling", "seconds_grading"}  # tests/train/test_pipeline.py
    yielded |= {"seconds_push"}  # tests/train/test_served.py
    probes = {name for name in yielded if name.startswith("probe_")}
    yielded.add("teacher_retired")  # of a teacher that depends on how training went
    every_probe = {f"probe_{name}" for name in COUNTED}
    assert {re.sub(r"_(right|wrong)$", "", name) for name in probes} <= every_probe
    listed = [name for first, *_ in tables("metrics.jsonl") for name in named(first)]
    assert len(listed) == len(set(listed))
    assert set(listed) == yielded - probes | every_probe


@pytest.mark.slow
def test_the_page_has_every_column_of_the_profiles_and_samples(run):
    settings = resolved("egrsd")
    profiles = step_profiles(signals(settings), settings)
    listed, current = {}, ""
    for first, columns, *_ in tables("profiles.jsonl"):
        current = (named(first) or [current])[0]
        listed.setdefault(current, []).extend(named(columns))
    assert {name: set(columns) for name, columns in listed.items()} == {
        name: set(columns) for name, columns in profiles.items()
    }
    [logged] = read_rows(run / "profiles.jsonl")
    assert {name: {*columns} for name, columns in logged.items() if name != "step"} == {
        name: {column for column in columns if not column.startswith("weight")} for name, columns in profiles.items()
    }
    tokens = {name for first, *_ in tables("The tokens of samples.jsonl") for name in named(first)}
    assert tokens == {*token_record(signals(settings), settings)._fields, "delta"}
    samples = read_rows(run / "samples.jsonl")
    others = {"weight", "gate", "version_logp", "importance"}  # without an advantage, and without rollout.ahead
    assert {name for row in samples for name in tokens & row.keys()} == tokens - others


@pytest.mark.parametrize("group", ["teacher", "gate", "divergence"])
def test_the_page_says_which_methods_are_meant(group):
    text = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    [line] = re.findall(rf"^- \*\*{group}\*\*: (.*)$", text, re.MULTILINE)
    field = {"teacher": "teacher", "gate": "gated", "divergence": "divergence"}[group]
    assert named(line) == [name for name, method in METHODS.items() if getattr(method, field)]
