"""What the service means when it says no: its codes, our classes, and what to do.

A refusal is classified by its code first and by the HTTP status second, because the status alone
misleads: 401 also means "no such model" and 403 also means "account in arrears". The table is data;
an unknown code keeps its word and gets the class of its status, or where there is none, of its type.

Source: cloud.baidu.com/doc/qianfan-api/s/Om9b4yj3w (2025-12-23) and recorded bodies; the codes of
the subscription plans come from public clients, the numbers from the closed V1 API, which gateways
still pass on.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ernie_async.errors import (
    APIError,
    AuthError,
    BadRequestError,
    NotFoundError,
    QuotaError,
    RateLimitError,
    RefusedError,
    ServerError,
    shorten,
)
from ernie_async.sansio.retry import read_retry_after
from ernie_async.types.wire import read_json

__all__ = ["CODES", "Meaning", "holds_error", "refusal"]


class Meaning(NamedTuple):
    """What a code means: the class of its error, and what to do, in English and Chinese."""

    error: type[APIError]
    remedy: str
    remedy_zh: str


_WAIT_RPM = Meaning(
    RateLimitError,
    "Send fewer requests per minute, or raise the quota in the console; in a program, "
    "limits=Limits(requests_per_minute=...) keeps to it.",
    "降低每分钟请求数，或在控制台提升配额；在程序里可按配额设置 limits=Limits(requests_per_minute=...)。",
)
_WAIT_TPM = Meaning(
    RateLimitError,
    "Use fewer tokens per minute: shorten prompts, or raise the quota in the console; in a program, "
    "limits=Limits(tokens_per_minute=...) keeps to it.",
    "降低每分钟 token 用量：缩短提示词，或在控制台提升配额；在程序里可按配额设置 limits=Limits(tokens_per_minute=...)。",
)
_OVERLOAD = Meaning(
    ServerError,
    "The service is overloaded, whatever your quota; try again later.",
    "服务端集群繁忙，与你的配额无关；请稍后重试。",
)
_INTERNAL = Meaning(
    ServerError,
    "The service failed; try again later, and report the request id if it stays so.",
    "服务内部错误；请稍后重试，若持续出现请携带请求 id 提交工单。",
)
_KEY = Meaning(
    AuthError,
    "Check the API key (bce-v3/ALTAK-...): it may be mistyped, expired or deleted.",
    "检查 API Key（bce-v3/ALTAK-...）：可能填写错误、已过期或已删除。",
)
_PLAN_KEY = Meaning(
    AuthError,
    "This kind of key does not fit this base URL: plan keys go to /v2/coding or "
    "/v2/tokenplan/personal, ordinary keys to /v2.",
    "该类型的 Key 与 base_url 不匹配：套餐 Key 用于 /v2/coding 或 /v2/tokenplan/personal，普通 Key 用于 /v2。",
)
_PLAN_SPENT = Meaning(
    QuotaError,
    "The plan's quota is used up or the plan is not active; wait for the next period or buy more.",
    "套餐额度已用完或套餐未生效；请等待下一周期或续购。",
)
_OVERDUE = Meaning(QuotaError, "The account is in arrears; top it up.", "账号欠费；请充值。")
_ARGUMENT = Meaning(
    BadRequestError,
    "Correct the parameter that the message names.",
    "按提示信息修改对应参数。",
)
_TOO_LONG = Meaning(
    BadRequestError,
    "Shorten the conversation or use a model with a longer context.",
    "缩短对话内容，或换用上下文更长的模型。",
)
_MODEL = Meaning(
    NotFoundError,
    "Check the model's name, and that this key may use it; `ernie-async models` lists them.",
    "检查模型名称以及该 Key 是否有权限；可用 `ernie-async models` 查看可用模型。",
)
_UNSAFE = Meaning(
    RefusedError,
    "The service's safety check refused this text; change it.",
    "内容未通过安全审核；请修改后重试。",
)
_IMAGE = Meaning(
    BadRequestError,
    "Check the picture's address, format and size (at most 10 MB).",
    "检查图片地址、格式和大小（不超过 10 MB）。",
)

# Keys in lower case: the vendor capitalises some, and spells "generation" in two ways.
CODES: Mapping[str, Meaning] = {
    "malformed_json": Meaning(
        BadRequestError,
        "The body is not JSON; check extra_body.",
        "请求体不是合法 JSON；请检查 extra_body。",
    ),
    "invalid_model": _MODEL,
    "invalid_messages": _ARGUMENT,
    "characters_too_long": _TOO_LONG,
    "tokens_too_long": _TOO_LONG,
    "invalid_argument": _ARGUMENT,
    "invalid_image_url": _IMAGE,
    "invalid_image_genration_prompt": _ARGUMENT,
    "invalid_image_generation_prompt": _ARGUMENT,
    "invalid_image_genration_refer_image": _IMAGE,
    "invalid_image_generation_refer_image": _IMAGE,
    "invalid_plugin_argument": _ARGUMENT,
    "image_url_unsafe": _UNSAFE,
    "invalid_iam_token": _KEY,
    "invalid_appid": Meaning(
        AuthError,
        "Check app_id: it must belong to this account.",
        "检查 app_id：必须属于当前账号。",
    ),
    "no_parameter_permission": Meaning(
        AuthError,
        "This account may not use the parameter that the message names; leave it out.",
        "当前账号无权使用该参数；请去掉该参数。",
    ),
    "accessdenied": _KEY,
    "coding_plan_api_key_not_allowed": _PLAN_KEY,
    "coding_plan_api_key_required": _PLAN_KEY,
    "token_plan_person_api_key_not_allowed": _PLAN_KEY,
    "token_plan_person_api_key_required": _PLAN_KEY,
    "account_overdue": _OVERDUE,
    "model_offline": Meaning(
        NotFoundError,
        "This model was retired; choose another (`ernie-async models` lists them).",
        "该模型已下线；请换用其他模型（`ernie-async models` 可列出）。",
    ),
    "system_unsafe": _UNSAFE,
    "user_setting_unsafe": _UNSAFE,
    "functions_unsafe": _UNSAFE,
    "method_not_supported": Meaning(
        BadRequestError, "This path takes another HTTP method.", "该接口不支持此 HTTP 方法。"
    ),
    "rpm_rate_limit_exceeded": _WAIT_RPM,
    "tpm_rate_limit_exceeded": _WAIT_TPM,
    "input_tpm_rate_limit_exceeded": _WAIT_TPM,
    "output_tpm_rate_limit_exceeded": _WAIT_TPM,
    "user_rate_limit_exceeded": _WAIT_RPM,
    "preemptible_rate_limit_exceeded": _OVERLOAD,
    "cluster_rate_limit_exceeded": _OVERLOAD,
    "cluster_rpm_rate_limit_exceeded": _OVERLOAD,
    "cluster_tpm_rate_limit_exceeded": _OVERLOAD,
    "offline_batch_reasoning_refused": _OVERLOAD,
    "coding_plan_rate_limit_exceeded": _WAIT_RPM,
    "coding_plan_cluster_rate_limited": _OVERLOAD,
    "coding_plan_hour_quota_exceeded": _PLAN_SPENT,
    "coding_plan_week_quota_exceeded": _PLAN_SPENT,
    "coding_plan_month_quota_exceeded": _PLAN_SPENT,
    "token_quota_exceeded": _PLAN_SPENT,
    "coding_plan_not_subscribed": _PLAN_SPENT,
    "coding_plan_subscription_expired": _PLAN_SPENT,
    "coding_plan_model_not_supported": _MODEL,
    "token_plan_person_not_subscribed": _PLAN_SPENT,
    "token_plan_person_subscription_expired": _PLAN_SPENT,
    "internal_error": _INTERNAL,
    "dispatch_internal_error": _INTERNAL,
    "image_genration_interal_error": _INTERNAL,
    "image_generation_internal_error": _INTERNAL,
    # AI search, whose own page is ai.baidu.com/ai-doc/AppBuilder/4m8sgh88y.
    "rate_limit_total_qps": _WAIT_RPM,
    "rate_limit_search_total_qps": _WAIT_RPM,
    "rate_limit_search_qps": _WAIT_RPM,
    "quota_user_daily_request": _PLAN_SPENT,
    "quota_user_daily_free": _PLAN_SPENT,
    "billing_insufficient_balance": _OVERDUE,
    # V1 numbers.
    "2": _OVERLOAD,
    "4": _WAIT_RPM,
    "18": _WAIT_RPM,
    "336501": _WAIT_RPM,
    "336502": _WAIT_TPM,
    "336100": _OVERLOAD,
    "336000": _INTERNAL,
    "6": _KEY,
    "13": _KEY,
    "14": _KEY,
    "100": _KEY,
    "336001": _ARGUMENT,
    "336002": _ARGUMENT,
    "336003": _ARGUMENT,
    "336004": _KEY,
    "336005": _MODEL,
    "336006": _ARGUMENT,
    "336007": _TOO_LONG,
    "336103": _TOO_LONG,
    "336104": _ARGUMENT,
    "336105": _ARGUMENT,
    "110": _KEY,
    "111": _KEY,
    "17": _PLAN_SPENT,
    "19": _PLAN_SPENT,
    # The retired envelope of AI Studio.
    "40401": _KEY,
    "40410": _WAIT_RPM,
}


# The types of errors, in lower case. Of an unknown code they say what an error in a good answer means,
# where there is no status to say it: it would be taken for a failure, and the request be repeated.
TYPES: Mapping[str, type[APIError]] = {
    "invalid_request_error": BadRequestError,
    "access_denied": AuthError,
    "unsafe_request": RefusedError,
    "rate_limit_exceeded": RateLimitError,
    "internal_error": ServerError,
}

# Longer than any message that was recorded.
MAX_MESSAGE = 1000


class _Said(NamedTuple):
    """What an error body says, whatever its shape."""

    code: str | None
    message: str
    request_id: str | None
    type: str | None = None


def holds_error(fields: Mapping[str, Any]) -> bool:
    """Whether the fields of an answer are really an error, in any of the known shapes."""
    return bool(
        fields.get("error")
        or fields.get("object") == "error"
        or _says_failure(fields, "error_code")
        or _says_failure(fields, "errorCode")
        or (
            _says_failure(fields, "code")
            and ("message" in fields or "msg" in fields)
            and not fields.get("choices")
        )
    )


def _says_failure(fields: Mapping[str, Any], name: str) -> bool:
    """Whether there is a code other than 0, which some services send with a success."""
    return fields.get(name) not in (None, 0, "0")


def refusal(
    status: int,
    body: bytes | Mapping[str, Any],
    headers: Mapping[str, str],
    *,
    utc_now: float,
) -> APIError:
    """Make the error that a refusal means.

    Args:
        status: HTTP status; 200 for an error inside a good answer.
        body: The answer's body, as bytes or already read.
        headers: The answer's headers, names in any case.
        utc_now: Seconds since 1970, for a date in `Retry-After`.
    """
    said = _read(body)
    found = {name.lower(): value for name, value in headers.items()}
    meaning = CODES.get((said.code or "").lower())
    error_class = meaning.error if meaning else _class_of(status, said)
    request_id = said.request_id or found.get("x-request-id") or found.get("x-bce-request-id")
    # llama.cpp repeats the status as its code.
    head = f"{status} {said.code}" if said.code and said.code != str(status) else f"{status}"
    text = f"{head}: {said.message}"
    if meaning:
        text += f" - {meaning.remedy}"
    if request_id:
        text += f" (request id {request_id})"
    return error_class(
        text,
        status=status,
        code=said.code,
        request_id=request_id,
        retry_after=read_retry_after(
            found.get("retry-after"), found.get("retry-after-ms"), utc_now=utc_now
        ),
        remedy=meaning.remedy if meaning else "",
        remedy_zh=meaning.remedy_zh if meaning else "",
    )


def _class_of(status: int, said: _Said) -> type[APIError]:
    code, known = said.code, TYPES.get((said.type or "").lower())
    if known is RefusedError or (known is not None and 200 <= status < 300):
        return known
    if status < 400 and code is not None and len(code) == 3 and code.isdecimal():
        # FastDeploy puts the status it would have sent into a stream's error event.
        status = int(code)
    by_status: dict[int, type[APIError]] = {
        401: AuthError,
        402: QuotaError,
        403: AuthError,
        404: NotFoundError,
        408: ServerError,
        429: RateLimitError,
    }
    if status in by_status:
        return by_status[status]
    if 400 <= status < 500:
        return BadRequestError
    # An error inside a good answer, without a code we know, is the service's fault.
    return ServerError if status >= 500 or status == 200 else APIError


def _read(body: bytes | Mapping[str, Any]) -> _Said:
    if isinstance(body, bytes):
        try:
            fields = read_json(body)
        except ValueError:
            fields = None
        if not isinstance(fields, Mapping):
            text = body.decode("utf-8", "replace").strip()
            return _Said(None, shorten(text, 300) if text else "an empty body", None)
    else:
        fields = body
    inner = fields.get("error")
    source = inner if isinstance(inner, Mapping) else fields
    code = _first(source, "code", "error_code", "errorCode")
    message = _first(source, "message", "error_msg", "errorMsg", "msg", "detail", "error")
    request_id = _first(fields, "id", "request_id", "requestId")
    text = (message or "no message")[:MAX_MESSAGE].rstrip(".。 ")
    return _Said(code, text, request_id, _first(source, "type"))


def _first(fields: Mapping[str, Any], *names: str) -> str | None:
    """The first of these fields that says something, as text."""
    return next((str(fields[name]) for name in names if fields.get(name) not in (None, "")), None)
