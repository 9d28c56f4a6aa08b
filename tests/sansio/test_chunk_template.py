"""Chunks read by what they have in common are the chunks that a parser would make."""

import json
import pickle
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.sansio.chunk_reader import MAX_MISSES, ChunkReader
from ernie_async.sansio.chunk_template import ChunkTemplate, is_plain
from ernie_async.sansio.event_ids import EventLedger
from ernie_async.sansio.rest import read_chunk
from ernie_async.types.chunk import ChatChunk


def data(text: str, *, ascii_only: bool = False, **more: Any) -> bytes:
    delta = {"role": "assistant", "content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": None, "flag": 0}
    fields = {"id": "as-1", "created": 1760000000, "model": "ernie-5.1", "choices": [choice]}
    return json.dumps({**fields, **more}, ensure_ascii=ascii_only).encode()


def template(event: bytes | None = None) -> ChunkTemplate:
    event = data("量子") if event is None else event
    found = ChunkTemplate.of(event)
    assert found is not None
    return found


def packet(*events: bytes) -> bytes:
    return b"".join(b"data: " + event + b"\n\n" for event in events)


def read(event: bytes, *events: bytes) -> list[str]:
    """The texts that the template of the first event reads of it and the others, all or none."""
    whole = packet(event, *events)
    chunks, taken = template(event).read(whole)
    assert taken == (len(whole) if chunks else 0)
    return [chunk.text for chunk in chunks]


def sent(chunk: ChatChunk) -> tuple[set[str], ...]:
    choice = chunk.choices[0]
    return chunk.model_fields_set, choice.model_fields_set, choice.delta.model_fields_set


# Some are written with escapes, as they often are in Markdown.
TEXTS = st.text() | st.text('a\n"\\量')


@given(st.lists(TEXTS, min_size=1, max_size=5), st.booleans())
def test_whatever_the_texts_are_the_chunks_are_the_parsers(
    texts: list[str], ascii_only: bool
) -> None:
    events = [data(text, ascii_only=ascii_only) for text in texts]
    made, taken = template().read(packet(*events))
    parsed = [read_chunk(event) for event in events]
    assert taken == len(packet(*events))
    assert made == parsed
    assert [sent(chunk) for chunk in made] == [sent(chunk) for chunk in parsed]
    assert [c.model_dump_json() for c in made] == [c.model_dump_json() for c in parsed]
    assert pickle.loads(pickle.dumps(made)) == parsed
    assert [chunk.model_copy(deep=True) for chunk in made] == parsed
    for event, chunk in zip(events, parsed, strict=True):
        alone = template().read_one(packet(event))
        assert alone is None or alone == [chunk]


@pytest.mark.parametrize("text", ["x\ny", 'say "x"', "C:\\", "\t", "| a |\n|---|\n"])
def test_a_text_with_escapes_is_read_alone_and_makes_a_template(text: str) -> None:
    event = data(text)
    for known in template(), template(event):
        assert known.read_one(packet(event)) == [read_chunk(event)]
        assert known.read(packet(event))[0].texts == [text]


def test_chunks_share_no_field_that_could_be_changed() -> None:
    one, other = template().read(packet(data("a"), data("b")))[0]
    assert one.model_extra is not other.model_extra
    assert one.choices is not other.choices
    assert one.model_copy(update={"usage": None}).model_fields_set is not other.model_fields_set


def test_names_of_fields_are_kept_once_for_all_streams() -> None:
    """They are a twentieth of what an open stream holds."""
    [one], [other] = (template(data(text)).read(packet(data(text)))[0] for text in "ab")
    assert [*map(id, sent(one))] == [*map(id, sent(other))]
    event = data("a", object="chat.completion.chunk")
    [more] = template(event).read(packet(event))[0]
    assert more.model_fields_set == {*one.model_fields_set, "object"}


@pytest.mark.parametrize(
    "other",
    [
        data("x", created=1760000001),
        data("x", usage={"total_tokens": 1}),
        data("x").replace(b'"x"', b'"\\x"'),
        data("x").replace(b'"x"', b'"\\ud800"'),
        data("x").replace(b'"x"', b'"\\n\t"'),
        data("x").replace(b'"x"', b'"x\\"'),
        data("x").replace(b'"x"', b'"\\n","content":"x"'),
        data("x").replace(b'"x"', b'"\xff"'),
        data("x").replace(b'"x"', b'"\t"'),
        data("x") + b" ",
        data("x")[:-1],
        data("x").replace(b'"x"', b'"'),
        b"[DONE]",
        b"",
    ],
)
def test_an_event_of_another_form_is_left_to_the_parser(other: bytes) -> None:
    chunks, taken = template().read(packet(data("a"), other))
    assert ([chunk.text for chunk in chunks], taken) in [(["a"], len(packet(data("a")))), ([], 0)]
    assert template().read(packet(other)) == ([], 0)
    assert template().read(packet(other, data("a"))) == ([], 0)
    assert template().read(packet(data("a"), other, data("a"))) == ([], 0)
    assert template().read_one(packet(other)) is None


def test_an_event_of_another_form_at_the_end_leaves_those_before_it() -> None:
    alike = packet(data("a"), data("b"))
    end = packet(data("", usage={"total_tokens": 1}), b"[DONE]")
    chunks, taken = template().read(alike + end)
    assert ([chunk.text for chunk in chunks], taken) == (["a", "b"], len(alike))


def test_whether_the_first_event_fits_is_told_without_reading_it() -> None:
    assert template().fits(packet(data("a"), b"[DONE]"))
    assert template().fits(packet(data("x\ny")))
    assert not template().fits(packet(data("x", usage={"total_tokens": 1}), data("a")))
    assert not template().fits(packet(b"[DONE]", data("a")))


def test_one_event_is_read_as_several_are() -> None:
    assert template().read_one(packet(data("a"))) == template().read(packet(data("a")))[0]
    assert template().read_one(packet(data("a"), data("b"))) is None
    for cut in range(1, len(packet(data("a")))):
        assert template().read_one(packet(data("a"))[cut:]) is None
        assert template().read_one(packet(data("a"))[:-cut]) is None


def test_other_bytes_around_events_are_left_to_the_decoder() -> None:
    whole = packet(data("a"), data("b"))
    for cut in range(1, len(whole)):
        assert template().read(whole[cut:]) == ([], 0) or cut == len(whole) // 2
    assert template().read(b": heartbeat\n\n" + whole) == ([], 0)
    assert template().read(packet(data("a")) + b": heartbeat\n\n" + packet(data("b"))) == ([], 0)
    assert template().read(b"") == ([], 0)


@pytest.mark.parametrize(
    "event",
    [
        data("x", usage={"total_tokens": 1}),
        data("x", x_new=1),
        data("x").replace(b'"flag": 0', b'"flag": 1'),
        data("x").replace(b'"finish_reason": null', b'"finish_reason": "stop"'),
        data("x").replace(b'"index": 0', b'"index": 1'),
        data(""),
        # It is found before it is read, and is no JSON then.
        data("x")[:-1],
        b'{"choices":[{"delta":{"content":"x"},}]}',
        # Another thing of the same name comes first; of two the last one holds.
        data("x").replace(b'"role": "assistant"', b'"content": "y"'),
        data("x").replace(b'"id"', b'"content": "y", "id"'),
    ],
)
def test_no_template_is_made_of_what_is_not_plain(event: bytes) -> None:
    assert ChunkTemplate.of(event) is None


def test_the_hole_is_where_the_parser_finds_the_text() -> None:
    # The text stands in other places, too, and behind it.
    for event in data("assistant"), data("as-1", object="as-1"), data("content", object="x"):
        assert read(event) == [read_chunk(event).text]
    compact = data("x").replace(b": ", b":").replace(b", ", b",")
    assert read(compact, compact) == ["x", "x"]


def stream(texts: list[str], **more: Any) -> bytes:
    return packet(*(data(text, **more) for text in texts))


@given(
    st.lists(st.sampled_from(["量子", "a", "\n", '"', "é", "😀", ""]), max_size=30),
    st.lists(st.integers(0, 10_000), max_size=12),
)
def test_a_stream_reads_the_same_however_it_is_cut(texts: list[str], places: list[int]) -> None:
    body = stream(texts)
    cuts = sorted({0, len(body), *(place % (len(body) + 1) for place in places)})
    reader = ChunkReader(EventLedger(), max_event_bytes=1 << 20)
    chunks = [c for a, b in pairwise(cuts) for c in reader.feed(body[a:b])]
    assert reader.failure is None
    assert chunks == [read_chunk(data(text)) for text in texts]


def test_a_stream_whose_events_all_differ_stops_trying() -> None:
    reader = ChunkReader(EventLedger(), max_event_bytes=1 << 20)
    for n in range(3 * MAX_MISSES):
        assert reader.feed(packet(data("x", created=n)))[0].created == n
    last = reader._template
    assert reader.feed(packet(data("x", created=-1)))[0].created == -1
    assert reader._template is last


def test_a_text_alone_is_plain_and_news_is_not() -> None:
    assert is_plain(read_chunk(data("x")))
    assert not is_plain(read_chunk(data("x", x_new=1)))
    assert not is_plain(read_chunk(b'{"choices":[]}'))
