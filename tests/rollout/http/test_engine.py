"""The HTTP engine against a server in the test: what is sent, believed, tried again, and dropped."""

import json
import re
import threading
import time
from email.utils import formatdate

import numpy as np
import pytest

from egrsd_jax.data.problems import Problem
from egrsd_jax.data.prompts import PromptTemplates, encode_student
from egrsd_jax.data.tokenizer import load_tokenizer
from egrsd_jax.model.hf.hub import resolve_folder
from egrsd_jax.rollout.http import server as client
from egrsd_jax.rollout.http.engine import HttpEngine
from egrsd_jax.rollout.http.server import Server, ServerError
from egrsd_jax.rollout.requests import Request, Sampling, complete
from tests.rollout.http.fake_server import STOP, backwards, completion, serving

SAMPLING = Sampling(max_new_tokens=8)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(client, "FIRST_WAIT", 0.01)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(resolve_folder("arithmetic"))[0]


def engine(server, tokenizer=None, **options) -> HttpEngine:
    return HttpEngine(server.url, tokenizer, [STOP], **options)


def requests(count: int, sampling: Sampling = SAMPLING) -> list[Request]:
    return [Request([5, 6 + number], sampling, np.array([0, number], np.uint32)) for number in range(count)]


def test_completions_with_their_tokens_log_probabilities_and_version():
    heard = {}
    with serving() as server:
        found = dict(engine(server).generate(requests(5), on_tokens=heard.__setitem__))
    assert sorted(found) == list(range(5))
    for number, each in found.items():
        assert each.tokens == heard[number] == [6 + number, 5, STOP]
        np.testing.assert_array_equal(each.logp, np.float32([0, -1, -2]))
        assert (each.ended, each.stopped, each.version, each.text) == ("stop", True, 0, None)
        assert 0 < each.seconds < 10


def test_every_sampling_field_is_sent_so_that_the_models_own_defaults_are_not_used():
    with serving() as server:
        complete(engine(server), [Request([1], Sampling(max_new_tokens=9))])
        rules = Sampling(0.5, top_k=7, top_p=0.9, min_p=0.1, max_new_tokens=3, stop=("so",))
        complete(engine(server, logp=False), [Request([1], rules)])
    common = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "stop_token_ids": [STOP]}
    common |= {"model": "base", "prompt": [1], "return_token_ids": True}
    no_limit = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "max_tokens": 9, "stop": [], "logprobs": 1}
    limited = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.1, "max_tokens": 3, "stop": ["so"]}
    assert [{name: body[name] for name in body if name != "seed"} for body in server.bodies] == [
        common | no_limit,
        common | limited,
    ]


def test_each_request_has_a_seed_of_its_key():
    with serving() as server:
        complete(engine(server), requests(3) + requests(3))
    seeds = [body["seed"] for body in server.bodies]
    assert len({seed % 2**32 for seed in seeds}) == len(set(seeds)) == 3
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("kind", "names"), [("vllm", {"model": "tuned"}), ("sglang", {"model": "base", "lora_path": "tuned"})]
)
def test_an_adapter_is_named_as_the_server_names_it(kind, names):
    with serving(kind=kind) as server:
        complete(engine(server, adapter="tuned"), requests(1))
    assert {name: server.bodies[0].get(name) for name in ("model", "lora_path")} == {"lora_path": None} | names


def test_a_key_goes_with_every_request():
    with serving() as server:
        complete(engine(server, api_key="secret"), requests(1))
    assert server.headers[0]["Authorization"] == "Bearer secret"


def test_a_key_is_read_as_files_hold_it_and_never_repeated():
    with serving() as server:
        for key in ("secret\n", " ", None):
            complete(engine(server, api_key=key), requests(1))
    assert [headers.get("Authorization") for headers in server.headers] == ["Bearer secret", None, None]
    for key in ("secret\nline", "secret\u0434"):
        with pytest.raises(ValueError, match="the key in EGRSD_SERVER_KEY has characters that no HTTP") as error:
            Server("http://there", api_key=key)
        assert "secret" not in str(error.value)


def test_sglangs_log_probabilities_are_taken_where_they_are_the_policys():
    with serving(kind="sglang") as server:
        for temperature, known in ((1.0, True), (0.0, True), (0.7, False)):
            (each,) = complete(engine(server), requests(1, Sampling(temperature, max_new_tokens=8)))
            assert np.isfinite(each.logp).tolist() == [known] * 3


FAILURES = {
    "500": lambda handler: handler.reply({"error": {"message": "no"}}, 500),
    "503 without a body": lambda handler: handler.reply(b"", 503),
    "429": lambda handler: handler.reply({"detail": "busy"}, 429),
    "dropped": lambda handler: handler.drop(),
    "not JSON": lambda handler: handler.reply(b"<html>"),
    "cut short": lambda handler: handler.reply(b"{}", Content_Length="1000"),
    "silent": lambda handler: time.sleep(0.6),
    "stopped": lambda handler: handler.reply({"choices": [{"text": "", "finish_reason": "abort"}], "usage": {}}),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_what_passes_is_tried_again(failure):
    def behave(handler, body, number):
        if number < 2:
            FAILURES[failure](handler)
            handler.drop()

    with serving(behave) as server:
        (each,) = complete(engine(server, timeout=0.3), requests(1))
    assert each.tokens == [6, 5, STOP]
    assert len(server.bodies) == 3
    assert server.bodies[0] == server.bodies[2]


def test_retry_after_is_waited_for():
    times = []

    def behave(handler, body, number):
        times.append(time.monotonic())
        if number == 0:
            handler.reply({"detail": "busy"}, 429, Retry_After="1")
            handler.drop()

    with serving(behave) as server:
        complete(engine(server), requests(1))
    assert 1.0 <= times[1] - times[0] < 5


def test_retry_after_may_be_a_date():
    assert 28 < client._retry_after(formatdate(time.time() + 30)) <= 31
    assert [client._retry_after(header) for header in (None, "soon", "-3", "2", formatdate(0))] == [0, 0, 0, 2, 0]


def test_waits_double_with_jitter(monkeypatch):
    waits = []
    monkeypatch.setattr(client, "FIRST_WAIT", 8.0)
    monkeypatch.setattr(client.Call, "wait", lambda self, seconds: waits.append(seconds))
    with serving(lambda handler, *_: handler.drop()) as server, pytest.raises(ServerError, match="failed 6 times: "):
        complete(engine(server, tries=6), requests(1))
    for wait, most in zip(waits, (8, 16, 32, 60, 60), strict=True):
        assert most / 2 <= wait <= most
    assert len(set(waits)) == 5


@pytest.mark.parametrize(
    ("said", "quoted"),
    [
        ({"error": {"message": "too\nlong", "code": 400}}, "answered 400 too long"),
        ({"object": "error", "message": "too long"}, "answered 400 too long"),
        ({"detail": [{"msg": "too long"}]}, 'answered 400 [{"msg": "too long"}]'),
        (b"plain", "answered 400 plain"),
        (b"<html><head><title>Bad</title><style>p {}</style></head>\n<p>Bad", "answered 400 a page: Bad Bad"),
    ],
)
def test_a_refusal_is_an_error_at_once_in_the_servers_words(said, quoted):
    with serving(lambda handler, *_: handler.reply(said, 400)) as server, pytest.raises(ServerError) as error:
        complete(engine(server), requests(1))
    assert str(error.value).endswith(quoted)
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (307, {"Location": "https://there/v1/completions"}, "and leads to https://there/v1/completions: give that ser"),
        (401, {}, "a server's key is taken from the environment variable EGRSD_SERVER_KEY"),
        (403, {}, "a server's key is taken from the environment variable EGRSD_SERVER_KEY"),
    ],
)
def test_what_to_do_about_a_refusal_is_said(status, headers, words):
    with (
        serving(lambda handler, *_: handler.reply({}, status, **headers)) as server,
        pytest.raises(ServerError, match=f"{server.url}/v1/completions answered {status}.*{words}"),
    ):
        complete(engine(server), requests(1))
    assert len(server.bodies) == 1


@pytest.mark.parametrize("written", ["", "/", "/v1", "/v1/", "/v1/completions", "/v1/chat/completions", "/v1/models"])
def test_an_address_is_read_as_people_copy_it(written):
    with serving() as server:
        HttpEngine(server.url + written, None, [STOP])
    assert Server(f"http://there:80/some/prefix{written}").url == "http://there:80/some/prefix"


@pytest.mark.parametrize("address", ["http://me:secret@there", "http://there/v1?key=secret", "http://there/#secret"])
def test_what_an_address_does_not_hold_is_refused_and_not_repeated(address):
    with pytest.raises(ValueError, match="a key in the environment variable EGRSD_SERVER_KEY") as error:
        Server(address)
    assert "secret" not in str(error.value)


def test_another_servers_address_is_named():
    with (
        serving() as server,
        pytest.raises(ServerError, match=r"/api/v1/models answered 404 .*; give the address of a server with OpenAI's"),
    ):
        HttpEngine(f"{server.url}/api", None, [STOP])


def test_what_was_finished_is_given_before_the_error_and_no_more_is_sent():
    slow = threading.Event()

    def behave(handler, body, number):
        if body["prompt"][1] == 8:
            handler.reply({"detail": "down"}, 500)
            slow.set()
            handler.drop()
        if body["prompt"][1] == 9:
            slow.wait(10)
            time.sleep(0.1)

    found = []
    with serving(behave) as server, pytest.raises(ServerError, match="failed 3 times: 500 down"):
        found.extend(engine(server, in_flight=2, tries=3).generate(requests(50)))
    assert {number for number, _ in found} >= {0, 1, 3}  # 3 was in flight when 2 failed
    assert len(server.bodies) < 50


def test_no_more_are_in_flight_than_is_said():
    with serving(lambda *_: time.sleep(0.03)) as server:
        for bound, count in ((1, 5), (4, 30), (64, 6)):
            server.most = 0
            complete(engine(server, in_flight=bound), requests(count))
            assert server.most == min(bound, count)


@pytest.mark.parametrize("half_answered", [False, True])
@pytest.mark.parametrize("how", ["the iterator is closed", "the engine is closed"])
def test_what_is_in_flight_is_dropped(how, half_answered):
    left, asked = threading.Semaphore(0), threading.Semaphore(0)

    def behave(handler, body, number):
        if number:
            if half_answered:
                handler.reply(b"{", Content_Length="1000")
            asked.release()
            if handler.client_left(10):
                left.release()
            handler.drop()

    before = threading.active_count()
    with serving(behave) as server:
        drawing = engine(server, in_flight=4)
        completions = drawing.generate(requests(20))
        assert next(completions)[1].tokens[-1] == STOP
        assert all(asked.acquire(timeout=10) for _ in range(4))
        start = time.monotonic()
        if how == "the iterator is closed":
            completions.close()
        else:
            drawing.close()
            assert list(completions) == []
        assert time.monotonic() - start < 5
        assert all(left.acquire(timeout=10) for _ in range(4))
        assert len(server.bodies) == 5
    assert threading.active_count() <= before + 4  # the server's own handlers may still be ending


def test_a_wait_between_tries_is_dropped_too(monkeypatch):
    monkeypatch.setattr(client, "FIRST_WAIT", 60.0)
    failed = threading.Event()

    def behave(handler, body, number):
        if number:
            failed.set()
            handler.drop()

    with serving(behave) as server:
        completions = engine(server, in_flight=1).generate(requests(2))
        next(completions)
        assert failed.wait(10)
        start = time.monotonic()
        completions.close()
        assert time.monotonic() - start < 5


def changed(change):
    def behave(handler, body, number):
        answer = backwards(body)
        change(answer, answer["choices"][0])
        return answer

    return behave


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda answer, choice: choice.pop("token_ids"), "returned no token_ids"),
        (lambda answer, choice: choice["token_ids"].append(2), "returned 4 token ids and counts 3"),
        (lambda answer, choice: answer["usage"].update(prompt_tokens=3), "read 3 tokens where the prompt has 2"),
        (lambda answer, choice: choice.update(finish_reason="tool_calls"), "ended a completion by 'tool_calls'"),
        (lambda answer, choice: choice.update(token_ids=3), "returned 3 as token ids"),
        (lambda answer, choice: choice["logprobs"].update(token_logprobs=["-"] * 3), "returned '-' as a log-prob"),
        (lambda answer, choice: choice["token_ids"].__setitem__(2, 7), "token 7, which is no stop token here"),
        (lambda answer, choice: choice.update(finish_reason="length"), "cut a completion off after 3 tokens, and 8"),
        (lambda answer, choice: answer.pop("usage"), "no field 'usage', which is needed; it has choices"),
        (
            lambda answer, choice: answer["usage"].pop("completion_tokens"),
            "no field 'completion_tokens' in usage, which is needed; it has prompt_tokens",
        ),
        (lambda answer, choice: choice.pop("finish_reason"), "no field 'finish_reason', which is needed; it has index"),
        (lambda answer, choice: answer["usage"].update(prompt_tokens="2"), "has '2' as usage.prompt_tokens, and that"),
        (lambda answer, choice: choice["logprobs"].pop("token_logprobs"), "no field 'token_logprobs' in logprobs"),
        (
            lambda answer, choice: choice["logprobs"]["token_logprobs"].pop(),
            "returned 2 log-probabilities and counts 3",
        ),
        (lambda answer, choice: answer["choices"].clear(), "has 0 choices, and one was asked for"),
        (
            lambda answer, choice: choice["token_ids"].__setitem__(0, 29),
            "returned token id 29, .* vocabulary ends at 28",
        ),
        (lambda answer, choice: choice["token_ids"].__setitem__(0, -1), "returned -1 as a token id"),
        (lambda answer, choice: choice["token_ids"].__setitem__(0, "6"), "returned '6' as a token id"),
    ],
)
def test_an_answer_that_cannot_be_believed_is_an_error(change, message):
    with serving(changed(change)) as server, pytest.raises(ServerError, match=message):
        complete(engine(server, vocab_size=29), requests(1))


@pytest.mark.parametrize(
    ("said", "message", "asked"),
    [
        ({"error": {"message": "no such adapter", "code": 404}}, "answered 404 no such adapter", 1),
        ({"error": "out of memory"}, "answered out of memory", 1),
        ({"object": "error", "message": "too long"}, "answered too long", 1),
        ({"error": {"message": "overloaded", "code": "503"}}, "failed 2 times: 503 overloaded", 2),
    ],
)
def test_an_error_in_an_answer_that_is_called_ok_is_in_the_servers_words(said, message, asked):
    with serving(lambda handler, *_: said) as server, pytest.raises(ServerError, match=message):
        complete(engine(server, tries=2), requests(1))
    assert len(server.bodies) == asked


def test_a_prompt_with_its_completion_must_fit_before_anything_is_sent():
    with serving(kind="short") as server:
        assert len(complete(engine(server), requests(2, Sampling(max_new_tokens=10)))) == 2
        with pytest.raises(
            ValueError, match=r"prompt 0 has 2 tokens, 13 with max_new_tokens 11, and .* takes 12 \(max"
        ):
            engine(server).generate(requests(2, Sampling(max_new_tokens=11)))
    assert len(server.bodies) == 2


def test_waits_are_announced_once_with_why_how_long_and_until_when():
    lines = []

    def behave(handler, body, number):
        if number < 3:
            handler.reply({"detail": "busy"}, 429, Retry_After="1")
            handler.drop()

    with serving(behave) as server:
        complete(engine(server, in_flight=3, announce=lines.append), requests(3))
    assert 1 <= len(lines) <= 3
    pattern = r"/v1/completions failed: 429 busy; the next try is in 1\.0 s, at \d\d:\d\d:\d\d \(a request waits 300 s"
    assert all(re.search(pattern, line) for line in lines)


def test_waits_are_bounded():
    asked = []

    def behave(handler, body, number):
        asked.append(number)
        handler.reply({"detail": "busy"}, 429, Retry_After="7200")
        handler.drop()

    with (
        serving(behave) as server,
        pytest.raises(ServerError, match=r"429 busy; it asks to wait 7,200 s; .* waits 60 s"),
    ):
        complete(engine(server, wait=60), requests(1))
    assert len(asked) == 1
    with (
        serving(lambda handler, *_: handler.drop()) as server,
        pytest.raises(ServerError, match=r"waits 0\.1 s in all"),
    ):
        complete(engine(server, wait=0.1, announce=lambda line: None), requests(1))
    assert len(server.bodies) > 2


def test_a_silent_server_is_announced_and_given_up():
    lines, freed = [], threading.Event()
    with serving(lambda *_: freed.wait(10)) as server:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("egrsd_jax.rollout.http.engine.FIRST_SILENCE", 0.05)
            with pytest.raises(ServerError, match=r"failed 3 times: not a word within 0\.3 s \(--server_timeout\)"):
                complete(engine(server, timeout=0.3, in_flight=2, announce=lines.append), requests(2))
        freed.set()
    assert re.fullmatch(
        r"the server has completed nothing for 0 s, and 2 requests wait for it; each is given up after 0\.3 s without "
        r"a word \(--server_timeout\), which is \d\d:\d\d:\d\d at the earliest",
        lines[0],
    )


def test_a_completion_ends_by_its_last_token():
    length = changed(lambda answer, choice: choice.update(finish_reason="length"))
    with serving(length) as server:  # as vLLM has it: a stop token in the last place is `length`
        (each,) = complete(engine(server), requests(1, Sampling(max_new_tokens=3)))
    assert each.ended == "stop"
    cut = changed(lambda answer, choice: choice.update(finish_reason="length", token_ids=[6, 5, 4]))
    with serving(cut) as server:
        (each,) = complete(engine(server), requests(1, Sampling(max_new_tokens=3)))
    assert each.ended == "length"
    text = changed(lambda answer, choice: choice.update(token_ids=[6, 5, 4]))
    with serving(text) as server:
        (each,) = complete(engine(server), requests(1, Sampling(max_new_tokens=8, stop=("so",))))
    assert each.ended == "stop"


def test_other_weights_are_another_version():
    with serving() as server:
        drawing = engine(server)
        old = drawing.generate(requests(1))
        assert drawing.update_params("tuned") == 1
        (new,) = complete(drawing, requests(1))
        assert [each.version for _, each in old] == [0]
        assert new.version == 1
        assert drawing.update_params("base") == 2
        complete(drawing, requests(1))
        assert [body["model"] for body in server.bodies] == ["tuned", "base", "base"]
        for weights in ({"layers": np.zeros(3)}, None):
            with pytest.raises(ValueError, match="a server has weights of its own: give the name"):
                drawing.update_params(weights)
        with pytest.raises(ValueError, match="has no adapter 'other'; it has base and the adapters tuned"):
            drawing.update_params("other")


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("vllm", {"model": "other"}, "has no model 'other'; it has base and the adapters tuned"),
        ("vllm", {"adapter": "other"}, "has no adapter 'other'; it has base and the adapters tuned"),
        ("vllm", {"in_flight": 0}, "in_flight is 0"),
        ("transformers", {"adapter": "tuned"}, "has no adapters; serve the merged model"),
        (
            "another",
            {},
            r"is neither vLLM, nor SGLang, nor a .* owned by llamacpp\): say what it speaks with --server_kind",
        ),
        (
            "unnamed",
            {},
            r"owned by nobody that it names\): say what it speaks with --server_kind \(vllm, sglang, trans",
        ),
        ("no list", {"kind": "vllm"}, "is no list of models .*: give --server_kind and --served"),
        ("another", {"kind": "chat", "adapter": "tuned"}, "a server of kind chat has no field for an adapter"),
    ],
)
def test_a_server_that_cannot_be_used_is_told_before_anything_is_drawn(kind, options, message):
    with serving(kind=kind) as server, pytest.raises((ValueError, ServerError), match=message):
        engine(server, **options)


def test_a_server_that_is_not_there_is_told_at_once():
    with serving() as server:
        url = server.url
    with pytest.raises(ServerError, match=f"{url}/v1/models failed: .*refused"):
        HttpEngine(url, None, [STOP])
    with serving(kind="no list") as server, pytest.raises(ServerError, match="/v1/models is no list of models"):
        engine(server)
    for address in ("localhost:8000", "ftp://there", "http://"):
        with pytest.raises(ValueError, match="is not an address such as http://localhost:8000"):
            Server(address)


def test_an_empty_prompt_is_refused_before_anything_is_sent():
    with serving() as server:
        with pytest.raises(ValueError, match="prompt 1 is empty"):
            engine(server).generate([*requests(1), Request([], SAMPLING)])
        assert list(engine(server).generate([])) == []
    assert not server.bodies


def says(text: str, drawn: int, reason: str = "stop"):
    """A `transformers serve` that read a prompt of 4 tokens."""
    return lambda *_: completion({"text": text, "finish_reason": reason}, prompt_tokens=4, completion_tokens=drawn)


def test_texts_are_sent_where_tokens_are_not_taken(tokenizer):
    with serving(says("1 + 2", 4), kind="transformers") as server:
        prompt = tokenizer.encode("user 1 + 2")
        rules = Sampling(0.5, top_k=7, top_p=0.9, min_p=0.1, max_new_tokens=8, stop=("so",))
        complete(engine(server, tokenizer), [Request(prompt, rules), Request(prompt, Sampling(0.0, max_new_tokens=8))])
    assert all(body.keys() == {"model", "prompt", "seed", "generation_config"} for body in server.bodies)
    assert {body["prompt"] for body in server.bodies} == {"user 1 + 2"}
    common = {"max_new_tokens": 9, "repetition_penalty": 1.0, "eos_token_id": [STOP], "pad_token_id": STOP}
    drawn = {"temperature": 0.5, "top_k": 7, "top_p": 0.9, "min_p": 0.1, "stop_strings": ["so"]}
    sent = sorted((json.loads(body["generation_config"]) for body in server.bodies), key=lambda each: each["do_sample"])
    assert sent == [common | {"do_sample": False}, common | {"do_sample": True} | drawn]


@pytest.mark.parametrize(
    ("answer", "stop_ids", "tokens", "ended", "text"),
    [
        (says("1 + 2", 4), [2], [7, 16, 8, 2], "stop", "1 + 2"),
        (says("1 + 2", 4), [0, 2], [7, 16, 8, -1], "stop", "1 + 2"),
        (says("1 + 2", 3), [2], [7, 16, 8], "stop", "1 + 2"),  # by a text that ends it
        (says("1 + 2", 6), [2], [-1] * 6, "stop", "1 + 2"),
        (says("1 + 2 + 3", 5, "length"), [2], [7, 16, 8, 16], "length", "1 + 2 +"),
        (says("1 + 2 +", 5, "length"), [2], [7, 16, 8, 16], "length", "1 + 2 +"),  # the fifth was a stop token
        (says("1 + 2", 5, "length"), [2], [-1] * 4, "length", "1 + 2"),
    ],
)
def test_tokens_of_a_text_are_as_many_as_were_drawn_and_never_guessed(answer, stop_ids, tokens, ended, text, tokenizer):
    with serving(answer, kind="transformers") as server:
        drawing = HttpEngine(server.url, tokenizer, stop_ids)
        (each,) = complete(
            drawing, [Request(tokenizer.encode("user 1 + 2"), Sampling(max_new_tokens=4 + 4 * (ended == "stop")))]
        )
    assert (each.tokens, each.ended, each.text) == (tokens, ended, text)
    assert np.isnan(each.logp).tolist() == [True] * len(tokens)


@pytest.mark.parametrize("kind", ["another", "unnamed", "no list"])
def test_a_proxy_is_used_as_what_it_is_called(kind):
    with serving(kind=kind) as server:
        (each,) = complete(engine(server, kind="vllm", model="base"), requests(1))
        assert each.tokens == [6, 5, STOP]
        with pytest.raises(ServerError, match="returned no token_ids"), serving(says("1", 2), kind=kind) as text:
            complete(engine(text, kind="vllm", model="base"), [Request([4] * 4, SAMPLING)])


def test_text_completions_of_any_server(tokenizer):
    prompt = tokenizer.encode("user 1 + 2")
    with serving(says("1 + 2", 4), kind="another") as server:
        (each,) = complete(engine(server, tokenizer, kind="completions"), [Request(prompt, SAMPLING)])
    assert (each.tokens, each.text, each.ended) == ([7, 16, 8, STOP], "1 + 2", "stop")
    [body] = server.bodies
    assert (body["prompt"], body["max_tokens"], body["top_k"], body["min_p"]) == ("user 1 + 2", 9, -1, 0.0)


def chat(tokenizer, message, sampled, read):
    def behave(handler, body, number):
        assert handler.path == "/v1/chat/completions"
        return completion({"message": message, "finish_reason": "stop"}, prompt_tokens=read, completion_tokens=sampled)

    return behave


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"role": "assistant", "content": "1 + 2"}, "1 + 2"),
        ({"role": "assistant", "content": "3", "reasoning_content": "1 + 2"}, "<think>1 + 2</think>3"),
        ({"role": "assistant", "content": None, "reasoning": "1 + 2"}, "<think>1 + 2"),
    ],
)
def test_a_chat_is_given_the_turn_of_the_prompt(thinking, message, text, tokenizer):
    templates = PromptTemplates(student="{problem}", student_thinking=thinking)
    prompt = encode_student(tokenizer, templates, Problem("0", "1 + 2 =", "", "3"))
    request = Request(prompt, Sampling(0.5, top_k=7, max_new_tokens=8))
    with serving(chat(tokenizer, message, 4, len(prompt)), kind="another") as server:
        (each,) = complete(engine(server, tokenizer, kind="chat"), [request])
    assert (each.text, len(each.tokens), each.ended) == (text, 4, "stop")
    [body] = server.bodies
    assert [{**turn, "content": turn["content"].replace(" ", "")} for turn in body["messages"]] == [
        {"role": "user", "content": "1+2="}
    ]
    assert body["chat_template_kwargs"] == {"enable_thinking": thinking}
    assert (body["temperature"], body["top_k"], body["max_tokens"]) == (0.5, 7, 9)
    with (  # a server with another template
        serving(chat(tokenizer, message, 4, len(prompt) + 4), kind="another") as server,
        pytest.raises(
            ServerError, match=f"read {len(prompt) + 4} tokens where the prompt has {len(prompt)}: .* template"
        ),
    ):
        complete(engine(server, tokenizer, kind="chat"), [request])


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (None, "no field 'message'"),
        ("1 + 2", "has '1 \\+ 2' as message, and that is no dict"),
        ({"role": "assistant"}, "no field 'content', which is needed; it has role"),
        ({"content": None, "tool_calls": [{"id": "0"}]}, "no field 'content', which is needed; it has content, tool"),
    ],
)
def test_a_chat_without_what_is_needed_is_refused(message, words, tokenizer):
    prompt = encode_student(tokenizer, PromptTemplates(student="{problem}"), Problem("0", "1 + 2 =", "", "3"))
    with serving(chat(tokenizer, message, 4, len(prompt)), kind="another") as server:
        with pytest.raises(ServerError, match=words):
            complete(engine(server, tokenizer, kind="chat"), [Request(prompt, SAMPLING)])
        with pytest.raises(ValueError, match="prompt 0: it is not one user's turn of the chat template"):
            complete(engine(server, tokenizer, kind="chat"), [Request(tokenizer.encode("1 + 2"), SAMPLING)])


def test_a_chats_completion_of_a_stop_token_alone_is_empty(tokenizer):
    """SGLang returns null for it."""
    prompt = encode_student(tokenizer, PromptTemplates(student="{problem}"), Problem("0", "1 + 2 =", "", "3"))
    with serving(chat(tokenizer, {"role": "assistant", "content": None}, 1, len(prompt)), kind="another") as server:
        (each,) = complete(engine(server, tokenizer, kind="chat"), [Request(prompt, SAMPLING)])
    assert (each.tokens, each.text, each.ended) == ([STOP], "", "stop")


def test_a_prompt_that_the_server_would_read_as_other_tokens_is_refused(tokenizer):
    class BeginsEveryText:
        decode = tokenizer.decode

        def __call__(self, text):
            return {"input_ids": [1, *tokenizer.encode(text)]}

    with (
        serving(kind="transformers") as server,
        pytest.raises(ValueError, match=r"prompt 0: its tokens are not those of its text, .*: '1 2'"),
    ):
        engine(server, BeginsEveryText()).generate([Request([7, 8], SAMPLING)])
