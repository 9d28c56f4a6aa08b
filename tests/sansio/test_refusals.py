"""What the service means when it says no."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.errors import (
    APIError,
    AuthError,
    BadRequestError,
    NotFoundError,
    QuotaError,
    RateLimitError,
    RefusedError,
    ServerError,
)
from ernie_async.sansio.refusals import CODES, holds_error, refusal

FIXTURES = Path(__file__).parents[1] / "fixtures"

# Class, code and request id of every recorded refusal; its status stands in its name.
RECORDED: dict[str, tuple[type[APIError], str | None, str | None]] = {
    "error_400_bad_role": (BadRequestError, "invalid_argument", "as-0vmp2re2ed"),
    "error_400_malformed_json": (BadRequestError, "malformed_json", "as-t2z8xi6mm8"),
    "error_400_max_completion_tokens_range": (
        BadRequestError, "invalid_argument", "as-k3s5gezrta"),
    "error_400_messages_empty": (BadRequestError, "invalid_argument", "as-h9k27ds9ah"),
    "error_400_missing_model": (BadRequestError, "invalid_argument", "as-yqc9riacmc"),
    "error_400_role_alternation_ernie_4_5_vl": (BadRequestError, "invalid_argument", None),
    "error_400_tokens_too_long": (BadRequestError, "tokens_too_long", "as-0000000000"),
    "error_401_coding_plan_key": (
        AuthError, "coding_plan_api_key_not_allowed", "as-0000000000"),
    "error_401_invalid_iam_token": (AuthError, "invalid_iam_token", "as-r43wh8e35y"),
    "error_401_invalid_model": (NotFoundError, "invalid_model", "as-bkv66krfus"),
    "error_401_no_credential": (AuthError, "invalid_iam_token", "as-qiawvbpq8x"),
    "error_403_access_denied_gateway": (
        AuthError, "AccessDenied", "00000000-0000-0000-0000-000000000000"),
    "error_403_account_overdue": (QuotaError, "account_overdue", "as-xp1jmkxe03"),
    "error_403_model_offline": (NotFoundError, "model_offline", "as-0000000000"),
    "error_403_system_unsafe": (RefusedError, "system_unsafe", "as-0000000000"),
    "error_404_wrong_path": (NotFoundError, None, None),
    "error_405_method_not_supported": (
        BadRequestError, "method_not_supported", "as-0000000000"),
    "error_429_cluster_rate_limit_exceeded": (
        ServerError, "cluster_rate_limit_exceeded", "as-0000000000"),
    "error_429_input_tpm_rate_limit_exceeded": (
        RateLimitError, "input_tpm_rate_limit_exceeded", "as-0000000000"),
    "error_429_output_tpm_rate_limit_exceeded": (
        RateLimitError, "output_tpm_rate_limit_exceeded", "as-0000000000"),
    "error_429_rpm_rate_limit_exceeded": (
        RateLimitError, "rpm_rate_limit_exceeded", "as-wbx23eriqh"),
    "error_429_tpm_rate_limit_exceeded": (
        RateLimitError, "tpm_rate_limit_exceeded", "as-0000000000"),
    "error_429_user_rate_limit_exceeded": (
        RateLimitError, "user_rate_limit_exceeded", "as-0000000000"),
    "error_500_dispatch_internal_error": (
        ServerError, "dispatch_internal_error", "as-0000000000"),
    "error_500_internal_error": (ServerError, "internal_error", "as-0000000000"),
}  # fmt: skip

# The vendor's table, row by row: status, code, what it means here.
TABLE: list[tuple[int, str, type[APIError]]] = [
    (400, "malformed_json", BadRequestError),
    (429, "RATE_LIMIT_TOTAL_QPS", RateLimitError),
    (429, "RATE_LIMIT_SEARCH_TOTAL_QPS", RateLimitError),
    (429, "RATE_LIMIT_SEARCH_QPS", RateLimitError),
    (429, "QUOTA_USER_DAILY_REQUEST", QuotaError),
    (429, "QUOTA_USER_DAILY_FREE", QuotaError),
    (429, "BILLING_INSUFFICIENT_BALANCE", QuotaError),
    (400, "invalid_model", NotFoundError),
    (400, "invalid_messages", BadRequestError),
    (400, "characters_too_long", BadRequestError),
    (400, "tokens_too_long", BadRequestError),
    (400, "invalid_argument", BadRequestError),
    (400, "invalid_image_url", BadRequestError),
    (400, "invalid_image_genration_prompt", BadRequestError),
    (400, "invalid_image_generation_prompt", BadRequestError),
    (400, "invalid_image_genration_refer_image", BadRequestError),
    (400, "invalid_image_generation_refer_image", BadRequestError),
    (400, "invalid_plugin_argument", BadRequestError),
    (400, "image_url_unsafe", RefusedError),
    (401, "invalid_iam_token", AuthError),
    (401, "invalid_model", NotFoundError),
    (401, "invalid_appid", AuthError),
    (401, "no_parameter_permission", AuthError),
    (401, "coding_plan_api_key_not_allowed", AuthError),
    (401, "coding_plan_api_key_required", AuthError),
    (401, "token_plan_person_api_key_not_allowed", AuthError),
    (401, "token_plan_person_api_key_required", AuthError),
    (403, "AccessDenied", AuthError),
    (403, "account_overdue", QuotaError),
    (403, "model_offline", NotFoundError),
    (403, "system_unsafe", RefusedError),
    (403, "user_setting_unsafe", RefusedError),
    (403, "functions_unsafe", RefusedError),
    (405, "method_not_supported", BadRequestError),
    (429, "rpm_rate_limit_exceeded", RateLimitError),
    (429, "tpm_rate_limit_exceeded", RateLimitError),
    (429, "input_tpm_rate_limit_exceeded", RateLimitError),
    (429, "output_tpm_rate_limit_exceeded", RateLimitError),
    (429, "user_rate_limit_exceeded", RateLimitError),
    (429, "preemptible_rate_limit_exceeded", ServerError),
    (429, "cluster_rate_limit_exceeded", ServerError),
    (429, "cluster_rpm_rate_limit_exceeded", ServerError),
    (429, "cluster_tpm_rate_limit_exceeded", ServerError),
    (429, "Offline_batch_reasoning_refused", ServerError),
    (429, "coding_plan_rate_limit_exceeded", RateLimitError),
    (429, "coding_plan_cluster_rate_limited", ServerError),
    (429, "coding_plan_hour_quota_exceeded", QuotaError),
    (429, "coding_plan_week_quota_exceeded", QuotaError),
    (429, "coding_plan_month_quota_exceeded", QuotaError),
    (429, "token_quota_exceeded", QuotaError),
    (429, "coding_plan_not_subscribed", QuotaError),
    (429, "coding_plan_subscription_expired", QuotaError),
    (429, "coding_plan_model_not_supported", NotFoundError),
    (429, "token_plan_person_not_subscribed", QuotaError),
    (429, "token_plan_person_subscription_expired", QuotaError),
    (500, "internal_error", ServerError),
    (500, "dispatch_internal_error", ServerError),
    (500, "image_genration_interal_error", ServerError),
    (500, "image_generation_internal_error", ServerError),
    (200, "2", ServerError),
    (200, "4", RateLimitError),
    (200, "17", QuotaError),
    (200, "18", RateLimitError),
    (200, "19", QuotaError),
    (200, "110", AuthError),
    (200, "111", AuthError),
    (200, "336000", ServerError),
    (200, "336100", ServerError),
    (200, "336501", RateLimitError),
    (200, "336502", RateLimitError),
    *((200, code, AuthError) for code in ("6", "13", "14", "100", "336004", "40401")),
    *((200, str(code), BadRequestError) for code in (336001, 336002, 336003, 336006, 336007)),
    *((200, str(code), BadRequestError) for code in (336103, 336104, 336105)),
    (200, "336005", NotFoundError),
    (200, "40410", RateLimitError),
]


def refuse(status: int, body: object, /, **headers: str) -> APIError:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return refusal(status, content, names, utc_now=0.0)


def test_every_recorded_refusal_is_in_the_table() -> None:
    files = {path.stem for path in (FIXTURES / "chat_v2").glob("error_*")}
    assert files == {*RECORDED, "error_v1_numeric"}


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_refusal_is_understood(name: str) -> None:
    kind, code, request_id = RECORDED[name]
    status = int(name.split("_")[1])
    [path] = (FIXTURES / "chat_v2").glob(f"{name}.*")
    error = refusal(status, path.read_bytes(), {}, utc_now=0.0)
    assert type(error) is kind
    assert (error.status, error.code, error.request_id) == (status, code, request_id)
    assert error.retry_after is None
    assert error.partial is None


def test_recorded_refusal_of_v1_is_understood() -> None:
    body = (FIXTURES / "chat_v2" / "error_v1_numeric.json").read_bytes()
    error = refusal(200, body, {}, utc_now=0.0)
    assert type(error) is RateLimitError
    assert (error.code, error.request_id) == ("336501", "as-0000000000")
    assert "Rate limit reached for RPM" in str(error)


def test_recorded_refusal_of_ai_studio_is_understood() -> None:
    body = (FIXTURES / "compatible_servers" / "aistudio_legacy_error.json").read_bytes()
    error = refusal(401, body, {}, utc_now=0.0)
    assert type(error) is AuthError
    assert error.code == "40401"
    assert "reconstructed: invalid token" in str(error)


@pytest.mark.parametrize(("status", "code", "kind"), TABLE)
def test_code_has_its_class_and_a_remedy(status: int, code: str, kind: type[APIError]) -> None:
    error = refuse(status, {"error": {"code": code, "message": "x"}})
    assert type(error) is kind
    assert error.code == code
    assert error.remedy
    assert error.remedy in str(error)
    assert any("\u4e00" <= c <= "\u9fff" for c in error.remedy_zh)


def test_table_of_codes_is_the_vendors() -> None:
    assert set(CODES) == {code.lower() for _, code, _ in TABLE}


def test_code_counts_more_than_the_status() -> None:
    for status in (200, 400, 401, 403, 404, 429, 500, 503):
        error = refuse(status, {"error": {"code": "account_overdue", "message": "x"}})
        assert type(error) is QuotaError


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (401, AuthError),
        (402, QuotaError),
        (403, AuthError),
        (404, NotFoundError),
        (405, BadRequestError),
        (408, ServerError),
        (413, BadRequestError),
        (418, BadRequestError),
        (422, BadRequestError),
        (429, RateLimitError),
        (499, BadRequestError),
        (500, ServerError),
        (502, ServerError),
        (503, ServerError),
        (504, ServerError),
        (529, ServerError),
        (302, APIError),
    ],
)
def test_unknown_code_has_the_class_of_its_status(status: int, kind: type[APIError]) -> None:
    error = refuse(status, {"error": {"code": "brand_new", "message": "x"}, "id": "as-1"})
    assert type(error) is kind
    assert (error.code, error.remedy, error.remedy_zh) == ("brand_new", "", "")


@pytest.mark.parametrize(
    ("status", "type_", "kind"),
    [
        (200, "invalid_request_error", BadRequestError),
        (200, "access_denied", AuthError),
        (200, "unsafe_request", RefusedError),
        (200, "rate_limit_exceeded", RateLimitError),
        (200, "Internal_error", ServerError),
        (200, "brand_new", ServerError),
        (200, None, ServerError),
        (400, "unsafe_request", RefusedError),
        (403, "unsafe_request", RefusedError),
        # Of one type with what is wrong with the request itself.
        (401, "invalid_request_error", AuthError),
        (500, "invalid_request_error", ServerError),
        (429, "brand_new", RateLimitError),
    ],
)
def test_type_of_an_unknown_code_counts_where_the_status_says_nothing(
    status: int, type_: str | None, kind: type[APIError]
) -> None:
    error = refuse(status, {"error": {"code": "brand_new", "message": "x", "type": type_}})
    assert type(error) is kind
    assert error.code == "brand_new"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, BadRequestError),
        (404, NotFoundError),
        (429, RateLimitError),
        (503, ServerError),
        (336999, ServerError),
        (40499, ServerError),
        ("²", ServerError),
        ("9" * 5000, ServerError),
        (None, ServerError),
    ],
)
def test_number_in_an_event_is_the_status_it_would_have_had(
    code: object, kind: type[APIError]
) -> None:
    assert type(refuse(200, {"object": "error", "message": "x", "code": code})) is kind


@pytest.mark.parametrize(
    ("body", "code", "message", "request_id"),
    {
        "the envelope": (
            b'{"error":{"code":"x","message":"why"},"id":"as-1"}', "x", "why", "as-1"),
        "V1": (b'{"error_code":3,"error_msg":"why","id":"as-1"}', "3", "why", "as-1"),
        "the older page of limits": (b'{"code":"x","msg":"why"}', "x", "why", None),
        "BCE": (b'{"requestId":"r-1","code":"x","message":"why"}', "x", "why", "r-1"),
        "FastDeploy": (b'{"error":{"message":"why","code":null}}', None, "why", None),
        "FastDeploy, older": (b'{"object":"error","message":"why","code":400}', "400", "why", None),
        "FastAPI": (b'{"detail":"why"}', None, "why", None),
        "FastAPI's list": (b'{"detail":[{"loc":["body"],"msg":"why"}]}', None, "why", None),
        "a word": (b'{"error":"why"}', None, "why", None),
        "a list": (b'{"error":["why"]}', None, "why", None),
        "an object as message": (b'{"error":{"message":{"a":"why"}}}', None, "why", None),
        "an object as code": (b'{"error":{"code":{"a":1},"message":"why"}}', "{'a': 1}", "why",
                              None),
        "an empty message": (b'{"error":{"code":"x","message":""}}', "x", "no message", None),
        "nothing inside": (b'{"error":{}}', None, "no message", None),
        "an empty object": (b"{}", None, "no message", None),
        "a JSON list": (b'["why"]', None, "why", None),
        "a JSON text": (b'"why"', None, "why", None),
        "HTML": (b"<html><h1>why</h1></html>", None, "why", None),
        "plain text": (b"404 page not found", None, "404 page not found", None),
        "nothing": (b"", None, "an empty body", None),
        "blanks": (b" \n", None, "an empty body", None),
        "invalid UTF-8": (b"why \xff", None, "why", None),
        "cut JSON": (b'{"error":{"code":"x","message":"why', None, "why", None),
    }.values(),
)  # fmt: skip
def test_any_shape_is_read(
    body: bytes, code: str | None, message: str, request_id: str | None
) -> None:
    error = refuse(503, body)
    assert (error.code, error.request_id) == (code, request_id)
    assert message in str(error)
    assert str(error).startswith("503")


def test_long_text_is_shortened() -> None:
    assert len(str(refuse(502, b"<html>" + b"x" * 100_000))) < 400


def test_message_says_everything_needed_to_act() -> None:
    error = refuse(
        429, {"error": {"code": "rpm_rate_limit_exceeded", "message": "slow."}, "id": "as-1"}
    )
    assert str(error) == f"429 rpm_rate_limit_exceeded: slow - {error.remedy} (request id as-1)"


@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        ({"X_Request_Id": "a"}, "a"),
        ({"x_bce_request_id": "b"}, "b"),
        ({"x_request_id": "a", "x_bce_request_id": "b"}, "a"),
    ],
)
def test_request_id_may_stand_in_a_header(headers: dict[str, str], request_id: str) -> None:
    assert refuse(500, b"", **headers).request_id == request_id
    assert refuse(500, {"error": "x", "id": "as-1"}, **headers).request_id == "as-1"


@pytest.mark.parametrize("name", ["Retry_After", "retry_after", "RETRY_AFTER"])
def test_retry_after_is_read(name: str) -> None:
    assert refuse(429, b"", **{name: "3"}).retry_after == 3.0


def test_retry_after_may_be_a_date() -> None:
    headers = {"Retry-After": "Thu, 01 Jan 1970 00:01:40 GMT"}
    assert refusal(503, b"", headers, utc_now=90.0).retry_after == 10.0


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda held: (
        st.lists(held, max_size=2)
        | st.dictionaries(
            st.sampled_from(["code", "message", "msg", "error", "error_code", "id", "detail"]),
            held,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(st.integers(100, 599), anything)
def test_no_body_is_too_odd_to_become_an_error(status: int, body: Any) -> None:
    error = refuse(status, body)
    assert isinstance(error, APIError)
    assert str(error).startswith(str(status))
    if isinstance(body, dict):
        assert holds_error(body) in {True, False}


def test_status_that_is_repeated_as_the_code_is_said_once() -> None:
    assert str(refuse(400, {"error": {"code": 400, "message": "too long"}})) == "400: too long"
