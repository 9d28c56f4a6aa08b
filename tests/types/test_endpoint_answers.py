"""Every payload of the other endpoints is read, and nothing of it is lost."""

import json
from pathlib import Path
from typing import Any

import pytest

from ernie_async.errors import APIError
from ernie_async.sansio.rest import read_answer
from ernie_async.types import (
    Embeddings,
    FileObject,
    FilePage,
    Images,
    ModelCard,
    Ranking,
    SearchAnswer,
    VideoTask,
)
from ernie_async.types.models import AnyAnswer, ModelList
from ernie_async.types.video import STATES
from ernie_async.types.wire import AnswerModel

FIXTURES = Path(__file__).parents[1] / "fixtures" / "endpoints_v2"

ANSWERS: dict[str, type[AnswerModel]] = {
    "embeddings_response.json": Embeddings,
    "rerank_response.json": Ranking,
    "images_generations_response.json": Images,
    "images_generations_item_failed.json": Images,
    "models_list_2025.json": ModelList,
    "models_list_2026_item.json": ModelList,
    "files_upload_response.json": FileObject,
    "files_list_response.json": FilePage,
    "files_delete_response.json": FileObject,
    "ai_search_web_search_response.json": SearchAnswer,
    "video_musesteamer_succeeded.json": VideoTask,
    "video_minimax_success.json": VideoTask,
    # No verb reads these; `client.request` does.
    "responses_response.json": AnyAnswer,
    "batches_list_response.json": AnyAnswer,
    "batches_retrieve_response.json": AnyAnswer,
    "batches_retrieve_done.json": AnyAnswer,
    "console_batch_create_response.json": AnyAnswer,
    "console_batch_describe.json": AnyAnswer,
}
REFUSALS = {
    "ai_search_error.json": (200, "RATE_LIMIT_TOTAL_QPS"),
    "files_content_error.json": (400, "invalid_retrieve_content_file"),
    "files_delete_error.json": (404, "invalid_delete_file"),
    "files_upload_error.json": (400, "invalid_upload_file"),
}
# Bodies to send, lines of a file, and an envelope around a status.
OTHERS = {"batches_input_line.json", "batches_output_line_assumed.json", "console_batch_error.json"}


def load(name: str) -> Any:
    return json.loads((FIXTURES / name).read_text(encoding="utf-8"))


def test_no_payload_is_forgotten() -> None:
    names = {path.name for path in FIXTURES.glob("*.json") if "_request" not in path.name}
    assert names == {*ANSWERS, *REFUSALS, *OTHERS}
    sources = (FIXTURES / "SOURCES.md").read_text(encoding="utf-8")
    assert [path.name for path in FIXTURES.glob("*.json") if path.name not in sources] == []


@pytest.mark.parametrize("name", ANSWERS)
def test_answer_survives_the_round_trip_with_fields_nobody_knows(name: str) -> None:
    told = {**load(name), "brand_new": {"a": [1, None]}}
    for item in [*told.get("data", []), *told.get("results", []), *told.get("references", [])]:
        item["brand_new"] = 1
    body = json.dumps(told).encode()
    answer = read_answer(ANSWERS[name], 200, {}, body, utc_now=0.0)
    assert json.loads(answer.model_dump_json(exclude_unset=True)) == told
    again = type(answer).model_validate_json(answer.model_dump_json())
    assert again == answer


@pytest.mark.parametrize(("name", "expected"), REFUSALS.items())
def test_refusal_is_an_error_with_its_code(name: str, expected: tuple[int, str]) -> None:
    status, code = expected
    with pytest.raises(APIError) as caught:
        read_answer(FileObject, status, {}, (FIXTURES / name).read_bytes(), utc_now=0.0)
    assert caught.value.code == code


def test_vectors_are_numbers_in_order() -> None:
    answer = Embeddings.model_validate(load("embeddings_response.json"))
    assert answer.vectors == [[0.018, -0.006, 0.012, 0.003], [0.009, 0.021, -0.015, 0.001]]
    array = pytest.importorskip("numpy").asarray(answer.vectors, dtype="float32")
    assert (answer.to_numpy() == array).all()
    assert answer.to_numpy().shape == (2, 4)
    assert answer.to_numpy().dtype == "float32"


def test_without_numpy_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "numpy", None)
    with pytest.raises(ImportError, match=r"pip install 'ernie-async\[numpy\]'"):
        Embeddings.model_validate(load("embeddings_response.json")).to_numpy()


def test_images_are_a_list_even_if_one_object_came() -> None:
    images = Images.model_validate({"data": {"b64_json": "aGk="}})
    assert images.first.content == b"hi"
    assert Images.model_validate(load("images_generations_response.json")).first.content is None


def test_a_failed_picture_is_not_the_first() -> None:
    images = Images.model_validate({"data": [{"task_status": "FAILED"}, {"url": "http://a/b"}]})
    assert images.first.url == "http://a/b"
    assert [image.has_failed for image in images.data] == [True, False]


def test_ranked_document_may_be_an_object() -> None:
    told = {"results": [{"index": 0, "relevance_score": 0.5, "document": {"text": "a"}}]}
    assert Ranking.model_validate(told).results[0].document == "a"


def test_model_card_of_2026() -> None:
    card = ModelList.model_validate(load("models_list_2026_item.json")).data[0]
    assert (card.type, card.context_length, card.max_completions_tokens) == ("chat", 163840, 65536)
    assert (card.prompt_price, card.completion_price) == (0.004, 0.012)


@pytest.mark.parametrize(
    "pricing", [None, {}, {"prompt": "free"}, {"prompt": [{"max": 1, "price": "0.1"}]}]
)
def test_price_that_is_no_number_is_none(pricing: Any) -> None:
    card = ModelCard(id="m", pricing=pricing)
    assert card.prompt_price is None
    assert card.pricing == pricing


@pytest.mark.parametrize("word", STATES)
def test_status_words_are_read_in_any_case(word: str) -> None:
    task = VideoTask(status=word.title())
    assert task.state == STATES[word]
    assert task.is_over == (STATES[word] in {"succeeded", "failed"})


def test_an_unknown_status_is_not_the_end() -> None:
    assert VideoTask(status="Rendering").state == "running"
    assert not VideoTask().is_over


@pytest.mark.parametrize(
    "told",
    [
        {"content": {"video_url": "http://v"}},
        {"creations": [{"url": "http://v"}]},
        {"url": "http://v"},
    ],
)
def test_video_address_is_found_wherever_it_is(told: dict[str, Any]) -> None:
    assert VideoTask.model_validate(told).video_url == "http://v"
    assert VideoTask().video_url is None
