"""Lines of a batch, read: native ones, rows, and what is wrong with the others."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async import ConfigError
from ernie_async.batch.lines import ABSENT, Fault, Line, LineReader, find_path, key_of, shard_of

NATIVE = {
    "custom_id": "row-1",
    "method": "POST",
    "url": "/v2/chat/completions",
    "body": {"model": "m", "messages": [{"role": "user", "content": "你好"}]},
}


def read(fields, **settings) -> Line | Fault:
    raw = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return LineReader(**settings).read(1, raw)


def line(fields, **settings) -> Line:
    found = read(fields, **settings)
    assert isinstance(found, Line), found
    return found


def test_native_line_is_taken_as_it_is() -> None:
    found = line(NATIVE)
    assert (found.custom_id, found.path, found.body) == (
        "row-1",
        "/chat/completions",
        NATIVE["body"],
    )
    assert found.metadata is ABSENT
    assert len(found.key) == 16


def test_key_is_that_of_url_and_body_and_of_nothing_else() -> None:
    key = line(NATIVE).key
    turned = {**NATIVE, "body": dict(reversed(NATIVE["body"].items())), "metadata": 1}
    assert line(turned).key == key
    assert line({**NATIVE, "url": "/v1/chat/completions", "custom_id": "x"}).key == key
    assert line({**NATIVE, "body": {**NATIVE["body"], "seed": 1}}).key != key
    assert line(NATIVE, defaults={"temperature": 0.5}).key != key
    assert key_of("/embeddings", NATIVE["body"]) != key


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/v2/chat/completions", "/chat/completions"),
        ("/v1/embeddings", "/embeddings"),
        ("/v2/images/generations", "/images/generations"),
        ("/chat/completions", None),
        ("/v2/rerank", None),
        ("/v3/chat/completions", None),
        (None, None),
    ],
)
def test_urls(url, path) -> None:
    assert find_path(url) == path


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        (b"{", "invalid_json"),
        (b"[1]", "invalid_json"),
        (b'{"custom_id": "a", "body": {"x": NaN}}', "invalid_json"),
        (b'{"custom_id": "\xff"}', "invalid_json"),
        ({**NATIVE, "custom_id": ""}, "invalid_request"),
        ({**NATIVE, "custom_id": "x" * 257}, "invalid_request"),
        ({**NATIVE, "custom_id": 7}, "invalid_request"),
        ({**NATIVE, "method": "GET"}, "invalid_request"),
        ({**NATIVE, "body": []}, "invalid_request"),
        ({**NATIVE, "url": "/v2/rerank"}, "unsupported_url"),
        ({"nothing": 1}, "invalid_request"),
        ({"prompt": 5}, "invalid_request"),
    ],
)
def test_faults(fields, code) -> None:
    found = read(fields)
    assert isinstance(found, Fault)
    assert found.code == code
    assert found.message


def test_defaults_fill_only_what_is_absent() -> None:
    found = line(NATIVE, defaults={"model": "other", "seed": 1}, models={"/chat/completions": "x"})
    assert (found.body["model"], found.body["seed"]) == ("m", 1)
    bare = {**NATIVE, "body": {"messages": []}}
    assert line(bare, models={"/chat/completions": "x"}).body["model"] == "x"
    assert line(bare, models={"/embeddings": "x"}).model is None


def test_stream_is_removed_and_unknown_keys_are_counted() -> None:
    reader = LineReader()
    body = {**NATIVE["body"], "stream": True, "stream_options": {"include_usage": True}}
    found = reader.read(1, json.dumps({**NATIVE, "body": body, "extra": 1}).encode())
    assert isinstance(found, Line)
    assert found.body == NATIVE["body"]
    reader.read(2, json.dumps({**NATIVE, "extra": 1, "custom_id": "x" * 65}).encode())
    assert sorted(reader.notes.values()) == [1, 1, 2]


def test_rows_become_requests() -> None:
    assert line({"prompt": "hi"}).body == {"messages": [{"role": "user", "content": "hi"}]}
    assert line({"messages": [1], "custom_id": "a"}).custom_id == "a"
    found = line({"sku": 7, "text": "天"}, template="Say {text}!", id_column="sku")
    assert (found.custom_id, found.body["messages"][0]["content"]) == ("7", "Say 天!")
    assert line({"prompt": "hi"}, url="/v2/embeddings").body == {"input": ["hi"]}
    assert line({"prompt": "hi"}, url="/v2/images/generations").body == {"prompt": "hi"}


@pytest.mark.parametrize(
    "settings",
    [{"template": "{no}"}, {"id_column": "no"}, {"template": "{a.b}"}, {"template": "{}"}],
)
def test_missing_column_is_a_fault(settings) -> None:
    found = read({"prompt": "hi", "a": "b"}, **settings)
    assert isinstance(found, Fault)
    assert found.code == "invalid_request"


def test_a_prompt_that_is_no_text_is_told_as_such() -> None:
    found = read({"custom_id": "a", "prompt": 5})
    assert isinstance(found, Fault)
    assert found.message == "prompt: expected text, got 5"


@pytest.mark.parametrize(
    ("fields", "settings"),
    [
        ({"prompt": ""}, {}),
        ({"prompt": ""}, {"url": "/v2/embeddings"}),
        ({"text": ""}, {"template": "{text}"}),
    ],
)
def test_a_prompt_that_is_empty_asks_nothing(fields, settings) -> None:
    found = read(fields, **settings)
    assert isinstance(found, Fault)
    assert found.code == "invalid_request"
    assert found.message.endswith("prompt: must not be empty")


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="template"):
        LineReader(template="{")
    with pytest.raises(ConfigError, match="url"):
        LineReader(url="/v2/rerank")


def test_what_cannot_be_written_as_json_is_a_fault() -> None:
    reader = LineReader()
    for body in ({"x": "\ud800"}, {"x": float("nan")}, {"x": object()}):
        found = reader.take(1, {**NATIVE, "body": body})
        assert isinstance(found, Fault)
        assert (found.code, found.custom_id) == ("invalid_request", "row-1")


def test_keys_that_are_other_ones_each_time_do_not_fill_the_memory() -> None:
    reader = LineReader()
    for number in range(1000):
        reader.take(number, {**NATIVE, f"x{number}": 1})
    assert len(reader.notes) <= 21
    assert sum(reader.notes.values()) == 1000


@given(st.text(min_size=1), st.integers(1, 20))
def test_each_line_is_in_exactly_one_shard(custom_id: str, n: int) -> None:
    try:
        custom_id.encode()
    except UnicodeEncodeError:
        return
    assert sum(shard_of(custom_id, n) == i for i in range(n)) == 1


def test_shards_are_what_is_documented() -> None:
    assert [shard_of(f"row-{i}", 4) for i in range(8)] == [2, 2, 2, 0, 0, 1, 0, 2]
