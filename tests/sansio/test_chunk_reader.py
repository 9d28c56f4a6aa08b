"""Bytes to chunks, cut anywhere, up to whatever ends them."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.errors import APIError, BlockedError, DecodeError, ErnieError, ServerError
from ernie_async.sansio.chunk_reader import ChunkReader
from ernie_async.sansio.event_ids import EventLedger
from ernie_async.types.chunk import ChatChunk

FIXTURES = Path(__file__).parents[1] / "fixtures"
RECORDED = {
    path.stem: path.read_bytes()
    for folder in ("chat_v2", "compatible_servers")
    for path in sorted((FIXTURES / folder).glob("*.sse"))
}

DONE = b"data: [DONE]\n\n"
BOM = b"\xef\xbb\xbf"  # after it, byte by byte, no two events are ever read at once
ERROR = b'{"error":{"code":"internal_error","message":"no"}}'


def event(text: str, **more: Any) -> bytes:
    fields = {"choices": [{"index": 0, "delta": {"content": text}, **more}]}
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def outcome(
    packets: list[bytes], *, max_event_bytes: int = 1 << 20
) -> tuple[list[ChatChunk], str | None, bool]:
    """All chunks, the failure in words, and whether the end mark came."""
    reader = ChunkReader(EventLedger(), max_event_bytes=max_event_bytes)
    chunks: list[ChatChunk] = []
    for packet in packets:
        chunks += reader.feed(packet)
        if reader.failure is not None or reader.is_done:
            break
    else:
        chunks += reader.close()
    failure = reader.failure
    words = None if failure is None else f"{type(failure).__name__} {failure}"
    return chunks, words, reader.is_done


def split(body: bytes, places: list[int]) -> list[bytes]:
    cuts = sorted({0, len(body), *(place % (len(body) + 1) for place in places)})
    return [body[a:b] for a, b in pairwise(cuts)]


def texts(chunks: list[ChatChunk]) -> list[str]:
    return [chunk.text for chunk in chunks]


@pytest.mark.parametrize("body", RECORDED.values(), ids=RECORDED.keys())
def test_a_recording_gives_the_same_however_it_is_cut(body: bytes) -> None:
    whole = outcome([body])
    for size in (1, 2, 3, 7, 16, 100):
        assert outcome([body[i : i + size] for i in range(0, len(body), size)]) == whole
    for place in range(len(body)):
        assert outcome([body[:place], body[place:]]) == whole


BLOCKS = st.sampled_from(
    [
        event("量子"),
        event("x"),
        event("", finish_reason="stop"),
        event("a", flag=1),
        event("a", flag=3),
        b'data: {"choices":[],"usage":{"total_tokens":3}}\n\n',
        b'data: {"choices":[{"delta":{}},{"index":1,"delta":{"content":"b"}}]}\n\n',
        b'data: {"choices":[],"x_new":1}\n\n',
        b"data: " + ERROR + b"\n\n",
        ERROR + b"\n\n",
        DONE,
        b": ping\n\n",
        b"\n",
        b"id: 7\n" + event("i"),
        event("i")[:-1] + b"id: 8\n\n",
        b"retry: 10\n\n",
        b"data:\n\n",
        b'data:{"choices":[]} \n\n',
        event("crlf").replace(b"\n", b"\r\n"),
        event("cr").replace(b"\n", b"\r"),
        b'data: {"choices":\ndata: []}\n\n',
        b"data: hello\n\n",
        b"data: {\xff\n\n",
        b"event: message\n" + event("named"),
        BOM,
        b"rubbish\n\n",
    ]
)


@given(st.lists(BLOCKS, max_size=8), st.lists(st.integers(0, 2000), max_size=10))
def test_any_stream_gives_the_same_however_it_is_cut(
    blocks: list[bytes], places: list[int]
) -> None:
    body = b"".join(blocks)
    assert outcome(split(body, places)) == outcome([body])


@given(st.lists(BLOCKS, max_size=8))
def test_the_quick_way_and_the_thorough_way_agree(blocks: list[bytes]) -> None:
    # A byte order mark in front and every event in pieces: nothing of it is plain.
    body = b"".join(blocks).replace(BOM, b"")
    thorough = outcome([bytes([byte]) for byte in BOM + body])
    assert outcome([body]) == thorough


def told(packets: list[bytes]) -> tuple[object, ...]:
    """All that a reader tells: the chunks with what was sent of them, and what is beside them.

    Of a packet with an end in it, what stands beside the chunks may be told, or not.
    """
    ledger = EventLedger()
    reader = ChunkReader(ledger, max_event_bytes=1 << 20)
    chunks = [chunk for packet in packets for chunk in reader.feed(packet)] + reader.close()
    dumps = [chunk.model_dump_json(exclude_unset=True) for chunk in chunks]
    is_over = reader.is_done or reader.failure is not None
    beside = None if is_over else (reader.heartbeats, ledger.last_event_id, ledger.retry)
    return dumps, str(reader.failure), reader.is_done, beside


TEXTS = ["a", "量子", "", 'say "x"', "back\\slash", "line\n", "\u2028", "[DONE]", "data: x", "é"]

# One form of event, in which `%s` is the text, in JSON with its quotation marks.
FORMS = st.sampled_from(
    [
        '{"choices":[{"index":0,"delta":{"content":%s}}]}',
        '{"id": "as-1", "choices": [{"index": 0, "delta": {"content": %s, "tool_calls": []}}]}',
        '{"choices":[{"delta":{"content":%s}}],"usage":{"total_tokens":3}}',
        '{"choices":[{"delta":{"content":%s}}],"usage":null}',
        '{"choices":[{"delta":{"content":%s},"finish_reason":"stop"}]}',
        '{"choices":[{"delta":{"content":%s},"flag":3}]}',
        '{"choices":[{"delta":{"content":%s}},{"index":1,"delta":{"content":"b"}}]}',
        '{"choices":[{"index":1,"delta":{"content":%s}}]}',
        '{"choices":[{"delta":{"content":"b","content":%s}}]}',
        '{"choices":[{"delta":{"content":%s},"delta":{"content":"any text \\u00e9"}}]}',
        '{"choices":[{"delta":{"content":%s}}],"object":"\\"content\\":\\"x\\""}',
        '{"choices":\r[{"delta":{"content":%s}}]}',
        '{"choices":\t[{"delta":{"content":%s}}]} ',
        '{"choices":[{"delta":{"content":%s}}],"error":{"code":"internal_error","message":"no"}}',
        '{"choices":[{"delta":{"content":%s}}],"error":null}',
        '{"choices":[{"delta":{"content":%s}}]',
    ]
)
LINE_ENDS = ["\n\n"] * 12 + ["\r\n\r\n", "\r\r", "\n\r\n", "\r\n\n", "\n", "\n\n\n"]
EVENTS = st.builds(
    lambda form, texts, end, is_ascii: "".join(
        f"data: {form % json.dumps(text, ensure_ascii=is_ascii)}{end}" for text in texts
    ),
    FORMS,
    st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4),
    st.sampled_from(LINE_ENDS),
    st.booleans(),
)
BESIDES = st.sampled_from(
    [
        ": ping\n",
        ": ping\n\n",
        "retry: 7\n",
        "id: 4\n",
        "event: message\n",
        "data: [DONE]\n\n",
        "data:[DONE] \n\n",
        "data:\n\n",
        '{"error":{"code":"internal_error","message":"no"}}\n',
        "rubbish\n",
    ]
)
FIRST = event("first")


@given(
    st.lists(EVENTS | BESIDES, max_size=6), st.lists(st.integers(0, 2000), max_size=8), st.data()
)
def test_reading_events_alike_and_reading_each_by_itself_agree(
    blocks: list[str], places: list[int], data: st.DataObject
) -> None:
    whole = "".join(blocks).encode()
    body = whole[: data.draw(st.integers(0, len(whole)))]
    each = told([bytes([byte]) for byte in BOM + FIRST + body])
    assert told([FIRST, *split(body, places)]) == each
    assert told([FIRST, body]) == each


LAST_LINES = {
    "a heartbeat": (b": ping\n", (1, "", None)),
    "when to come again": (b"retry: 50\n", (0, "", 50)),
    "an error": (ERROR + b"\n", (0, "", None)),
}


@pytest.mark.parametrize("row", LAST_LINES.values(), ids=LAST_LINES.keys())
def test_a_line_that_is_whole_counts_at_once_behind_events_that_are_alike(
    row: tuple[bytes, tuple[int, str, int | None]],
) -> None:
    line, beside = row
    ledger = EventLedger()
    reader = ChunkReader(ledger, max_event_bytes=1 << 20)
    reader.feed(FIRST)
    assert texts(reader.feed(event("a") * 2 + line)) == ["a", "a"]
    assert (reader.heartbeats, ledger.last_event_id, ledger.retry) == beside
    assert isinstance(reader.failure, ServerError) == (ERROR in line)


def test_a_carriage_return_ends_a_line_whatever_json_takes_it_for() -> None:
    odd = b'data: {"choices":\r[{"delta":{"content":"x"}}]}\n\n'
    for packets in ([FIRST + odd], [FIRST, odd]):
        chunks, failure, _ = outcome(packets)
        assert (texts(chunks), failure is not None) == (["first"], True)


def test_an_event_that_is_too_large_when_the_body_ends_is_a_failure_as_any_other() -> None:
    reader = ChunkReader(EventLedger(), max_event_bytes=100)
    reader.feed(FIRST + b"data: " + b"x" * 80 + b"\ndata: " + b"x" * 80)
    assert reader.close() == []
    assert isinstance(reader.failure, DecodeError)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_rubbish_is_a_failure_and_never_a_crash(body: bytes, places: list[int]) -> None:
    reader = ChunkReader(EventLedger(), max_event_bytes=1 << 16)
    for packet in split(b"data: " + body, places):
        reader.feed(packet)
    reader.close()
    assert reader.failure is None or isinstance(reader.failure, ErnieError)


BOMBS = {
    "depth": b'data: {"choices":' + b"[" * 100_000 + b"\n\n",
    "closed depth": b'data: {"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n\n",
    "objects": b"data: " + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"\n\n",
    "a long number": b'data: {"created":' + b"9" * 100_000 + b',"choices":[]}\n\n',
    "infinity": b'data: {"created":1e999,"choices":[]}\n\n',
    "NUL": b"data: \0\0\0\n\n",
    "half a character": b'data: {"choices":[{"delta":{"content":"\xe9\x87"}}]}\n\n',
    "a lone surrogate": rb'data: {"choices":[{"delta":{"content":"\ud800"}}]}' + b"\n\n",
    "wrong types": b'data: {"choices":{"delta":1}}\n\n',
    "a list": b"data: [1]\n\n",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_bombs_are_a_failure_or_a_chunk(bomb: bytes) -> None:
    chunks, failure, _ = outcome([event("before"), bomb, event("after")])
    assert texts(chunks)[0] == "before"
    assert failure is not None or texts(chunks)[-1] == "after"


def test_an_event_of_a_megabyte_is_read() -> None:
    body = event("量" * 349_000)
    assert len(body) > 1_000_000
    packets = split(body, list(range(0, len(body), 4096)))
    [chunk], failure, _ = outcome(packets, max_event_bytes=1 << 23)
    assert (chunk.text, failure) == ("量" * 349_000, None)


@pytest.mark.parametrize("before", [[], [event("a")]])
def test_an_event_over_the_limit_comes_after_those_before_it(before: list[bytes]) -> None:
    packets = [*before, event("b") + b"data: " + b"x" * 2000]
    chunks, failure, _ = outcome(packets, max_event_bytes=1000)
    assert texts(chunks) == [*("a" for _ in before), "b"]
    assert failure is not None
    assert "1,000" in failure


@pytest.mark.parametrize("error", [b"data: " + ERROR + b"\n\n", ERROR + b"\n\n", b"data: hi\n\n"])
def test_an_error_comes_after_the_chunks_before_it_and_nothing_after_it(error: bytes) -> None:
    reader = ChunkReader(EventLedger(), max_event_bytes=1 << 20)
    chunks = reader.feed(event("a") + event("b") + error + event("c"))
    assert texts(chunks)[:2] == ["a", "b"]
    assert isinstance(reader.failure, APIError | DecodeError)


def test_an_error_is_of_the_class_its_code_has() -> None:
    reader = ChunkReader(EventLedger(), max_event_bytes=1 << 20)
    reader.feed(b"data: " + ERROR + b"\n\n")
    assert isinstance(reader.failure, ServerError)
    assert reader.failure.__traceback__ is None


@pytest.mark.parametrize("after", [event("ghost"), b"data: " + ERROR + b"\n\n", b"\xff\xff"])
def test_the_end_mark_ends_it(after: bytes) -> None:
    chunks, failure, is_done = outcome([event("a") + DONE + after])
    assert (texts(chunks), failure, is_done) == (["a"], None, True)


@pytest.mark.parametrize("end", [DONE, b"data: " + ERROR + b"\n\n"])
def test_nothing_is_read_after_an_end(end: bytes) -> None:
    reader = ChunkReader(EventLedger(), max_event_bytes=1 << 20)
    reader.feed(event("a") + end)
    ended = (reader.is_done, reader.failure)
    assert reader.feed(event("ghost")) == []
    assert reader.close() == []
    assert (reader.is_done, reader.failure) == ended


@pytest.mark.parametrize("flag", [3, 4])
def test_a_chunk_that_must_not_be_shown_is_not_returned(flag: int) -> None:
    reader = ChunkReader(EventLedger(), max_event_bytes=1 << 20)
    chunks = reader.feed(event("a") + event("bad", flag=flag) + event("c"))
    assert texts(chunks) == ["a"]
    assert isinstance(reader.failure, BlockedError)


def test_a_chunk_that_says_content_filter_is_returned_first() -> None:
    reader = ChunkReader(EventLedger(), max_event_bytes=1 << 20)
    [chunk] = reader.feed(event("a", finish_reason="content_filter"))
    assert chunk.finish_reason == "content_filter"
    assert isinstance(reader.failure, BlockedError)


UNFINISHED = {
    "a whole chunk": (event("b")[:-1], ["a", "b"]),
    "a whole chunk without any line end": (event("b")[:-2], ["a", "b"]),
    "half a chunk": (event("b")[:20], ["a"]),
    "half the end mark": (b"data: [DO", ["a"]),
    "a numbered chunk, which will be sent again": (b"id: 1\n" + event("b")[:-1], ["a"]),
}


@pytest.mark.parametrize("row", UNFINISHED.values(), ids=UNFINISHED.keys())
def test_the_last_event_counts_only_if_it_is_surely_whole(row: tuple[bytes, list[str]]) -> None:
    tail, expected = row
    chunks, failure, is_done = outcome([event("a") + tail])
    assert (texts(chunks), failure, is_done) == (expected, None, False)


def test_the_end_mark_counts_without_its_empty_line() -> None:
    assert outcome([event("a") + b"id: 9\n" + DONE[:-2]])[2]


def test_an_unfinished_error_of_a_numbered_stream_is_an_error() -> None:
    reader = ChunkReader(EventLedger(), max_event_bytes=1 << 20)
    reader.feed(b"id: 1\n" + event("a") + ERROR)
    assert reader.close() == []
    assert isinstance(reader.failure, ServerError)


def test_heartbeats_are_counted_and_ids_and_retry_are_noted() -> None:
    ledger = EventLedger()
    reader = ChunkReader(ledger, max_event_bytes=1 << 20)
    reader.feed(b": a\n\nretry: 50\n\nid: 7\n" + event("x") + b":\n")
    assert (reader.heartbeats, ledger.last_event_id, ledger.retry) == (2, "7", 50)
    reader.feed(b"id: 8\n\n")  # no event, but the standard has it count
    assert ledger.last_event_id == "8"


def test_what_was_read_before_is_left_out() -> None:
    ledger = EventLedger()
    reader = ChunkReader(ledger, max_event_bytes=1 << 20)
    first = [b"id: %d\n" % n + event(str(n)) for n in range(1, 6)]
    reader.feed(b"".join(first[:3]))
    ledger.begin_replay()
    again = ChunkReader(ledger, max_event_bytes=1 << 20)
    assert texts(again.feed(b"".join(first))) == ["4", "5"]


def test_events_of_one_form_are_read_alike_and_another_one_between_them_by_itself() -> None:
    other = event("b", finish_reason=None, flag=0)
    reader = ChunkReader(EventLedger(), max_event_bytes=1 << 20)
    packets = [event("a"), event("b") * 2, event("c") * 2 + other, event("d") + other, other * 2]
    told = [texts(reader.feed(packet)) for packet in packets]
    assert told == [["a"], ["b", "b"], ["c", "c", "b"], ["d", "b"], ["b", "b"]]
    assert texts(reader.feed(event("e")[:-9])) == []
    assert texts(reader.feed(event("e")[-9:] + event("f") + event("g")[:-9])) == ["e", "f"]
    assert texts(reader.feed(event("g")[-9:])) == ["g"]


@pytest.mark.parametrize(
    "between",
    [
        b"id: 4\n" + event("5") + event("6"),
        event("5")[:-1],
        b": ping\n\n",
        b"event: message\n",
        b"data: [DONE]\n\n",
        ERROR,
        b"",
    ],
)
def test_one_event_of_a_known_form_is_read_at_once_only_where_nothing_came_before_it(
    between: bytes,
) -> None:
    packets = [FIRST, event("1"), event("2"), event("3"), between, event("7"), event("8")]
    assert told(packets) == told([bytes([byte]) for byte in BOM + b"".join(packets)])


@pytest.mark.parametrize(
    "end", [b"", DONE, b"data: " + ERROR + b"\n\n", event("x", flag=1), b": heartbeat\n\n"]
)
def test_of_the_first_packet_all_after_the_first_event_is_read_alike(end: bytes) -> None:
    body = event("", role="x") + event("a") * 9 + end
    reader = ChunkReader(EventLedger(), max_event_bytes=1 << 20)
    chunks = reader.feed(body)
    # Those of one template have their names in common, those that were parsed have not.
    names = {id(chunk.model_fields_set) for chunk in chunks[1:10]}
    assert texts(chunks)[:10] == ["", *"aaaaaaaaa"]
    assert end or len(names) == 1
    assert outcome([body]) == outcome([body[i : i + 1] for i in range(len(body))])


def test_once_events_have_ids_one_of_a_known_form_is_noted_as_any_other() -> None:
    first, other = (event("a").replace(b"{", b'{"id":"as-%d",' % n, 1) for n in (1, 2))
    ledger = EventLedger()
    reader = ChunkReader(ledger, max_event_bytes=1 << 20)
    numbered = b"id: 4\n"
    assert len([reader.feed(packet) for packet in (first, first, numbered + other, first)]) == 4
    ledger.begin_replay()
    again = ChunkReader(ledger, max_event_bytes=1 << 20)
    assert again.feed(numbered + first) == []
    assert again.failure is None


def test_one_event_of_a_known_form_may_be_too_large_as_any_other() -> None:
    reader = ChunkReader(EventLedger(), max_event_bytes=len(event("a" * 9)))
    assert texts(reader.feed(FIRST) + reader.feed(event("1")) + reader.feed(event("a" * 9)))
    assert reader.failure is None
    assert reader.feed(event("a" * 12)) == []
    assert isinstance(reader.failure, DecodeError)


def test_an_event_without_data_says_nothing() -> None:
    body = event("a") + b"data: \n\ndata:\n\n" + event("b") + b"data:  [DONE]\n\n" + event("c")
    for packets in ([body], [body[n : n + 1] for n in range(len(body))]):
        chunks, failure, is_done = outcome(packets)
        assert (texts(chunks), failure, is_done) == (["a", "b"], None, True)
