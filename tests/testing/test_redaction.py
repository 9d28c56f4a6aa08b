"""What is taken out of recordings, and what is left."""

import json
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.testing.redaction import Redaction

KEY = "bce-v3/ALTAK-planted01/0123456789abcdef0123"
PHONE = re.compile(r"1\d{10}")


@pytest.mark.parametrize(
    "secret",
    [
        KEY,
        "ALTAKabcdefghijkl",
        "bce-auth-v1/ALTAK-x/2026-11-26T00:00:00Z/1800/host/abcdef",
        "24.0123456789abcdef0123456789abcdef.2592000.1700000000.282335-12345678",
        "sk-0123456789abcdefghij",
        "eyJhbGciOiJIUzI1.eyJzdWIiOiIx.c2lnbmF0dXJl",
    ],
)
def test_credentials_are_known_by_their_form(secret: str) -> None:
    assert Redaction().text(f"用 {secret} 吧") == "用 [redacted] 吧"


def test_an_address_keeps_all_but_its_signature() -> None:
    url = "https://bj.bcebos.com/a.png?authorization=bce-auth-v1%2Fx%2Fy&size=1"
    assert Redaction().text(url) == "https://bj.bcebos.com/a.png?authorization=[redacted]&size=1"
    assert Redaction().text("https://h/p?access_token=abc") == "https://h/p?access_token=[redacted]"


def test_fields_are_found_wherever_they_stand() -> None:
    redaction = Redaction(["phone", "User"])
    asked = {"user": "u-1", "messages": [{"content": "你好", "Phone": 138}], "api_key": "x", "n": 1}
    assert redaction.json(asked) == {
        "user": "[redacted]",
        "messages": [{"content": "你好", "Phone": "[redacted]"}],
        "api_key": "[redacted]",
        "n": 1,
    }


def test_json_in_a_text_is_looked_into() -> None:
    arguments = json.dumps({"phone": "138", "name": "王"}, ensure_ascii=False)
    told = Redaction(["phone"]).json({"arguments": arguments})
    assert told["arguments"] == '{"phone": "[redacted]", "name": "王"}'


def test_the_key_of_a_request_is_taken_out_of_its_body_too() -> None:
    redaction = Redaction()
    redaction.learn({"Authorization": "Bearer my-own-server-key"})
    redaction.learn({"Authorization": "Bearer k"})  # too short to be told from a word
    assert redaction.json({"content": "my-own-server-key, k"}) == {"content": "[redacted], k"}


def event(text: str, name: str = "content") -> bytes:
    fields = {"id": "as-1", "choices": [{"index": 0, "delta": {name: text}}]}
    return b"data: " + json.dumps(fields, ensure_ascii=False).encode() + b"\n\n"


def told_by(chunks: list[bytes], name: str = "content") -> str:
    lines = b"".join(chunks).splitlines()
    events = [json.loads(line[5:]) for line in lines if line.startswith(b"data: {")]
    return "".join(e["choices"][0]["delta"][name] for e in events)


def test_a_word_in_pieces_is_taken_out_of_all_of_them() -> None:
    pieces = ["打", "138", "0013", "8000", "找我"]
    clean = Redaction([PHONE]).chunks([event(piece) for piece in pieces])
    assert len(clean) == 5
    assert told_by(clean) == "打[redacted]找我"
    assert clean[0] == event("打")


def test_a_key_that_the_model_repeats_is_taken_out() -> None:
    clean = Redaction().chunks([event(KEY[n : n + 4], "reasoning") for n in range(0, len(KEY), 4)])
    assert told_by(clean, "reasoning") == "[redacted]"


def test_arguments_of_a_tool_in_pieces() -> None:
    def call(piece: str) -> bytes:
        delta = {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
        return (
            b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"
        )

    clean = Redaction(["phone"]).chunks([call('{"pho'), call('ne": "13'), call('800"}')])
    pieces = [
        json.loads(chunk[5:])["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"]
        for chunk in clean
    ]
    assert "".join(pieces) == '{"phone": "[redacted]"}'


def test_what_is_clean_stays_byte_for_byte() -> None:
    chunks = [b": ping\r\n\r\nda", b'ta:{"choices": [ ]}\n\n', b"data: [DONE]\n\n", b"\xff\xfe\n"]
    assert Redaction([PHONE]).chunks(chunks) == chunks


@given(
    pieces=st.lists(st.text(alphabet="0123456789打", max_size=8), min_size=1, max_size=12),
    cuts=st.lists(st.integers(0, 2000), max_size=8),
)
def test_pieces_are_as_clean_as_the_whole(pieces: list[str], cuts: list[int]) -> None:
    body = b"".join(map(event, pieces))
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    redaction = Redaction([PHONE])
    clean = redaction.chunks([body[a:b] for a, b in pairwise(places)])
    assert len(clean) == len(places) - 1
    assert told_by(clean) == redaction.text("".join(pieces))
