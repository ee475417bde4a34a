"""What makes several methods what they are: who writes the completions, which of them count, and how much."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egrsd_jax.config import Config, DataSettings, LoraSettings, PromptSettings, RolloutSettings, TrainSettings
from egrsd_jax.data.packing import Shape, Shapes
from egrsd_jax.data.prefix import Prefixes
from egrsd_jax.data.privilege import teacher_problems
from egrsd_jax.data.problems import Problem
from egrsd_jax.data.prompts import EncodedProblems
from egrsd_jax.model.sharding import make_mesh
from egrsd_jax.objective.methods import METHODS, method_settings
from egrsd_jax.objective.reward import init_moments
from egrsd_jax.policy import Policy
from egrsd_jax.rollout.grading import Grader
from egrsd_jax.rollout.requests import Completion
from egrsd_jax.runs import lock
from egrsd_jax.train import teacher_prompts
from egrsd_jax.train.collect import Rollout, arranged, collect
from egrsd_jax.train.problems import encode_fitting
from egrsd_jax.train.setup import sampling_note
from egrsd_jax.train.state import TrainState
from egrsd_jax.train.stored import StoredCompletions
from egrsd_jax.verify.pool import GradingPool

PROBLEMS = [Problem(str(n), f"problem {n}", rf"solution {n}: \boxed{{{n}}}", str(n)) for n in range(2)]
BASE, LEARNED, KEPT = ({"weights": jnp.float32(value)} for value in (0.0, 1.0, 2.0))
END = 0  # the code point that ends a turn


class Letters:
    """A tokenizer whose tokens are code points."""

    eos_token_id = END

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, tokens: list[int], *, skip_special_tokens: bool) -> str:
        return "".join(chr(token) for token in tokens if token != END)


class Scripted:
    """An engine that returns given texts, and remembers which policy was to write each, and after which prompt."""

    def __init__(self, texts: list[str]):
        self._texts, self._policy, self.asked = iter(texts), Policy({}, None), []

    def update_params(self, params, lora=None) -> int:
        self._policy = Policy(params, lora)
        return 1

    def generate(self, requests):
        for number, request in enumerate(requests):
            self.asked.append((self._policy, list(request.prompt)))
            tokens = [*map(ord, next(self._texts)), END]
            yield number, Completion(tokens, np.full(len(tokens), -1.0, np.float32), "stop")


def drawn(
    name: str, answers: list[str], stored: StoredCompletions | None = None, position: int = 0, **settings
) -> tuple[Rollout, Scripted]:
    """A step of one problem after the other, with these boxed answers."""
    method = method_settings(name, **settings)
    config = Config(
        method=method,
        lora=LoraSettings(rank=0),
        rollout=RolloutSettings(max_new_tokens=64, samples_per_problem=len(answers) // 2),
        train=TrainSettings(batch_size=len(answers)),
    )
    engine = Scripted([rf"\boxed{{{answer}}}" for answer in answers])
    run = SimpleNamespace(
        config=config,
        base=BASE,
        engine=engine,
        tokenizer=Letters(),
        stored=stored,
        problems=EncodedProblems(PROBLEMS, [[10], [11]], [[20], [21]], []),
    )
    state = TrainState(
        LEARNED, {}, KEPT, init_moments(), jnp.int32(0), jnp.int32(position), jax.random.key_data(jax.random.key(0))
    )
    with GradingPool(1) as pool:
        return collect(run, state, Grader(Letters(), pool)), engine  # pyright: ignore[reportArgumentType]


def writers(engine: Scripted) -> list[tuple[dict, int]]:
    return [(policy.params, prompt[0] // 10) for policy, prompt in engine.asked]


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("sft", "ssd", "gates")])
def test_the_student_writes_under_its_own_prompt(name, shown):
    rollout, engine = drawn(name, ["0"] * 32)
    assert writers(engine) == [(LEARNED, 1)] * 32
    assert not rollout.by_teacher.any()


def test_ssd_learns_what_the_initial_model_writes():
    rollout, engine = drawn("ssd", ["0"] * 4)
    assert writers(engine) == [(BASE, 1)] * 4
    assert rollout.counts.all()


def test_sft_learns_the_reference_solution_and_samples_nothing():
    rollout, engine = drawn("sft", ["0"] * 2)
    assert engine.asked == []
    for problem, completion in zip(rollout.problem, rollout.completions, strict=True):
        assert completion.tokens == [*map(ord, PROBLEMS[problem].solution), END]
        assert completion.stopped
    assert all(grade.correct for grade in rollout.grades)


@pytest.mark.parametrize(
    ("schedule", "weights"), [("frozen", BASE), ("ema", KEPT), ("copy", KEPT), ("current", LEARNED)]
)
def test_the_teacher_of_gates_writes_the_first_half_under_its_prompt(schedule, weights):
    rollout, engine = drawn("gates", ["0"] * 16, teacher=schedule, consensus=2)
    assert writers(engine) == [(LEARNED, 1)] * 8 + [(weights, 2)] * 8  # the engine is asked in two calls
    np.testing.assert_array_equal(rollout.by_teacher, [*[True] * 4, *[False] * 4] * 2)


def test_gates_counts_problems_on_whose_answer_the_teacher_agrees():
    """Answers are compared as values and not as texts, and nobody asks whether they are right."""
    students, agreeing, apart = ["7"] * 8, [r"\frac{1}{2}", "0.5", "3", "1/2"], ["1", "2", "3", "3.5"]
    rollout, _ = drawn("gates", [*students, *agreeing, *apart], consensus=3)
    np.testing.assert_array_equal(rollout.counts, [True, True, False, True, *[True] * 4, *[False] * 8])
    assert not any(grade.correct for grade in rollout.grades[:8])


def test_dapo_alone_drops_problems_that_all_or_none_solve():
    right = PROBLEMS[drawn("dapo", ["x"] * 4)[0].problem[0]].answer  # of the problem that comes first
    for name, mixed_counts in (("dapo", False), ("grpo_group", True), ("dr_grpo", True)):
        rollout, _ = drawn(name, [right, "x", "x", "x"])
        np.testing.assert_array_equal(rollout.counts, [True, True, mixed_counts, mixed_counts])
        assert rollout.metrics["counted_share"] == (1.0 if mixed_counts else 0.5)


@pytest.mark.parametrize(
    ("name", "settings", "weights"),
    [
        ("paced", {}, [3 / 16, 4 / 16]),
        ("opsd", {}, [1, 1]),
        ("grpo_group", {"pace_right": 2.0, "pace_wrong": 0.0}, [1 / 16, 4 / 16]),
    ],
)
def test_completions_are_paced_by_the_pass_rate_of_their_problem(name, settings, weights):
    first, second = drawn(name, ["x"] * 8)[0].problem[[0, 4]]
    answers = [*[str(first)], *["x"] * 3, *[str(second)] * 2, *["x"] * 2]
    np.testing.assert_allclose(drawn(name, answers, **settings)[0].weight, np.repeat(weights, 4))


def test_gates_is_paced_by_the_students_pass_rate_alone():
    first, second = drawn("gates", ["x"] * 8, consensus=1)[0].problem[[0, 4]]
    students = [str(first), "x", str(second), str(second)]
    rollout, _ = drawn("gates", [*students, "x", "x", "x", "x"], consensus=1, pace_right=1.0)
    np.testing.assert_allclose(rollout.weight, [0.5] * 4 + [1] * 4)


@pytest.mark.parametrize(
    ("name", "advantages"),
    [
        ("egrsd", lambda reward: (reward - 0.5, -0.5)),  # less the baseline of the first steps
        ("dr_grpo", lambda reward: (reward / 2, -reward / 2)),
        ("grpo_group", lambda reward: (1, -1) * np.array(reward / 2 / (reward / 2 + 1e-4))),
    ],
)
def test_advantages_are_those_the_method_was_published_with(name, advantages):
    right = PROBLEMS[drawn(name, ["x"] * 4)[0].problem[0]].answer
    rollout, _ = drawn(name, [right, "x", "x", "x"])
    reward = 1 + 0.5 * (1 - 10 / 64)  # nine letters and the end, of at most 64
    np.testing.assert_allclose(rollout.reward, [reward, 0, 0, 0])
    np.testing.assert_allclose(rollout.advantage[:2], advantages(reward), rtol=1e-6)


class Spelling(Letters):
    """Prompts as they are: a user's turn is its text, and thinking mode a mark before it."""

    chat_template = "as it is"
    name_or_path = "spelling"

    def __init__(self, *args):
        super().__init__(*args)
        self.added_tokens_encoder: dict[str, int] = {}

    def apply_chat_template(self, messages, *, enable_thinking: bool, **_) -> str:
        return "!" * enable_thinking + messages[0]["content"]


ARMS = ("none", "wrong", "other", "concise")
LONG = Problem("long", "p", "a solution of forty characters in all: 40", "40")
WORDINGS = PromptSettings(student="{problem}", teacher="{problem} {solution}", concise="{problem} briefly")


def encoded(problems: list[Problem], most: int, name: str, **settings) -> tuple[EncodedProblems, list[str]]:
    config = Config(
        method=method_settings(name, **settings),
        data=DataSettings(max_prompt_tokens=most),
        prompt=WORDINGS,
        rollout=RolloutSettings(max_new_tokens=30, samples_per_problem=2),
        train=TrainSettings(batch_size=2),
    )
    notes: list[str] = []
    return encode_fitting(config, Spelling(), problems, notes), notes


def test_without_privilege_the_teacher_reads_the_students_prompt_token_for_token():
    found, _ = encoded(PROBLEMS, 80, "egrsd", privilege="none")
    assert found.teacher_prompts == found.student_prompts
    assert encoded(PROBLEMS, 80, "egrsd")[0].teacher_prompts != found.student_prompts


def test_crisp_differs_from_the_students_prompt_in_the_request_alone():
    found, _ = encoded(PROBLEMS, 80, "crisp")
    assert found.teacher_prompts == [[*prompt, *map(ord, " briefly")] for prompt in found.student_prompts]


@pytest.mark.parametrize(
    ("name", "settings"), [("grpo", {}), ("crisp", {}), *(("egrsd", {"privilege": arm}) for arm in ARMS)]
)
def test_every_method_and_arm_trains_on_the_same_problems(name, settings):
    """What a reference solution makes too long is skipped where nobody is shown it too."""
    problems = [PROBLEMS[0], LONG, PROBLEMS[1]]
    found, notes = encoded(problems, 40, name, **settings)
    assert found.problems == encoded(problems, 40, "egrsd")[0].problems == PROBLEMS
    assert notes == ["1 problems skipped: a prompt is longer than data.max_prompt_tokens 40; long takes 44"]


def test_what_a_control_arm_shows_may_be_too_long_by_itself():
    problems = [Problem("a", "p" * 20, "s", "0"), LONG]
    found, notes = encoded(problems, 50, "egrsd", privilege="other")
    assert found.problems == [LONG]
    assert notes == [
        "1 problems skipped: a teacher's prompt with method.privilege other is longer than data.max_prompt_tokens 50; "
        "the longest takes 63"
    ]


def test_sft_skips_solutions_that_a_completion_cannot_hold():
    found, notes = encoded([*PROBLEMS, LONG], 80, "sft")
    assert found.problems == PROBLEMS
    assert notes == [
        "1 problems skipped: a reference solution is longer than rollout.max_new_tokens 30; the longest takes 42"
    ]
    with pytest.raises(ValueError, match=r"longer than rollout\.max_new_tokens 30; they take 42 to 42 tokens"):
        encoded([LONG], 80, "sft")


@pytest.mark.parametrize(
    ("name", "rollout", "note"),
    [
        ("dapo", {}, None),
        ("egrsd", {"temperature": 1.0, "top_k": 0}, None),
        ("dapo", {"temperature": 0.7}, "dapo was published with rollout.temperature 1; this run has 0.7"),
        (
            "rlsd",
            {"temperature": 1.1, "top_p": 0.95, "top_k": 20},
            "rlsd was published with rollout.temperature 1, rollout.top_p 1, rollout.top_k 0; "
            "this run has 1.1, 0.95, 20",
        ),
    ],
)
def test_a_run_that_samples_otherwise_than_its_method_was_published_says_so(name, rollout, note):
    settings = RolloutSettings(samples_per_problem=8, **rollout)
    assert sampling_note(Config(method=method_settings(name), rollout=settings)) == note


def test_stored_completions_are_of_the_policy_before_training_and_are_sampled_once(tmp_path):
    file = tmp_path / "stored.jsonl"
    first, engine = drawn("egrsd", ["0", "1", "2", "3"], StoredCompletions(file, {}))
    assert writers(engine) == [(BASE, 1)] * 4
    again, engine = drawn("grpo_group", ["8"] * 4, StoredCompletions(file, {}))
    assert engine.asked == []  # another method, in another run
    assert [completion.tokens for completion in again.completions] == [
        completion.tokens for completion in first.completions
    ]
    later, engine = drawn("egrsd", ["8"] * 4, StoredCompletions(file, {}), position=2)
    assert len(engine.asked) == 4  # the second pass over the two problems takes samples of its own
    assert {grade.answer for grade in later.grades} == {"8"}
    lock.release_all()


@pytest.fixture
def shown(monkeypatch):
    """The solutions that teachers' prompts have shown, each prompt being 20 and the solution's letters."""
    shown = []

    def encode(tokenizer, templates, problem):
        shown.append(problem.solution)
        return [20, *map(ord, problem.solution)]

    monkeypatch.setattr(teacher_prompts, "encode_teacher", encode)
    return shown


def test_oasis_learns_the_shortest_correct_completion_and_shows_the_teacher_a_wrong_one(shown):
    rollout, _ = drawn("oasis", ["888", "0", "77", "1"] * 2)
    for first in (0, 4):
        own = int(PROBLEMS[rollout.problem[first]].answer)
        place = first + (1, 3)[own]
        np.testing.assert_array_equal(rollout.counts[first : first + 4], np.arange(first, first + 4) == place)
        assert shown[place] == rf"\boxed{{{1 - own}}}"
        assert rollout.teacher_prompts[place] == [20, *map(ord, shown[place])]
    unsolved, _ = drawn("oasis", ["66"] * 8)
    assert not unsolved.counts.any()


def test_an_attempt_that_is_too_long_for_the_teachers_prompt_does_not_count(monkeypatch):
    monkeypatch.setattr(teacher_prompts, "encode_teacher", lambda *_: [20] * 10_000)
    rollout, _ = drawn("oasis", ["888", "0", "77", "1"] * 2)
    assert not rollout.counts.any()
    assert {tuple(prompt) for prompt in rollout.teacher_prompts} == {(20,), (21,)}


def test_a_teacher_of_own_work_reads_the_next_correct_completion(shown):
    """Of each problem two are correct: either is shown the other, and a wrong one the one that comes next."""
    rollout, _ = drawn("egrsd", ["00", "01", "0", "1"] * 2, privilege="own")
    assert rollout.counts.all()
    of_problem = ["0", "0", "00", "00"], ["01", "1", "1", "01"]
    expected = [text for first in (0, 4) for text in of_problem[rollout.problem[first]]]
    assert shown == [rf"\boxed{{{text}}}" for text in expected]
    assert rollout.teacher_prompts == [[20, *map(ord, solution)] for solution in shown]


def test_a_completion_without_another_correct_one_is_not_in_the_loss(shown):
    rollout, _ = drawn("egrsd", ["0", "7", "1", "8"] * 2, privilege="own")
    for first in (0, 4):
        alone = 2 * int(PROBLEMS[rollout.problem[first]].answer)
        np.testing.assert_array_equal(rollout.counts[first : first + 4], np.arange(4) != alone)
    assert rollout.metrics["counted_share"] == 0.75
    assert len(shown) == 6
    unsolved, _ = drawn("egrsd", ["66"] * 8, privilege="own")
    assert not unsolved.counts.any()


def test_rlcsd_contrasts_another_correct_completion_with_the_next_wrong_ones(shown):
    """One without an answer is no hint; what reads neither a correct nor a wrong one is not in the loss."""
    rollout, _ = drawn("rlcsd", ["0", "5", "", "6", "7", "00"] * 2, contrasts=2)
    first = 0 if PROBLEMS[rollout.problem[0]].answer == "0" else 6

    def hints(row: int) -> list[str]:
        prompts = [rollout.teacher_prompts[first + row], *rollout.contrast_prompts[first + row]]
        return ["".join(map(chr, prompt[1:])) for prompt in prompts]

    def boxed(*answers: str) -> list[str]:
        return [rf"\boxed{{{answer}}}" for answer in answers]

    assert [hints(row) for row in range(6)] == [
        boxed("00", "5", "6"),
        boxed("00", "6", "7"),
        boxed("00", "6", "7"),  # it gives no answer itself, and reads hints all the same
        boxed("00", "7", "5"),
        boxed("00", "5", "6"),
        boxed("0", "5", "6"),
    ]
    assert rollout.counts[first : first + 6].all()
    assert not rollout.counts[6 - first : 12 - first].any()  # the other problem, which none solves


@pytest.mark.parametrize(
    ("answers", "counted"),
    [
        (["0", "00", "5", "000"], [True, True, False, True]),  # the only wrong one has none to read
        (["0", "00", "000", "0000"], [False] * 4),
        (["0", "5", "6", "7"], [False, True, True, True]),
    ],
)
def test_rlcsd_leaves_out_what_has_no_hint_of_both_kinds(shown, answers, counted):
    rollout, _ = drawn("rlcsd", answers * 2)
    first = 0 if PROBLEMS[rollout.problem[0]].answer == "0" else 4
    assert rollout.counts[first : first + 4].tolist() == counted


def test_the_rows_of_wrong_hints_hold_each_completion_after_each_of_them(shown):
    rollout, _ = drawn("rlcsd", ["0", "5", "6", "00"] * 2, contrasts=3)
    run = SimpleNamespace(
        config=Config(
            method=method_settings("rlcsd", contrasts=3),
            rollout=RolloutSettings(max_new_tokens=64, samples_per_problem=4),
            train=TrainSettings(batch_size=8),
        ),
        mesh=make_mesh(devices=jax.devices()[:1]),
        shapes=Shapes((Shape(1, 96, 64),), (Shape(1, 96, 64),)),
        prefixes=Prefixes(),
        problems=EncodedProblems(PROBLEMS, [[10], [11]], [[20], [21]], []),
    )
    batch, _ = arranged(run, rollout)  # pyright: ignore[reportArgumentType]
    read = [
        len(prompts) if counts else 0 for prompts, counts in zip(rollout.contrast_prompts, rollout.counts, strict=True)
    ]
    np.testing.assert_array_equal(batch.contrast_BK, [[k < count for k in range(3)] for count in read])
    [rows] = batch.contrast
    assert int(rows.micro_batches) <= sum(read) < len(rows.tokens_RS) == 8 * 3  # those that are missing take no row
    for number in np.flatnonzero(batch.contrast_BK):
        where = rows.completion_RS == number + 1
        expected = rollout.contrast_prompts[number // 3][number % 3] + rollout.completions[number // 3].tokens
        np.testing.assert_array_equal(rows.tokens_RS[where], expected)


@pytest.mark.parametrize("privilege", ["attempt", "own"])
def test_what_a_step_shows_needs_another_completion_of_the_students(privilege):
    with pytest.raises(ValueError, match="compares the student's completions of one problem"):
        Config(method=method_settings("egrsd", privilege=privilege))
    with pytest.raises(ValueError, match=f"{privilege} shows the teacher another completion of the same step"):
        teacher_problems(PROBLEMS, privilege, seed=0)
