"""Hosts that watch each other: without any network, where the store is a dictionary and the time a number, and as two
processes of which one is killed, is stopped, fails, or is out of reach."""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any, NoReturn

import pytest

from egrsd_jax.model import host_watch
from egrsd_jax.model.host_watch import NOTICE_SECONDS, HostWatch
from tests.commands import environment

HEARTBEAT = 10.0


class Store(dict[str, str]):
    """jax's store: what one host sets all can read, while the network is there."""

    def key_value_set(self, name: str, value: str, *, allow_overwrite: bool) -> None:
        assert allow_overwrite
        self[name] = value

    def key_value_dir_get(self, folder: str) -> list[tuple[str, str]]:
        return [entry for entry in self.items() if entry[0].startswith(folder)]


def no_end(line: str) -> NoReturn:
    raise AssertionError(line)


def watches(hosts: int, monkeypatch) -> tuple[Store, list[Any]]:
    """A watch per host, of which none has begun: they are asked for their verdicts one by one."""
    monkeypatch.setattr(host_watch, "_speaker", lambda *_: None)
    store = Store()
    return store, [
        HostWatch(store, "first:1234", hosts, host, heartbeat=HEARTBEAT, end=no_end) for host in range(hosts)
    ]


def beat(store: Store, watches: list[Any], *hosts: int) -> None:
    for host in hosts:
        store[f"{host_watch.BEATS}{host}"] = str(time.monotonic_ns())
    for host in hosts:
        watches[host]._read()


def test_a_host_whose_number_no_longer_grows_is_lost_after_the_heartbeat(monkeypatch):
    store, all_hosts = watches(3, monkeypatch)
    beat(store, all_hosts, 0, 1, 2)
    now = time.monotonic()
    assert [all_hosts[host].verdict(2, now + HEARTBEAT - 1) for host in (0, 1)] == [None] * 2
    monkeypatch.setattr(time, "monotonic", lambda: now + HEARTBEAT - 1)
    beat(store, all_hosts, 0, 1)  # host 2 is frozen
    for host in (0, 1):
        assert all_hosts[host].verdict(2, now + HEARTBEAT + 1) == (
            f"host {host} lost host 2: no sign of life for 10 s (run.heartbeat); start the same commands again on all "
            "hosts, and they resume from the newest checkpoint"
        )


def test_a_store_out_of_reach_is_the_loss_of_host_0(monkeypatch):
    store, all_hosts = watches(2, monkeypatch)
    beat(store, all_hosts, 0, 1)
    line = all_hosts[1].verdict(0, time.monotonic() + HEARTBEAT + 1)
    assert line.startswith("host 1 lost host 0: no sign of life for 10 s (run.heartbeat) at first:1234; start")


def test_a_host_that_failed_gives_its_reason_and_one_that_ended_is_not_lost(monkeypatch):
    store, all_hosts = watches(3, monkeypatch)
    beat(store, all_hosts, 0, 1, 2)
    all_hosts[1].stop()
    all_hosts[2].fail("metrics.jsonl: No space left on device")
    all_hosts[2].stop()  # as at the end of its process, also after an error that nobody has foreseen
    all_hosts[0]._read()
    now = time.monotonic()
    assert [all_hosts[0].verdict(other, now) for other in (1, 2)] == [None, None]
    reason = "host 0 ends, since host 2 has ended: metrics.jsonl: No space left on device"
    assert all_hosts[0].verdict(2, now + NOTICE_SECONDS + 0.1) == reason
    assert all_hosts[0].verdict(1, now + 10 * HEARTBEAT) is None


def test_host_0_waits_until_those_that_are_there_have_ended(monkeypatch):
    store, all_hosts = watches(3, monkeypatch)
    beat(store, all_hosts, 0, 1, 2)
    waited = []

    def host_1_ends(_: float) -> None:
        waited.append(1)
        all_hosts[1].fail(str(all_hosts[1].reason(0)))

    monkeypatch.setattr(time, "sleep", host_1_ends)
    all_hosts[0].fail("lost host 2", gone=[2])
    assert len(waited) == 2  # for it to end, and to print
    all_hosts[0].fail("lost both", gone=[1, 2])
    assert len(waited) == 2
    assert store[f"{host_watch.BEATS}0"] == "failed: lost both"


def test_of_an_error_without_a_name_the_silent_host_is_named(monkeypatch):
    store, all_hosts = watches(3, monkeypatch)
    beat(store, all_hosts, 0, 1, 2)
    monkeypatch.setattr(time, "sleep", lambda _: beat(store, all_hosts, 0, 1))
    all_hosts[0]._interval = 0.01
    assert all_hosts[0].silent() == [2]


@pytest.mark.parametrize(
    ("listens", "has_spoken", "speaks"), [(False, False, True), (True, False, False), (False, True, False)]
)
def test_what_jax_ends_without_a_name_has_last_words(listens, has_spoken, speaks):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listens:
            server.listen()
        port = server.getsockname()[1]
        code = (
            "import os; from egrsd_jax.model.host_watch import HostWatch; "
            f"watch = HostWatch(None, '127.0.0.1:{port}', 2, 1, heartbeat=10, end=print); "
            f"{'watch.say_nothing(); ' if has_spoken else ''}os._exit(1)"
        )
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (f"error: host 1 lost host 0: nothing answers at 127.0.0.1:{port}; start" in ended.stderr) == speaks


class Wire:
    """A port of this machine from which everything is forwarded to another, until `cut`: then nothing is, and the
    connections stay open, as with a cable that is pulled."""

    def __init__(self, port: int):
        self._target, self._cut = port, threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """No byte passes from now on."""
        self._cut.set()

    def _accept(self) -> None:
        while True:
            near, _ = self._server.accept()
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()  # the other end does not listen yet: its client tries again
                continue
            for source, to in ((near, far), (far, near)):
                threading.Thread(target=self._forward, args=(source, to), daemon=True).start()

    def _forward(self, source: socket.socket, to: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                if self._cut.is_set():
                    threading.Event().wait()
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)


TOGETHER = """
import os, signal, sys, threading
from egrsd_jax.model.hosts import HostLost, join_hosts, naming_lost_hosts, wait_for_all
host, fails, port, fault = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
join_hosts(f"127.0.0.1:{port}", 2, host, heartbeat=HEARTBEAT)
def for_ever():
    print("waits", flush=True)
    threading.Event().wait()
try:
    with naming_lost_hosts():
        wait_for_all("both are there")
        if host == fails:
            exec(fault)
        wait_for_all("the other one comes too")
except HostLost as error:
    print("error:", error, file=sys.stderr, flush=True)
    os._exit(1)
except OSError:
    os._exit(7)
"""
SHORT = 4  # seconds
SILENCE = f"no sign of life for {SHORT} s (run.heartbeat)"


def together(fails: int, fault: str, *ports: int) -> list[subprocess.Popen]:
    """Two hosts, of which one comes to a fault and the other one waits for it in a collective."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment()}
    command = [sys.executable, "-c", TOGETHER.replace("HEARTBEAT", str(SHORT))]
    return [
        subprocess.Popen([*command, str(host), str(fails), str(port), fault], **options)
        for host, port in enumerate(ports)
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


KILL = "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fails", "fault", "code", "lines"),
    [
        (
            0,
            KILL,
            -signal.SIGKILL,
            ["host 1 lost host 0: nothing answers at 127.", "host 1 lost host 0 ("],
        ),
        (1, KILL, -signal.SIGKILL, ["error: host 0 lost host 1 ("]),
        (0, "raise OSError('the disk is full')", 7, ["error: host 1 ends, since host 0 has ended: the disk is full"]),
        (1, "raise OSError('the disk is full')", 7, ["error: host 0 ends, since host 1 has ended: the disk is full"]),
    ],
    ids=["0 is killed", "1 is killed", "0 fails", "1 fails"],
)
def test_the_end_of_a_host_is_named_by_the_other(fails, fault, code, lines):
    port = free_port()
    hosts = together(fails, fault, port, port)
    outputs = [host.communicate(timeout=300)[0] for host in hosts]
    assert hosts[fails].returncode == code, outputs[fails]
    assert hosts[1 - fails].returncode != 0
    assert any(line in outputs[1 - fails] for line in lines), outputs[1 - fails]
    assert "Traceback" not in outputs[1 - fails]


@pytest.mark.slow
@pytest.mark.parametrize("is_cut", [False, True], ids=["host 1 is frozen", "the network is cut"])
def test_silence_is_an_end_after_the_heartbeat_and_names_the_host(is_cut):
    port = free_port()
    wire = Wire(port)
    hosts = together(1, "for_ever()" if is_cut else "os.kill(os.getpid(), signal.SIGSTOP)", port, wire.port)
    if is_cut:
        assert hosts[1].stdout is not None
        while "waits" not in hosts[1].stdout.readline():
            assert hosts[1].poll() is None
        wire.cut()
        output, _ = hosts[1].communicate(timeout=300)
        assert hosts[1].returncode == 1, output
        assert f"error: host 1 lost host 0: {SILENCE} at 127.0.0.1:{wire.port}; start the same" in output
    output, _ = hosts[0].communicate(timeout=300)
    assert hosts[0].returncode == 1, output
    # Of two that wait the first to end closes its connections, which the other one then notices at once.
    assert f"error: host 0 lost host 1: {SILENCE}" in output or (is_cut and "error: host 0 lost host 1 (" in output)
    assert "Traceback" not in output
    hosts[1].kill()
    hosts[1].communicate()
