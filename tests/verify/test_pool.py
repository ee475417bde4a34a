import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from egrsd_jax.verify.pool import GradingPool, Outcome, Verdict
from egrsd_jax.verify.process import WorkerCannotStart, WorkerDied, WorkerProcess, end_process

ROOT = Path(__file__).resolve().parents[2]
EASY = ("0.5", r"\frac{1}{2}")
HARD = (r"\sqrt{8}", r"2\sqrt{2}")
HARD_AND_WRONG = (r"\sqrt{8}", r"3\sqrt{2}")
# Sympy brings both to one denominator, for minutes.
HANGING = (r"\sum_{k=1}^{1999}\frac{1}{x+k}=1", r"\sum_{k=1}^{1998}\frac{1}{x+k}=1")


def outcomes(verdicts):
    return [str(verdict.outcome) for verdict in verdicts]


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def pool():
    with GradingPool(workers=2, deadline=20.0) as pool:
        yield pool


def test_an_outcome_that_earlier_versions_wrote_is_still_read():
    assert [Outcome(word) for word in ("right", "correct", "wrong")] == [
        Outcome.CORRECT,
        Outcome.CORRECT,
        Outcome.WRONG,
    ]
    with pytest.raises(ValueError, match="rihgt"):
        Outcome("rihgt")


def test_verdicts_come_in_order_with_their_reasons(pool):
    verdicts = pool.grade_many([HARD, (None, "7"), EASY, ("8", "7"), HARD_AND_WRONG, ("10^{10^{10^{10}}}", "7"), HARD])
    assert verdicts == [
        Verdict(Outcome.CORRECT, "worked out by algebra"),
        Verdict(Outcome.WRONG, "no answer"),
        Verdict(Outcome.CORRECT, "settled without algebra"),
        Verdict(Outcome.WRONG, "settled without algebra"),
        Verdict(Outcome.WRONG, "worked out by algebra"),
        Verdict(
            Outcome.UNGRADABLE,
            "the prediction is not evaluated: it holds a power tower or an exponent over 20,000",
        ),
        Verdict(Outcome.CORRECT, "worked out by algebra"),
    ]
    assert [verdict.correct for verdict in verdicts] == [True, False, True, False, False, False, True]
    assert [verdict.ungradable for verdict in verdicts] == [False] * 5 + [True, False]
    assert pool.grade_many([]) == []


def test_workers_start_with_the_first_hard_pair_and_end_with_the_pool():
    with GradingPool(workers=2) as pool:
        assert outcomes(pool.grade_many([EASY, (None, "7"), ("8", "7")])) == ["correct", "wrong", "wrong"]
        assert pool.worker_pids == []
        assert outcomes(pool.grade_many([HARD])) == ["correct"]
        (pid,) = pool.worker_pids
    assert not is_running(pid)
    with pytest.raises(RuntimeError, match="closed"):
        pool.grade_many([EASY])
    pool.close()


def test_from_several_threads_at_once(pool):
    found = {}
    threads = [threading.Thread(target=lambda n=n: found.update({n: pool.grade_many([HARD, EASY])})) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcomes(found[n]) for n in range(4)] == [["correct", "correct"]] * 4


def test_a_pair_that_hangs_is_ungradable_and_the_others_are_graded():
    with GradingPool(workers=1, deadline=1.0) as pool:
        pool.grade_many([("x", "y+1-1")])
        (before,) = pool.worker_pids
        start = time.monotonic()
        hanging, *others = pool.grade_many([HANGING, EASY, HARD_AND_WRONG, ("8", "7")])
        assert time.monotonic() - start < 15.0
        assert hanging == Verdict(Outcome.UNGRADABLE, "the deadline of 1 s passed")
        assert outcomes(others) == ["correct", "wrong", "wrong"]
        assert not is_running(before)


def test_a_worker_killed_from_outside_costs_one_pair():
    with GradingPool(workers=1, deadline=60.0) as pool:
        verdicts = []
        thread = threading.Thread(target=lambda: verdicts.extend(pool.grade_many([HANGING, HARD])))
        pool.grade_many([("x", "y+1-1")])
        (victim,) = pool.worker_pids
        thread.start()
        time.sleep(0.5)
        os.kill(victim, signal.SIGKILL)
        thread.join(30.0)
        assert not thread.is_alive()
        assert verdicts[0] == Verdict(Outcome.UNGRADABLE, "the grading process was ended by SIGKILL")
        assert verdicts[1].correct


def test_a_worker_that_died_between_pairs_costs_nothing():
    with GradingPool(workers=1) as pool:
        pool.grade_many([HARD])
        (victim,) = pool.worker_pids
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: pool.worker_pids == [])
        assert outcomes(pool.grade_many([HARD_AND_WRONG])) == ["wrong"]


def test_workers_are_replaced_after_their_tasks():
    with GradingPool(workers=1, tasks_per_worker=2) as pool:
        pids = []
        for n in range(2, 5):
            assert outcomes(pool.grade_many([(rf"\sqrt{{{4 * n}}}", rf"2\sqrt{{{n}}}")])) == ["correct"]
            pids += pool.worker_pids
        assert pids[0] == pids[1] != pids[2]
        assert not is_running(pids[0])


def test_an_exception_is_ungradable_and_named(pool):
    (verdict,) = pool.grade_many([(r"(1+\sqrt{8})^{(1+\sqrt{8})^{43}}", r"(1+2\sqrt{2})^{(1+2\sqrt{2})^{43}}+1")])
    assert verdict.outcome is Outcome.UNGRADABLE
    assert verdict.reason.startswith("ValueError: ")


def test_what_cannot_be_read_is_ungradable_and_named(pool):
    verdicts = pool.grade_many([(r"\frac{1}", "5"), (r"\int 58", "5"), ("5+1", r"\oint")])
    assert [str(verdict.outcome) for verdict in verdicts] == ["ungradable"] * 3
    assert [verdict.reason for verdict in verdicts] == [
        "the prediction cannot be read: it ends too early",
        "the prediction cannot be read: an integral has no limits",
        "the gold answer cannot be read: '\\\\oint' is not known here",
    ]


def test_closing_stops_a_pool_that_is_grading():
    pool = GradingPool(workers=1, deadline=60.0)
    pool.grade_many([("x", "y+1-1")])
    ended = []

    def grade():
        with pytest.raises(RuntimeError, match="closed"):
            pool.grade_many([HANGING, HARD])
        ended.append(True)

    thread = threading.Thread(target=grade)
    thread.start()
    time.sleep(0.3)
    pool.close()
    thread.join(10.0)
    assert ended == [True]


SCRIPT = """
from egrsd_jax.verify.pool import GradingPool
pool = GradingPool(workers=2)
print([str(verdict.outcome) for verdict in pool.grade_many([(r"\\sqrt{8}", r"2\\sqrt{2}"), (r"\\sqrt{8}", r"\\pi")])])
print(*pool.worker_pids)
"""


def test_a_script_without_a_guard_in_a_folder_with_traps_and_no_close(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "sympy.py").write_text("raise RuntimeError('the wrong sympy')")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    verdicts, pids = done.stdout.splitlines()
    assert verdicts == "['correct', 'wrong']", done.stderr
    assert not any(is_running(int(pid)) for pid in pids.split())  # ended at exit


def test_what_is_printed_in_a_worker_does_not_get_among_its_replies(tmp_path, monkeypatch):
    noise = "import threading\ndef shout():\n    while True: print('{\"correct\": true}', flush=True)\n"
    (tmp_path / "sitecustomize.py").write_text(noise + "threading.Thread(target=shout, daemon=True).start()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with GradingPool(workers=1) as pool:
        assert outcomes(pool.grade_many([HARD_AND_WRONG, HARD])) == ["wrong", "correct"]


def test_without_sympy_the_pool_says_so(tmp_path, monkeypatch):
    (tmp_path / "sympy.py").write_text("raise ImportError('not installed here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with GradingPool(workers=1) as pool, pytest.raises(WorkerCannotStart, match="pip install sympy"):
        pool.grade_many([HARD])


def test_a_worker_that_cannot_start_repeats_its_last_words(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise RuntimeError('somebody else called a module json')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with GradingPool(workers=1) as pool, pytest.raises(WorkerCannotStart, match="somebody else called a module json"):
        pool.grade_many([HARD])


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory map of a process, which only Linux has")
def test_a_worker_has_no_jax_and_bounded_memory(pool):
    pool.grade_many([HARD])
    for pid in pool.worker_pids:
        assert "jaxlib" not in Path(f"/proc/{pid}/maps").read_text()
        assert f"{4 * 2**30}" in Path(f"/proc/{pid}/limits").read_text()


def test_the_worker_module_imports_no_jax():
    script = "import sys, egrsd_jax.verify.worker as w; w.load_algebra().load(); print('jax' in sys.modules)\n"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", done.stderr


def test_a_worker_whose_parent_is_gone_ends_itself():
    worker = WorkerProcess(deadline=-3.5)  # its own alarm then rings after half a second
    try:
        worker.wait_until_ready(60.0)
        with pytest.raises(WorkerDied, match="SIGALRM"):
            worker.ask(*HANGING, seconds=30.0)
    finally:
        worker.close()


def test_a_process_that_does_not_hear_sigterm_is_killed():
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        end_process(process, grace=0.2)
        assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"workers": 0}, "workers"), ({"deadline": 0}, "deadline"), ({"tasks_per_worker": 0}, "tasks")],
)
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        GradingPool(**arguments)
