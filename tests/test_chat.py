# SPDX-License-Identifier: MIT
"""The client against a real HTTP server that goes wrong on purpose."""

import json
import math
import multiprocessing
import pickle
import runpy
import threading
import time
from dataclasses import asdict

import pytest
from fault_server import FAULTS, FaultServer, completion, echo, request_sha256
from omegaconf import OmegaConf

from data.chat import ChatClient, Failure, Request, cache
from data.chat.replies import object_format, object_parser, option_logprobs

PAST = "Wed, 21 Oct 2015 07:28:00 GMT"
RULES = {"lean": range(21), "topic": ("taxes", "health"), "why": str}
GOOD = '{"lean": 12, "topic": "taxes", "why": "It says so."}'


def ask(text, **params):
    return Request([{"role": "user", "content": text}], None, params)


@pytest.fixture
def client(tmp_path):
    def make(url, cache="cache", **settings):
        settings = {"timeout_s": 0.5, "retry_wait_s": 0.01, "max_retries": 8, **settings}
        return ChatClient("stub", url, str(tmp_path / cache), **settings)

    return make


def test_faults_are_retried_and_every_question_is_answered_once_in_order(client):
    questions = [f"question {n}" for n in range(60)]
    with FaultServer(echo, fault_rate=0.4, stall_s=0.7) as server:
        chat = client(server.url)
        results = list(chat.chat_many(map(ask, questions), total=60, title="test"))
        assert [n for n, _ in results] == list(range(60))
        assert [reply.text for _, reply in results] == questions
        assert set(server.outcomes) == {"answered", *FAULTS}, "the seed must show every fault"
        assert server.outcomes["answered"] == chat.counts["calls"] == 60
        assert chat.counts["failures"] == 0
        assert chat.counts["answer_tokens"] == 120
        n_calls = len(server.calls)
        again = client(server.url)
        assert list(again.chat_many(map(ask, questions))) == results
        assert len(server.calls) == n_calls
        assert again.counts == {"cached": 60}


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("429", "HTTP 429"),
        ("500", "HTTP 500"),
        ("timeout", "timeout"),
        ("cut", "connection lost"),
        ("html", "nonsense: '<html>"),
        ("no choices", "nonsense"),
        ("empty", "without text"),
        ("not utf-8", "nonsense"),
    ],
)
def test_call_that_keeps_failing_is_a_failure_and_is_not_kept(client, fault, named):
    with FaultServer(echo, fault_rate=1.0, faults=(fault,), stall_s=0.4) as server:
        chat = client(server.url, max_retries=1, timeout_s=0.2)
        (result,) = [result for _, result in chat.chat_many([ask("hello")])]
        assert isinstance(result, Failure)
        assert result.kind == "unanswered"
        assert named in result.reason
        assert "tried 2 times" in result.reason
        assert result.is_empty == (fault == "empty")
        assert chat.counts["failures"] == 1
        server.fault_rate = 0.0
        assert chat.ask(ask("hello")).text == "hello"


@pytest.mark.parametrize(("retry_after", "n_calls", "least_s"), [("0", 3, 0.0), ("0.3", 3, 0.6), (PAST, 3, 0.0)])
def test_wait_that_the_server_names_counts(client, retry_after, n_calls, least_s):
    with FaultServer(echo, fault_rate=1.0, faults=("429",), retry_after=retry_after) as server:
        start = time.monotonic()
        result = client(server.url, max_retries=2).ask(ask("x"))
        assert least_s <= time.monotonic() - start < least_s + 5
        assert len(server.calls) == n_calls
        assert result.reason == f"HTTP 429: Error code: 429 - try later (tried {n_calls} times)"


@pytest.mark.parametrize("wait", ["300", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_wait_that_is_too_long_ends_the_run_once(client, wait):
    with FaultServer(echo, fault_rate=1.0, faults=("429",), retry_after=wait) as server:
        with pytest.raises(RuntimeError, match=r"at most 120 s are waited.*start the same command later"):
            client(server.url).ask(ask("x"))
        assert len(server.calls) == 1


def test_a_quota_that_is_used_up_ends_the_run_once(client, monkeypatch):
    with FaultServer(echo, fault_rate=1.0, faults=("quota",)) as server:
        with pytest.raises(RuntimeError, match=r"quota of the key is used up.*start the same command again"):
            list(client(server.url, max_concurrency=1).chat_many(ask(str(n)) for n in range(20)))
        assert len(server.calls) <= 5  # those under way


@pytest.mark.parametrize("address", ["127.0.0.1:8000/v1", "localhost/v1", "htp://x/v1", "http:///v1"])
def test_an_address_that_is_none_is_refused(client, address):
    with pytest.raises(ValueError, match=r"no address; write it as http://127"):
        client(address)


@pytest.mark.parametrize("fault", ["500", "html", "gone"])
def test_a_server_that_never_answers_is_noticed_within_seconds(client, fault, monkeypatch):
    monkeypatch.setattr("data.chat.client._FIRST_ANSWER_S", 0.3)
    with FaultServer(echo, fault_rate=1.0, faults=(fault,)) as server:
        if fault == "gone":
            server.http.server_close()
        start = time.monotonic()
        with pytest.raises(RuntimeError, match="in a row were not answered"):
            list(client(server.url, max_retries=9, retry_wait_s=0.1).chat_many(ask(str(n)) for n in range(100)))
        assert time.monotonic() - start < 20


@pytest.mark.parametrize(("fault", "is_dead"), [("html", True), ("no choices", True), ("500", False)])
def test_nonsense_to_the_first_call_is_told_sooner_than_a_server_that_starts(client, fault, is_dead, monkeypatch):
    monkeypatch.setattr("data.chat.client._FIRST_SENSE_S", 0.0)
    with FaultServer(echo, fault_rate=1.0, faults=(fault,)) as server:
        failure = client(server.url, max_retries=2, retry_wait_s=0.01).ask(ask("x"))
        assert failure.reason.endswith("(tried 1 times)" if is_dead else "(tried 3 times)")
        server.fault_rate = 0.0
        chat = client(server.url, max_retries=2, retry_wait_s=0.01)
        assert chat.ask(ask("y")).text == "y"
        server.fault_rate = 1.0  # it has answered, so this is a hiccup
        assert chat.ask(ask("z")).reason.endswith("(tried 3 times)")


@pytest.mark.parametrize(("is_there", "n_tries"), [(False, "tried 1 times"), (True, "tried 3 times")])
def test_a_server_that_takes_no_connection_is_told_before_the_wait_that_would_be_too_long(client, is_there, n_tries):
    """Only one that takes none is given up; one that answers with errors may be starting."""
    with FaultServer(echo, fault_rate=1.0, faults=("500",)) as server:
        if not is_there:
            server.http.shutdown()  # or the thread that polls it keeps it open for a moment
            server.http.server_close()
        chat = client(server.url, max_retries=2, retry_wait_s=0.01 if is_there else 9.0)
        reason = chat.ask(ask("x")).reason
    assert n_tries in reason  # one: nothing was waited for
    assert reason.startswith("HTTP 500" if is_there else f"no connection to {server.url}")


def test_a_server_that_goes_away_ends_the_run_though_one_call_is_made_at_a_time(client, monkeypatch):
    """It was tried for twenty calls, each with all its waits: a quarter of an hour."""
    monkeypatch.setattr("data.chat.client._GONE_S", 0.2)
    with FaultServer(echo) as server:
        chat = client(server.url, max_retries=6, retry_wait_s=0.15, max_concurrency=1, stop_after=3)
        assert chat.ask(ask("0")).text
        server.http.shutdown()
        server.http.server_close()
        chat._server.close()  # as a process that ends closes what is open
        chat._server = chat._connect()
        start = time.monotonic()
        with pytest.raises(RuntimeError, match="3 calls in a row were not answered, the last: no connection to"):
            list(chat.chat_many([ask(str(k)) for k in range(9)]))
    assert time.monotonic() - start < 2


def test_a_parameter_that_is_null_is_not_sent(client):
    with FaultServer(echo) as server:
        client(server.url, params={"max_tokens": None, "max_completion_tokens": 5}).ask(
            ask("x", max_tokens=9, seed=None)
        )
        (body,) = server.calls
        assert {*body} == {"model", "messages", "max_completion_tokens"}


def test_content_in_parts_is_joined_and_a_reasoning_alone_is_asked_once(client):
    parts = [{"type": "reasoning", "text": "Hm."}, {"type": "text", "text": "Yes, "}, {"type": "text", "text": "12."}]
    answers = iter([parts, None, [parts[0]]])

    def respond(body):
        message = {"role": "assistant", "content": next(answers), "reasoning_content": "Hm."}
        return completion(body, "", message=message)

    with FaultServer(respond) as server:
        chat = client(server.url)
        assert chat.ask(ask("a")).text == "Yes, 12."
        for question in "bc":
            failure = chat.ask(Request([{"role": "user", "content": question}], int))
            assert (failure.kind, failure.is_empty) == ("unreadable", True)
        assert "without an answer" in client(server.url).ask(ask("b")).reason
        assert len(server.calls) == 3


@pytest.mark.parametrize("content", ["a\ud83d", "\ude00 a", [{"type": "text", "text": "a\ud83d"}]])
def test_half_of_a_surrogate_pair_in_an_answer_does_not_end_the_run(client, content):
    """A model's last character was cut; what it wrote is stored, hashed and judged as text."""
    with FaultServer(lambda body: completion(body, "", message={"role": "assistant", "content": content})) as server:
        chat = client(server.url)
        reply = chat.ask(ask("x"))
        assert reply.text.replace("\ufffd", "").strip() == "a"
        assert chat.ask(ask(reply.text)).text == reply.text
        assert client(server.url).ask(ask("x")) == reply  # as it is read again
    assert reply.text.encode()


def test_a_cache_that_is_no_database_is_named(client, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "replies.sqlite").write_text("no database, and longer than the head of one would be" * 9)
    with pytest.raises(ValueError, match=r"replies.sqlite: file is not a database; move it away"):
        client(None)


def test_server_that_is_gone_stops_the_run(client):
    with FaultServer(echo) as server:
        url = server.url
    chat = client(url, max_retries=0, stop_after=5, max_concurrency=2)
    with pytest.raises(RuntimeError, match=r"\d+ calls in a row were not answered.*start the same command again"):
        list(chat.chat_many(ask(str(n)) for n in range(100)))


@pytest.mark.parametrize("status", ["401", "404"])
def test_refused_key_or_model_stops_at_once(client, status):
    with FaultServer(echo, fault_rate=1.0, faults=(status,)) as server:
        with pytest.raises(RuntimeError, match=f"HTTP {status}.*environment variable OPENAI_API_KEY"):
            client(server.url).ask(ask("x"))
        assert len(server.calls) == 1


def test_refused_call_is_not_tried_again(client):
    with FaultServer(echo, fault_rate=1.0, faults=("400",)) as server:
        assert client(server.url).ask(ask("x")).kind == "refused"
        assert len(server.calls) == 1


def test_key_comes_from_the_environment_alone(client, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret-1")
    with FaultServer(echo) as server:
        chat = client(server.url, api_key_env="MY_KEY")
        chat.ask(ask("x"))
        assert server.keys == {"Bearer secret-1"}
        assert "secret-1" not in repr(pickle.dumps(chat))
        assert "secret-1" not in chat._cache.path.read_bytes().decode(errors="replace")


def test_a_client_that_has_asked_can_be_written_down_as_datatrove_does(client):
    with FaultServer(echo) as server:
        chat = client(server.url)
        chat.ask(ask("x"))
    assert json.loads(json.dumps(asdict(chat)))["base_url"] == server.url


def test_concurrency_is_bounded_and_used(client):
    three, lock = threading.Barrier(3), threading.Lock()
    inside = [0]  # how many, each time it changed

    def answer(body):
        with lock:
            inside.append(inside[-1] + 1)
        three.wait(30)  # none is answered before three have asked
        time.sleep(0.05)  # and a fourth, if one may ask, is seen
        with lock:
            inside.append(inside[-1] - 1)
        return echo(body)

    with FaultServer(answer) as server:
        list(client(server.url, max_concurrency=3, timeout_s=60).chat_many(ask(str(n)) for n in range(12)))
    assert max(inside) == 3


def test_equal_questions_at_once_are_one_call(client):
    with FaultServer(echo, delay_s=0.05) as server:
        assert len({reply.key for _, reply in client(server.url).chat_many([ask("same")] * 8)}) == 1
        assert len(server.calls) == 1


def test_what_the_answer_depends_on_is_in_the_key(client):
    with FaultServer(echo) as server:
        chat = client(server.url, params={"temperature": 0})
        for request in (ask("x"), ask("x", seed=1), ask("x", temperature=1), ask("y"), ask("x", top_k=5), ask("x")):
            chat.ask(request)
        assert chat.counts == {"calls": 5, "cached": 1, "prompt_tokens": 5, "answer_tokens": 5}
        # the key can be computed from what the server got, and parameters that OpenAI lacks get there too
        assert {request_sha256(body) for body in server.calls} == chat._cache.keys()
        assert [body["top_k"] for body in server.calls if "top_k" in body] == [5]
        other = ChatClient("other", server.url, str(chat._cache.path.parent), params={"temperature": 0})
        other.ask(ask("x"))
        assert other.counts["calls"] == 1


def test_replay_needs_no_server(client):
    with FaultServer(echo) as server:
        recorded = client(server.url).ask(ask("x"))
    replay = client(None)
    assert replay.ask(ask("x")) == recorded
    assert replay.ask(ask("never asked")).reason == "not among the recorded replies, and base_url is null"


def test_one_repair_then_unreadable(client):
    read = object_parser({"lean": range(21)})
    answers = iter(["It is left.", '{"lean": 12}', "left", "very left", "never asked for"])
    with FaultServer(lambda body: next(answers)) as server:
        chat = client(server.url)
        first = chat.ask(Request([{"role": "user", "content": "a"}], read))
        assert (first.parsed, chat.counts["repairs"]) == ({"lean": 12}, 1)
        assert [m["role"] for m in server.calls[1]["messages"]] == ["user", "assistant", "user"]
        assert "not a JSON object" in server.calls[1]["messages"][2]["content"]
        second = chat.ask(Request([{"role": "user", "content": "b"}], read))
        assert second.kind == "unreadable"
        assert "very left" in second.reason
        assert (chat.counts["repairs"], chat.counts["failures"]) == (2, 1)
        # both answers were paid for: a second run reads them and asks nothing
        again = client(server.url)
        assert again.ask(Request([{"role": "user", "content": "b"}], read)) == second
        assert len(server.calls) == 4


def test_structured_output(client):
    with FaultServer(lambda body: GOOD) as server:
        request = Request(
            [{"role": "user", "content": "a"}], object_parser(RULES), {"response_format": object_format(RULES)}
        )
        assert client(server.url).ask(request).parsed == json.loads(GOOD)
        schema = server.calls[0]["response_format"]["json_schema"]["schema"]
        assert schema["required"] == ["lean", "topic", "why"]
        assert schema["properties"]["lean"] == {"type": "integer", "minimum": 0, "maximum": 20}
        assert schema["properties"]["topic"]["enum"] == ["taxes", "health"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Sure! " + GOOD, "not a JSON object"),
        ("[1]", "a list"),
        (GOOD.replace("12", "21"), "lean is 21, want an integer from 0 to 20"),
        (GOOD.replace("12", '"12"'), 'lean is "12"'),
        (GOOD.replace("12", "true"), "lean is true"),
        (GOOD.replace("12", "12.0"), r"lean is 12\.0"),
        (GOOD.replace("taxes", "tax"), "want one of taxes, health"),
        (GOOD.replace("It says so.", " "), "want text"),
        (GOOD.replace('"why"', '"reason"'), "unknown field 'reason'; no field 'why'"),
    ],
)
def test_object_that_breaks_a_rule(text, named):
    with pytest.raises(ValueError, match=named):
        object_parser(RULES)(text)


def test_fenced_object():
    assert object_parser(RULES)(f"```json\n{GOOD}\n```\n")["lean"] == 12


@pytest.mark.parametrize(
    "text",
    [
        f"```json {GOOD}```",
        f"<think>{{'lean': 3}}</think>\n{GOOD}",
        f"{GOOD}\n\nThe post speaks of taxes.",
        f"```json\n{GOOD}\n```\nThe post speaks of taxes.",
    ],
)
def test_object_with_thinking_before_it_and_words_behind_it(text):
    assert object_parser(RULES)(text) == json.loads(GOOD)


@pytest.mark.parametrize("text", [f"{GOOD}\n{GOOD}", f"{GOOD} or [12]", f"<think>{GOOD}"])
def test_two_objects_or_an_open_thinking_block_are_none(text):
    with pytest.raises(ValueError, match="not a JSON object"):
        object_parser(RULES)(text)


def test_option_logprobs(client):
    likeliest = [{"token": t, "logprob": p, "bytes": None} for t, p in (("A", -1.0), (" A", -2.0), ("B", -3.0))]
    logprobs = {"content": [{**likeliest[0], "top_logprobs": likeliest}]}
    with FaultServer(lambda body: completion(body, "A", logprobs=logprobs)) as server:
        reply = client(server.url).ask(ask("x", logprobs=True, top_logprobs=3, max_tokens=1))
    by_option = option_logprobs(reply.top_logprobs, ["A", "B", "C"])
    assert by_option["A"] == pytest.approx(math.log(math.exp(-1) + math.exp(-2)))
    assert (by_option["B"], by_option["C"]) == (pytest.approx(-3.0), None)
    assert option_logprobs(None, ["A"]) is None
    # what servers give for a token that cannot come
    assert option_logprobs([{"A": -9999.0, " A": -9999.0}], ["A"])["A"] == pytest.approx(-9999.0 + math.log(2))


def test_parameters_from_yaml(client):
    chat = client(None, params=OmegaConf.create({"stop": ["\n"], "temperature": 0}))
    assert chat.params == {"stop": ["\n"], "temperature": 0}
    json.dumps(chat.params)


def _ask_in_process(chat, texts):
    assert all(reply.text == text for text, (_, reply) in zip(texts, chat.chat_many(map(ask, texts))))


def test_processes_share_replies(client):
    texts = [str(n) for n in range(40)]
    with FaultServer(echo) as server:
        process = multiprocessing.get_context("spawn").Process(
            target=_ask_in_process, args=(client(server.url), texts[:25])
        )
        process.start()
        _ask_in_process(client(server.url), texts[15:])
        process.join(60)
        assert process.exitcode == 0
        after = client(server.url)
        assert len(list(after.chat_many(map(ask, texts)))) == 40
        assert after.counts == {"cached": 40}


def test_reply_is_on_disk_before_it_is_used(client):
    with FaultServer(echo) as server:
        chat = client(server.url)
        reply = chat.ask(ask("x"))
        seen = []
        other = client(None)  # another connection, while the first still holds its own open
        thread = threading.Thread(target=lambda: seen.append(other.ask(ask("x"))))
        thread.start()
        thread.join()
        assert seen == [reply]


def test_a_paid_reply_is_on_the_disk_before_it_counts(tmp_path):
    """The tests let SQLite not wait (conftest), so the product's own setting is read from its file."""
    product = runpy.run_path(cache.__file__)
    replies = product["ReplyCache"](tmp_path)
    assert replies._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
