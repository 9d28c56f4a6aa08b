"""Bodies and paths of the other endpoints, and what is refused before sending."""

import json
from pathlib import Path

import pytest

from ernie_async.errors import APIError, ConfigError, DecodeError, QuotaError, RefusedError
from ernie_async.sansio.files import content_path, file_path, is_refusal, list_path, next_after
from ernie_async.sansio.images import (
    edit_fields,
    expired,
    generation_path,
    image_fields,
    read_images,
)
from ernie_async.sansio.multipart import form
from ernie_async.sansio.rerank import order_ranking, rerank_fields
from ernie_async.sansio.retry import may_pass
from ernie_async.sansio.search import search_fields
from ernie_async.sansio.video import refuse_failed, video_address, video_fields
from ernie_async.types import FilePage, Images, Ranking, VideoTask

FIXTURES = Path(__file__).parents[1] / "fixtures" / "endpoints_v2"


def load(name: str):
    return json.loads((FIXTURES / name).read_text(encoding="utf-8"))


# Reranking


def test_rerank_body_is_the_documented_one() -> None:
    fields = rerank_fields("上海天气", ("上海气候", "北京美食"), {}, "bce-reranker-base")
    assert fields == load("rerank_request.json")


@pytest.mark.parametrize(
    ("query", "documents", "given", "message"),
    [
        ("", ["a"], {}, "query: expected text"),
        ("q", [], {}, "documents: expected a list"),
        ("q", "abc", {}, "documents: expected a list"),
        ("q", ["a", ""], {}, r"documents\.1: expected text"),
        ("q", ["a"], {"top_n": 0}, "top_n: expected a whole number"),
        ("q" * 1601, ["a"], {}, "query: expected at most 1,600"),
        ("q", ["a"] * 65, {}, "documents: expected at most 64"),
        ("q", ["a", "b" * 4097], {}, r"documents\.1: expected at most 4,096"),
    ],
)
def test_rerank_refuses(query, documents, given, message) -> None:
    with pytest.raises(ConfigError, match=message):
        rerank_fields(query, documents, given, "bce-reranker-base")


def test_limits_of_one_model_are_not_those_of_another() -> None:
    assert rerank_fields("q" * 5000, ["a"] * 100, {"model": "qwen3-reranker-4b"}, "d")


def test_ranking_is_ordered_and_has_its_documents() -> None:
    told = {"results": [{"index": 1, "relevance_score": 0.1}, {"index": 0, "relevance_score": 0.9}]}
    ranking = order_ranking(Ranking.model_validate(told), ["a", "b"])
    assert [(found.index, found.document) for found in ranking.results] == [(0, "a"), (1, "b")]
    with pytest.raises(DecodeError, match="index 1"):
        order_ranking(Ranking.model_validate(told), ["a"])


# Pictures


def test_image_body_is_the_documented_one() -> None:
    wanted = load("images_generations_request.json")
    given = {name: wanted[name] for name in ("n", "size", "prompt_extend", "watermark")}
    assert image_fields(wanted["prompt"], {**given, "seed": None}, "qwen-image") == wanted
    wanted = load("images_edits_request.json")
    assert edit_fields(wanted["image"], wanted["prompt"], {}, "qwen-image-edit") == wanted
    wanted = load("musesteamer_air_image_request.json")
    given = {name: wanted[name] for name in ("model", "size", "response_format")}
    assert image_fields(wanted["prompt"], given, "other") == wanted


def test_musesteamer_has_a_path_of_its_own() -> None:
    assert generation_path("MuseSteamer-Air-Image") == "/musesteamer/images/generations"
    assert generation_path("qwen-image") == "/images/generations"


@pytest.mark.parametrize(
    ("prompt", "given", "message"),
    [(" ", {}, "prompt"), ("a", {"n": 0}, "n: expected"), ("a", {"steps": 1.5}, "steps: expected")],
)
def test_image_request_refuses(prompt, given, message) -> None:
    with pytest.raises(ConfigError, match=message):
        image_fields(prompt, given, "m")


def test_edit_takes_addresses_only() -> None:
    assert edit_fields(["http://a", "data:x"], "p", {}, "m")["image"] == ["http://a", "data:x"]
    for image in ("cat.png", ["http://a", "cat.png"], []):
        with pytest.raises(ConfigError, match="image"):
            edit_fields(image, "p", {}, "m")


def test_failure_inside_a_good_answer_is_an_error_and_final() -> None:
    images = Images.model_validate(load("images_generations_item_failed.json"))
    with pytest.raises(APIError, match="could not be made") as caught:
        read_images(images)
    assert (caught.value.code, caught.value.request_id) == ("elided", "as-reconstructed")
    assert not may_pass(caught.value)


def test_failure_with_a_known_code_has_its_class() -> None:
    told = {"data": [{"task_status": "FAILED", "task_error_code": "system_unsafe"}]}
    with pytest.raises(RefusedError):
        read_images(Images.model_validate(told))


@pytest.mark.parametrize("data", [[], [{}], [{"url": "http://a"}, {}]])
def test_answer_without_a_picture_is_refused(data) -> None:
    with pytest.raises(DecodeError):
        read_images(Images.model_validate({"data": data}))


def test_an_answer_with_a_picture_is_taken_as_it_is() -> None:
    for data in ([{"url": "http://a"}], [{"b64_json": "AA=="}, {"task_status": "FAILED"}]):
        images = Images.model_validate({"data": data})
        assert read_images(images) is images


def test_an_address_that_leads_nowhere_any_more_is_told_so() -> None:
    error = expired(403)
    assert (error.status, str(error)[:4]) == (403, "403:")
    assert "24 hours" in str(error)
    assert not may_pass(error)


# Search


def test_search_body_is_the_documented_one() -> None:
    given = {"top_k": 20, "sites": ["www.weather.com.cn"], "recency": "year"}
    wanted = load("ai_search_web_search_request.json")
    assert search_fields("北京有哪些旅游景区", given) == wanted


def test_search_takes_a_number_for_each_type() -> None:
    fields = search_fields("x", {"top_k": {"web": 1, "image": 2}, "edition": "lite"})
    assert fields["resource_type_filter"][1] == {"type": "image", "top_k": 2}
    assert fields["edition"] == "lite"
    for query, given in (("", {}), ("x", {"sites": "a.com"})):
        with pytest.raises(ConfigError):
            search_fields(query, given)


# Videos


def test_videos_are_not_below_v2() -> None:
    base = "https://qianfan.baidubce.com/v2/coding"
    assert video_address(base, "/video/generations", "a/b") == (
        "https://qianfan.baidubce.com/video/generations?task_id=a%2Fb"
    )
    with pytest.raises(ConfigError):
        video_address(base, "/video/generations", "")


def test_video_body() -> None:
    assert video_fields("p", "m", {"image": "http://a", "duration": 5}) == {
        "model": "m",
        "content": [
            {"type": "text", "text": "p"},
            {"type": "image_url", "image_url": {"url": "http://a"}},
        ],
        "duration": 5,
    }
    assert video_fields("p", "m", {}) == video_fields("p", "m", {"image": None})
    assert video_fields("p", "m", {})["content"] == [{"type": "text", "text": "p"}]
    with pytest.raises(ConfigError):
        video_fields("", "m", {})


def test_failed_video_says_why() -> None:
    told = {"task_id": "t", "status": "Fail", "base_resp": {"status_code": 7, "status_msg": "no"}}
    error = refuse_failed(VideoTask.model_validate(told))
    assert "t ended as 'Fail': no" in error.message
    told = {"task_id": "t", "status": "failed", "error": {"code": "account_overdue"}}
    assert isinstance(refuse_failed(VideoTask.model_validate(told)), QuotaError)


# Files


def test_paths_of_files() -> None:
    assert list_path(after=None, limit=None) == "/files"
    assert list_path(after="a&b", limit=2) == "/files?after=a%26b&limit=2"
    assert file_path("../models") == "/files/..%2Fmodels"
    assert content_path("file-1") == "/files/file-1/content"
    with pytest.raises(ConfigError):
        file_path("")
    with pytest.raises(ConfigError):
        content_path("")


@pytest.mark.parametrize(
    ("ids", "has_more", "after", "limit", "expected"),
    [
        ([], None, None, None, None),
        (["a"], None, None, None, None),  # not full
        (["a", "b"], None, None, 2, "b"),
        (["a", "b"], False, None, 2, None),
        (["a"], True, None, 2, "a"),
        (["a", "b"], True, "b", 2, None),  # the server ignores `after`
    ],
)
def test_next_page(ids, has_more, after, limit, expected) -> None:
    page = FilePage.model_validate({"data": [{"id": id_} for id_ in ids], "has_more": has_more})
    assert next_after(page, after, limit) == expected


def test_only_an_error_envelope_is_an_error() -> None:
    assert is_refusal((FIXTURES / "files_content_error.json").read_bytes())
    assert is_refusal((FIXTURES / "files_delete_error.json").read_bytes())
    for name in ("batches_output_line_assumed.json", "batches_retrieve_done.json"):
        assert not is_refusal((FIXTURES / name).read_bytes())
    assert not is_refusal(b'{"custom_id":"1","error":{"code":"x","message":"y"}}')
    assert not is_refusal(b"{not json")
    assert not is_refusal(b"\x89PNG")


def test_form_cannot_be_broken_by_a_name() -> None:
    head, tail, content_type = form({"purpose": "batch"}, 'a"\r\nb.jsonl', boundary="xyz")
    assert b'filename="a%22%0D%0Ab.jsonl"' in head
    assert head.startswith(b'--xyz\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch')
    assert head.endswith(b"\r\n\r\n")
    assert tail == b"\r\n--xyz--\r\n"
    assert content_type == "multipart/form-data; boundary=xyz"
