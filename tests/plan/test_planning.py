"""A plan of a small model on eight host devices: memory, FLOPs, the micro-batch that fits, and what is said of it."""

import dataclasses
import io
import json
import math
import subprocess

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from egrsd_jax.config import Config, LoraSettings, ModelSettings, RolloutSettings, TrainSettings
from egrsd_jax.model.decoder import abstract_params
from egrsd_jax.model.hf.peft import save_adapter
from egrsd_jax.model.lora import projection_shapes
from egrsd_jax.model.sharding import round_up
from egrsd_jax.objective.methods import method_settings
from egrsd_jax.ops.cached_attention import BLOCK
from egrsd_jax.plan.compiled import compile_program
from egrsd_jax.plan.cost import Cost
from egrsd_jax.plan.planning import (
    Compiler,
    Memory,
    Plan,
    Program,
    largest_fitting,
    micro_batch_sizes,
    plan_with,
    roofline,
)
from egrsd_jax.plan.shapes import PUBLISHED, model_shape
from egrsd_jax.plan.slices import SLICES, slice_warning
from egrsd_jax.plan.steps import bytes_per_device, lower_rollout, make_workload, padded_lengths
from egrsd_jax.plan.table import plan_numbers, print_plan
from egrsd_jax.plan.targets import CHIPS, Target, local_target, tpu_target
from tests.commands import command_line, environment, refused
from tests.model.examples import CONFIG as TINY
from tests.model.examples import LLAMA, random_adapter

MODEL = TINY.replace(
    vocab_size=256, hidden_size=64, intermediate_size=128, num_layers=2, tie_embeddings=False, dtype="bfloat16"
)
ROWS, STUDENT, TEACHER, COMPLETION, RANK = 16, 16, 48, 32, 8
CAPACITY = round_up(STUDENT + COMPLETION, BLOCK)  # tokens of a row of the rollout's cache
PROMPTS = {"student_prompt": STUDENT, "teacher_prompt": TEACHER, "longest": False}


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps(MODEL.to_hf(param_dtype="float32")))
    return Config(
        model=ModelSettings(path=str(folder), dtype="float32", param_dtype="float32", rematerialise="none"),
        lora=LoraSettings(rank=RANK, alpha=16.0),
        method=method_settings("egrsd"),
        train=TrainSettings(batch_size=ROWS, micro_batch_size=ROWS),
        rollout=RolloutSettings(max_new_tokens=COMPLETION),
    )


def test_an_adapter_that_is_trained_further_has_its_own_rank_and_a_copy_for_the_teacher(config, tmp_path):
    """Of a Llama, whose folder has another number of parameters than its adapter has projections."""
    model, folder, path = LLAMA.replace(vocab_size=90), tmp_path / "model", tmp_path / "adapter"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(model.to_hf(param_dtype="float32")))
    save_adapter(path, random_adapter(model), base_model="owner/base")
    wanted = ModelSettings(path=str(folder), dtype="float32", fsdp=2, tensor=4)
    further = dataclasses.replace(config, model=wanted, lora=LoraSettings(path=str(path)))
    workload = make_workload(further, local_target())
    assert (workload.model.model_type, workload.config.lora.rank) == ("llama", 3)
    assert workload.base["embed_tokens"]["weight"].shape[0] == 92  # over four devices
    shapes = [
        jax.tree.map(lambda leaf: leaf.shape, part) for part in (workload.state.teacher, workload.state.trainable)
    ]
    assert shapes[0] == shapes[1]
    lowered = lower_rollout(workload, padded_lengths(further, STUDENT, TEACHER))
    assert "while" in lowered.program.as_text()


@pytest.fixture(scope="module")
def target() -> Target:
    return Target("8 × test", jax.devices(), CHIPS["TPU v5 lite"], 1e9)


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def compiler(config, target, said) -> Compiler:
    return Compiler(make_workload(config, target), said.append)


@pytest.fixture(scope="module")
def plan(compiler, target) -> Plan:
    return plan_with(compiler, target, **PROMPTS)


def test_flops_of_the_update_are_those_that_one_counts(plan):
    weights = sum(math.prod(shape) for block in projection_shapes(MODEL).values() for shape in block.values())
    adapters = RANK * sum(sum(shape) for block in projection_shapes(MODEL).values() for shape in block.values())
    student, teacher = STUDENT + COMPLETION, TEACHER + COMPLETION
    attention = 4 * MODEL.num_heads * MODEL.head_dim  # q·k and p·v of every pair of positions
    teacher_forward = teacher * (2 * weights + attention * teacher)
    student_forward = student * (2 * (weights + adapters) + attention * student)
    student_backward = student * (2 * weights + 4 * adapters + 2 * attention * student)  # no gradient of frozen weights
    head = 2 * MODEL.vocab_size * MODEL.hidden_size * COMPLETION * 3  # teacher, student, and the student's gradient
    layers = MODEL.num_layers * (teacher_forward + student_forward + student_backward)
    assert plan.update.shown.compiled.cost.flops == pytest.approx(ROWS / 8 * (layers + head), rel=0.02)


def test_flops_of_the_rollout_are_those_that_one_counts(config, target):
    workload = make_workload(config, target._replace(devices=jax.devices()[:1]))  # nothing is computed twice on one
    lowered = lower_rollout(workload, padded_lengths(workload.config, STUDENT, TEACHER))
    compiled = compile_program(lowered.program, loop_turns=COMPLETION)
    weights = sum(math.prod(shape) for block in projection_shapes(MODEL).values() for shape in block.values())
    adapters = RANK * sum(sum(shape) for block in projection_shapes(MODEL).values() for shape in block.values())
    head = 2 * MODEL.vocab_size * MODEL.hidden_size
    linear = MODEL.num_layers * 2 * (weights + adapters)
    attention = MODEL.num_layers * 4 * MODEL.num_heads * MODEL.head_dim
    assert compiled.loop is not None
    one_token = ROWS * (linear + attention * CAPACITY + head)
    prefill = ROWS * STUDENT * (linear + attention * STUDENT)
    assert compiled.loop.flops == pytest.approx(one_token, rel=0.01)
    assert compiled.cost.flops == pytest.approx(prefill + COMPLETION * one_token, rel=0.01)


def test_memory_is_what_the_arrays_take(plan):
    memory, rollout = plan.update.shown.memory, plan.rollout.memory
    assert memory is not None
    assert rollout is not None
    layers = sum(math.prod(shape) for block in projection_shapes(MODEL).values() for shape in block.values())
    norms = MODEL.num_layers * (2 * MODEL.hidden_size + 2 * MODEL.head_dim) + MODEL.hidden_size  # whole on every device
    split = MODEL.num_layers * layers + 2 * MODEL.vocab_size * MODEL.hidden_size
    assert memory.base == 4 * (split / 8 + norms)
    assert memory.optimizer == pytest.approx(2 * memory.trained, rel=0.01)
    assert rollout.cache == 2 * 4 * MODEL.num_layers * ROWS / 8 * CAPACITY * MODEL.num_kv_heads * MODEL.head_dim
    assert memory.total == sum(memory)
    inputs = plan.update.shown.compiled.arguments
    # In memory, but no arguments of EGRSD's program: the sampler's log p, and who is where in rows of one completion.
    inputs += 4 * ROWS * COMPLETION + 4 * ROWS // 8 * (STUDENT + TEACHER + 2 * COMPLETION)
    assert memory.total - plan.update.shown.compiled.results - memory.temporary == pytest.approx(inputs, rel=0.001)


def test_every_compilation_is_announced(plan, said):
    assert [line for line in said if line.startswith("compiling")][:2] == [
        f"compiling the update, micro-batch {ROWS}, teacher prompt {TEACHER} ...",
        f"compiling the rollout of {ROWS} completions ...",
    ]


def test_the_table_says_what_fits_and_what_binds(plan):
    shown = io.StringIO()
    print_plan(plan, Console(file=shown, width=80))
    text = shown.getvalue()
    for words in (
        "mesh data 1 × fsdp 8 × tensor 1",
        "base weights",
        "keys and values",
        f"fits; the largest micro-batch that fits is {ROWS}, the whole batch",
        f"rollout of {ROWS} completions decoded together: fits",
        "one token",
        "all-gather",
        "bound by",
    ):
        assert words in text, words
    assert "…" not in text  # nothing is cut off at this width


def test_the_numbers_are_json_and_add_up(plan):
    numbers = json.loads(json.dumps(plan_numbers(plan)))
    assert (numbers["fits"], numbers["chips"], numbers["largest_micro_batch"]) == (True, 8, {"update": ROWS})
    assert [program["name"] for program in numbers["programs"]] == ["update", "rollout"]
    parts = {part["part"]: part for part in numbers["costs"]}
    rollout = parts[f"{COMPLETION} tokens"]["flops"]
    assert parts["prefill"]["flops"] + COMPLETION * parts["one token"]["flops"] == pytest.approx(rollout)


class Scaled:
    """A compiler that needs no time: temporary memory in proportion to the rows, and a refusal above a limit."""

    def __init__(self, plan: Plan, *, refused_from: int = 10**6):
        self.workload, self._plan, self._refused_from = plan.workload, plan, refused_from

    def update(self, lengths, rows: int) -> Program:
        known = self._plan.update.shown
        assert known.memory is not None
        if rows >= self._refused_from:
            refused = known.compiled._replace(refused="Ran out of memory on HBM")
            return dataclasses.replace(known, rows=rows, compiled=refused, memory=None)
        temporary = known.memory.temporary * rows / ROWS
        return dataclasses.replace(known, rows=rows, memory=known.memory._replace(temporary=temporary))

    def rollout(self, lengths) -> Program:
        return self._plan.rollout


def printed(plan: Plan) -> str:
    shown = io.StringIO()
    print_plan(plan, Console(file=shown, width=200))
    return shown.getvalue()


def test_a_chip_too_small_gets_a_smaller_micro_batch(plan, target):
    whole = plan.update.shown.memory
    assert whole is not None
    tight = plan_with(Scaled(plan), target._replace(memory=whole.total - 1), **PROMPTS)
    assert not tight.fits
    assert tight.update.shown.rows == ROWS / 2
    assert f"does not fit with micro-batches of {ROWS} ({whole.total / 2**30:.2f} GiB)" in printed(tight)
    assert f"the largest micro-batch that fits is {ROWS // 2}" in printed(tight)
    assert plan_numbers(tight)["largest_micro_batch"] == {"update": ROWS // 2}


def test_a_server_that_samples_takes_no_memory_here(plan, target):
    rollout = dataclasses.replace(plan.workload.config.rollout, server="http://server:8000")
    served = Scaled(plan)
    config = dataclasses.replace(plan.workload.config, rollout=rollout)
    served.workload = dataclasses.replace(plan.workload, config=config)
    update = plan.update.shown.memory
    assert update is not None
    without = plan_with(served, target._replace(memory=update.total), **PROMPTS)
    assert without.rollout is None
    assert without.fits
    text = printed(without)
    assert "completions are sampled by http://server:8000, whose weights and cache are not counted here" in text
    assert "one token" not in text
    assert [program["name"] for program in plan_numbers(without)["programs"]] == ["update"]


def test_versions_of_the_weights_that_are_kept_are_counted(config, target):
    ahead = dataclasses.replace(config, rollout=dataclasses.replace(config.rollout, ahead=2))
    alone, kept = (make_workload(settings, target).state for settings in (config, ahead))
    trained = bytes_per_device(alone.trainable)
    assert bytes_per_device(kept) - bytes_per_device(alone) == 2 * trained


def test_what_the_compiler_refuses_does_not_fit(plan, target):
    refused = plan_with(Scaled(plan, refused_from=ROWS), target, **PROMPTS)
    assert not refused.fits
    assert f"does not fit with micro-batches of {ROWS} (Ran out of memory on HBM)" in printed(refused)
    assert f"the largest micro-batch that fits is {ROWS // 2}" in printed(refused)


def test_where_nothing_fits_that_is_said(plan, target):
    nothing = plan_with(Scaled(plan), target._replace(memory=1.0), **PROMPTS)
    assert nothing.update.fitting is None
    assert "does not fit with the smallest micro-batch" in printed(nothing)
    assert "rollout of 16 completions decoded together: does not fit" in printed(nothing)
    assert plan_numbers(nothing)["largest_micro_batch"] == {"update": None}


def test_the_longest_prompts_are_planned_for_too(plan, target):
    both = plan_with(Scaled(plan), target, **(PROMPTS | {"longest": True}))
    assert both.longest is not None
    assert set(plan_numbers(both)["largest_micro_batch"]) == {"update", "longest"}


def test_a_refusal_is_read():
    class Refusing:
        def compile(self):
            raise jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (149.06G) "
                "exceeds available HBM (95.74G)."
            )

    compiled = compile_program(Refusing())  # type: ignore[arg-type]
    assert compiled.refused is not None
    assert compiled.refused.startswith("Ran out of memory")
    assert compiled.temporary == 149.06 * 2**30


@given(st.lists(st.integers(1, 1000), min_size=1, unique=True), st.data())
def test_the_search_finds_the_largest_that_fits_and_asks_nothing_twice(sizes, data):
    sizes.sort()
    limit = data.draw(st.integers(0, 1001))
    start = data.draw(st.integers(0, len(sizes) - 1))
    asked: list[int] = []

    def fits(size: int) -> bool:
        asked.append(size)
        return size <= limit

    assert largest_fitting(sizes, start, fits) == max((size for size in sizes if size <= limit), default=None)
    assert len(asked) == len(set(asked))
    assert asked[0] == sizes[start]


def test_micro_batches_to_choose_from():
    assert micro_batch_sizes(32, 8, 32) == [8, 16, 32]
    assert micro_batch_sizes(24, 8, 16) == [8, 16, 24]
    assert micro_batch_sizes(256, 256, 256) == [256]


def test_the_roofline_is_the_limit_that_asks_for_most():
    chip = CHIPS["TPU v5"]
    line = roofline(Cost(flops=459e12, bytes=2 * 2765e9), chip)
    assert (line.compute, line.memory, line.network, line.binds, line.seconds) == (1.0, 2.0, 0.0, "memory", 2.0)
    assert Memory(1, 2, 3, 4, 5, 6).total == 21


# What the model cards and index files on the hub say.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen/Qwen3-0.6B", 596_049_920),
        ("Qwen/Qwen3-1.7B", 1_720_574_976),
        ("Qwen/Qwen3-4B", 4_022_468_096),
        ("Qwen/Qwen3-8B", 8_190_735_360),
        ("Qwen/Qwen3-14B", 14_768_307_200),
        ("Qwen/Qwen3-32B", 32_762_123_264),
        ("nvidia/AceReason-Nemotron-7B", 7_615_616_512),
        ("allenai/Olmo-3-1025-7B", 7_298_011_136),
        ("meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248),
        ("meta-llama/Llama-3.2-1B-Instruct", 1_235_814_400),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", 8_030_261_248),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008),
    ],
)
def test_published_shapes_have_the_published_number_of_parameters(name, parameters):
    assert sum(leaf.size for leaf in jax.tree.leaves(abstract_params(PUBLISHED[name]))) == parameters


def test_rows_that_do_not_divide_are_told(config):
    odd = dataclasses.replace(config, train=TrainSettings(batch_size=12, micro_batch_size=3))
    workload = make_workload(odd, local_target())
    assert (workload.rows, workload.micro_batch, workload.max_rows) == (16, 8, 16)


def test_an_axis_that_does_not_divide_names_the_dimension(config, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(MODEL.replace(hidden_size=68).to_hf(param_dtype="float32")))
    wide = dataclasses.replace(config, model=dataclasses.replace(config.model, fsdp=8, path=str(tmp_path)))
    with pytest.raises(ValueError, match=r"embed_tokens/weight.*dimension 1.*'fsdp' of size 8"):
        make_workload(wide, local_target())


def test_an_unknown_model_and_an_unknown_topology_are_one_line():
    with pytest.raises(ValueError, match=r"'Qwen/Qwen9-1B' is not known here; give model.path a folder") as error:
        model_shape("Qwen/Qwen9-1B")
    assert "\n" not in str(error.value)
    for name in ("v9:2x2", "v5p", "v5p:2xtwo", "cpu:8"):
        with pytest.raises(ValueError, match=f"no topology '{name}'.*v5p:2x2x2"):
            tpu_target(name)


@pytest.mark.parametrize(
    ("kind", "rented", "not_rented"),
    [
        ("v5e", ((2, 4), (16, 16), (1, 1)), ((32, 32), (4, 2), (2, 2, 2), (2, 8))),
        ("v6e", ((2, 2), (8, 16)), ((2, 2, 2), (16, 32))),
        (
            "v5p",
            ((2, 2, 1), (2, 4, 4), (4, 4, 8), (8, 16, 16), (16, 16, 24)),
            ((2, 2), (4, 8, 4), (2, 2, 8), (24, 24, 24)),
        ),
        ("tpu7x", ((2, 2, 1), (4, 4, 4), (8, 16, 16)), ((2, 4), (4, 4, 6), (32, 32, 32))),
    ],
)
def test_a_topology_that_nobody_can_rent_has_a_warning(kind, rented, not_rented):
    assert [slice_warning(kind, shape) for shape in rented] == [None] * len(rented)
    for shape in not_rented:
        name = "x".join(map(str, shape))
        assert f"{kind}:{name} is no slice that Google Cloud lists" in (slice_warning(kind, shape) or "")


def test_the_chips_of_a_kind_are_not_its_devices():
    assert {chip.name for chip in CHIPS.values()} >= set(SLICES)
    ironwood = Target("tpu7x:2x2x1", [None] * 8, CHIPS["TPU7x"], CHIPS["TPU7x"].memory)
    assert ironwood.chips == "4 chips, each of 2 devices (what is per chip below is per device)"
    assert Target("v5e:2x4", [None] * 8, CHIPS["TPU v5 lite"], None).chips == "8 chips"


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command_line("plan.py", *arguments), env=environment(flags=""), capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--topology", "v5q:2x2"], "no topology 'v5q:2x2'"),
        (["--teacher_prompt", "0"], "--teacher_prompt is 0"),
        (["--topolgy", "v5e:2x4"], "no option --topolgy"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, words, capsys):
    assert words in refused(capsys, "plan.py", *arguments)


def test_without_libtpu_it_says_how_to_get_it():
    if _has_libtpu():
        pytest.skip("libtpu is installed here")
    done = command("--topology", "v5e:2x2")
    assert done.returncode == 2
    assert 'pip install "jax[tpu]"' in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_plan_for_a_tpu_topology(config, tmp_path):
    if not _has_libtpu():
        pytest.skip('needs libtpu, which compiles for TPUs: pip install "jax[tpu]"')
    numbers = tmp_path / "plan.json"
    options = [f"--model.path={config.model.path}", "--lora.rank=8", "--train.batch_size=8", f"--json={numbers}"]
    lengths = ["--rollout.max_new_tokens=32", "--student_prompt=16", "--teacher_prompt=48", "--no_longest"]
    done = command("--topology", "v5e:2x2", *options, *lengths)
    assert done.returncode == 0, done.stderr
    assert "head_dim is 16" in done.stdout  # splash attention cannot take this model, and that is said
    assert json.loads(numbers.read_text())["memory_limit"] == CHIPS["TPU v5 lite"].memory
    assert "no slice" not in done.stdout
    done = command("--topology", "v6e:2x2x2", *options, *lengths)
    assert done.returncode == 0, done.stderr
    assert "v6e:2x2x2 is no slice that Google Cloud lists" in done.stdout
    done = command("--topology", "tpu7x:2x2x1", *options, *lengths)
    assert done.returncode == 0, done.stderr
    assert "on tpu7x:2x2x1: 4 chips, each of 2 devices" in done.stdout
    written = json.loads(numbers.read_text())
    assert (written["chips"], written["devices"], written["memory_limit"]) == (4, 8, CHIPS["TPU7x"].memory)


def test_a_mesh_that_a_torus_does_not_have_is_one_line():
    if not _has_libtpu():
        pytest.skip('needs libtpu, which knows the torus: pip install "jax[tpu]"')
    done = command("--topology", "v5p:4x4x4", "--model.data", "8")
    assert done.returncode == 2
    assert "the mesh data 8 x fsdp 8 x tensor 1 cannot be laid over these chips" in done.stderr
    assert done.stderr.count("\n") == 1


def _has_libtpu() -> bool:
    from importlib.util import find_spec

    return find_spec("libtpu") is not None
