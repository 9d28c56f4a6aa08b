"""What may be asked of a gateway, and what becomes of who leaves."""

import pytest

from ernie_async import ConfigError
from ernie_async.sansio.gateway_ask import AskRules, read_ask
from ernie_async.sansio.on_disconnect import read_policy
from ernie_async.sansio.tickets import (
    find_holder,
    fingerprint,
    is_ticket,
    make_ticket,
    token_hash,
)

SAY = [{"role": "user", "content": "hi"}]
RULES = AskRules()


def test_request_is_read() -> None:
    told = b'{"messages":[{"role":"user","content":"hi"}],"stream":true,"temperature":0.5,'
    told += b'"stream_options":{"include_usage":true},"on_disconnect":"linger:5"}'
    ask = read_ask(told, RULES, model="m")
    assert (ask.is_stream, ask.has_usage) == (True, True)
    assert ask.on_disconnect == "linger:5"
    assert (ask.request.model, ask.request.temperature) == ("m", 0.5)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (b"{", "as JSON"),
        (b"[]", "an object"),
        ({}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": SAY, "base_url": "http://evil"}, "base_url: no such field"),
        ({"messages": SAY, "api_key": "x"}, "api_key: no such field"),
        ({"messages": SAY, "proxy": "x"}, "proxy: no such field"),
        ({"messages": SAY, "extra_headers": {}}, "extra_headers: no such field"),
        ({"messages": SAY, "stream": 1}, "stream"),
        ({"messages": SAY, "stream": 0}, "stream"),
        ({"messages": SAY, "model": 0}, "model"),
        ({"messages": SAY, "model": ""}, "model"),
        ({"messages": SAY, "stream": True, "n": 2}, "n: expected 1"),
        ({"messages": SAY, "stream": True, "logprobs": True}, "logprobs: a stream does not"),
        ({"messages": SAY, "on_disconnect": "finish"}, "finish is not allowed"),
        ({"messages": SAY, "on_disconnect": "linger:-1"}, "on_disconnect"),
        ({"messages": SAY, "on_disconnect": 5}, "on_disconnect"),
        ({"messages": SAY, "temperature": 9}, "temperature"),
    ],
)
def test_bad_request_is_refused(told: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_ask(told, RULES, model="m")


def test_who_asks_in_json_is_not_told_what_to_write_in_python() -> None:
    with pytest.raises(ConfigError) as caught:
        read_ask({"messages": [{**SAY[0], "weight": 1}], "web_search": {"on": 1}}, RULES, model="m")
    assert "messages.0.weight: no such field" in str(caught.value)
    assert "extra_body" not in str(caught.value)


def test_models_may_be_a_set_and_the_model_anything() -> None:
    rules = AskRules(models=frozenset({"m"}))
    assert read_ask({"messages": SAY, "model": None}, rules, model="m").request.model == "m"
    for model in ([], {}, "x", 0):
        with pytest.raises(ConfigError, match="model: expected one of m"):
            read_ask({"messages": SAY, "model": model}, rules, model="m")


def test_token_of_any_bytes_is_looked_for() -> None:
    assert find_holder("\udcff", [(token_hash("t"), "a")]) is None


def test_whole_answers_may_be_several_and_have_logprobs() -> None:
    told = {"messages": SAY, "n": 2, "logprobs": True, "top_logprobs": 1}
    assert read_ask(told, RULES, model="m").request.n == 2
    with pytest.raises(ConfigError, match="n: expected 1"):
        read_ask(told, RULES, model="m", is_stream=True)


def test_models_and_lengths_are_limited() -> None:
    rules = AskRules(models=("a", "b"), max_tokens=100)
    with pytest.raises(ConfigError, match="model: expected one of a, b"):
        read_ask({"messages": SAY, "model": "c"}, rules, model="a")
    with pytest.raises(ConfigError, match="model"):
        read_ask({"messages": SAY}, rules, model=None)
    with pytest.raises(ConfigError, match="max_tokens: expected at most 100"):
        read_ask({"messages": SAY, "max_tokens": 101}, rules, model="a")
    assert read_ask({"messages": SAY}, rules, model="a").request.max_completion_tokens == 100
    ask = read_ask({"messages": SAY, "max_tokens": 7, "store": False}, rules, model="a")
    assert (ask.request.max_tokens, ask.request.max_completion_tokens) == (7, None)


def test_policies() -> None:
    assert [read_policy(text) for text in ("cancel", "linger:5", "finish")] == [0.0, 5.0, None]
    for text in ("", "linger", "linger:", "linger:1.5", "linger:1e3", "cancel:", "finish:1"):
        with pytest.raises(ConfigError):
            read_policy(text)


def test_tickets_are_for_one_stream() -> None:
    ticket = make_ticket(b"secret", "st_1")
    assert is_ticket(b"secret", "st_1", ticket)
    assert not is_ticket(b"secret", "st_2", ticket)
    assert not is_ticket(b"other", "st_1", ticket)
    assert not is_ticket(b"secret", "st_1", "票")
    assert ticket.isascii()


def test_tokens_are_known_by_their_hash() -> None:
    holders = [(token_hash("a"), 1), (token_hash("b"), 2)]
    assert [find_holder(token, holders) for token in ("a", "b", "c", "")] == [1, 2, None, None]


def test_fingerprints_see_where_parts_end() -> None:
    assert fingerprint(b"ab", b"c") != fingerprint(b"a", b"bc")
