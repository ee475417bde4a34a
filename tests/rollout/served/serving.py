"""A server inside the test that is given weights: vLLM's or SGLang's calls, and what each test lets happen to them.

Its completions show which weights they were sampled with: a token is a checksum of the file with them.
"""

import json
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

STOP = 2
MARKS = 89  # tokens that show a version
LORA = {
    "vllm": ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"),
    "sglang": ("/load_lora_adapter", "/unload_lora_adapter"),
}
ALL = {
    "vllm": ("/pause", "/collective_rpc", "/reset_prefix_cache", "/update_weight_version", "/weight_info", "/resume"),
    "sglang": ("/update_weights_from_disk", "/get_weight_version"),
}
Behave = Callable[["Handler", str, dict], Any]


def mark(folder: Path) -> int:
    """The token that shows the weights of a folder."""
    file = next(folder.glob("*.safetensors"))
    tensors = load_file(file)
    return 5 + zlib.crc32(b"".join(tensors[name].tobytes() for name in sorted(tensors))) % MARKS


class FakeServer(ThreadingHTTPServer):
    """A model and the adapters that were loaded. `behave` comes before every answer, and may be one."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(
        self, kind: str, behave: Behave, *, paths: tuple[str, ...], context: int, max_rank: int, port: int = 0
    ):
        self.kind, self.behave, self.paths, self.context, self.max_rank = kind, behave, paths, context, max_rank
        self.model, self.device = "base", "cuda"
        self.adapters: dict[str, str] = {}
        self.weights = {"path": "", "version": "default"}
        self.lock = threading.Lock()
        self.asked: list[tuple[str, dict]] = []
        super().__init__(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def completions(self) -> list[dict]:
        """The bodies of all requests for completions."""
        with self.lock:
            return [body for path, body in self.asked if path == "/v1/completions"]

    def paths_asked(self) -> list[str]:
        with self.lock:
            return [path for path, _ in self.asked]

    def forget(self) -> None:
        """What a server has lost that was started again."""
        with self.lock:
            self.adapters.clear()
            self.weights = {"path": "", "version": "default"}

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()

    def started_again(self) -> "FakeServer":
        """Another one at the same address, after `stop`."""
        return FakeServer(
            self.kind,
            self.behave,
            paths=self.paths,
            context=self.context,
            max_rank=self.max_rank,
            port=self.server_address[1],
        )

    def handle_error(self, request, client_address):
        """A client that went away is what some tests are about."""


class Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def do_GET(self):
        if self.path == "/v1/models":
            owner = {"owned_by": self.server.kind}
            adapters = [
                {"id": name, "root": path, "parent": self.server.model} for name, path in self.server.adapters.items()
            ]
            base = {"id": self.server.model, "parent": None, "max_model_len": self.server.context}
            self.reply({"data": [entry | owner for entry in (base, *adapters)]})
        elif self.path == "/openapi.json":
            self.reply({"paths": {path: {} for path in ("/v1/completions", *self.server.paths)}})
        elif self.path.startswith("/server_info"):
            self.reply({"vllm_config": f"model='base', device_config={self.server.device}, seed=0"})
        elif self.path in ("/weight_info", "/get_weight_version"):
            self.reply({"weight_version": self.server.weights["version"]})
        else:
            self.reply({"detail": "Not Found"}, 404)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = self.path.partition("?")[0]
        with self.server.lock:
            self.server.asked.append((path, body))
        if (answer := self.server.behave(self, path, body)) is None:
            answer = self.answer(path, body)
        self.reply(*answer) if isinstance(answer, tuple) else self.reply(answer)

    def answer(self, path: str, body: dict) -> Any:
        server = self.server
        if path == "/v1/completions":
            return self.completion(body)
        if path not in server.paths:
            return {"detail": "Not Found"}, 404
        load, unload = LORA[server.kind]
        if path == load:
            return self.load(body["lora_name"], Path(body["lora_path"]))
        if path == unload:
            with server.lock:
                there = server.adapters.pop(body["lora_name"], None) is not None
            return b"Success" if there else ({"error": {"message": "cannot be found"}}, 404)
        if path == "/collective_rpc":
            server.weights["path"] = body["kwargs"]["weights_path"]
        if path == "/update_weight_version":
            server.weights["version"] = body["new_version"]
        if path == "/update_weights_from_disk":
            server.weights = {"path": body["model_path"], "version": body["weight_version"]}
        return {"success": True}

    def load(self, name: str, folder: Path) -> Any:
        if name in self.server.adapters:
            return {"error": {"message": f"The lora adapter '{name}' has already been loaded."}}, 400
        if not folder.is_dir():
            return {"error": {"message": f"Loading lora {name} failed: No adapter found for {folder}"}}, 404
        rank = json.loads((folder / "adapter_config.json").read_text())["r"]
        if rank > self.server.max_rank:
            message = f"LoRA rank {rank} is greater than max_lora_rank {self.server.max_rank}."
            return {"error": {"message": message}}, 400
        with self.server.lock:
            self.server.adapters[name] = str(folder)
        return b"Success: LoRA adapter added successfully." if self.server.kind == "vllm" else {"success": True}

    def completion(self, body: dict) -> Any:
        server = self.server
        name = body.get("lora_path") if server.kind == "sglang" else body["model"]
        with server.lock:
            folder = server.adapters.get(str(name), server.weights["path"])
            known = name in (None, server.model) or name in server.adapters
        if not known:
            message = f"The model `{name}` does not exist." if server.kind == "vllm" else f"not loaded: {name}"
            return {"error": {"message": message}}, 404 if server.kind == "vllm" else 400
        tokens = [mark(Path(folder)) if folder else 4, *reversed(body["prompt"]), STOP]
        logp = [-0.1 * (1 + place) for place in range(len(tokens))]
        answer = {
            "model": body["model"],
            "choices": [
                {"text": "", "finish_reason": "stop", "token_ids": tokens, "logprobs": {"token_logprobs": logp}}
            ],
            "usage": {"prompt_tokens": len(body["prompt"]), "completion_tokens": len(tokens)},
        }
        return answer | ({"metadata": {"weight_version": server.weights["version"]}} if server.kind == "sglang" else {})

    def reply(self, answer: Any, status: int = 200, **headers: str) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in ({"Content-Length": str(len(content))} | given).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def drop(self) -> None:
        """Ends the connection in the place of an answer."""
        self.connection.shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError

    def log_message(self, format, *args):
        """Nothing on the terminal."""


@contextmanager
def serving(
    behave: Behave = lambda *_: None,
    *,
    kind: str = "vllm",
    paths: tuple[str, ...] | None = None,
    context: int = 128,
    max_rank: int = 16,
) -> Iterator[FakeServer]:
    """A server until the end of the block, unless the test has stopped it."""
    if paths is None:
        paths = (*LORA[kind], *ALL[kind])
    server = FakeServer(kind, behave, paths=paths, context=context, max_rank=max_rank)
    try:
        yield server
    finally:
        if server.socket.fileno() != -1:
            server.stop()
