import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest

from egrsd_jax.data.problems import DataError, Problem, load_problems

ROWS = [
    {"problem": "What is 1 + 1?", "solution": r"Adding gives \boxed{2}.", "answer": "2"},
    {"problem": "What is 2 + 3?", "solution": r"Adding gives \boxed{5}.", "answer": "5"},
    {"problem": "What is 4 + 5?", "solution": r"Adding gives \boxed{9}.", "answer": "9"},
]


@pytest.fixture
def write(tmp_path):
    """Writes rows (objects, or text for a whole line) as a JSON Lines file and returns its path."""

    def write_lines(*rows):
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        file = tmp_path / "problems.jsonl"
        file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return str(file)

    return write_lines


def answer_of(path, **columns):
    return load_problems(path, **columns).problems[0].answer


class TestJsonLines:
    def test_rows_become_problems_named_by_their_line(self, write):
        loaded = load_problems(write(*ROWS))
        assert loaded.problems == [Problem(str(line), **row) for line, row in enumerate(ROWS, start=1)]
        assert loaded.skipped == []
        assert loaded.id_column is None

    def test_columns_are_chosen_by_name(self, write):
        path = write({"Q": "one?", "S": "because", "A": "1", "problem": "not this"})
        assert load_problems(path, problem="Q", solution="S", answer="A").problems == [
            Problem("1", "one?", "because", "1")
        ]

    def test_limit_takes_the_first(self, write):
        assert load_problems(write(*ROWS), limit=2).problems == load_problems(write(*ROWS)).problems[:2]

    def test_rows_beyond_the_limit_are_not_judged(self, write):
        assert len(load_problems(write(*ROWS, "broken"), limit=3).problems) == 3

    def test_byte_order_mark_and_blank_lines_hold_no_row(self, write, tmp_path):
        path = tmp_path / "marked.jsonl"
        path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROWS[0]).encode() + b"\r\n\r\n" + json.dumps(ROWS[1]).encode())
        loaded = load_problems(str(path))
        assert [(problem.id, problem.answer) for problem in loaded.problems] == [("1", "2"), ("3", "5")]

    def test_a_line_separator_inside_a_text_does_not_end_the_line(self, write):
        text = "first\u2028second\u0085third"
        assert load_problems(write({**ROWS[0], "problem": text})).problems[0].problem == text

    def test_texts_other_than_the_answer_are_kept_as_they_are(self, write):
        problem = load_problems(write({"problem": " p\n", "solution": "\n s ", "answer": " 2 \n"})).problems[0]
        assert (problem.problem, problem.solution, problem.answer) == (" p\n", "\n s ", "2")


class TestAnswer:
    @pytest.mark.parametrize("given", [{}, {"answer": ""}, {"answer": " \n"}, {"answer": None}])
    def test_falls_back_to_the_last_box_of_the_solution(self, write, given):
        row = {"problem": "p", "solution": r"not \boxed{1} but \boxed{\frac{1}{2}}.", **given}
        assert answer_of(write(row)) == r"\frac{1}{2}"

    def test_answer_none_reads_the_solution_alone(self, write):
        assert answer_of(write({"problem": "p", "solution": r"\boxed{3}", "answer": "4"}), answer=None) == "3"

    def test_whole_number_is_its_digits(self, write):
        assert answer_of(write({"problem": "p", "solution": "s", "answer": 70})) == "70"

    @pytest.mark.parametrize(
        ("ending", "answer"),
        [
            ("#### 72", "72"),
            ("#### 1,450,000\n", "1450000"),
            ("####   -1,234.5  ", "-1234.5"),
            ("#### $2,125", "$2125"),
            ("#### (1, 200)", "(1, 200)"),  # commas that separate stay
            ("#### 12,34", "12,34"),
            ("#### Step 1\nadd\n#### 7", "7"),
        ],
    )
    def test_gsm8k_form(self, write, ending, answer):
        solution = f"48/2 = <<48/2=24>>24 clips\n{ending}"
        loaded = load_problems(write({"question": "q", "answer": solution}), problem="question", solution="answer")
        assert loaded.problems == [Problem("1", "q", solution, answer)]

    def test_gsm8k_form_without_a_solution(self, write):
        path = write({"question": "q", "answer": "so\n#### 1,000"})
        assert load_problems(path, problem="question", solution=None).problems == [Problem("1", "q", "", "1000")]

    def test_heading_before_the_last_line_is_no_answer(self, write):
        with pytest.raises(DataError, match="line 1: no answer"):
            load_problems(write({"problem": "p", "solution": "#### Step 1\nadd them"}))

    def test_box_goes_before_a_heading(self, write):
        assert answer_of(write({"problem": "p", "solution": "add\n#### Answer: \\boxed{8}"})) == "8"


class TestIds:
    @pytest.mark.parametrize("column", ["id", "unique_id", "idx"])
    def test_come_from_the_column(self, write, column):
        loaded = load_problems(write({**ROWS[0], column: "test/7"}, {**ROWS[1], column: 8}))
        assert [problem.id for problem in loaded.problems] == ["test/7", "8"]
        assert loaded.id_column == column

    def test_id_goes_before_the_others(self, write):
        assert load_problems(write({**ROWS[0], "idx": 1, "id": 2})).problems[0].id == "2"

    @pytest.mark.parametrize("second", [{"id": 7}, {"id": "7"}, {"id": None}, {"id": 1.5}, {"id": True}, {}])
    def test_all_are_row_numbers_where_the_column_does_not_name_each_problem_once(self, write, second):
        loaded = load_problems(write({**ROWS[0], "id": 7}, {**ROWS[1], **second}))
        assert [problem.id for problem in loaded.problems] == ["1", "2"]
        assert loaded.id_column is None


BAD_ROWS = [
    ('{"problem": "p", "solution"', "not valid JSON"),
    ('["p", "s", "a"]', "is a JSON list, not an object"),
    ('"p"', "is a JSON str, not an object"),
    ({**ROWS[0], "problem": ""}, "'problem' is empty"),
    ({**ROWS[0], "solution": " \n"}, "'solution' is empty"),
    ({"solution": "s", "answer": "a"}, "'problem' is missing"),
    ({**ROWS[0], "problem": None}, "'problem' is missing or null"),
    ({**ROWS[0], "problem": 5}, r"'problem' holds 5 \(int\), not text"),
    ({**ROWS[0], "solution": ["s", "t"]}, r"'solution' holds .* \(list\), not text"),
    ({**ROWS[0], "answer": True}, r"'answer' holds True \(bool\), not text"),
    ({**ROWS[0], "answer": True}, r"'answer' holds True \(bool\), not text"),
    ({"problem": "p", "solution": "no box", "answer": ""}, "no answer"),
    ('{"problem": "\\ud800", "solution": "s", "answer": "a"}', "not valid Unicode"),
]


class TestBadRows:
    @pytest.mark.parametrize(("bad", "reason"), BAD_ROWS)
    def test_raise_with_file_and_line(self, write, bad, reason):
        path = write(ROWS[0], ROWS[1], bad, ROWS[2])
        with pytest.raises(DataError, match=rf"problems\.jsonl, line 3: .*{reason}"):
            load_problems(path)

    @pytest.mark.parametrize(("bad", "reason"), BAD_ROWS)
    def test_are_skipped_and_counted_on_request(self, write, bad, reason):
        path = write(ROWS[0], ROWS[1], bad, ROWS[2])
        loaded = load_problems(path, on_bad_row="skip")
        assert [problem.answer for problem in loaded.problems] == ["2", "5", "9"]
        assert [skipped.number for skipped in loaded.skipped] == [3]
        assert re.search(reason, loaded.skipped[0].reason)

    def test_broken_line_17(self, write):
        path = write(*[ROWS[0]] * 16, json.dumps(ROWS[0])[:-5], *[ROWS[0]] * 3)
        with pytest.raises(DataError, match=r"problems\.jsonl, line 17: not valid JSON .*--data\.on_bad_row skip"):
            load_problems(path)

    def test_bytes_that_are_not_utf8(self, tmp_path):
        path = tmp_path / "latin.jsonl"
        path.write_bytes(json.dumps(ROWS[0]).encode() + b"\n" + '{"problem": "é"}'.encode("latin-1"))
        with pytest.raises(DataError, match=r"line 2: not UTF-8 \(byte 14"):
            load_problems(str(path))

    def test_nothing_but_bad_rows(self, write):
        with pytest.raises(DataError, match=r"all 2 rows are bad, the first of them .*line 1: not valid JSON"):
            load_problems(write("{", "}"), on_bad_row="skip")


class TestPath:
    @pytest.mark.parametrize(
        "path", ["missing.jsonl", "data/missing.parquet", "./missing", "/missing/owner", "a/b.json"]
    )
    def test_of_a_file_that_is_not_there(self, path):
        with pytest.raises(DataError, match=f"{path}: no such file"):
            load_problems(path)

    @pytest.mark.parametrize("path", ["gsm8k", "a/b/c", "two words/x"])
    def test_neither_file_nor_data_set(self, path):
        with pytest.raises(DataError, match=f"{path}: neither an existing file nor the owner/name"):
            load_problems(path)

    def test_folder_without_data_names_the_files_in_it(self, tmp_path):
        (tmp_path / "README.md").write_text("")
        with pytest.raises(DataError, match=r"holds no \.parquet, .*; it holds README\.md"):
            load_problems(str(tmp_path))

    def test_unknown_kind_of_file(self, tmp_path):
        (tmp_path / "problems.xlsx").write_text("problem,solution,answer\n")
        with pytest.raises(DataError, match=r"'\.xlsx'; a data file ends in \.jsonl"):
            load_problems(str(tmp_path / "problems.xlsx"))

    def test_empty_file(self, write):
        with pytest.raises(DataError, match="it has no rows"):
            load_problems(write())


class TestUnknownColumn:
    def test_names_the_nearest_and_all(self, write):
        with pytest.raises(
            DataError, match="no column 'soluton'; nearest: 'solution'; its columns: 'problem', 'solution'"
        ):
            load_problems(write(*ROWS), solution="soluton")

    def test_of_many_names_some(self, write):
        with pytest.raises(DataError, match=r"its columns: 'c0', .*'c19' and 4,980 more$"):
            load_problems(write({f"c{number}": "x" for number in range(5000)}))

    def test_sees_through_capitals(self, write):
        with pytest.raises(DataError, match="no column 'problem'; nearest: 'Problem'"):
            load_problems(write({"Problem": "p", "solution": "s"}))

    def test_is_an_error_even_where_bad_rows_are_skipped(self, write):
        with pytest.raises(DataError, match="no column 'soluton'"):
            load_problems(write(*ROWS), solution="soluton", on_bad_row="skip")

    def test_answer_column_other_than_the_default_must_be_there(self, write):
        with pytest.raises(DataError, match="no column 'Answer'; nearest: 'answer'"):
            load_problems(write(*ROWS), answer="Answer")

    def test_default_answer_column_must_be_there_without_a_solution(self, write):
        with pytest.raises(DataError, match="no column 'answer'"):
            load_problems(write({"problem": "p"}), solution=None)


class TestArguments:
    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"on_bad_row": "ignore"}, "on_bad_row"),
            ({"limit": 0}, "limit"),
            ({"solution": None, "answer": None}, "column"),
        ],
    )
    def test_wrong_value_is_named(self, write, wrong, message):
        with pytest.raises(ValueError, match=message):
            load_problems(write(*ROWS), **wrong)


class TestParquet:
    def test_reads_what_json_lines_reads(self, write, tmp_path):
        rows = [{**row, "unique_id": f"test/{row['answer']}", "trace": ["long"] * 3} for row in ROWS]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "problems.parquet", row_group_size=2)
        assert load_problems(str(tmp_path / "problems.parquet")) == load_problems(write(*rows))

    def test_bad_row_is_named(self, tmp_path):
        rows = [ROWS[0], {**ROWS[1], "solution": None}]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "problems.parquet")
        with pytest.raises(DataError, match=r"problems\.parquet, row 2: the column 'solution' is missing or null"):
            load_problems(str(tmp_path / "problems.parquet"))

    def test_unknown_column(self, tmp_path):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "problems.parquet")
        with pytest.raises(DataError, match=r"no column 'question'; .*its columns: 'problem', 'solution', 'answer'"):
            load_problems(str(tmp_path / "problems.parquet"), problem="question")

    def test_not_a_parquet_file(self, tmp_path):
        (tmp_path / "problems.parquet").write_text("{}")
        with pytest.raises(DataError, match=r"problems\.parquet: not a Parquet file"):
            load_problems(str(tmp_path / "problems.parquet"))


class FakeDataset(list):
    """As much of datasets.Dataset as reading needs."""

    @property
    def column_names(self):
        return list(self[0])

    def select_columns(self, columns):
        return FakeDataset({column: row[column] for column in columns} for row in self)


class TestHuggingFace:
    @pytest.fixture
    def hub(self, monkeypatch):
        """A data set on a pretended hub; the list collects how it was asked for."""
        calls = []

        def load_dataset(path, *, name, split):
            calls.append((path, name, split))
            if split != "train":
                raise ValueError(f'Unknown split "{split}".\nShould be one of ["train"].')
            return FakeDataset({**row, "trace": "long"} for row in ROWS)

        monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
        return calls

    def test_reads_what_json_lines_reads(self, hub, write):
        assert load_problems("owner/name-v1.5", name="main") == load_problems(write(*ROWS))
        assert hub == [("owner/name-v1.5", "main", "train")]

    def test_failure_to_load_is_one_line(self, hub):
        with pytest.raises(
            DataError, match=r'owner/name \(trian of main\): could not be loaded: .*"trian"\. Should be'
        ):
            load_problems("owner/name", name="main", split="trian")

    @pytest.mark.parametrize("fails", ["when it is built", "when it is read"])
    def test_bare_exception_of_the_library_is_one_line(self, monkeypatch, fails):
        class Unreadable(FakeDataset):
            def __iter__(self):
                raise RuntimeError("no decoder\nfor it")

            @property
            def column_names(self):
                return ["problem", "solution", "answer"]

            def select_columns(self, columns):
                return self

        def load_dataset(path, *, name, split):
            if fails == "when it is read":
                return Unreadable()
            raise Exception("An error occurred") from ValueError("columns\ndo not match")

        monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
        reason = "could not be loaded: columns do not match" if fails == "when it is built" else "no decoder for it"
        with pytest.raises(DataError, match=rf"owner/name \(train\): .*{reason}") as raised:
            load_problems("owner/name")
        assert "\n" not in str(raised.value)

    def test_unknown_column_names_the_data_set(self, hub):
        with pytest.raises(DataError, match=r"owner/name \(train\): no column 'question'"):
            load_problems("owner/name", problem="question")

    def test_package_missing(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(DataError, match=r"owner/name: .*pip install datasets"):
            load_problems("owner/name")


@pytest.mark.parametrize(
    ("file", "columns", "count", "first_id", "first_answer"),
    [
        ("aime24/test.jsonl", {}, 30, "60", "204"),
        ("aime25/test.jsonl", {"solution": None}, 30, "0", "70"),
        ("hmmt_feb_2025/test.jsonl", {"solution": None}, 30, "0", "103"),
        ("math500/test.jsonl", {}, 500, "test/precalculus/807.json", r"\left( 3, \frac{\pi}{2} \right)"),
        ("minerva_math/test.jsonl", {}, 272, "0", None),
        ("gsm8k/test.jsonl", {"problem": "question", "solution": "answer"}, 1319, "1", "18"),
        ("gsm8k/train.jsonl", {"problem": "question", "solution": "answer", "limit": 200}, 200, "1", "72"),
    ],
)
def test_published_benchmarks(shared_data, file, columns, count, first_id, first_answer):
    problems = load_problems(str(shared_data / file), **columns).problems
    assert len(problems) == count
    assert problems[0].id == first_id
    assert first_answer in (None, problems[0].answer)
    assert len({problem.id for problem in problems}) == count
    assert all(
        bool(problem.solution) == ("solution" not in columns or columns["solution"] is not None) for problem in problems
    )
    if file.startswith("gsm8k"):
        assert all(problem.answer.lstrip("-").isdigit() for problem in problems)


def test_data_modules_are_light():
    modules = ", ".join(f"egrsd_jax.data.{name}" for name in ("problems", "order", "prompts", "batch"))
    heavy = "{'jax', 'transformers', 'pyarrow', 'datasets'}"
    code = f"import sys, {modules}; print({heavy} & sys.modules.keys())"
    root = Path(__file__).resolve().parents[2]
    finished = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "set()"
