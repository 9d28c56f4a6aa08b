"""Chunks to one answer."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.errors import APIError
from ernie_async.sansio.accumulate import JOIN_AFTER, Accumulator
from ernie_async.sansio.chunk_template import ChunkTemplate
from ernie_async.sansio.rest import read_chunk
from ernie_async.sansio.sse import EventDecoder
from ernie_async.types.chunk import ChatChunk
from ernie_async.types.usage import Usage

FIXTURES = Path(__file__).parents[1] / "fixtures"

WEATHER = {
    "id": "call_0",
    "type": "function",
    "function": {"name": "get_current_weather", "arguments": '{"location":"上海"}'},
}

# Text, thinking text, tool calls, finish reason, and prompt, completion and total tokens.
STREAMS: dict[str, tuple[str, str, list[Any], str | None, tuple[int, int, int] | None]] = {
    "chat_v2/stream_crlf_synthetic": ("好", "", [], "stop", None),
    "chat_v2/stream_keepalive_comment_synthetic": ("好", "", [], "stop", None),
    "chat_v2/stream_midstream_error_bare_json_synthetic": ("前半", "", [], None, None),
    "chat_v2/stream_midstream_error_data_synthetic": ("前半", "", [], None, None),
    "chat_v2/stream_minimal_chunks_gateway": ("经济文字", "", [], None, None),
    "chat_v2/stream_reasoning_qwen3_32b": ("", "好的", [], "stop", (17, 253, 270)),
    "chat_v2/stream_sdk_mock_ernie": ("part0part1part2", "", [], None, (2, 0, 2)),
    "chat_v2/stream_search_results_synthetic": ("上海多云^[1]^。", "", [], "stop", (20, 9, 1049)),
    "chat_v2/stream_text_qwen3_32b": ("你好", "", [], "stop", (13, 12, 25)),
    "chat_v2/stream_tool_calls_synthetic": ("", "", [WEATHER], "tool_calls", (312, 24, 336)),
    "chat_v2/stream_truncated_mid_line_synthetic": ("前半", "", [], None, None),
    "chat_v2/stream_truncated_no_done_synthetic": ("前半句话", "", [], None, None),
    "chat_v2/stream_usage_separate_chunk_synthetic": ("你好", "", [], "stop", (5, 1, 6)),
    "compatible_servers/fastdeploy_reasoning": ("你好！", "用户在打招呼", [], "stop", (9, 6, 15)),
    "compatible_servers/fastdeploy_repeated_index": ("你好！", "", [], "stop", None),
    "compatible_servers/fastdeploy_stream_error": ("", "", [], None, None),
    "compatible_servers/fastdeploy_stream_error_old": ("", "", [], None, None),
    "compatible_servers/vllm_reasoning_new_field": (
        "你好！",
        "用户在打招呼",
        [],
        "stop",
        (9, 6, 15),
    ),
    "compatible_servers/vllm_reasoning_old_field": (
        "你好！",
        "用户在打招呼",
        [],
        "stop",
        (9, 6, 15),
    ),
}


def chunks_of(name: str) -> list[ChatChunk]:
    """The chunks of a recorded stream, up to its first error."""
    chunks = []
    for event in EventDecoder().feed((FIXTURES / f"{name}.sse").read_bytes()):
        if event.data.startswith(b"[DONE]"):
            break
        try:
            chunks.append(read_chunk(event.data))
        except APIError:
            break
    return chunks


def accumulated(*chunks: ChatChunk | dict[str, Any]) -> Accumulator:
    answer = Accumulator()
    for chunk in chunks:
        answer.feed(chunk if isinstance(chunk, ChatChunk) else ChatChunk.model_validate(chunk))
    return answer


def piece(text: str | None = None, *, index: int = 0, **fields: Any) -> dict[str, Any]:
    """A chunk with one choice; `delta_...` fields go into its delta."""
    delta = {name.removeprefix("delta_"): fields.pop(name) for name in list(fields)
             if name.startswith("delta_")}  # fmt: skip
    return {"choices": [{"index": index, "delta": {"content": text, **delta}, **fields}]}


def test_every_recorded_stream_is_in_the_table() -> None:
    files = {path.relative_to(FIXTURES).as_posix() for path in FIXTURES.rglob("*.sse")}
    of_v2 = {name for name in files if not name.startswith("legacy_v1/")}
    assert of_v2 == {f"{name}.sse" for name in STREAMS}


@pytest.mark.parametrize("name", STREAMS)
def test_recorded_stream_becomes_an_answer(name: str) -> None:
    text, reasoning, tool_calls, finish_reason, tokens = STREAMS[name]
    answer = accumulated(*chunks_of(name))
    completion = answer.completion()
    assert (completion.text, completion.reasoning) == (text, reasoning)
    assert [call.model_dump() for call in completion.tool_calls] == tool_calls
    assert completion.finish_reason == finish_reason
    usage = answer.usage
    assert completion.usage == (usage or Usage())
    assert tokens == (usage and (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens))
    assert (answer.text, answer.reasoning) == (text, reasoning)
    assert answer.finished == (finish_reason is not None)


def test_names_of_the_answer_are_kept() -> None:
    completion = accumulated(*chunks_of("chat_v2/stream_text_qwen3_32b")).completion()
    assert completion.id == "as-1"
    assert completion.model == "qwen3-32b"
    assert completion.created == 1782475415
    assert completion.object == "chat.completion"
    assert completion.message.role == "assistant"
    assert completion.choices[0].flag == 0


def test_id_is_known_from_the_first_chunk_on() -> None:
    answer = Accumulator()
    assert answer.id is None
    answer.feed(ChatChunk(id="as-1"))
    assert answer.id == "as-1"


def test_answer_before_any_chunk_is_empty() -> None:
    answer = Accumulator()
    completion = answer.completion()
    assert (completion.text, completion.usage, completion.finish_reason) == ("", Usage(), None)
    assert (answer.chunks, answer.finished) == (0, False)


def test_chunks_are_counted() -> None:
    assert accumulated(piece("a"), piece("b"), {"choices": []}).chunks == 3


def test_answer_can_be_asked_for_at_any_time() -> None:
    answer = accumulated(piece("a"))
    assert answer.completion().text == "a"
    answer.feed(ChatChunk.model_validate(piece("b")))
    assert answer.completion().text == "ab"


def test_one_chunk_may_bring_several_pieces_of_one_choice() -> None:
    several = {"choices": [{"index": 0, "delta": {"content": c}} for c in "abc"]}
    assert accumulated(several, several).text == "abcabc"


def test_several_choices_are_kept_apart() -> None:
    completion = accumulated(
        piece("a", index=1), piece("b"), piece("c", index=1), piece("d"),
        piece(index=1, finish_reason="length"), piece(finish_reason="stop"),
    ).completion()  # fmt: skip
    assert [(c.index, c.message.content, c.finish_reason) for c in completion.choices] == [
        (0, "bd", "stop"),
        (1, "ac", "length"),
    ]


@pytest.mark.parametrize(
    ("flags", "flag"),
    [
        ([None, None], None),
        ([0, 0], 0),
        ([3, 0], 3),
        ([0, 4, 0], 4),
        ([4, None], 4),
        ([4, 1], 4),
        ([1, 2], 2),
    ],
)
def test_flag_is_not_cleared_by_a_milder_one(flags: list[int | None], flag: int | None) -> None:
    completion = accumulated(*(piece("x", flag=flag) for flag in flags)).completion()
    assert completion.choices[0].flag == flag


def test_ban_round_is_kept() -> None:
    completion = accumulated(piece("x"), piece("y", flag=3, ban_round=-1)).completion()
    assert completion.choices[0].ban_round == -1


def test_finish_reason_is_not_cleared() -> None:
    answer = accumulated(piece("a", finish_reason="stop"), piece("", finish_reason=None))
    assert answer.finished
    assert answer.completion().finish_reason == "stop"


def test_usage_is_the_newest_one() -> None:
    answer = accumulated(
        *({**piece("a"), "usage": {"completion_tokens": n}} for n in (1, 2, 3)), piece("b")
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_fragments_of_tool_calls_are_joined_by_index() -> None:
    def fragment(index: int, **fields: Any) -> dict[str, Any]:
        return piece(delta_tool_calls=[{"index": index, **fields}])

    completion = accumulated(
        fragment(1, id="b", function={"name": "g", "arguments": "{"}),
        fragment(0, id="a", type="function", function={"name": "f"}),
        fragment(1, function={"arguments": "}"}),
        fragment(0, id="", function={"name": "f", "arguments": "[]"}),
    ).completion()
    assert [
        (call.id, call.type, call.function.name, call.function.arguments)
        for call in completion.tool_calls
    ] == [("a", "function", "f", "[]"), ("b", "function", "g", "{}")]


def test_tool_calls_of_several_choices_are_kept_apart() -> None:
    call = {"index": 0, "function": {"name": "f", "arguments": "1"}}
    completion = accumulated(
        piece(delta_tool_calls=[call]), piece(index=1, delta_tool_calls=[call])
    ).completion()
    assert [c.message.tool_calls[0].function.arguments for c in completion.choices
            if c.message.tool_calls] == ["1", "1"]  # fmt: skip


def test_search_results_of_several_chunks_are_collected_once_each() -> None:
    def found(*urls: str) -> dict[str, Any]:
        return {**piece("x"), "search_results": [{"url": url} for url in urls]}

    completion = accumulated(found("a"), found("a", "b"), piece("y")).completion()
    assert isinstance(completion.search_results, list)
    assert [result.url for result in completion.search_results] == ["a", "b"]


def test_failed_search_is_kept() -> None:
    completion = accumulated({**piece("x"), "search_results": {"error": "no"}}).completion()
    assert completion.search_results == {"error": "no"}


def test_chunks_are_left_as_they_came() -> None:
    chunks = [
        ChatChunk.model_validate({**piece("x"), "search_results": [{"url": url}]})
        for url in ("a", "b")
    ]
    before = [chunk.model_dump() for chunk in chunks]
    accumulated(*chunks).completion()
    assert [chunk.model_dump() for chunk in chunks] == before


def test_unknown_fields_are_kept() -> None:
    completion = accumulated(*chunks_of("chat_v2/stream_sdk_mock_ernie")).completion()
    assert completion.choices[0].model_extra == {"is_end": True, "need_clear_history": False}
    completion = accumulated({**piece("x"), "service_tier": "gold"}, piece("y")).completion()
    assert completion.model_extra == {"service_tier": "gold"}


@pytest.mark.parametrize("message", [None, {"content": "something else"}])
def test_message_beside_the_delta_does_not_replace_the_text(message: object) -> None:
    completion = accumulated(piece("a", message=message), piece("b", message=message)).completion()
    assert completion.text == "ab"


deltas = st.fixed_dictionaries(
    {},
    optional={
        "content": st.none() | st.text(max_size=3),
        "reasoning_content": st.none() | st.text(max_size=3),
        "role": st.just("assistant"),
    },
)
choices = st.fixed_dictionaries(
    {"index": st.integers(0, 2), "delta": deltas},
    optional={"flag": st.sampled_from([0, 1]), "finish_reason": st.sampled_from([None, "stop"])},
)


@given(st.lists(st.lists(choices, max_size=3).map(lambda held: {"choices": held}), max_size=20))
def test_text_is_the_concatenation_of_the_pieces(chunks: list[dict[str, Any]]) -> None:
    completion = accumulated(*chunks).completion()
    held = [choice for chunk in chunks for choice in chunk["choices"]]
    for choice in completion.choices:
        own = [one["delta"] for one in held if one["index"] == choice.index]
        assert choice.message.content == "".join(delta.get("content") or "" for delta in own)
        assert (choice.message.reasoning_content or "") == "".join(
            delta.get("reasoning_content") or "" for delta in own
        )
    assert [choice.index for choice in completion.choices] == sorted({c["index"] for c in held})
    if any(choice["index"] == 0 for choice in held):
        read = [ChatChunk.model_validate(chunk) for chunk in chunks]
        assert completion.text == "".join(chunk.text for chunk in read)
        assert completion.reasoning == "".join(chunk.reasoning for chunk in read)


def test_an_answer_is_finished_when_all_that_were_asked_for_are() -> None:
    answer = Accumulator(n=2)
    answer.feed(ChatChunk.model_validate(piece("a", finish_reason="stop")))
    assert not answer.finished
    answer.feed(ChatChunk.model_validate(piece("b", index=1)))
    answer.feed(ChatChunk.model_validate(piece("", finish_reason="stop")))
    assert not answer.finished
    answer.feed(ChatChunk.model_validate(piece("c", index=1, finish_reason="length")))
    assert answer.finished


def test_verdicts_and_unknown_fields_beside_text_are_kept() -> None:
    late = piece("b", ban_round=2, need_clear_history=True, delta_refusal="no")
    answer = accumulated(piece("a"), {**late, "system_fingerprint": "fp"}).completion()
    choice = answer.choices[0]
    assert (answer.text, choice.ban_round) == ("ab", 2)
    assert choice.model_extra == {"need_clear_history": True}
    assert choice.message.model_extra == {"refusal": "no"}
    assert answer.model_extra == {"system_fingerprint": "fp"}


def test_search_results_without_an_address_are_kept() -> None:
    pieces = [{**piece("a"), "search_results": [{"title": title}]} for title in "xyx"]
    results = accumulated(*pieces).completion().search_results
    assert isinstance(results, list)
    assert [result.title for result in results] == ["x", "y"]


def test_long_text_is_joined_in_order() -> None:
    n_pieces = 3 * JOIN_AFTER + 7
    answer = accumulated(*(piece(f"{n} ") for n in range(n_pieces)))
    assert answer.text == "".join(f"{n} " for n in range(n_pieces))


@pytest.mark.parametrize(
    "name", [path.stem for path in sorted((FIXTURES / "chat_v2").glob("chat_*.json"))]
)
def test_whole_answer_in_one_chunk_is_the_same_answer(name: str) -> None:
    body = json.loads((FIXTURES / "chat_v2" / f"{name}.json").read_bytes())
    chunk = {**body, "choices": [{**c, "delta": c["message"]} for c in body["choices"]]}
    for choice in chunk["choices"]:
        del choice["message"]
    completion = accumulated(chunk).completion()
    assert completion.model_dump(exclude_none=True) == body


def test_fragments_without_an_index_are_told_apart_by_their_ids() -> None:
    fragments = [
        {"id": "a", "function": {"name": "f", "arguments": "{"}},
        {"function": {"arguments": "}"}},
        {"id": "b", "function": {"name": "g", "arguments": "[]"}},
    ]
    answer = accumulated(
        *(piece(delta_tool_calls=[fragment]) for fragment in fragments)
    ).completion()
    calls = [(call.id, call.function.name, call.function.arguments) for call in answer.tool_calls]
    assert calls == [("a", "f", "{}"), ("b", "g", "[]")]


def test_log_probabilities_of_all_tokens_are_kept() -> None:
    answer = accumulated(
        *(piece(c, logprobs={"content": [{"token": c}]}) for c in "abc")
    ).completion()
    assert answer.choices[0].model_extra == {"logprobs": {"content": [{"token": c} for c in "abc"]}}


def test_what_an_earlier_part_used_is_added() -> None:
    """Of a request whose usage never came, an estimate is."""
    guess = Usage.estimated(prompt_tokens=5, completion_tokens=1)
    answer = accumulated({**piece("a"), "usage": {"prompt_tokens": 10, "total_tokens": 10}})
    answer.begin_part(guess)
    assert answer.usage is None, "of the part at hand"
    assert answer.usage_or(guess).prompt_tokens == 15
    answer.feed(ChatChunk.model_validate({"usage": {"prompt_tokens": 3, "total_tokens": 3}}))
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 13
    answer.begin_part(guess)
    answer.begin_part(guess)
    used = answer.usage_or(guess)
    assert (used.prompt_tokens, used.completion_tokens, used.is_estimate) == (23, 2, True)


def test_what_other_models_used_is_told_apart_and_counted() -> None:
    guess = Usage.estimated(prompt_tokens=5, completion_tokens=1)
    answer = accumulated({**piece("a"), "usage": {"prompt_tokens": 10, "total_tokens": 10}})
    answer.begin_part(guess)
    assert answer.hand_over(guess).prompt_tokens == 15
    assert answer.usage is None
    assert answer.own_usage_or(guess).prompt_tokens == 5, "the next model begins at nothing"
    assert answer.usage_or(guess).prompt_tokens == 20
    assert answer.hand_over(guess).prompt_tokens == 5
    answer.feed(ChatChunk.model_validate({"usage": {"prompt_tokens": 1, "total_tokens": 1}}))
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 21


def test_a_packet_of_plain_chunks_adds_what_they_say() -> None:
    event = b'{"choices":[{"delta":{"content":"%s"}}]}'
    template = ChunkTemplate.of(event % b"a")
    assert template is not None
    made, _ = template.read(b"data: " + event % b"b" + b"\n\ndata: " + event % b"c" + b"\n\n")
    answer = accumulated(read_chunk(event % b"a"))
    answer.feed_packet(made)
    assert (answer.text, answer.chunks) == ("abc", 3)


@pytest.mark.parametrize("n_together", [1, 7, 10_000])
def test_text_of_any_number_of_pieces_is_whole(n_together: int) -> None:
    pieces = [str(n) for n in range(3 * JOIN_AFTER + 1)]
    chunks = [ChatChunk.model_validate(piece(text)) for text in pieces]
    thoughts = [ChatChunk.model_validate(piece(delta_reasoning=text)) for text in pieces]
    answer = Accumulator()
    for at in range(0, len(pieces), n_together):
        answer.feed(*thoughts[at : at + n_together])
        answer.feed(*chunks[at : at + n_together])
    assert (answer.text, answer.reasoning) == ("".join(pieces), "".join(pieces))
    assert answer.chunks == 2 * len(pieces)


def test_a_call_may_begin_without_its_function() -> None:
    answer = accumulated(
        piece(delta_tool_calls=[{"index": 0, "id": "c1"}]),
        piece(delta_tool_calls=[{"index": 0, "function": {"name": "f", "arguments": "{}"}}]),
    )
    [call] = answer.completion().tool_calls
    assert (call.id, call.function.name, call.function.arguments) == ("c1", "f", "{}")


def test_of_logprobs_the_lists_are_joined_and_the_rest_is_left_out() -> None:
    entry = {"token": "a", "logprob": -0.1}
    answer = accumulated(
        piece("a", logprobs={"content": [entry], "refusal": None}),
        piece("b", logprobs={"content": [entry]}),
    )
    told = answer.completion().choices[0].model_dump()
    assert told["logprobs"] == {"content": [entry, entry]}


def test_chunks_that_share_a_template_add_up_like_those_of_a_parser() -> None:
    event = b'{"id":"as-1","choices":[{"index":0,"delta":{"content":"%s"}}]}'
    events = [event % b"%d" % n for n in range(2 * JOIN_AFTER)]
    template = ChunkTemplate.of(events[0])
    assert template is not None
    made, _ = template.read(b"".join(b"data: " + event + b"\n\n" for event in events))
    assert made
    parsed = accumulated(*map(read_chunk, events))
    assert accumulated(*made).completion() == parsed.completion()
    assert parsed.text == "".join(map(str, range(2 * JOIN_AFTER)))
    # Together, as they came: the first of them all is always looked at.
    for before in ([], [read_chunk(events[0])]):
        answer = accumulated(*before)
        for _ in range(2):
            answer.feed_packet(made)
            assert (answer.id, len(answer.completion().choices)) == ("as-1", 1)
            answer.feed_packet(list(made))
        assert answer.text == "".join(chunk.text for chunk in before) + 4 * parsed.text
        assert answer.chunks == len(before) + 4 * len(made)


def test_what_may_be_known_of_an_answer_is_known_without_its_text() -> None:
    assert tuple(Accumulator().head) == (None, None, ())
    answer = accumulated(
        {"id": "as-1", "model": "m", **piece("secret", index=1, finish_reason="length")},
        piece("secret", index=0),
        piece("secret", index=2, finish_reason="stop"),
    )
    assert tuple(answer.head) == ("as-1", "m", ("length", "stop"))
    answer.feed(ChatChunk.model_validate(piece(finish_reason="tool_calls")))
    assert answer.head[2] == ("tool_calls", "length", "stop")
