"""A server inside the test: an OpenAI-compatible one whose misbehaviour each test chooses."""

import json
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODELS = {
    "vllm": [{"id": "base", "owned_by": "vllm", "parent": None}, {"id": "tuned", "owned_by": "vllm", "parent": "base"}],
    "sglang": [{"id": "base", "owned_by": "sglang"}],
    "transformers": [{"id": "base", "owned_by": "local"}],
    "no list": None,
    "another": [{"id": "base", "owned_by": "llamacpp"}],
    "unnamed": [{"id": "base"}],
    "short": [{"id": "base", "owned_by": "vllm", "max_model_len": 12}],
}
STOP = 2  # the token that ends every completion


class FakeServer(ThreadingHTTPServer):
    """Answers each completion with the prompt's tokens backwards and a stop token, once `behave` has done with it."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, kind: str, behave: Callable[["Handler", dict, int], Any]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.kind, self.behave = kind, behave
        self.lock = threading.Lock()
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.now, self.most = 0, 0  # requests in flight

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        """A client that went away is what some tests are about."""


class Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def do_GET(self):
        if self.path == "/v1/models":
            self.reply({"data": MODELS[self.server.kind]})
        elif self.path == "/openapi.json" and self.server.kind == "transformers":
            self.reply({"paths": {"/load_model": {}, "/v1/completions": {}}})
        else:
            self.reply({"detail": "Not Found"}, 404)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.bodies)
            self.server.bodies.append(body)
            self.server.headers.append(dict(self.headers))
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        try:
            answer = self.server.behave(self, body, number)
        finally:
            with self.server.lock:  # before the answer: a client that has it may ask again at once
                self.server.now -= 1
        self.reply(backwards(body) if answer is None else answer)

    def reply(self, answer: Any, status: int = 200, **headers: str) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in ({"Content-Length": str(len(content))} | given).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def drop(self) -> bytes:
        """Ends the connection in the place of an answer."""
        self.connection.shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError

    def client_left(self, seconds: float) -> bool:
        """Whether the client has gone away within some seconds."""
        readable, _, _ = select.select([self.connection], [], [], seconds)
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

    def log_message(self, format, *args):
        """Nothing on the terminal."""


def backwards(body: dict) -> dict:
    """The answer to a prompt of token ids: they backwards, a stop token, and log-probabilities -0, -1, -2, ..."""
    tokens = [*reversed(body["prompt"]), STOP]
    return completion(
        {"token_ids": tokens, "logprobs": {"token_logprobs": [-float(place) for place in range(len(tokens))]}},
        prompt_tokens=len(body["prompt"]),
        completion_tokens=len(tokens),
    )


def completion(choice: dict, *, prompt_tokens: int, completion_tokens: int) -> dict:
    return {
        "choices": [{"index": 0, "text": "", "finish_reason": "stop", **choice}],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens},
    }


@contextmanager
def serving(behave: Callable[[Handler, dict, int], Any] = lambda *_: None, kind: str = "vllm") -> Iterator[FakeServer]:
    server = FakeServer(kind, behave)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
