"""Data as people have it: kinds of files, folders of shards, splits and configurations, and what columns hold."""

import bz2
import gzip
import json
import lzma
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from egrsd_jax.data.problems import DataError, load_problems
from egrsd_jax.evaluate.benchmarks import problems_hash
from egrsd_jax.evaluate.settings import Settings
from egrsd_jax.sample.prompts import read_prompts
from egrsd_jax.sample.settings import SampleSettings

ROWS = [
    {"problem": f"What is 6 * {number}?", "solution": f"It is\n\\boxed{{{6 * number}}}", "answer": str(6 * number)}
    for number in range(5)
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def lines(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def csv_of(rows, delimiter=",") -> bytes:
    text = "".join(
        delimiter.join('"' + str(value).replace('"', '""') + '"' for value in row) + "\r\n"
        for row in [list(rows[0]), *(row.values() for row in rows)]
    )
    return text.encode()


def parquet(file: Path, rows, **options) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file, **options)
    return file


def arrow_stream(file: Path, rows) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.ipc.new_stream(str(file), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return file


def contents(path: Path, **options) -> list[tuple[str, str, str]]:
    return [
        (problem.problem, problem.solution, problem.answer) for problem in load_problems(str(path), **options).problems
    ]


WANTED = [tuple(row.values()) for row in ROWS]


class TestKinds:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("p.json", json.dumps(ROWS).encode()),
            ("p.json", json.dumps(ROWS, indent=2).encode("utf-8-sig")),
            ("p.json", json.dumps({"version": "1.0", "data": ROWS}).encode()),
            ("p.json", json.dumps({"name": "MATH", "data": ROWS}).encode()),
            ("p.json", json.dumps({column: [row[column] for row in ROWS] for column in ROWS[0]}).encode()),
            ("p.json", json.dumps({c: {str(n): row[c] for n, row in enumerate(ROWS)} for c in ROWS[0]}).encode()),
            ("p.json", LINES),
            ("p.jsonl", json.dumps(ROWS, indent=1).encode()),
            ("p.jsonl.gz", gzip.compress(LINES)),
            ("p.json.gz", gzip.compress(json.dumps(ROWS).encode())),
            ("p.jsonl", gzip.compress(LINES)),
            ("p.ndjson.bz2", bz2.compress(LINES)),
            ("p.jsonl.xz", lzma.compress(LINES)),
            ("p.csv", csv_of(ROWS)),
            ("p.csv", b"\xef\xbb\xbf" + csv_of(ROWS)),
            ("p.tsv", csv_of(ROWS, "\t")),
            ("p.csv.gz", gzip.compress(csv_of(ROWS))),
            ("P.JSONL", LINES),
        ],
    )
    def test_read_alike(self, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        assert contents(tmp_path / name) == WANTED

    def test_parquet_and_arrow(self, tmp_path):
        assert contents(parquet(tmp_path / "a.parquet", ROWS)) == WANTED
        assert contents(parquet(tmp_path / "a.jsonl", ROWS)) == WANTED  # by what it holds
        assert contents(arrow_stream(tmp_path / "a.arrow", ROWS)) == WANTED
        table = pyarrow.Table.from_pylist(ROWS)
        with pyarrow.ipc.new_file(str(tmp_path / "b.arrow"), table.schema) as writer:
            writer.write_table(table)
        assert contents(tmp_path / "b.arrow") == WANTED

    def test_csv_keeps_texts(self, tmp_path):
        rows = [{"problem": 'He said "6",\nthen?', "solution": "x" * 200_000, "answer": "007"}]
        (tmp_path / "p.csv").write_bytes(csv_of(rows))
        assert contents(tmp_path / "p.csv") == [tuple(rows[0].values())]

    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("p.jsonl.gz", gzip.compress(LINES)[:-30], r"p\.jsonl\.gz: cannot be read"),
            ("p.jsonl.gz", LINES, r"p\.jsonl\.gz: cannot be read: .*[Nn]ot a gzip"),
            ("p.csv", "problem,solution,answer\né,b,c\n".encode("latin-1"), r"p\.csv: cannot be read.*UTF-8"),
            ("p.csv", b'problem,solution,answer\n"a,b,c\n', r"p\.csv: not readable as CSV after line 1"),
            ("p.csv", b"problem,solution,answer\na,b,c,d\n", "line 2: has more fields than the 3 columns"),
            ("p.csv", b"problem,solution,answer\na,,c\n", "line 2: the column 'solution' is empty"),
            ("p.json", b'[{"problem": "a", ', r"p\.json"),
            ("p.json", b'{"problem": "a", "solution": "b"', r"p\.json"),
            ("p.parquet", b"PAR1 and no more", "not a Parquet file"),
            ("p.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
            ("p.arrow", b"nothing of it", "not an Arrow file"),
        ],
    )
    def test_damaged_files_are_named_in_one_line(self, tmp_path, name, content, reason):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=reason) as raised:
            load_problems(str(tmp_path / name))
        assert "\n" not in str(raised.value)

    def test_parquet_page_that_is_damaged(self, tmp_path):
        file = parquet(tmp_path / "a.parquet", ROWS * 50, compression="gzip")
        content = bytearray(file.read_bytes())
        content[60:160] = bytes(100)
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.parquet: cannot be read"):
            load_problems(str(file))


class TestFolders:
    def test_shards_are_one_table(self, tmp_path):
        for number in range(2):
            parquet(tmp_path / f"data/train-{number:05d}-of-00002.parquet", ROWS[3 * number : 3 * number + 3])
        parquet(tmp_path / "data/test-00000-of-00001.parquet", ROWS[:1])
        (tmp_path / "README.md").write_text("# A data set")
        (tmp_path / ".cache").mkdir()
        (tmp_path / ".cache/left.parquet").write_text("")
        assert contents(tmp_path) == WANTED
        assert contents(tmp_path / "data", split="test") == WANTED[:1]
        assert [problem.id for problem in load_problems(str(tmp_path)).problems] == ["1", "2", "3", "4", "5"]
        with pytest.raises(DataError, match=r"no files of the split 'validation'; it has test, train"):
            load_problems(str(tmp_path), split="validation")

    def test_shard_that_is_missing(self, tmp_path):
        parquet(tmp_path / "train-00001-of-00003.parquet", ROWS)
        with pytest.raises(DataError, match=r"1 of the 3 shards of 'train': number 00000 is missing"):
            load_problems(str(tmp_path))

    def test_bad_row_is_named_by_its_file(self, tmp_path):
        for name, rows in (("a", ROWS[:2]), ("b", [ROWS[2], {**ROWS[3], "solution": ""}])):
            (tmp_path / f"{name}.jsonl").write_bytes(lines(rows))
        with pytest.raises(DataError, match=r"b\.jsonl, line 2: the column 'solution' is empty"):
            load_problems(str(tmp_path))

    def test_configurations(self, tmp_path):
        parquet(tmp_path / "main/train-00000-of-00001.parquet", ROWS)
        parquet(tmp_path / "socratic/train-00000-of-00001.parquet", ROWS[:2])
        assert contents(tmp_path, name="socratic") == WANTED[:2]
        with pytest.raises(DataError, match=r"several folders, main, socratic"):
            load_problems(str(tmp_path))
        with pytest.raises(DataError, match=r"no files of the configuration 'other'; it has main, socratic"):
            load_problems(str(tmp_path), name="other")

    @pytest.mark.parametrize("layout", ["train/part.jsonl test/part.jsonl", "my_train.jsonl my_test.jsonl"])
    def test_splits_by_folder_and_by_name(self, tmp_path, layout):
        for place, rows in zip(layout.split(), (ROWS, ROWS[:1]), strict=True):
            (tmp_path / place).parent.mkdir(exist_ok=True)
            (tmp_path / place).write_bytes(lines(rows))
        assert contents(tmp_path) == WANTED
        assert contents(tmp_path, split="test") == WANTED[:1]

    def test_saved_to_disk(self, tmp_path):
        for split, rows in (("train", ROWS), ("test", ROWS[:1])):
            arrow_stream(tmp_path / split / "data-00000-of-00001.arrow", rows)
            state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": split}
            (tmp_path / split / "state.json").write_text(json.dumps(state))
            (tmp_path / split / "dataset_info.json").write_text("{}")
        (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
        assert contents(tmp_path) == WANTED
        assert contents(tmp_path, split="test") == contents(tmp_path / "test") == WANTED[:1]
        with pytest.raises(DataError, match="no split 'dev'; it has train, test"):
            load_problems(str(tmp_path), split="dev")
        (tmp_path / "train/data-00000-of-00001.arrow").unlink()
        with pytest.raises(DataError, match=r"data-00000-of-00001\.arrow is missing"):
            load_problems(str(tmp_path))

    def test_two_kinds(self, tmp_path):
        parquet(tmp_path / "a.parquet", ROWS)
        (tmp_path / "a.csv").write_bytes(csv_of(ROWS))
        with pytest.raises(DataError, match=r"holds a\.parquet and a\.csv, data of several kinds"):
            load_problems(str(tmp_path))

    def test_columns_of_all_files_count(self, tmp_path):
        (tmp_path / "a.jsonl").write_bytes(lines([{"problem": "p", "solution": r"\boxed{1}"}]))
        (tmp_path / "b.jsonl").write_bytes(lines([{"problem": "q", "solution": "2", "answer": "2", "more": 1}]))
        assert [answer for *_, answer in contents(tmp_path)] == ["1", "2"]


def one(tmp_path, row, **columns):
    (tmp_path / "p.jsonl").write_bytes(lines([row]))
    return load_problems(str(tmp_path / "p.jsonl"), **columns).problems[0]


class TestCells:
    @pytest.mark.parametrize(
        ("value", "answer"),
        [(42.0, "42"), (0.5, "0.5"), (-3.0, "-3"), (1e-07, "0.0000001"), (1e15, "1000000000000000"), (["7"], "7")],
    )
    def test_answers_that_are_no_text(self, tmp_path, value, answer):
        assert one(tmp_path, {**ROWS[0], "answer": value}).answer == answer

    @pytest.mark.parametrize("text", ["[1, 2]", r"\{1, 2\}", "{1}", r"\boxed{[0, 1)}", '["a", 1]', "f'(x) = [2]"])
    def test_answers_that_are_text(self, tmp_path, text):
        assert one(tmp_path, {**ROWS[0], "answer": text}).answer == text

    def test_decimals_and_gaps(self, tmp_path):
        rows = [{**ROWS[0], "answer": Decimal("2.50")}, {**ROWS[1], "answer": None}]
        assert [answer for *_, answer in contents(parquet(tmp_path / "a.parquet", rows))] == ["2.5", "6"]

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (float("inf"), "holds inf, which is no answer"),
            (True, r"holds True \(bool\), not text"),
            (["1", "2"], "holds 2 answers, and one is read"),
            ('["1", "2"]', "holds 2 answers, and one is read"),
            ("['1']", r"holds \"\['1'\]\" as Python prints it; write it as JSON"),
            ('{"value": "7"}', r"holds fields, not text; name one of them: answer\.value"),
            ("{'value': '7'}", "as Python prints it"),
            ({"value": "7"}, r"holds fields, not text; name one of them: answer\.value"),
        ],
    )
    def test_what_is_no_answer(self, tmp_path, value, reason):
        with pytest.raises(DataError, match=reason):
            one(tmp_path, {**ROWS[0], "answer": value})

    def test_nan_is_a_gap(self, tmp_path):
        assert one(tmp_path, {**ROWS[2], "answer": float("nan")}).answer == "12"

    @pytest.mark.parametrize(
        "held",
        [
            {"ground_truth": "42", "style": "rule"},
            '{"ground_truth": "42"}',
            [{"ground_truth": 42}],
            {"ground_truth": '["42"]'},
            {"ground_truth": ["42"]},
        ],
    )
    def test_field_in_a_column(self, tmp_path, held):
        row = {"prompt": "What is 6 * 7?", "reward_model": held}
        problem = one(tmp_path, row, problem="prompt", solution=None, answer="reward_model.ground_truth")
        assert (problem.problem, problem.answer) == ("What is 6 * 7?", "42")

    def test_field_in_a_column_of_parquet(self, tmp_path):
        rows = [{"prompt": [{"role": "user", "content": "What?"}], "reward_model": {"ground_truth": "4"}, "more": 1}]
        columns = {"problem": "prompt", "solution": None, "answer": "reward_model.ground_truth"}
        assert contents(parquet(tmp_path / "a.parquet", rows), **columns) == [("What?", "", "4")]
        with pytest.raises(DataError, match=r"row 1: the column 'reward_model\.truth' is missing"):
            contents(tmp_path / "a.parquet", **columns | {"answer": "reward_model.truth"})
        with pytest.raises(DataError, match=r"no column 'rewardmodel\.truth'"):
            contents(tmp_path / "a.parquet", **columns | {"answer": "rewardmodel.truth"})

    @pytest.mark.parametrize(
        "turns",
        [
            [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "What is 6 * 7?"},
                {"role": "assistant", "content": r"It is \boxed{42}."},
            ],
            [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "What is 6 * 7?"},
                {"from": "gpt", "value": r"It is \boxed{42}."},
            ],
            [
                {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
                {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "6 * 7?"}]},
                {"role": "assistant", "content": r"It is \boxed{42}."},
            ],
            {
                "role": ["system", "user", "assistant"],
                "content": ["Be brief.", "What is 6 * 7?", r"It is \boxed{42}."],
            },
            json.dumps(
                [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "What is 6 * 7?"},
                    {"role": "assistant", "content": r"It is \boxed{42}."},
                ]
            ),
        ],
    )
    def test_conversation(self, tmp_path, turns):
        problem = one(tmp_path, {"messages": turns}, problem="messages", solution="messages")
        assert (problem.problem, problem.solution) == ("What is 6 * 7?", r"It is \boxed{42}.")
        assert (problem.answer, problem.system) == ("42", "Be brief.")
        assert problem.texts == ("1", "What is 6 * 7?", r"It is \boxed{42}.", "42", "Be brief.")
        other = replace(problem, system="Be long.")
        assert problems_hash([problem]) != problems_hash([other]) != problems_hash([replace(problem, system="")])

    @pytest.mark.parametrize(
        ("turns", "reason"),
        [
            ([{"role": "user", "content": "a"}] * 2, "holds 2 turns of the user"),
            ([{"role": "assistant", "content": "a"}], "holds 0 turns of the user"),
            ([{"role": "user", "content": [{"type": "image", "image": "x"}]}], "only text is read"),
            ([{"role": "user", "content": None}], "only text is read"),
            (str([{"role": "user", "content": "a"}]), "'messages' holds a conversation as Python prints it"),
        ],
    )
    def test_conversation_that_is_no_problem(self, tmp_path, turns, reason):
        with pytest.raises(DataError, match=reason):
            one(tmp_path, {"messages": turns, "answer": "1"}, problem="messages", solution=None)

    def test_list_of_one_text(self, tmp_path):
        row = {"question": "What?", "solution": [r"It is \boxed{4}."], "final_answer": ["4"]}
        problem = one(tmp_path, row, problem="question", answer="final_answer")
        assert (problem.solution, problem.answer) == (r"It is \boxed{4}.", "4")

    @pytest.mark.parametrize("text", ["[1, 2] and [3]: which is longer?", '[{"a": 1}]'])
    def test_brackets_of_a_problem(self, tmp_path, text):
        assert one(tmp_path, {**ROWS[0], "problem": text}).problem == text

    def test_binary_text(self, tmp_path):
        rows = [{"problem": b"What?", "solution": b"It is \\boxed{4}.", "answer": "4"}]
        assert contents(parquet(tmp_path / "a.parquet", rows)) == [("What?", "It is \\boxed{4}.", "4")]


class TestWithoutSolutions:
    def test_problem_and_answer_alone(self, tmp_path):
        row = {"problem": "What is 6 * 7?", "answer": "42"}
        assert one(tmp_path, row, needs_solution=False).solution == ""
        assert one(tmp_path, {**row, "solution": None}, needs_solution=False).solution == ""
        assert one(tmp_path, {**row, "solution": "s"}, needs_solution=False).solution == "s"
        with pytest.raises(DataError, match="no column 'solution'"):
            one(tmp_path, row)
        with pytest.raises(DataError, match="no column 'answer'"):
            one(tmp_path, {"problem": "What is 6 * 7?"}, needs_solution=False)

    @pytest.mark.parametrize(
        ("held", "answer"), [("42", "42"), (42.0, "42"), ("so\n#### 1,042", "1042"), ("$x$", "$x$")]
    )
    def test_one_column_for_both(self, tmp_path, held, answer):
        row = {"problem": "What is 6 * 7?", "answer": held}
        assert one(tmp_path, row, solution="answer").answer == answer

    def test_several_lines_without_a_mark_are_no_answer(self, tmp_path):
        with pytest.raises(DataError, match="no answer"):
            one(tmp_path, {"problem": "p", "answer": "first\nsecond"}, solution="answer")


def test_prompts_of_every_kind_are_read(tmp_path):
    for name, content in (("a.csv", b"prompt\nHello?\n"), ("a.json", b'[{"prompt": "Hello?"}]'), ("a.jsonl.gz", b"")):
        (tmp_path / name).write_bytes(content or gzip.compress(b'{"prompt": "Hello?"}\n'))
        settings = SampleSettings(Settings(), file=tmp_path / name)
        assert [prompt.text for prompt in read_prompts(settings, built_in=None)] == ["Hello?"]


def test_a_json_file_of_one_row_that_is_a_conversation_alone(tmp_path):
    """And not a table of two rows, each with a turn."""
    turns = [{"role": "user", "content": "6 * 7?"}, {"role": "assistant", "content": "It is \\boxed{42}"}]
    (tmp_path / "a.json").write_text(json.dumps({"messages": turns}))
    columns = dict.fromkeys(("problem", "solution", "answer"), "messages")
    assert contents(tmp_path / "a.json", **columns) == [("6 * 7?", "It is \\boxed{42}", "42")]
