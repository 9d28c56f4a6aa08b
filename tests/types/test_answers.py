"""What the service writes: kept whole, whatever it holds, and asked in short words."""

import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from ernie_async.types.chunk import ChatChunk, ChunkChoice, Delta
from ernie_async.types.completion import ChatCompletion, Choice, SearchResult
from ernie_async.types.embeddings import Embedding, Embeddings
from ernie_async.types.files import FileObject, FilePage
from ernie_async.types.images import ImageResult, Images
from ernie_async.types.messages import AnswerMessage
from ernie_async.types.models import AnyAnswer, ModelCard, ModelList
from ernie_async.types.rerank import RankedDocument, Ranking
from ernie_async.types.search import SearchAnswer, SearchReference
from ernie_async.types.tools import FunctionCall, FunctionCallDelta, ToolCall, ToolCallDelta
from ernie_async.types.usage import (
    CompletionTokensDetails,
    PromptTokensDetails,
    Timing,
    Usage,
)
from ernie_async.types.video import VideoTask
from ernie_async.types.wire import AnswerModel

# Every model of an answer, with the fields it cannot do without.
ANSWERS: dict[type[AnswerModel], dict[str, Any]] = {
    AnswerMessage: {},
    AnyAnswer: {},
    ChatChunk: {},
    ChatCompletion: {},
    Choice: {},
    ChunkChoice: {},
    CompletionTokensDetails: {},
    Delta: {},
    Embedding: {"embedding": [0.5]},
    Embeddings: {"data": []},
    FileObject: {"id": "file-1"},
    FilePage: {},
    FunctionCall: {"name": "f"},
    FunctionCallDelta: {},
    ImageResult: {},
    Images: {"data": []},
    ModelCard: {"id": "ernie-5.1"},
    ModelList: {},
    PromptTokensDetails: {},
    RankedDocument: {"index": 0, "relevance_score": 0.5},
    Ranking: {"results": []},
    SearchAnswer: {},
    SearchReference: {},
    SearchResult: {},
    ToolCall: {"id": "c1", "function": {"name": "f"}},
    ToolCallDelta: {},
    Usage: {},
    VideoTask: {},
}
TIMING = Timing(queued=0.0, first_token=0.1, total=0.2, attempts=1)


def test_every_model_of_an_answer_is_in_the_table() -> None:
    assert set(ANSWERS) == set(AnswerModel.__subclasses__())


@pytest.mark.parametrize("model", ANSWERS, ids=lambda model: model.__name__)
def test_unknown_fields_are_kept(model: type[BaseModel]) -> None:
    fields = {**ANSWERS[model], "brand_new": {"a": [None, 1.5]}}
    answer = model.model_validate_json(json.dumps(fields))
    assert answer.model_extra is not None
    assert answer.model_extra["brand_new"] == {"a": [None, 1.5]}
    assert json.loads(answer.model_dump_json(exclude_unset=True)).items() >= fields.items()


@pytest.mark.parametrize("model", ANSWERS, ids=lambda model: model.__name__)
def test_answer_cannot_be_changed(model: type[BaseModel]) -> None:
    answer = model.model_validate({**ANSWERS[model], "x": 1})
    with pytest.raises(ValidationError, match="frozen"):
        answer.x = 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("model", ANSWERS, ids=lambda model: model.__name__)
def test_answer_can_be_copied_and_pickled(model: type[BaseModel]) -> None:
    answer = model.model_validate({**ANSWERS[model], "brand_new": 1})
    assert pickle.loads(pickle.dumps(answer)) == copy.deepcopy(answer) == answer


def chunk(*choices: dict[str, Any]) -> ChatChunk:
    return ChatChunk.model_validate({"choices": list(choices)})


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        ([], ""),
        ([{}], ""),
        ([{"delta": {"content": None}}], ""),
        ([{"delta": {"content": "a"}}], "a"),
        ([{"index": 0, "delta": {"content": "a"}}, {"index": 0, "delta": {"content": "b"}}], "ab"),
        ([{"index": 1, "delta": {"content": "b"}}], ""),
        ([{"index": 1, "delta": {"content": "b"}}, {"index": 0, "delta": {"content": "a"}}], "a"),
        ([{"delta": {"reasoning_content": "r"}}], ""),
    ],
)
def test_text_of_a_chunk_is_that_of_the_first_answer(
    choices: list[dict[str, Any]], text: str
) -> None:
    assert chunk(*choices).text == text


@pytest.mark.parametrize(
    ("choices", "reasoning"),
    [
        ([], ""),
        ([{"delta": {"reasoning_content": "a"}}], "a"),
        ([{"delta": {"reasoning": "a"}}], "a"),
        ([{"delta": {"reasoning_content": "a", "reasoning": "a"}}], "a"),
        ([{"delta": {"reasoning_content": "a"}}, {"delta": {"reasoning": "b"}}], "ab"),
        ([{"index": 1, "delta": {"reasoning": "b"}}], ""),
    ],
)
def test_thinking_text_of_a_chunk_has_two_names(
    choices: list[dict[str, Any]], reasoning: str
) -> None:
    assert chunk(*choices).reasoning == reasoning


def test_tool_calls_of_a_chunk_are_those_of_the_first_answer() -> None:
    def calling(index: int, call: str) -> dict[str, Any]:
        return {"index": index, "delta": {"tool_calls": [{"index": 0, "id": call}]}}

    calls = chunk(calling(0, "a"), calling(1, "b"), calling(0, "c")).tool_calls
    assert [call.id for call in calls] == ["a", "c"]
    assert chunk({}).tool_calls == []


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ([], None),
        ([{}], None),
        ([{"finish_reason": ""}], None),
        ([{"finish_reason": "stop"}], "stop"),
        ([{"index": 1, "finish_reason": "stop"}], None),
        ([{"index": 1, "finish_reason": "stop"}, {"finish_reason": "length"}], "length"),
        ([{"finish_reason": None}, {"finish_reason": "brand_new"}], "brand_new"),
    ],
)
def test_finish_reason_of_a_chunk_is_that_of_the_first_answer(
    choices: list[dict[str, Any]], reason: str | None
) -> None:
    assert chunk(*choices).finish_reason == reason


deltas = st.fixed_dictionaries({"content": st.none() | st.text(max_size=3)})
choices_of_chunks = st.lists(
    st.fixed_dictionaries({"index": st.integers(0, 2), "delta": deltas}), max_size=4
)


@given(choices_of_chunks)
def test_text_of_a_chunk_loses_nothing_of_the_first_answer(choices: list[dict[str, Any]]) -> None:
    expected = [c["delta"]["content"] or "" for c in choices if c["index"] == 0]
    assert chunk(*choices).text == "".join(expected)


def test_answer_without_choices_is_empty() -> None:
    answer = ChatCompletion()
    assert (answer.text, answer.reasoning, answer.tool_calls) == ("", "", [])
    assert (answer.finish_reason, answer.request_id, answer.timing) == (None, None, Timing())
    assert answer.message.role == "assistant"


def test_answer_is_asked_in_short_words() -> None:
    call = {"id": "c1", "function": {"name": "f", "arguments": "{}"}}
    message = {"content": "a", "reasoning": "r", "tool_calls": [call]}
    answer = ChatCompletion.model_validate(
        {"id": "as-1", "choices": [{"message": message, "finish_reason": "tool_calls"}]}
    )
    assert (answer.text, answer.reasoning, answer.finish_reason) == ("a", "r", "tool_calls")
    assert answer.tool_calls == [ToolCall.model_validate(call)]
    assert answer.message is answer.choices[0].message


def test_request_id_is_the_services_own_or_else_the_one_sent() -> None:
    assert ChatCompletion().observed(request_id="ea-1", timing=TIMING).request_id == "ea-1"
    answer = ChatCompletion(id="as-1").observed(request_id="ea-1", timing=TIMING)
    assert answer.request_id == "as-1"


def test_what_the_client_observed_survives_a_pickle() -> None:
    answer = ChatCompletion().observed(request_id="ea-1", timing=TIMING)
    again = pickle.loads(pickle.dumps(answer))
    assert (again.timing, again.request_id) == (TIMING, "ea-1")


def test_what_the_client_observed_is_not_part_of_the_answer() -> None:
    answer = ChatCompletion(id="as-1").observed(request_id="ea-1", timing=TIMING)
    assert answer.model_dump(exclude_unset=True) == {"id": "as-1"}


def test_answers_of_two_calls_share_nothing() -> None:
    first, second = ChatCompletion(), ChatCompletion()
    assert first.choices is not second.choices
    assert Choice().message is not Choice().message


def test_marks_in_the_text_stand_for_sources() -> None:
    answer = ChatCompletion.model_validate(
        {
            "choices": [{"message": {"content": "晴^[1]^，冷^[2][3]^，x^2^，^[9]^。"}}],
            "search_results": [
                {"index": 1, "url": "https://a.example/"},
                {"index": 2, "title": "二"},
                {"index": 3, "title": "三"},
            ],
        }
    )
    found = [(answer.text[c.start : c.end], c.source.index) for c in answer.citations]
    assert found == [("^[1]^", 1), ("^[2][3]^", 2), ("^[2][3]^", 3)]
    assert [source.index for source in answer.sources] == [1, 2, 3]
    failed = ChatCompletion.model_validate({"choices": [], "search_results": {"error": "x"}})
    assert (failed.sources, failed.citations) == ([], [])
