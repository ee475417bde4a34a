"""Several hosts as one: the same command on each, arrays sharded across all of them, values that each one has.

Every host reads the same problems and samples the same rollouts, since both depend on seeds alone; grading, which
takes time outside the devices, is divided.
"""

import atexit
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding

from egrsd_jax.model.host_watch import HOW_TO_FIX, HostWatch

COLLECTIVE_THREADS = 32
JAX_IS_LATER = 20  # seconds
_watch: HostWatch | None = None  # of this process, where its run has several hosts


def _end(line: str) -> NoReturn:
    print(f"error: {line}", file=sys.stderr, flush=True)
    os._exit(HostLost.exit_code)


def join_hosts(
    coordinator: str | None,
    hosts: int | None,
    host: int | None,
    *,
    heartbeat: int = 100,
    end: Callable[[str], NoReturn] = _end,
) -> None:
    """Connects this process to the others of its run; call it before anything asks for devices.

    `coordinator` is None for one host, `auto` where the cluster lists its hosts (TPU pods, Slurm), or the first
    host's ADDRESS:PORT, with the number of `hosts` and which one this is. After `heartbeat` seconds without a sign of
    life from one of them the others end: `end` is called with the line that names it. Raises ValueError where they
    disagree, and HostLost where they do not come together.
    """
    if coordinator is None:
        if hosts is not None or host is not None:
            raise ValueError("run.hosts and run.host need run.coordinator, the first host's ADDRESS:PORT")
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # what hosts without an accelerator talk through
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        # A collective on a CPU holds one of XLA's threads until every host has come to it. With fewer threads than
        # collectives in flight, each host waiting in another one, none is left for those that all wait for.
        os.environ.setdefault("NPROC", str(COLLECTIVE_THREADS))
    if coordinator != "auto" and (hosts is None or host is None or not 0 <= host < hosts):
        raise ValueError(f"run.coordinator {coordinator} needs run.hosts and run.host, 0 to run.hosts - 1")
    where = {"coordinator_address": coordinator, "num_processes": hosts, "process_id": host}
    try:
        jax.distributed.initialize(
            **({} if coordinator == "auto" else where),
            heartbeat_timeout_seconds=2 * heartbeat + JAX_IS_LATER,  # so that the watch, which names a host, is first
        )
    except RuntimeError as error:  # jaxlib's, of which a user can change nothing but that
        reason = str(error).splitlines()[0][:200]
        raise HostLost(
            f"the hosts did not all come to {coordinator} ({reason}); start the commands on all of them"
        ) from (error)
    _begin_to_watch(heartbeat, end)


def _begin_to_watch(heartbeat: int, end: Callable[[str], NoReturn]) -> None:
    """The hosts watch each other until this process ends."""
    global _watch
    from jax._src.distributed import global_state  # the store has no public name

    if jax.process_count() == 1 or global_state.client is None or global_state.coordinator_address is None:
        return
    _watch = HostWatch(
        global_state.client,
        global_state.coordinator_address,
        jax.process_count(),
        jax.process_index(),
        heartbeat=heartbeat,
        end=end,
    )
    _watch.start()
    atexit.register(_watch.stop)  # before jax's own, which waits for all hosts


class HostLost(OSError):
    """Another host of the run is gone, or cannot be reached."""

    exit_code = 1
    ends_at_once = True  # the end in order would wait for the host that is gone


@contextmanager
def naming_lost_hosts() -> Iterator[None]:
    """Errors of collectives that another host has left are HostLost, one line that says which host. The other hosts
    are given the reason of any other error of this one, which ends then without waiting for them."""
    try:
        yield
    except HostLost:
        raise
    except Exception as error:
        if _watch is None:
            raise
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        if isinstance(error, ValueError | RuntimeError) and _is_of_a_collective(error, reason):
            silent = _watch.silent()
            line = _lost(_watch, silent, reason)
            _watch.fail(line, gone=silent)
            if jax.process_index() != 0:
                _watch.end(line)
            raise HostLost(line) from error
        _watch.fail(reason)
        error.ends_at_once = True  # pyright: ignore
        raise


def _is_of_a_collective(error: Exception, reason: str) -> bool:
    return isinstance(error, jax.errors.JaxRuntimeError) or "gloo" in reason.lower()  # gloo raises plain ValueErrors


def _lost(watch: HostWatch, silent: list[int], reason: str) -> str:
    """A line on the hosts that no longer answer."""
    host = jax.process_index()
    if (why := next(filter(None, map(watch.reason, silent)), None)) is not None:
        return f"host {host} ends, since host {silent[0]} has ended: {why}"
    who = f"host {silent[0]}" if len(silent) == 1 else f"one of the hosts {', '.join(map(str, silent))}"
    return f"host {host} lost {who} ({reason[:200]}); {HOW_TO_FIX}"


def is_first_host() -> bool:
    """Whether this host writes what a run leaves."""
    return jax.process_index() == 0


def put_global(tree: Any, sharding: Sharding) -> Any:
    """Arrays that every host holds whole -> arrays in their shards."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(
        lambda leaf: jax.make_array_from_callback(leaf.shape, sharding, lambda index, leaf=leaf: leaf[index]),
        jax.tree.map(np.asarray, tree),
    )


def fetch(tree: Any) -> Any:
    """Arrays in their shards -> NumPy arrays, whole, on every host."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def wait_for_all(what: str) -> None:
    """Returns when every host has called it with the same name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def from_first_host(value: int) -> int:
    """A number of the first host's, on every host."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


class FirstHostFailed(OSError):
    """The first host could not do what all hosts wait for."""

    exit_code = 1


def on_first_host(work: Callable[[], Any], what: str) -> Any:
    """`work()` of the first host; None on the others. Raises on all of them what it raises there: itself on the first
    host, and FirstHostFailed on the others, so that none of them waits for ever."""
    result = failure = None
    if is_first_host():
        try:
            result = work()
        except Exception as error:  # raised again below, after the others have heard of it
            failure = error
    failed = on_any_host(failure is not None)
    if failure is not None:
        raise failure
    if failed:
        raise FirstHostFailed(f"the first host could not {what}, and its own last line says why")
    return result


def broadcast(tree: Any) -> Any:
    """The first host's arrays, as NumPy arrays on every host; the others give some of the same shapes and dtypes."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(tree))


def on_any_host(value: bool) -> bool:
    """Whether it is true on any host, on every host."""
    if jax.process_count() == 1:
        return value
    return bool(np.any(multihost_utils.process_allgather(np.bool_(value))))


def check_same(what: str, digest: str) -> None:
    """Raises ValueError on every host where a digest, in hexadecimal, is not the same on all."""
    if jax.process_count() == 1:
        return
    digests = multihost_utils.process_allgather(np.frombuffer(bytes.fromhex(digest), np.uint8))
    if different := [host for host, other in enumerate(digests) if not np.array_equal(other, digests[0])]:
        raise ValueError(f"host {different[0]} has other {what} than host 0; give every host the same files")


def over_hosts(count: int, work: Callable[[slice], np.ndarray]) -> np.ndarray:
    """`work(rows)` for a part of `count` rows on each host -> the results for all rows, in order, on every host."""
    hosts, host = jax.process_count(), jax.process_index()
    if hosts == 1 or count == 0:
        return work(slice(0, count))
    share = -(-count // hosts)
    rows = slice(min(host * share, count), min((host + 1) * share, count))
    results = work(rows)
    padded = np.concatenate([results, np.zeros((share - len(results), *results.shape[1:]), results.dtype)])
    return multihost_utils.process_allgather(padded, tiled=True)[:count]
