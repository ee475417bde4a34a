"""Compiled programs: kept from run to run in a folder of this user, and counted. Imports jax late.

The folder is jax's persistent compilation cache. A key of it has the program, the options, the version of jaxlib and
the processor's instructions, but not how many processors the program was compiled for, and XLA divides its loops by
that number: a folder of its own for each number keeps a program that was made for one processor from running on many.
"""

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

VARIABLE = "EGRSD_COMPILATION_CACHE"
AUTO, OFF = "auto", "off"
FIX = f"give a folder in --run.compilation_cache or {VARIABLE}, or `{OFF}`"
MAX_BYTES = 2**30  # of each folder: a run of the built-in model takes 2 MB, one of an 8B model on TPUs some 100 MB
MAX_PROGRAMS = 4096  # of each folder: jax reads a file of every program whenever it adds one
LOCK_SECONDS = 10  # for another process; jax waits as long
TRIM_SECONDS = 1.0  # a program that compiled for less leaves little behind
PROGRAM, LAST_USE, LOCK = "-cache", "-atime", ".lockfile"  # names that jax gives

_COMPILES = "/jax/core/compile/backend_compile_duration"  # compiled, or read from the cache
_HITS = "/jax/compilation_cache/cache_hits"


class Programs(NamedTuple):
    """How many programs a process has compiled and how many it has read from the cache, and the seconds of both."""

    compiled: int = 0
    cached: int = 0
    seconds: float = 0.0

    def since(self, earlier: "Programs") -> "Programs":
        """Those that came after an earlier count."""
        return Programs(self.compiled - earlier.compiled, self.cached - earlier.cached, self.seconds - earlier.seconds)


class Listener:
    """What is called when a program is compiled, or read from the cache; `name` is its function's."""

    def begins(self, name: str) -> None:
        """Before it."""

    def ends(self, name: str, seconds: float) -> None:
        """After it."""


class _Counter:
    """Counts the events of jax.monitoring, which come from any thread, and passes them on."""

    def __init__(self):
        self.programs, self.listeners = Programs(), list[Listener]()
        self._lock = threading.Lock()

    def on_event(self, event: str, **_: Any) -> None:
        if event == _HITS:
            self._add(compiled=-1, cached=1)

    def on_scalar(self, event: str, value: float, **fields: Any) -> None:  # noqa: ARG002  (when it began)
        if event == _COMPILES:
            for listener in self.listeners:
                listener.begins(_name(fields))

    def on_duration(self, event: str, duration_secs: float, **fields: Any) -> None:
        if event == _COMPILES:
            self._add(compiled=1, seconds=duration_secs)
            if duration_secs >= TRIM_SECONDS:
                return_freed_memory()
            for listener in self.listeners:
                listener.ends(_name(fields), duration_secs)

    def _add(self, **more: float) -> None:
        with self._lock:
            self.programs = Programs(
                **{name: value + more.get(name, 0) for name, value in self.programs._asdict().items()}
            )


_counter: _Counter | None = None


def _counting() -> _Counter:
    global _counter  # jax's list of listeners is one per process too
    if _counter is None:
        from jax import monitoring

        _counter = _Counter()
        monitoring.register_event_listener(_counter.on_event)
        monitoring.register_scalar_listener(_counter.on_scalar)
        monitoring.register_event_duration_secs_listener(_counter.on_duration)
    return _counter


def count_programs() -> Programs:
    """Programs of this process since the first call of a function of this module, whoever asked for them."""
    return _counting().programs


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """The listener is called meanwhile."""
    counter = _counting()
    counter.listeners.append(listener)
    try:
        yield
    finally:
        counter.listeners.remove(listener)


class CompilationNotices(Listener):
    """A line about a program that compiles for long, and one when it is done; none about the others.

    `timer` is `threading.Timer` or behaves like it.
    """

    def __init__(self, say: Callable[[str], None], *, after: float = 5.0, timer: Callable[..., Any] = threading.Timer):
        self._say, self._after, self._timer = say, after, timer
        self._waiting: dict[int, Any] = {}
        self._announced: set[int] = set()

    def begins(self, name: str) -> None:
        """Waits before it says anything."""
        thread = threading.get_ident()

        def announce() -> None:
            self._announced.add(thread)
            self._say(f"compiling {name}")

        timer = self._waiting[thread] = self._timer(self._after, announce)
        timer.daemon = True
        timer.start()

    def ends(self, name: str, seconds: float) -> None:
        """Says so where the begin was announced."""
        thread = threading.get_ident()
        if (timer := self._waiting.pop(thread, None)) is not None:
            timer.cancel()
        if thread in self._announced:
            self._announced.remove(thread)
            self._say(f"compiled {name} in {seconds:.0f} s")


def keep_programs(setting: str = AUTO) -> str:
    """Turns the persistent compilation cache on, and returns the line that says where it is, or why there is none.

    `setting` is a folder, `off`, or `auto`: then the environment variable EGRSD_COMPILATION_CACHE decides in the same
    words, then jax's own JAX_COMPILATION_CACHE_DIR, and else it is the user's cache folder. Call it after the hosts
    have joined and before anything is compiled. Raises ValueError where a folder that was asked for cannot be written.
    """
    import jax

    _counting()
    config: Any = jax.config
    asked = setting if setting != AUTO else os.environ.get(VARIABLE) or AUTO
    of_jax = config.jax_compilation_cache_dir
    if asked == OFF or not config.jax_enable_compilation_cache:
        config.update("jax_compilation_cache_dir", None)
        return "compilation cache: off"
    if asked == AUTO and of_jax:  # as jax has it, size included
        _keep_small_programs()
        return f"compilation cache: {of_jax} (JAX_COMPILATION_CACHE_DIR)"
    try:
        folder = _prepared(user_cache() if asked == AUTO else _given(asked))
        count, size = _tidy(folder)
    except (OSError, NotImplementedError) as error:  # the latter where a file system has no locks
        if asked != AUTO:
            raise ValueError(f"the compilation cache cannot be kept in {asked}: {_reason(error)}; {FIX}") from error
        return f"compilation cache: none, every start compiles anew: {_reason(error)}; {FIX}"
    config.update("jax_compilation_cache_dir", str(folder))
    config.update("jax_compilation_cache_max_size", MAX_BYTES)
    _keep_small_programs()
    return f"compilation cache: {count:,} programs, {size / 1e6:.1f} MB, in {folder}"


def user_cache() -> Path:
    """This user's folder of compiled programs. Raises OSError where the user has no home."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if base.is_absolute():  # its standard says to ignore any other
        return base / "egrsd_jax" / "compiled"
    try:
        home = Path.home()
    except RuntimeError as error:
        raise OSError("this user has no home folder") from error
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "egrsd_jax" / "compiled"


def return_freed_memory() -> None:
    """Gives what this process has freed back to the system, where its C library is glibc; elsewhere nothing happens.

    A compiler allocates in small pieces, and glibc keeps what is freed between two that stay: the step of a model of
    20M parameters left 440 MB in the process (jax 0.10, CPU), four times what the step itself needs.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no such library, or not of its kind
        ctypes.CDLL(None).malloc_trim(0)


def processors() -> int:
    """How many processors XLA's CPU programs are made for."""
    if (count := os.environ.get("NPROC", "")).isdecimal():  # what XLA reads first
        return int(count)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _given(folder: str) -> Path:
    if "://" in folder:
        raise OSError("it is no folder of this machine; JAX_COMPILATION_CACHE_DIR takes such addresses")
    return Path(folder).expanduser().absolute()


def _prepared(root: Path) -> Path:
    """The folder for this number of processors, made where it is missing: no one else may write in it, since what is
    there is run. Raises OSError where it cannot be written, or is someone else's."""
    folder = root / f"{processors()}-processors"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user, and its programs would be run")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written")
    return folder


def _tidy(folder: Path) -> tuple[int, int]:
    """Removes what a killed process left half written, and the least recently used programs beyond `MAX_PROGRAMS`.

    Returns how many are left and their bytes. jax keeps the lock while it reads or writes; a program that it did not
    finish has no time of its last use yet, and jax would neither replace it nor, in 0.10, ever add another.
    """
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / LOCK, timeout=LOCK_SECONDS):
            programs = {file.name.removesuffix(PROGRAM): file.stat().st_size for file in folder.glob(f"*{PROGRAM}")}
            used = {file.name.removesuffix(LAST_USE): file.read_bytes() for file in folder.glob(f"*{LAST_USE}")}
            complete = [key for key in programs if len(used.get(key, b"")) == 8]
            complete.sort(key=lambda key: int.from_bytes(used[key], "little"), reverse=True)
            kept = set(complete[:MAX_PROGRAMS])
            for key in {*programs, *used} - kept:
                for suffix in (PROGRAM, LAST_USE):
                    (folder / f"{key}{suffix}").unlink(missing_ok=True)
            return len(kept), sum(programs[key] for key in kept)
    except Timeout:  # another process is busy with it: it is tidied at another start
        files = [*folder.glob(f"*{PROGRAM}")]
        return len(files), sum(file.stat().st_size for file in files)


def _keep_small_programs() -> None:
    """Programs that compile in a moment too: there are many. What the environment asks for stays."""
    import jax

    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror} ({error.filename})"
    return str(error)


def _name(fields: dict[str, Any]) -> str:
    """`jit(update)` -> `update`."""
    name = str(fields.get("fun_name", ""))
    return name.removeprefix("jit(").removesuffix(")") if name.startswith("jit(") else name
