"""The engine of servers against servers in the test: what is checked, given, asked, waited for, and never mixed."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egrsd_jax.model.lora import Lora, projection_shapes
from egrsd_jax.rollout.http import server as http_server
from egrsd_jax.rollout.http.server import ServerError
from egrsd_jax.rollout.requests import Request, Sampling, complete
from egrsd_jax.rollout.served import batch
from egrsd_jax.rollout.served.engine import ServedEngine
from egrsd_jax.rollout.served.weights import SharedFolder
from tests.model.examples import CONFIG, random_params
from tests.rollout.served.serving import STOP, FakeServer, Handler, mark, serving

SAMPLING = Sampling(max_new_tokens=8)
LOAD, COMPLETIONS = "/v1/load_lora_adapter", "/v1/completions"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(http_server, "FIRST_WAIT", 0.01)


def adapter(value: float, rank: int = 2) -> Lora:
    layers = {
        block: {
            name: {
                "a": np.full((CONFIG.num_layers, rank, size), value, np.float32),
                "b": np.ones((CONFIG.num_layers, out, rank), np.float32),
            }
            for name, (out, size) in projections.items()
        }
        for block, projections in projection_shapes(CONFIG).items()
    }
    return Lora(layers, scale=2.0)


class Engine(ServedEngine):
    """With the lines that it announces."""

    def __init__(self, *arguments: Any, **options: Any):
        self.lines: list[str] = []
        super().__init__(*arguments, announce=self.lines.append, **options)


def engine(
    folder: Path,
    *servers: FakeServer,
    trains: Any = "adapter",
    run: str = "run",
    on_server: str | None = None,
    longest: int = 20,
    temperature: float = 1.0,
    **options: Any,
) -> Engine:
    shared = SharedFolder(folder, on_server=on_server, run=run, base_model="base", model=CONFIG, dtype="float32")
    urls = [server.url for server in servers]
    made = Engine(urls, [STOP], shared, trains=trains, vocab_size=CONFIG.vocab_size, **options)
    made.check([5, 6, 7], Sampling(temperature, max_new_tokens=8), longest)
    return made


def requests(count: int) -> list[Request]:
    return [Request([5, 6 + number], SAMPLING, np.array([0, number], np.uint32)) for number in range(count)]


def marks(completions) -> set[int]:
    return {completion.tokens[0] for completion in completions}


def folders(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def test_every_completion_is_of_the_version_that_was_given_last_and_each_has_a_name_of_its_own(tmp_path):
    with serving() as server:
        sampler = engine(tmp_path, server)
        versions, shown, names = [], [], []
        for value in (0.01, 0.02, 0.03):
            versions.append(sampler.update_params({}, adapter(value)))
            (folder,) = tmp_path.iterdir()  # of the version before, nothing is left
            names.append(folder.name)
            expected = mark(folder)
            completions = complete(sampler, requests(3))
            shown.append(marks(completions))
            assert shown[-1] == {expected}
            assert {completion.version for completion in completions} == {versions[-1]}
            assert completions[1].tokens == [expected, 7, 5, STOP]
            np.testing.assert_allclose(completions[1].logp, [-0.1, -0.2, -0.3, -0.4], rtol=1e-6)
            assert server.adapters == {folder.name: str(folder)}
        assert versions == [1, 2, 3]
        assert len(set(names)) == 3
        assert len(set.union(*shown)) == 3
        sampler.close()
        assert not server.adapters
        assert not list(tmp_path.iterdir())


def test_the_same_arrays_are_not_given_again_and_without_an_adapter_the_base_model_samples(tmp_path):
    with serving() as server:
        sampler, lora, base = engine(tmp_path, server), adapter(0.01), {"weight": np.ones(2)}
        assert sampler.update_params(base, lora) == sampler.update_params(base, lora) == 1
        assert server.paths_asked().count(LOAD) == 1
        assert sampler.update_params(base, None) == 2
        assert marks(complete(sampler, requests(2))) == {4}
        assert not server.adapters
        assert sampler.update_params(base, lora) == 3


def test_completions_under_way_keep_their_version_and_its_adapter(tmp_path):
    first_asked, go = threading.Event(), threading.Event()

    def behave(handler, path, body):
        if path == COMPLETIONS and body["max_tokens"] == 7:
            first_asked.set()
            go.wait(20)

    with serving(behave) as server:
        sampler = engine(tmp_path, server, in_flight=2)
        sampler.update_params({}, adapter(0.01))
        old = mark(next(tmp_path.iterdir()))
        slow = [Request([5, 6], Sampling(max_new_tokens=7), np.zeros(2, np.uint32))] * 4
        found = []
        thread = threading.Thread(target=lambda: found.extend(complete(sampler, slow)))
        thread.start()
        assert first_asked.wait(20)
        assert sampler.update_params({}, adapter(0.02)) == 2
        assert len(server.adapters) == len(folders(tmp_path)) == 2
        fresh = complete(sampler, requests(2))
        go.set()
        thread.join()
        assert marks(found) == {old}
        assert marks(fresh) != {old}
        assert [completion.version for completion in found] == [1] * 4
        sampler.update_params({}, adapter(0.03))
        assert len(server.adapters) == len(folders(tmp_path)) == 1


def test_what_a_killed_process_of_the_run_left_is_removed_and_what_is_of_others_is_not(tmp_path):
    with serving() as server:
        engine(tmp_path, server).update_params({}, adapter(0.01))
        other = engine(tmp_path, server, run="another")
        other.update_params({}, adapter(0.02))
        (tmp_path / "notes").mkdir()
        left = {file.name for file in tmp_path.iterdir()}
        engine(tmp_path, server).update_params({}, adapter(0.01))
        kept = left & {file.name for file in tmp_path.iterdir()}
        assert len(server.adapters) == 2
        assert len(kept) == 2
        assert "notes" in kept
        assert marks(complete(other, requests(1))) == {mark(next(tmp_path / name for name in kept - {"notes"}))}


def test_a_folder_that_the_server_sees_under_another_path(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").symlink_to(tmp_path / "here")
    with serving() as server:
        sampler = engine(tmp_path / "here", server, on_server=f"{tmp_path}/there/")
        sampler.update_params({}, adapter(0.01))
        assert [Path(path).parent.name for path in server.adapters.values()] == ["there"]
        assert len(marks(complete(sampler, requests(2)))) == 1


def test_sglang_by_its_own_calls(tmp_path):
    with serving(kind="sglang") as server:
        sampler = engine(tmp_path, server)
        sampler.update_params({}, adapter(0.01))
        complete(sampler, requests(2))
        sampler.update_params({}, adapter(0.02))
        assert len(server.adapters) == 1
        assert {body["model"] for body in server.completions()} == {"base"}
        assert all(body["lora_path"].startswith("egrsd-") for body in server.completions())


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_all_weights_are_given_and_every_completion_is_checked_to_be_of_them(kind, tmp_path):
    params = random_params(CONFIG)
    with serving(kind=kind) as server:
        sampler = engine(tmp_path, server, trains="all")
        sampler.update_params(params)
        (folder,) = tmp_path.iterdir()
        assert server.weights == {"path": str(folder), "version": folder.name}
        assert marks(complete(sampler, requests(2))) == {mark(folder)}
        asked = server.paths_asked()
        if kind == "vllm":
            order = ["/pause", "/collective_rpc", "/reset_prefix_cache", "/update_weight_version", "/resume"]
            assert [path for path in asked if path in order] == order

        def lose(handler, path, body):
            if path == COMPLETIONS and not lost:
                lost.append(server.forget())

        lost = []
        server.behave = lose
        assert marks(complete(sampler, requests(3))) == {mark(folder)}  # of the weights that it was started with, none
        assert lost
        assert "sampled with the weights 'default'" in "".join(sampler.lines)


def test_vllm_on_a_cpu_is_given_no_head_that_is_the_embedding(tmp_path):
    with serving() as server:
        server.device = "cpu"
        engine(tmp_path, server)
        with pytest.raises(ServerError, match="keeps the old output head"):
            engine(tmp_path, server, trains="all")


def test_a_server_that_cannot_take_part_is_refused_before_it_is_asked_for_anything(tmp_path):
    cases: tuple[tuple[dict[str, Any], dict[str, Any], str], ...] = (
        ({}, {"longest": 200}, "may have 200 tokens, and http.* takes 128"),
        ({"paths": ()}, {}, "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"),
        ({"kind": "sglang", "paths": ()}, {}, "has no /load_lora_adapter: start an SGLang"),
        (
            {"paths": ()},
            {"trains": "all"},
            "cannot be given all weights .* it has no /pause; start vLLM with VLLM_SERV",
        ),
        ({"kind": "sglang", "paths": ()}, {"trains": "all"}, "has no /update_weights_from_disk; train an adapter"),
        ({"kind": "sglang"}, {"temperature": 0.7}, "rollout.temperature 0.7 they are not the policy's"),
        ({}, {"model": "other"}, "has no model 'other' .*; it has base"),
        ({"kind": "llamacpp", "paths": ()}, {}, "neither vLLM nor SGLang .*llamacpp"),
    )
    for server_options, asked, message in cases:
        with serving(**server_options) as server, pytest.raises((ServerError, ValueError), match=message):
            engine(tmp_path, server, **asked)
        assert not server.asked
    with pytest.raises(ServerError, match="Connection refused"):
        engine(tmp_path, server)


REFUSALS = {
    "rank": "rank 32 is greater than max_lora_rank 16.*start the server with --max-lora-rank of it",
    "folder": "No adapter found.*give a folder that both reach with rollout.shared",
    "no token ids": "returned no token_ids",
    "no log-probabilities": "no log-probabilities of its tokens",
    "log-probabilities above 0": "returned 0.5 as a log-probability, which is above 0",
    "processed log-probabilities": "--logprobs-mode raw_logprobs",
    "another name": "was asked for egrsd-.* and answered as 'base'",
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_shows_with_the_first_weights_ends_before_any_completion_is_used(case, tmp_path):
    def behave(handler: Handler, path, body):
        if path == COMPLETIONS:
            answer = handler.completion(body)
            (choice,) = answer["choices"]
            if case == "no token ids":
                del choice["token_ids"]
            if case == "no log-probabilities":
                del choice["logprobs"]
            if case == "log-probabilities above 0":
                choice["logprobs"] = {"token_logprobs": [0.5] * len(choice["token_ids"])}
            if case == "processed log-probabilities":
                choice["logprobs"] = {"token_logprobs": [0.0] * len(choice["token_ids"])}
            if case == "another name":
                answer["model"] = "base"
            return answer
        return None

    with serving(behave) as server:
        sampler = engine(tmp_path, server, on_server="/elsewhere" if case == "folder" else None)
        with pytest.raises(ServerError, match=REFUSALS[case]):
            sampler.update_params({}, adapter(0.01, rank=32 if case == "rank" else 2))


def test_a_later_completion_without_log_probabilities_ends_the_call(tmp_path):
    """They would be no numbers in the loss, and in the gap that a run is stopped by."""

    def behave(handler, path, body):
        if path == COMPLETIONS and body["max_tokens"] == 8 and sampler.seconds_push:
            answer = handler.completion(body)
            answer["choices"][0]["logprobs"] = None
            return answer
        return None

    with serving(behave) as server:
        sampler = engine(tmp_path, server)
        sampler.update_params({}, adapter(0.01))
        with pytest.raises(ServerError, match="returned no log-probabilities of its tokens"):
            dict(sampler.generate(requests(2)))


PASSING = {
    "429": lambda handler: handler.reply({"detail": "busy"}, 429, Retry_After="0"),
    "503": lambda handler: handler.reply(b"", 503),
    "stopped": lambda handler: handler.reply({"choices": [{"finish_reason": "abort"}]}),
    "dropped": lambda handler: handler.drop(),
}


@pytest.mark.parametrize("failure", PASSING)
def test_a_busy_server_is_waited_for_with_a_line_that_says_until_when(failure, tmp_path):
    failed = []

    def behave(handler, path, body):
        if path == COMPLETIONS and body["max_tokens"] == 8 and len(failed) < 3 and sampler.seconds_push:
            failed.append(body)
            PASSING[failure](handler)
            handler.drop()

    with serving(behave) as server:
        sampler = engine(tmp_path, server, in_flight=2, wait=60)
        sampler.update_params({}, adapter(0.01))
        completions = dict(sampler.generate(requests(5)))
    assert sorted(completions) == list(range(5))
    assert len(failed) == 3
    assert sampler.lines
    for line in sampler.lines:
        assert "the step waits for http" in line
        assert "it is given up at" in line
        assert "(--rollout.server_wait 60 s)" in line
        assert "\n" not in line


def test_a_server_that_was_started_again_gets_the_adapter_again_and_nothing_is_counted_twice(tmp_path):
    def behave(handler, path, body):
        if path == COMPLETIONS and len(server.completions()) == 4 and server.adapters:
            server.forget()

    with serving(behave) as server:
        sampler = engine(tmp_path, server, in_flight=1)
        sampler.update_params({}, adapter(0.01))
        expected = mark(next(tmp_path.iterdir()))
        found = list(sampler.generate(requests(6)))
        assert sorted(number for number, _ in found) == list(range(6))
        assert marks(completion for _, completion in found) == {expected}
        assert server.paths_asked().count(LOAD) == 2
        assert any("has no adapter egrsd-" in line for line in sampler.lines)


def test_a_server_that_is_down_when_weights_are_given_gets_them_once_it_is_back(tmp_path, monkeypatch):
    with serving() as server:
        sampler = engine(tmp_path, server)
        sampler.update_params({}, adapter(0.01))
        server.stop()
        assert sampler.update_params({}, adapter(0.02)) == 2
        again = []

        def announce(line):
            sampler.lines.append(line)
            if not again:
                again.append(server.started_again())

        sampler.announce = announce
        try:
            completions = complete(sampler, requests(3))
        finally:
            again[0].stop()
    assert marks(completions) == {mark(next(tmp_path / name for name in folders(tmp_path) if name.endswith("000002")))}
    assert "Connection refused" in sampler.lines[0]


def test_another_model_at_the_same_address_ends_the_call_with_one_line(tmp_path):
    def behave(handler, path, body):
        if path == COMPLETIONS and len(server.completions()) == 4:
            server.model, server.context = "base", 64
            server.forget()

    with serving(behave) as server:
        sampler = engine(tmp_path, server, in_flight=1)
        sampler.update_params({}, adapter(0.01))
        with pytest.raises(
            ServerError, match=r"served base with a context of 128 .* now it serves base with a context of 64"
        ):
            complete(sampler, requests(6))


def test_of_two_servers_one_that_is_gone_leaves_its_requests_to_the_other(tmp_path):
    given_up = threading.Event()

    def drop_completions(handler, path, body):
        if path == COMPLETIONS and sampler.seconds_push:
            handler.drop()

    def announce(line):
        sampler.lines.append(line)
        if "is given up for this step, and the other servers complete it" in line:
            given_up.set()

    with serving() as stays, serving(drop_completions) as leaves:
        sampler = engine(tmp_path, stays, leaves, in_flight=2, wait=0.05)
        sampler.update_params({}, adapter(0.01))
        assert len(leaves.adapters) == len(stays.adapters) == 1
        stays.behave = lambda *_: given_up.wait(20) and None
        sampler.announce = announce
        found = list(sampler.generate(requests(8)))
        assert sorted(number for number, _ in found) == list(range(8))
        assert len(stays.completions()) == 8 + 1
        assert given_up.is_set()
        leaves.behave = lambda *_: None
        sampler.update_params({}, adapter(0.02))  # it is back, and takes part again
        stays.behave = drop_completions
        assert len(complete(sampler, requests(4))) == 4


def test_where_no_server_is_left_the_call_ends_with_one_line_after_the_wait(tmp_path):
    with serving() as server:
        sampler = engine(tmp_path, server, wait=0.05)
        sampler.update_params({}, adapter(0.01))
    with pytest.raises(
        ServerError, match=r"Connection refused; http.* was waited for .* and --rollout.server_wait"
    ) as error:
        complete(sampler, requests(3))
    assert "\n" not in str(error.value)


def test_a_refusal_and_a_request_that_is_never_answered_end_the_call(tmp_path):
    def refuse(handler, path, body):
        if path == COMPLETIONS and body["prompt"] == [5, 7]:
            return {"detail": "out of range"}, 400
        return None

    def keep_silent(handler, path, body):
        if path == COMPLETIONS and body["prompt"] == [5, 7]:
            silent.wait(20)

    silent = threading.Event()
    with serving(refuse) as server:
        sampler = engine(tmp_path, server)
        sampler.update_params({}, adapter(0.01))
        with pytest.raises(ServerError, match="400 out of range"):
            complete(sampler, requests(3))
    with serving(keep_silent) as server:
        sampler = engine(tmp_path, server, timeout=0.2)
        sampler.update_params({}, adapter(0.01))
        with pytest.raises(ServerError, match=r"not a word within 0.2 s \(--rollout.server_timeout\)"):
            complete(sampler, requests(3))
        assert sum(body["prompt"] == [5, 7] for body in server.completions()) == http_server.SILENCES
        silent.set()


def test_a_slow_server_is_announced(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "FIRST_SILENCE", 0.01)
    go = threading.Event()

    def announce(line):
        sampler.lines.append(line)
        go.set()

    def behave(handler, path, body):
        if path == COMPLETIONS and sampler.seconds_push:
            go.wait(20)

    with serving(behave) as server:
        sampler = engine(tmp_path, server)
        sampler.update_params({}, adapter(0.01))
        sampler.announce = announce
        complete(sampler, requests(2))
    assert "nothing was completed for 0 s, and 2 requests are with the servers" in sampler.lines[0]


def test_closing_early_drops_what_is_in_flight_and_asks_for_nothing_more(tmp_path):
    with serving() as server:
        sampler = engine(tmp_path, server, in_flight=1)
        sampler.update_params({}, adapter(0.01))
        completions = sampler.generate(requests(50))
        next(completions)
        completions.close()  # pyright: ignore[reportAttributeAccessIssue]
        asked = len(server.completions())
        assert asked < 30
        sampler.update_params({}, adapter(0.02))
        assert len(server.adapters) == 1  # the version that was dropped is not in use any more
    with pytest.raises(RuntimeError, match="update_params first"), serving() as server:
        engine(tmp_path, server).generate(requests(1))


def test_seeds_are_of_the_requests_keys_alone(tmp_path):
    seeds = []
    for _ in range(2):
        with serving() as server:
            sampler = engine(tmp_path, server)
            sampler.update_params({}, adapter(0.01))
            complete(sampler, requests(4))
            seeds.append({body["seed"] for body in server.completions()[1:]})
    assert seeds[0] == seeds[1]
    assert len(seeds[0]) == 4
