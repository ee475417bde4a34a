"""Benchmarks by name: files and columns, row counts, and reference answers that are right by their own measure."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from egrsd_jax.evaluate.benchmarks import (
    BENCHMARKS,
    PAPERS,
    Protocol,
    find_benchmark,
    load_benchmark,
    with_columns,
    with_overrides,
)

HUB = {
    "aime24": ("HuggingFaceH4/aime_2024", "train", 30),
    "aime25": ("yentinglin/aime_2025", "train", 30),
    "hmmt25": ("MathArena/hmmt_feb_2025", "train", 30),
    "math500": ("HuggingFaceH4/MATH-500", "test", 500),
    "minerva": ("math-ai/minervamath", "test", 272),
    "gsm8k": ("openai/gsm8k", "test", 1319),
}


def write(path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_table_is_the_papers():
    assert {name: (b.hub, b.split, b.rows) for name in PAPERS for b in [BENCHMARKS[name]]} == HUB
    assert BENCHMARKS["gsm8k"].configuration == "main"
    assert Protocol() == Protocol(4, 1.0, 0.95, 0, 32_768, True)
    assert all(BENCHMARKS[name].protocol == Protocol() for name in PAPERS)


PUBLISHED = {  # columns and answers as each set is published, and the answers that are read
    "aime26": (30, [{"problem_idx": 1, "problem": "1?", "answer": 70}], ["70"]),
    "hmmt_nov25": (30, [{"problem_idx": 1, "problem": "1?", "answer": r"\frac{1}{2}"}], [r"\frac{1}{2}"]),
    "amc23": (
        40,
        [{"id": 0, "question": "1?", "answer": 27.0, "url": "u"}, {"id": 1, "question": "2?", "answer": 0.5}],
        ["27", "0.5"],
    ),
    "olympiadbench": (
        674,
        [
            {"id": 1606, "question": "1?", "solution": ["so"], "final_answer": ["2"], "error": None, "unit": None},
            {"id": 1610, "question": "2?", "solution": ["so"], "final_answer": ["1", "-2", "$3$"], "error": ""},
            {"id": 1641, "question": "3?", "solution": ["so"], "final_answer": ["0.29"], "error": "1e-2"},
        ],
        ["2", "1, -2, $3$", "0.29"],
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_sets_are_read_as_they_are_published(name, tmp_path):
    size, rows, answers = PUBLISHED[name]
    rest = [{**rows[0], "id": f"more {number}"} for number in range(size - len(rows))]
    file = write(tmp_path / f"{name}.jsonl", [*rows, *rest])
    loaded = load_benchmark(BENCHMARKS[name], folder=tmp_path)
    assert [problem.answer for problem in loaded.problems[: len(answers)]] == answers
    assert len(loaded.problems) == size
    rows[0]["id"] = "other"
    write(file, [*rows, *rest, {**rows[0], "id": "one more"}, {**rows[0], "id": "two more"}])
    with pytest.raises(ValueError, match=f"{name} has {size} problems, and .* has {size + 2}"):
        load_benchmark(BENCHMARKS[name], folder=tmp_path)


def test_a_tolerance_is_that_of_its_problem(tmp_path):
    _, rows, _ = PUBLISHED["olympiadbench"]
    file = write(tmp_path / "o.jsonl", [*rows, {**rows[2], "id": "several", "error": "1e-1,1e-2"}])
    benchmark = replace(BENCHMARKS["olympiadbench"], rows=None)
    loaded = load_benchmark(benchmark, file=file)
    assert [problem.tolerance for problem in loaded.problems] == [None, None, 0.01, 0.01]
    write(file, [{**row, "error": None} for row in rows])
    assert load_benchmark(benchmark, file=file).hash != loaded.hash
    for wrong in ("small", "-1", "nan", [1]):
        write(file, [{**rows[0], "error": wrong}])
        with pytest.raises(ValueError, match=r"line 1: the column 'error' holds .*, which is no tolerance"):
            load_benchmark(benchmark, file=file)


def test_columns_of_ones_own(tmp_path):
    row = {"q": "1 + 1", "a": "2", "worked": r"So \boxed{3}.", "by": 0.5}
    file, none = write(tmp_path / "own.jsonl", [row]), dict.fromkeys(("split", "configuration"))

    def read(**given):
        names = dict.fromkeys(("problem", "answer", "solution", "tolerance")) | given
        benchmark = with_columns(find_benchmark("own", {"own": file}), **names, **none)
        [problem] = load_benchmark(benchmark, file=file).problems
        return problem.problem, problem.answer, problem.tolerance

    assert read(problem="q", answer="a") == ("1 + 1", "2", None)
    assert read(problem="q", solution="worked") == ("1 + 1", "3", None)
    assert read(problem="q", answer="a", tolerance="by") == ("1 + 1", "2", 0.5)
    with pytest.raises(ValueError, match="no column 'answer'"):
        read(problem="q")
    own = find_benchmark("own", {"own": file})
    assert with_columns(own, **dict.fromkeys(("problem", "answer", "solution", "tolerance")), **none) == own


@pytest.mark.parametrize("name", PAPERS)
def test_every_set_is_read_from_its_files_and_every_gold_is_right(name, shared_data):
    loaded = load_benchmark(BENCHMARKS[name], folder=shared_data)
    assert len(loaded.problems) == HUB[name][2]
    assert all(problem.problem and problem.answer for problem in loaded.problems)
    assert loaded.hash == load_benchmark(BENCHMARKS[name], folder=shared_data).hash


def test_the_hubs_columns_are_read_too(tmp_path):
    """As on the hub: Minerva's answers there have a column of their own."""
    rows = [{"question": f"{number}?", "answer": str(number)} for number in range(272)]
    loaded = load_benchmark(BENCHMARKS["minerva"], file=write(tmp_path / "m.jsonl", rows))
    assert [problem.answer for problem in loaded.problems[:2]] == ["0", "1"]


def test_another_number_of_rows_is_an_error_that_says_what_was_found(tmp_path):
    write(tmp_path / "aime24.jsonl", [{"problem": "1 + 1", "answer": "2"}] * 29)
    with pytest.raises(ValueError, match=r"aime24 has 30 problems, and .*aime24\.jsonl has 29"):
        load_benchmark(BENCHMARKS["aime24"], folder=tmp_path)


def test_a_set_that_is_not_in_the_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"hmmt25 is not in .*hmmt_feb_2025/test\.jsonl nor .*hmmt25\.jsonl"):
        load_benchmark(BENCHMARKS["hmmt25"], folder=tmp_path)


@pytest.mark.parametrize("gold", ["{2", "2}", "}{"])
def test_a_gold_that_does_not_match_itself_is_an_error_at_load_time(gold, tmp_path):
    file = write(
        tmp_path / "own.jsonl", [{"problem": "1 + 1", "answer": "2"}, {"id": "x", "problem": "1 + 1", "answer": gold}]
    )
    with pytest.raises(ValueError, match="is not graded correct against itself"):
        load_benchmark(find_benchmark("own", {"own": file}), file=file)


def test_a_file_of_ones_own_has_a_name_and_no_row_count(tmp_path):
    file = write(tmp_path / "own.jsonl", [{"problem": "1 + 1", "answer": "2"}])
    assert len(load_benchmark(find_benchmark("own", {"own": file}), file=file).problems) == 1
    with pytest.raises(ValueError, match="there is no benchmark 'own'; known are aime24"):
        find_benchmark("own", {})


def test_the_arithmetic_set_is_the_one_that_training_holds_out():
    loaded = load_benchmark(BENCHMARKS["arithmetic"])
    assert len(loaded.problems) == 512
    assert loaded.benchmark.protocol.max_new_tokens == 96


def test_what_is_given_wins_over_the_protocol():
    assert with_overrides(Protocol(), samples=2, top_k=None) == Protocol(samples=2)
    assert with_overrides(Protocol(), thinking=False, temperature=0.0) == Protocol(temperature=0.0, thinking=False)
