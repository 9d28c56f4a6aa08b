"""Bytes to events and back: the WHATWG rules, sizes, and indifference to how the bytes are cut."""

import re
from itertools import pairwise
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.errors import DecodeError
from ernie_async.sansio.sse import BARE_JSON, EventDecoder, ServerSentEvent, encode_event

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").rglob("*.sse"))
BOM = b"\xef\xbb\xbf"


def decode(*packets: bytes, **settings: int) -> list[ServerSentEvent]:
    decoder = EventDecoder(**settings)
    return [event for packet in packets for event in decoder.feed(packet)]


def decode_all(*packets: bytes) -> tuple[Any, ...]:
    """Everything a decoder can tell about a stream, the unfinished end included."""
    decoder = EventDecoder()
    events = [event for packet in packets for event in decoder.feed(packet)]
    last = decoder.close()
    told = (decoder.last_event_id, decoder.retry, decoder.comments)
    return events, last, *told


def of_the_standard(events: list[ServerSentEvent]) -> list[ServerSentEvent]:
    return [event for event in events if event.event != BARE_JSON]


def decode_by_the_letter(stream: bytes) -> list[ServerSentEvent]:
    """The algorithm of the WHATWG standard, section 9.2.6, on a whole stream, as slow as it is."""
    events = []
    data, kind, event_id = b"", "", ""
    lines = re.split(b"\r\n|\n|\r", stream.removeprefix(BOM))
    for line in lines[:-1]:  # the last one has no end
        if not line:
            if data:
                events.append(ServerSentEvent(data[:-1], kind, event_id))
            data, kind = b"", ""
            continue
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data += value + b"\n"
        elif name == b"event":
            kind = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            event_id = value.decode("utf-8", "replace")
    return events


@pytest.mark.parametrize(
    ("stream", "data"),
    {
        "one event": (b"data: a\n\n", [b"a"]),
        "two events": (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        "carriage returns": (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        "both": (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        "a mixture": (b"data: a\n\r\ndata: b\r\n\ndata: c\r\n\r", [b"a", b"b", b"c"]),
        "several data lines": (b"data: a\ndata: b\r\ndata: c\n\n", [b"a\nb\nc"]),
        "no space after the colon": (b"data:a\n\n", [b"a"]),
        "two spaces after the colon": (b"data:  a\n\n", [b" a"]),
        "a tab after the colon": (b"data:\ta\n\n", [b"\ta"]),
        "a space at the end": (b"data: {} \n\n", [b"{} "]),
        "empty data": (b"data:\n\n", [b""]),
        "empty data, without a colon": (b"data\n\n", [b""]),
        "two empty data lines": (b"data\ndata\n\n", [b"\n"]),
        "more empty lines": (b"\n\ndata: a\n\n\n\ndata: b\n\n\n", [b"a", b"b"]),
        "only an event type": (b"event: x\n\ndata: a\n\n", [b"a"]),
        "only comments": (b": ping\n\n:\n\n", []),
        "a comment inside an event": (b"data: a\n: ping\ndata: b\n\n", [b"a\nb"]),
        "a field nobody knows": (b"datas: a\ndata: b\nDATA: c\n data: d\n\n", [b"b"]),
        "an unfinished event": (b"data: a\n\ndata: b\n", [b"a"]),
        "an unfinished line": (b"data: a\n\ndata: b", [b"a"]),
        "a byte order mark": (BOM + b"data: a\n\n", [b"a"]),
        "a second byte order mark": (BOM + BOM + b"data: a\n\ndata: b\n\n", [b"b"]),
        "a late byte order mark": (b"data: a\n\n" + BOM + b"data: b\n\n", [b"a"]),
        "Unicode's own line ends": (
            "data: a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\n\n".encode(),
            ["a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg".encode()],
        ),
        "invalid UTF-8": (b"data: \xff\xe4\xbd\n\n", [b"\xff\xe4\xbd"]),
        "colons in the data": (b"data: a: b:c\n\n", [b"a: b:c"]),
        "a null byte": (b"data: \0\n\n", [b"\0"]),
    }.values(),
)
def test_data_comes_out_as_the_standard_says(stream: bytes, data: list[bytes]) -> None:
    assert [event.data for event in decode(stream)] == data
    assert [event.data for event in decode_by_the_letter(stream)] == data


def test_carriage_return_and_line_feed_in_two_packets_are_one_line_end() -> None:
    assert decode(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n") == [ServerSentEvent(b"a\nb")]


def test_id_and_data_in_two_packets_belong_together() -> None:
    assert decode(BOM, b"data: a\n\nid: 1\n", b"data: b\n\n", b"event: x\n", b"data: c\n\n") == [
        ServerSentEvent(b"a"),
        ServerSentEvent(b"b", id="1"),
        ServerSentEvent(b"c", "x", "1"),
    ]


def test_carriage_return_ends_a_line_at_once() -> None:
    decoder = EventDecoder()
    decoder.feed(b"data: a\r")
    assert decoder.feed(b"\r") == [ServerSentEvent(b"a")]


@pytest.mark.parametrize("at", [1, 2, 3])
def test_byte_order_mark_may_be_cut(at: int) -> None:
    stream = BOM + b"data: a\n\n"
    assert decode(stream[:at], stream[at:]) == [ServerSentEvent(b"a")]


def test_byte_order_mark_is_not_taken_for_data_when_no_line_ever_ends() -> None:
    decoder = EventDecoder()
    assert decoder.feed(BOM[:2]) == decoder.feed(BOM[2:] + b"data: a") == []
    assert decoder.close() == ServerSentEvent(b"a")


def test_event_type_holds_for_one_event() -> None:
    assert decode(b"event: x\ndata: a\n\ndata: b\n\nevent: y\n\ndata: c\n\n") == [
        ServerSentEvent(b"a", "x"),
        ServerSentEvent(b"b"),
        ServerSentEvent(b"c"),
    ]


def test_id_holds_until_the_next_one() -> None:
    assert decode(b"id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n") == [
        ServerSentEvent(b"a", id="1"),
        ServerSentEvent(b"b", id="1"),
        ServerSentEvent(b"c"),
    ]


def test_block_with_only_an_id_is_remembered() -> None:
    decoder = EventDecoder()
    assert decoder.feed(b"id: 7\n\n") == []
    assert decoder.last_event_id == "7"


def test_id_with_a_null_byte_is_ignored() -> None:
    decoder = EventDecoder()
    decoder.feed(b"id: 1\n\nid: 2\0\n\n")
    assert decoder.last_event_id == "1"


@pytest.mark.parametrize("cut", [b"id: 2\n", b"id: 2\ndata: b\n", b"id: 2\ndata: b"])
def test_id_of_an_event_that_was_cut_off_does_not_count(cut: bytes) -> None:
    """Asked to go on after it, the server would leave out what was never delivered."""
    decoder = EventDecoder()
    decoder.feed(b"id: 1\ndata: a\n\n" + cut)
    decoder.close()
    assert decoder.last_event_id == "1"


@pytest.mark.parametrize(
    ("line", "retry"),
    [
        (b"retry: 1500", 1500),
        (b"retry:0", 0),
        (b"retry: -1", None),
        (b"retry: 1.5", None),
        (b"retry: ", None),
        (b"retry: 5s", None),
        ("retry: ٣".encode(), None),
        (b"retry: " + b"9" * 5000, None),
    ],
)
def test_retry_takes_digits_only(line: bytes, retry: int | None) -> None:
    decoder = EventDecoder()
    decoder.feed(line + b"\n\n")
    assert decoder.retry == retry


def test_comments_are_counted() -> None:
    decoder = EventDecoder()
    decoder.feed(b": keep-alive\n\n:\n: OPENROUTER PROCESSING\n\ndata: a\n\n")
    assert decoder.comments == 3


def test_json_outside_any_field_is_an_event() -> None:
    error = b'{"error": {"code": "x"}}'
    events = decode(b"data: a\n\n" + error + b"\ndata: b\n\n")
    assert [event.data for event in events] == [b"a", error, b"b"]


def test_json_outside_any_field_is_an_event_without_a_line_end() -> None:
    decoder = EventDecoder()
    decoder.feed(b'data: a\n\n{"error": 1}')
    assert decoder.close() == ServerSentEvent(b'{"error": 1}', BARE_JSON)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r"])
def test_close_hands_out_the_unfinished_event(end: bytes) -> None:
    decoder = EventDecoder()
    assert decoder.feed(b"event: x\ndata: a\ndata: b" + end) == []
    assert decoder.close() == ServerSentEvent(b"a\nb", "x")
    assert decoder.close() is None


def in_packets(stream: bytes, size: int) -> list[bytes]:
    return [stream[at : at + size] for at in range(0, len(stream), size)]


each_line = pytest.mark.parametrize("start", [b"data: ", b": ", b"id: ", b"{"])
each_size = pytest.mark.parametrize("size", [1, 7, 1000])


@each_line
@each_size
def test_line_of_the_largest_size_passes(start: bytes, size: int) -> None:
    decode(*in_packets(start.ljust(100, b"x") + b"\n\n", size), max_event_bytes=100)


@each_line
@each_size
def test_line_one_byte_larger_is_an_error(start: bytes, size: int) -> None:
    with pytest.raises(DecodeError, match="100 bytes") as caught:
        decode(*in_packets(start.ljust(101, b"x") + b"\n\n", size), max_event_bytes=100)
    assert caught.value.body


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_event_of_many_lines_has_the_same_limit(size: int) -> None:
    def fed(n_lines: int) -> list[ServerSentEvent]:
        stream = b"data: 4567\n" * n_lines + b"\n"
        return decode(*in_packets(stream, size), max_event_bytes=100)

    assert fed(10) == [ServerSentEvent(b"\n".join([b"4567"] * 10))]
    with pytest.raises(DecodeError):
        fed(11)


def test_line_that_never_ends_is_an_error_before_it_fills_the_memory() -> None:
    decoder = EventDecoder(max_event_bytes=1000)
    with pytest.raises(DecodeError):
        for _ in range(1001):
            decoder.feed(b"x")


def test_line_of_five_megabytes_is_decoded() -> None:
    line = b"data: " + b"x" * 5_000_000 + b"\n\n"
    assert [len(event.data) for event in decode(*in_packets(line, 65_536))] == [5_000_000]


@pytest.mark.parametrize("start", [b"\ndata: ", b"data: a\ndata: ", b"event: x\ndata: ", b": "])
def test_time_grows_with_the_length_of_a_line_and_not_with_its_square(start: bytes) -> None:
    def seconds(size: int) -> float:
        decoder = EventDecoder(max_event_bytes=100_000_000)
        decoder.feed(start)
        packet = b"x" * 1024
        began = process_time()
        for _ in range(size // 1024):
            decoder.feed(packet)
        decoder.feed(b"\n\n")
        return process_time() - began

    # A factor of 16 in size: 16 in time if linear, 256 if quadratic.
    short = min(seconds(250_000) for _ in range(5))
    long = min(seconds(4_000_000) for _ in range(3))
    assert long < 60 * short


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_recorded_stream_is_the_same_split_at_every_byte(path: Path) -> None:
    stream = path.read_bytes()
    whole = decode_all(stream)
    assert whole[0]
    assert of_the_standard(whole[0]) == decode_by_the_letter(stream)
    assert decode_all(*(stream[at : at + 1] for at in range(len(stream)))) == whole
    for at in range(1, len(stream)):
        assert decode_all(stream[:at], stream[at:]) == whole


EVERYTHING = "".join(
    line.replace("|", end)
    for end in ("\n", "\r\n", "\r")
    for line in (
        "id: 1|event: x|data: 光合|data|: ping|data:b||",
        "data: c||data: d|||id: 2|data: e||",
        "retry: 5||id||{}|data: \u2028||",
    )
).encode()


def test_stream_with_everything_in_it_is_the_same_cut_at_any_two_places() -> None:
    stream = BOM + EVERYTHING
    whole = decode_all(stream)
    assert of_the_standard(whole[0]) == decode_by_the_letter(stream)
    for size in range(1, len(stream)):
        assert decode_all(*in_packets(stream, size)) == whole
    for first in range(len(stream)):
        for second in range(first, len(stream), 7):
            packets = (stream[:first], stream[first:second], stream[second:])
            assert decode_all(*packets) == whole


line_ends = st.sampled_from([b"\n", b"\r", b"\r\n"])
scraps = st.sampled_from(
    [b"", b" ", b"a", b"  b", b":", "光合".encode(), "\u2028\u2029\u0085".encode(), BOM, b"\0",
     b"\xff\xe4", b"123", b'{"a": 1}', b"[DONE]", b"x" * 50]
)  # fmt: skip
values = st.lists(scraps, max_size=3).map(b"".join)
names = [b"data", b"data", b"data", b"event", b"id", b"id", b"retry", b"", b"dat", b"{"]
fields = st.sampled_from(names)
lines = st.one_of(
    st.tuples(fields, st.sampled_from([b":", b": ", b""]), values).map(b"".join),
    st.just(b""),
    st.just(b""),
)
streams = st.tuples(
    st.sampled_from([b"", BOM, BOM[:2]]),
    st.lists(st.tuples(lines, line_ends).map(b"".join), max_size=12).map(b"".join),
    lines,
).map(b"".join)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(at % (len(stream) + 1) for at in places), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]


@given(streams)
def test_any_stream_is_read_as_the_standard_says(stream: bytes) -> None:
    assert of_the_standard(decode(stream)) == decode_by_the_letter(stream)


@given(streams, st.lists(st.integers(0, 10_000), max_size=20))
def test_cutting_a_stream_anywhere_changes_nothing(stream: bytes, places: list[int]) -> None:
    assert decode_all(*cut(stream, places)) == decode_all(stream)


words = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]))


@given(
    st.binary().filter(lambda data: b"\r" not in data),
    words,
    words,
    st.lists(st.integers(0, 10_000), max_size=5),
)
def test_what_is_encoded_is_decoded_again(
    data: bytes, event: str, event_id: str, places: list[int]
) -> None:
    stream = encode_event(data, event=event, event_id=event_id)
    assert decode(*cut(stream, places)) == [ServerSentEvent(data, event, event_id)]


def test_encoded_carriage_returns_become_line_feeds() -> None:
    assert decode(encode_event(b"a\rb\r\nc")) == [ServerSentEvent(b"a\nb\nc")]


@pytest.mark.parametrize("field", ["event", "event_id"])
@pytest.mark.parametrize("odd", ["\n", "\r", "\0"])
def test_a_line_break_in_a_field_is_refused(field: str, odd: str) -> None:
    with pytest.raises(ValueError, match="expected text of one line"):
        encode_event(b"a", **{field: f"a{odd}b"})  # type: ignore[arg-type]


def test_an_event_that_is_too_large_ends_the_stream_for_good() -> None:
    decoder = EventDecoder(max_event_bytes=20)
    assert [event.data for event in decoder.feed(b"data: a\n\ndata: " + b"b" * 30)] == [b"a"]
    for _ in range(2):
        with pytest.raises(DecodeError, match="more than 20 bytes"):
            decoder.feed(b"data: c\n\n")


def test_somebody_else_may_read_whole_events_and_the_rest_waits() -> None:
    decoder = EventDecoder()
    known: list[bytes] = []

    def read(events: bytes) -> tuple[list[bytes], int]:
        known.append(events)
        size = events.find(b"data: odd") if b"odd" in events else len(events)
        return [events[:size]] if size else [], size

    assert decoder.feed_through(b"data: a\n\n", read) == ([], b"data: a\n\n"), "at the start"
    decoder.feed(b"data: a\n\n")
    assert decoder.feed_through(b"data: b\n\ndata: c", read) == ([b"data: b\n\n"], b"")
    assert decoder.feed_through(b"d", read) == ([], b"d"), "no event is complete"
    assert decoder.feed(b"d") == []
    assert decoder.feed_through(b"\n\n", read) == ([b"data: cd\n\n"], b"")
    assert decoder.feed_through(b"data: odd\n\n", read) == ([], b"data: odd\n\n")
    assert [event.data for event in decoder.feed(b"data: odd\n\n")] == [b"odd"]
    known.clear()
    assert decoder.feed(b"dat") == []
    taken, rest = decoder.feed_through(b"a: e\n\ndata: odd\n\ndata: f", read)
    assert (taken, rest) == ([b"data: e\n\n"], b"data: odd\n\ndata: f")
    assert [event.data for event in decoder.feed(rest + b"\n\n")] == [b"odd", b"f"]
    assert known == [b"data: e\n\ndata: odd\n\n"]


def test_nobody_else_reads_events_that_may_be_too_large() -> None:
    decoder = EventDecoder(max_event_bytes=20)
    decoder.feed(b"data: a\n\n")
    packet = b"data: b\n\n" * 3
    assert decoder.feed_through(packet, lambda events: ([events], len(events))) == ([], packet)
    assert [event.data for event in decoder.feed(packet)] == [b"b"] * 3


def test_an_event_that_is_cut_in_its_fields_name_is_plain_too() -> None:
    for cut in range(len(b"data: b")):
        decoder = EventDecoder()
        packet = b"data: a\n\ndata: b\n\n"
        decoder.feed(packet[: 9 + cut])
        assert decoder.feed_plain(packet[9 + cut :]) == [b"b"]
