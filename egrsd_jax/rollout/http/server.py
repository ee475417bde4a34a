"""A server, asked over HTTP: JSON there and back, once more after a failure of the kind that passes. Imports no jax."""

import http.client
import json
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from email.utils import parsedate_to_datetime
from itertools import count
from typing import Any
from urllib.parse import urlsplit

from egrsd_jax.rollout.http.waits import Announce, Announcer, on_stderr

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds; each wait is twice the one before it
WAITS = 300.0  # seconds that one request waits between its tries, in all
CONNECT_TIMEOUT = 10.0  # seconds
ANSWER_TIMEOUT = 3600.0  # seconds; a long completion on a busy server is silent for as long
SILENCES = 3  # so many tries of one request without a word are the last
PASSING = (408, 425, 429)  # and every status from 500 on
GIVEN_UP = ("abort", "error")  # how a server that is stopped, or changes its weights, ends completions under way
API_KEY = "EGRSD_SERVER_KEY"  # the environment variable that launchers take a server's key from
_PATHS = re.compile(r"/v1(/models|/completions|/chat/completions)?$")  # addresses are copied with them
_PAGE = re.compile(r"\s*<(!doctype|html|head|\?xml)\b", re.IGNORECASE)
_MARKUP = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)


class ServerError(OSError):
    """What a server could not be brought to do, and why, in one line; `status` is that of an answer that refuses.

    `passes` says that the same request may succeed later, not before `after` seconds; `silent` that nothing was
    answered at all.
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        *,
        passes: bool = False,
        after: float = 0.0,
        silent: bool = False,
    ):
        super().__init__(message)
        self.status, self.passes, self.after, self.silent = status, passes, after, silent


class CallEnded(Exception):
    """The call that a request belonged to is over: nobody waits for its answer."""


class _Passing(Exception):
    """A failure after which the same request may succeed, not before `after` seconds."""

    def __init__(self, reason: str, after: float = 0.0):
        super().__init__(reason)
        self.after = after


class _Silent(_Passing):
    """No word within the timeout."""


class Call:
    """What belongs together and can be ended together, from any thread: open connections, and waits between tries."""

    def __init__(self):
        self._over = threading.Event()
        self._lock, self._open = threading.Lock(), set[socket.socket]()

    @property
    def over(self) -> bool:
        """Whether it has been ended."""
        return self._over.is_set()

    @contextmanager
    def holding(self, connection: socket.socket) -> Iterator[None]:
        """Lets `end` close an open connection meanwhile. Raises CallEnded where it is too late."""
        with self._lock:
            if self.over:
                raise CallEnded
            self._open.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.remove(connection)

    def wait(self, seconds: float) -> None:
        """Sleeps. Raises CallEnded as soon as the call has been ended."""
        if self._over.wait(seconds):
            raise CallEnded

    def end(self) -> None:
        """Closes every connection, upon which a server gives up what it was doing for it."""
        with self._lock:
            self._over.set()
            for connection in self._open:
                with suppress(OSError):  # closed by the server at this very moment
                    connection.shutdown(socket.SHUT_RDWR)


class Server:
    """A server by its address, such as http://localhost:8000; `api_key` goes with every request, as a bearer token.

    A request waits `wait` seconds between its tries, in all, and `timeout` seconds for a word; each wait is announced.
    `options` is what the names of the options that bound these begin with.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        tries: int | None = None,
        timeout: float = ANSWER_TIMEOUT,
        wait: float = WAITS,
        announce: Announce = on_stderr,
        options: str = "--server_",
    ):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"the server {url!r} is not an address such as http://localhost:8000")
        if "@" in parts.netloc or parts.query or parts.fragment:  # not repeated: there may be a password in it
            raise ValueError(
                f"the address of the server {parts.hostname} has a user, or something after ? or #; give the address "
                f"alone, and a key in the environment variable {API_KEY}"
            )
        self.url = _PATHS.sub("", url.rstrip("/"))
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname, parts.port
        self._prefix = urlsplit(self.url).path
        self._headers = {"Content-Type": "application/json", "Connection": "close"}
        if key := (api_key or "").strip():  # of a file with a line's end, often
            if not (key.isascii() and key.isprintable()):  # http.client would quote it
                raise ValueError(f"the key in {API_KEY} has characters that no HTTP header takes; give the key alone")
            self._headers["Authorization"] = f"Bearer {key}"
        self._tries, self._timeout, self._wait = tries, timeout, wait
        self.announcer, self._options = Announcer(announce, options), options

    def ask(
        self,
        path: str,
        body: Any = None,
        *,
        tries: int | None = None,
        call: Call | None = None,
        plain: bool = False,
    ) -> Any:
        """The answer to a POST of `body`, or to a GET where there is none; the text of one that is no JSON if `plain`.

        Connections that cannot be made or break, silence, answers that are no JSON, completions that the server gave
        up, and statuses 408, 425, 429 and 5xx are tried again after a wait that doubles, with jitter, and is never
        shorter than the server's Retry-After.
        Raises ServerError for any other status and for an error in place of an answer at once, else when the waits or
        the tries are used up; CallEnded when `call` ends.
        """
        tries, call, longest = tries or self._tries, call or Call(), FIRST_WAIT
        spent = 0.0
        for number in count(1):
            try:
                return self._try(path, body, call, plain)
            except _Passing as failure:
                seconds = max(failure.after, longest * random.uniform(0.5, 1.0))
                times = "" if number == 1 else f" {number} times"
                last = f"{self.url}{path} failed{times}: {failure}"
                silent = isinstance(failure, _Silent)
                if number == tries or (silent and number >= SILENCES):
                    raise ServerError(last, passes=True, after=failure.after, silent=silent) from None
                if spent + seconds > self._wait:
                    asked = f"; it asks to wait {failure.after:,.0f} s" if failure.after > self._wait else ""
                    raise ServerError(
                        f"{last}{asked}; a request waits {self._wait:g} s in all, and {self._options}wait makes it more"
                    ) from None
                self.announcer.wait(f"{self.url}{path} failed: {failure}", seconds, spent, self._wait)
                call.wait(seconds)
                spent += seconds
                longest = min(2 * longest, LONGEST_WAIT)
        raise AssertionError("the last try returns or raises")

    def _try(self, path: str, body: Any, call: Call, plain: bool) -> Any:
        try:
            status, headers, content = self._exchange(path, body, call)
        except (OSError, http.client.HTTPException) as error:
            if call.over:
                raise CallEnded from None
            if isinstance(error, TimeoutError):
                raise _Silent(f"not a word within {self._timeout:g} s ({self._options}timeout)") from None
            raise _Passing(_one_line(str(error)) or type(error).__name__) from None
        if status == http.HTTPStatus.OK:
            try:
                answer = json.loads(content)
            except ValueError:
                if plain:
                    return content.decode(errors="replace")
                raise _Passing(f"an answer that is not JSON: {_one_line(content.decode(errors='replace'))}") from None
            if reason := _given_up(answer):
                raise _Passing(f"it ended a completion by {reason!r}")
            if not isinstance(answer, dict) or not (answer.get("error") or answer.get("object") == "error"):
                return answer
            status = _status_of(answer)  # proxies put errors into answers that are called OK
        message = f"{status} {_message(content)}".strip() if status != http.HTTPStatus.OK else _message(content)
        if status in PASSING or status >= 500:
            raise _Passing(message, _retry_after(headers.get("Retry-After")))
        raise ServerError(f"{self.url}{path} answered {message}{_hint(status, headers)}", status)

    def _exchange(self, path: str, body: Any, call: Call) -> tuple[int, http.client.HTTPMessage, bytes]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=CONNECT_TIMEOUT)
        with closing(connection):
            try:
                connection.connect()
            except TimeoutError:
                raise ConnectionError(f"no connection within {CONNECT_TIMEOUT:g} s") from None
            connection.sock.settimeout(self._timeout)
            with call.holding(connection.sock):
                method, content = ("GET", None) if body is None else ("POST", json.dumps(body).encode())
                connection.request(method, f"{self._prefix}{path}", content, self._headers)
                answer = connection.getresponse()
                return answer.status, answer.headers, answer.read()


def _given_up(answer: Any) -> str | None:
    """How a server ended a completion that it did not finish."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    reasons = [choice.get("finish_reason") for choice in choices or [] if isinstance(choice, dict)]
    return next((reason for reason in reasons if reason in GIVEN_UP), None)


def _hint(status: int, headers: http.client.HTTPMessage) -> str:
    """What to do about a status, where that is not the server's to say."""
    if 300 <= status < 400 and (where := headers.get("Location")):
        return f", and leads to {where}: give that server's address"
    if status in (401, 403):
        return f"; a server's key is taken from the environment variable {API_KEY}"
    return ""


def _status_of(answer: dict[str, Any]) -> int:
    """The status that an error names as its code; 200 where it names none."""
    error = answer["error"] if isinstance(answer.get("error"), dict) else answer
    code = str(error.get("code"))
    return int(code) if code.isdigit() and 400 <= int(code) < 600 else int(http.HTTPStatus.OK)


def _message(content: bytes) -> str:
    """A server's error message: `error.message`, `message` or `detail`, as OpenAI, SGLang and FastAPI have it."""
    text = content.decode(errors="replace")
    with suppress(ValueError):
        message = json.loads(text)
        while isinstance(message, dict):
            names = (name for name in ("error", "message", "detail") if name in message)
            message = next((message[name] for name in names), json.dumps(message))
        text = message if isinstance(message, str) else json.dumps(message)
    return _one_line(text)


def _one_line(text: str, most: int = 400) -> str:
    """Without the markup of a page, which proxies answer with."""
    text = f"a page: {_MARKUP.sub(' ', text)}" if _PAGE.match(text) else text
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}..."


def _retry_after(header: str | None) -> float:
    """Seconds from now, of a number of seconds or of a date; 0 for none and for what is neither."""
    if header is not None and header.strip().isdigit():
        return float(header)
    with suppress(ValueError):
        return max(0.0, parsedate_to_datetime(header or "").timestamp() - time.time())
    return 0.0
