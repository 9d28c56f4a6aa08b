"""Numbered events: nothing is lost, told twice, or shown after it was taken back."""

import gc
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async import ConfigError
from ernie_async.sansio.replay import (
    AnswerLog,
    Cursor,
    StreamEvent,
    encode_events,
    merge_deltas,
    read_cursor,
)
from ernie_async.sansio.sse import EventDecoder

EPOCH = "a-b_C9zz"


def log_of(*texts: str, **limits: int) -> AnswerLog:
    log = AnswerLog("st_1", EPOCH, **limits)
    log.append("start", {"stream_id": "st_1"})
    for text in texts:
        log.append("delta", {"text": text, "index": 0})
    return log


def text_of(events: list[StreamEvent], shown: str = "") -> str:
    for event in events:
        if event.kind == "delta":
            shown += event.payload.get("text", "")
        elif event.kind == "reset":
            shown = event.payload["text"]
        elif event.kind == "retract":
            told = event.payload
            end = told.get("to_char", len(shown))
            shown = shown[: told["from_char"]] + told["replacement"] + shown[end:]
    return shown


def test_ids_are_read_as_they_are_written() -> None:
    assert read_cursor(f"{EPOCH}-17") == Cursor(EPOCH, 17)
    assert read_cursor(None) is None
    assert read_cursor("") is None


@pytest.mark.parametrize(
    "text", ["17", "abc-1", f"{EPOCH}-0", f"{EPOCH}-", f"{EPOCH}-1x", f"{EPOCH}-01", " ", "é" * 9]
)
def test_other_ids_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="Last-Event-ID"):
        read_cursor(text)


def test_frame_has_its_fields_in_order_and_one_line_of_data() -> None:
    event = StreamEvent(3, "delta", {"text": "a\nb\r\n量", "index": 0})
    frame = encode_events(EPOCH, [event]).decode()
    head, data, *rest = frame.split("\ndata: ")
    assert head == f"id: {EPOCH}-3\nevent: delta"
    assert rest == []
    assert data.endswith("\n\n")
    assert "\n" not in data[:-2]
    assert json.loads(data) == event.payload
    (decoded,) = EventDecoder().feed(frame.encode())
    assert (decoded.id, decoded.event) == (f"{EPOCH}-3", "delta")


@given(st.lists(st.text(min_size=1), max_size=30), st.integers(0, 40))
def test_replay_from_anywhere_gives_the_whole_text(texts: list[str], read: int) -> None:
    log = log_of(*texts)
    read = min(read, log.last_seq)
    before = log.catch_up(None)[:read]
    after = log.catch_up(Cursor(EPOCH, read) if read else None)
    assert [event.seq for event in before + after] == list(range(1, log.last_seq + 1))
    assert text_of(before + after) == "".join(texts)


@given(
    st.lists(st.text(min_size=1, max_size=5), max_size=30), st.integers(1, 8), st.integers(0, 31)
)
def test_what_fell_out_of_the_window_comes_as_one_reset(
    texts: list[str], kept: int, read: int
) -> None:
    log = log_of(*texts, max_events=kept)
    log.append("done", {"cancelled": False})
    read = min(read, log.last_seq - 1)
    shown = "".join(texts)[: len("".join(texts[: max(0, read - 1)]))]
    events = log.catch_up(Cursor(EPOCH, read) if read else None)
    assert text_of(events, shown) == "".join(texts)
    assert events[-1].kind == "done"
    assert [event.seq for event in events] == sorted(event.seq for event in events)
    assert sum(event.kind == "reset" for event in events) == (
        read + 1 < log.last_seq - kept + 1 and read < log.last_seq
    )


@given(
    st.lists(
        st.one_of(
            st.builds(lambda text: ("delta", {"text": text, "index": 0}), st.text(max_size=5)),
            st.builds(lambda text: ("delta", {"reasoning": text, "index": 0}), st.text(max_size=5)),
            st.just(("tool_call", {"index": 0, "arguments_delta": "{"})),
            st.just(("usage", {"total_tokens": 7})),
        ),
        max_size=20,
    ),
    st.integers(0, 20),
)
def test_what_is_kept_comes_back_as_it_was(
    told: list[tuple[str, dict[str, object]]], read: int
) -> None:
    log = AnswerLog("st_1", EPOCH)
    events = [log.append(kind, payload) for kind, payload in told]
    assert log.n_bytes == sum(event.size for event in events)
    read = min(read, len(events))
    assert log.catch_up(Cursor(EPOCH, read) if read else None) == events[read:]


def test_the_garbage_collector_does_not_come_back_to_kept_texts() -> None:
    gc.collect()
    before = len(gc.get_objects())
    log = log_of(*(f"{number}" for number in range(1000)))
    gc.collect()
    assert len(gc.get_objects()) - before < 50
    assert log.last_seq == 1001


def test_cursor_of_another_epoch_gets_a_reset() -> None:
    (event,) = log_of("a", "b").catch_up(Cursor("xxxxxxxx", 2))
    assert event == StreamEvent(3, "reset", {"text": "ab"})


def test_cursor_from_the_future_gets_a_reset() -> None:
    (event,) = log_of("a").catch_up(Cursor(EPOCH, 99))
    assert event.kind == "reset"


def test_end_is_seen() -> None:
    log = log_of("a")
    assert not log.has_seen_all(Cursor(EPOCH, 2))
    log.append("done", {"cancelled": True})
    assert log.has_seen_all(Cursor(EPOCH, 3))
    assert not log.has_seen_all(None)
    assert log.status == "cancelled"
    assert not log.add(StreamEvent(4, "delta", {"text": "x", "index": 0}))


def test_taken_back_text_is_never_replayed() -> None:
    log = log_of("good ", "secret", " more")
    log.append("retract", {"from_char": 5, "to_char": 11, "replacement": "*", "reason": "x"})
    log.append("delta", {"text": "!", "index": 0})
    for seq in range(4):
        events = log.catch_up(Cursor(EPOCH, seq) if seq else None)
        assert "secret" not in repr(events)
        assert text_of(events) == "good * more!"
    assert [event.kind for event in log.catch_up(None)] == ["start", "reset"]
    # Who has seen it is told to take it back.
    assert [event.kind for event in log.catch_up(Cursor(EPOCH, 4))] == ["retract", "delta"]
    assert log.snapshot()["text"] == "good * more!"


def test_everything_can_be_taken_back() -> None:
    log = log_of("secret")
    log.append("delta", {"reasoning": "secret", "index": 0})
    log.append("retract", {"from_char": 0, "replacement": "", "reason": "x"})
    log.append("error", {"code": "content_filter"})
    assert "secret" not in repr(log.catch_up(None))
    assert (log.text, log.reasoning, log.status) == ("", "", "error")


def test_events_of_elsewhere_are_taken_in_order_and_once() -> None:
    log = AnswerLog("st_1", EPOCH)
    first, second = StreamEvent(1, "start", {}), StreamEvent(2, "delta", {"text": "a", "index": 0})
    assert [log.add(event) for event in (second, first, first, second)] == [
        False,
        True,
        False,
        True,
    ]
    assert log.text == "a"


@given(st.lists(st.tuples(st.sampled_from(["text", "reasoning", "tool"]), st.text(max_size=3))))
def test_merging_keeps_order_text_and_last_number(parts: list[tuple[str, str]]) -> None:
    events = [
        StreamEvent(n, "tool_call", {"index": 0})
        if name == "tool"
        else StreamEvent(n, "delta", {name: text, "index": 0})
        for n, (name, text) in enumerate(parts, 1)
    ]
    merged = merge_deltas(events)
    for name in ("text", "reasoning"):
        assert "".join(event.payload.get(name, "") for event in merged) == "".join(
            text for kind, text in parts if kind == name
        )
    assert [event.seq for event in merged] == sorted(event.seq for event in merged)
    assert merged[-1:] == [] or merged[-1].seq == len(parts)
    kinds = [next(iter(event.payload), "") if event.kind == "delta" else "" for event in merged]
    assert all(a != b or not a for a, b in itertools.pairwise(kinds))


def test_window_is_bounded_in_bytes() -> None:
    log = log_of(*["字" * 100] * 1000, max_bytes=10_000)
    assert log.n_bytes <= 10_000
    assert log.text == "字" * 100_000


def test_who_is_within_the_window_gets_what_is_missing_and_no_more() -> None:
    log = log_of(*"abcdef", max_events=3)
    told = {seq: log.catch_up(Cursor(EPOCH, seq)) for seq in range(1, 9)}
    assert [[event.seq for event in events] for events in told.values()] == [
        [7], [7], [7], [5, 6, 7], [6, 7], [7], [], [7],
    ]  # fmt: skip
    assert [seq for seq, events in told.items() if events and events[0].kind == "reset"] == [
        1, 2, 3, 8,
    ]  # fmt: skip


def test_the_newest_event_is_kept_however_large_it_is() -> None:
    log = log_of("a" * 1000, max_bytes=100)
    [event] = log.catch_up(Cursor(EPOCH, 1))
    assert (event.kind, event.payload["text"]) == ("delta", "a" * 1000)
    assert log.n_bytes > 100
    log.append("delta", {"text": "b", "index": 0})
    assert log.catch_up(Cursor(EPOCH, 1))[0].kind == "reset"
    assert log.n_bytes < 100


def test_a_reset_tells_the_thinking_too() -> None:
    elsewhere = Cursor("otherone", 1)
    log = log_of("text")
    [reset] = log.catch_up(elsewhere)
    assert reset.payload == {"text": "text"}
    for thought in ("h", "m"):
        log.append("delta", {"reasoning": thought, "index": 0})
    [reset] = log.catch_up(elsewhere)
    assert (reset.kind, reset.payload) == ("reset", {"text": "text", "reasoning": "hm"})


def test_an_answer_that_failed_says_why() -> None:
    log = log_of("half")
    log.append("usage", {"total_tokens": 3})
    assert log.status == "running", "that is no end"
    fault = {"code": "upstream_error", "message": "broken", "retryable": True}
    log.append("error", fault)
    told = log.snapshot()
    assert (told["status"], told["text"], told["error"]) == ("error", "half", fault)
    assert "error" not in log_of("half").snapshot()
    assert not log.add(StreamEvent(log.last_seq + 1, "delta", {"text": "more", "index": 0}))
    assert log.text == "half"


def test_text_of_many_pieces_is_whole() -> None:
    pieces = [str(n) for n in range(1000)]
    log = log_of(*pieces, max_events=10)
    assert log.text == "".join(pieces)


def test_thinking_is_taken_back_by_itself_and_all_of_it_together() -> None:
    log = log_of("text")
    log.append("delta", {"reasoning": "thought", "index": 0})
    told = {"channel": "reasoning", "from_char": 1, "to_char": 6, "replacement": "*"}
    log.append("retract", told)
    assert (log.text, log.reasoning) == ("text", "t*t")
    log.append("retract", {**told, "channel": "content"})
    assert (log.text, log.reasoning) == ("t*", "t*t")
    log.append("retract", {"from_char": 0, "replacement": "gone"})
    assert (log.text, log.reasoning) == ("gone", "")


def test_neighbours_become_one_event_with_the_number_of_the_last() -> None:
    told = [("text", "a"), ("text", "b"), ("reasoning", "c"), ("text", "d"), ("text", "e")]
    events = [StreamEvent(n, "delta", {name: text, "index": 0}) for n, (name, text) in
              enumerate(told, 1)]  # fmt: skip
    call = StreamEvent(6, "tool_call", {"index": 0, "arguments_delta": "{"})
    merged = merge_deltas([*events, call, *(event._replace(seq=event.seq + 6) for event in events)])
    assert [(event.seq, *event.payload.values()) for event in merged] == [
        (2, "ab", 0), (3, "c", 0), (5, "de", 0), (6, 0, "{"), (8, "ab", 0), (9, "c", 0),
        (11, "de", 0),
    ]  # fmt: skip
    assert merge_deltas([]) == []
    assert merge_deltas(events[:1]) == events[:1]
