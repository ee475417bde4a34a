"""Completions that are sampled once: what is there is not sampled again, and what they depend on is the same."""

import numpy as np
import pytest

from egrsd_jax.rollout.requests import Completion
from egrsd_jax.runs import lock
from egrsd_jax.train.stored import StoredCompletions

DEPENDS_ON = {"model": "a" * 64, "temperature": 1.1}


@pytest.fixture(autouse=True)
def released():
    yield
    lock.release_all()


def sampler(asked: list[list[int]]):
    def sample(numbers: list[int]) -> list[Completion]:
        asked.append(numbers)
        return [
            Completion([n, n + 1], np.array([-0.1 * n, -1 / 3], np.float32), "stop" if n % 2 else "length")
            for n in numbers
        ]

    return sample


def test_what_is_there_is_not_sampled_again(tmp_path):
    asked: list[list[int]] = []
    file = tmp_path / "deep" / "stored.jsonl"
    stored = StoredCompletions(file, DEPENDS_ON)
    first = stored.completions([(5, 0), (5, 1), (2, 0)], sampler(asked))
    again = stored.completions([(2, 0), (5, 0)], sampler(asked))
    assert again == [first[2], first[0]]
    later = StoredCompletions(file, DEPENDS_ON)
    assert len(later) == 3
    read = later.completions([(5, 1), (7, 0), (2, 0)], sampler(asked))
    assert asked == [[0, 1, 2], [1]]
    for one, other in ((read[0], first[1]), (read[2], first[2])):
        assert (one.tokens, one.ended) == (other.tokens, other.ended)
        np.testing.assert_array_equal(one.logp, other.logp)  # to the last bit
        assert one.logp.dtype == np.float32


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"temperature": 1.0}, r"another temperature 1.1, and now 1.0; give rollout.stored a new file"),
        ({"model": "b" * 64}, r"holds completions with another model; give"),
    ],
)
def test_other_completions_are_refused(tmp_path, changed, message):
    file = tmp_path / "stored.jsonl"
    StoredCompletions(file, DEPENDS_ON).completions([(0, 0)], sampler([]))
    with pytest.raises(ValueError, match=message):
        StoredCompletions(file, DEPENDS_ON | changed)


def test_a_fingerprint_that_an_earlier_version_made_otherwise_is_the_same_model(tmp_path):
    file, asked = tmp_path / "stored.jsonl", []
    StoredCompletions(file, DEPENDS_ON).completions([(0, 0)], sampler([]))

    def is_of(digest: str) -> bool:
        asked.append(digest)
        return digest == "a" * 64

    later = StoredCompletions(file, DEPENDS_ON | {"model": "02" + "c" * 64}, is_of={"model": is_of})
    later.completions([(0, 0), (1, 0)], sampler([]))
    assert asked == ["a" * 64]
    with pytest.raises(ValueError, match="another model; give"):
        StoredCompletions(file, DEPENDS_ON | {"model": "02" + "c" * 64}, is_of={"model": lambda _: False})


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "problems.jsonl").write_text('{"problem": "1 + 1"}\n')
    with pytest.raises(ValueError, match="is no file of stored completions"):
        StoredCompletions(tmp_path / "problems.jsonl", DEPENDS_ON)


def test_a_damaged_completion_is_sampled_again(tmp_path):
    asked: list[list[int]] = []
    file = tmp_path / "stored.jsonl"
    StoredCompletions(file, DEPENDS_ON).completions([(0, 0), (1, 0)], sampler(asked))
    content = file.read_text()
    file.write_text(content.replace("[1, 2]", "[1, 3]"))
    stored = StoredCompletions(file, DEPENDS_ON)
    assert len(stored) == 1
    assert any("line 3" in note for note in stored.notes)
    assert stored.completions([(1, 0)], sampler(asked))[0].tokens == [0, 1]
    assert asked == [[0, 1], [0]]


def test_of_several_hosts_one_writes(tmp_path):
    asked: list[list[int]] = []
    stored = StoredCompletions(tmp_path / "stored.jsonl", DEPENDS_ON, writes=False)
    stored.completions([(0, 0)], sampler(asked))
    stored.completions([(0, 0)], sampler(asked))
    assert asked == [[0]]
    assert not [*tmp_path.iterdir()]
