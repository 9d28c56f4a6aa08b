"""After a cut: whether to ask again, in which form, and with which request.

Source: section "prefix continuation" of the service's manual (cloud.baidu.com/doc/qianfan-docs/s/
Sm9m6jusj), the request fields of vLLM and SGLang, and for the emulation the vendor's own SDK, which
joins the parts of truncated answers so. Knows no connection; `seam` joins the texts.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

from pydantic_core import to_json

from ernie_async.errors import APIError, ConfigError, ErnieError
from ernie_async.sansio.accumulate import Accumulator
from ernie_async.sansio.rest import Request
from ernie_async.sansio.retry import may_pass
from ernie_async.sansio.tokens import estimate_tokens
from ernie_async.types.wire import read_json

__all__ = [
    "Continuation",
    "Form",
    "ResumeMode",
    "ResumePolicy",
    "continuations",
    "least_overlap",
    "read_resume",
    "resume_forms",
    "resume_request",
]

ResumeMode = Literal["server", "continue", "never"]

Continuation = Literal["prefix", "final_message", "emulated"]

Form = Literal["server", "restart"] | Continuation
"""How an answer was resumed: by the server, from the start since nothing of it had come, or by one
of three ways to ask a model to go on."""

# Those that the manual of 2025-10-22 lists for `prefix`; no ERNIE model is among them.
PREFIX_MODELS = frozenset(
    {
        "deepseek-r1",
        "deepseek-r1-250528",
        "deepseek-v3",
        "deepseek-v3.1-250821",
        "deepseek-v3.1-think-250821",
        "deepseek-v3.2",
        "deepseek-v3.2-think",
        "qwen3-235b-a22b-instruct-2507",
        "qwen3-30b-a3b-instruct-2507",
        "qwen3-coder-30b-a3b-instruct",
        "qwen3-coder-480b-a35b-instruct",
    }
)

GO_ON_ZH = (
    "你的回答在上面的最后一个字处中断了。请从那里直接接着写，不要重复已写的内容，不要加任何说明。"
)
GO_ON_EN = (
    "Your answer was cut off exactly where it ends above. Go on from there; "
    "repeat nothing of it and add no remark."
)

# Where the server itself promises not to repeat, a short repetition is part of the text: "哈哈".
LEAST_OVERLAP_OF_PROMISE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumePolicy:
    """What to do when a stream breaks after its first chunk.

    Attributes:
        mode: `"server"`: ask the server to send the rest, if it numbers its events. `"continue"`:
            else ask the model to go on from the text so far; a second request, which is billed,
            and whose words may differ. `"never"`: raise the error.
        most: Resumes of one stream, at least 1.
        continuation: How a model is asked to go on. `"prefix"`: Qianfan's field. `"final_message"`:
            the field of vLLM and SGLang. `"emulated"`: with another user turn. `"auto"`: `prefix`
            for the models that are known to take it, else `emulated`.
    """

    mode: ResumeMode = "server"
    most: int = 3
    continuation: Literal["auto"] | Continuation = "auto"

    def __post_init__(self) -> None:
        if self.mode not in get_args(ResumeMode):
            raise ConfigError(
                f'resume: expected "server", "continue" or "never", got {self.mode!r}'
            )
        if not isinstance(self.most, int) or self.most < 1:
            raise ConfigError(f"most: expected a whole number, at least 1, got {self.most!r}")
        ways = ("auto", *get_args(Continuation))
        if self.continuation not in ways:
            raise ConfigError(
                f"continuation: expected one of {', '.join(ways)}, got {self.continuation!r}"
            )


def read_resume(resume: ResumeMode | ResumePolicy) -> ResumePolicy:
    """A policy from a policy or from the name of its mode.

    Raises:
        ConfigError: It is neither.
    """
    return resume if isinstance(resume, ResumePolicy) else ResumePolicy(mode=resume)


class _Conversation(NamedTuple):
    fields: dict[str, Any]
    messages: list[dict[str, Any]]


def resume_forms(
    policy: ResumePolicy,
    request: Request,
    answer: Accumulator,
    error: ErnieError,
    *,
    last_event_id: str,
    n_resumes: int,
) -> tuple[Form, ...]:
    """The ways in which this stream may go on, best first; none if it may not.

    A later form is for when the server refuses an earlier one.

    Args:
        policy: The caller's wish.
        request: What was asked in the first place.
        answer: What was delivered.
        error: What broke the stream.
        last_event_id: Of the last event that was read; empty if the server sends no ids.
        n_resumes: How often this stream was resumed already.
    """
    if policy.mode == "never" or n_resumes >= policy.most or not may_pass(error):
        return ()
    # An error that the service reports is not passed over in silence, unless that was asked for.
    is_reported = isinstance(error, APIError)
    forms: list[Form] = ["server"] if last_event_id and not is_reported else []
    if policy.mode == "continue":
        forms += continuations(policy, request, answer)
    return tuple(forms)


def continuations(policy: ResumePolicy, request: Request, answer: Accumulator) -> tuple[Form, ...]:
    """The ways in which a model can be asked to go on with an answer, best first."""
    if request.n > 1 or answer.has_tool_calls or _wants_structure(request):
        return ()
    text = answer.text
    if not text:
        return () if answer.reasoning else ("restart",)
    if text.isspace():
        return ()  # refused as a message
    if policy.continuation != "auto":
        first = policy.continuation
    else:
        first = "prefix" if request.model in PREFIX_MODELS else "emulated"
    return (first,) if first == "emulated" else (first, "emulated")


def _wants_structure(request: Request) -> bool:
    """Whether the answer has to be of a form that a seam might break."""
    wanted = _read(request).fields.get("response_format")
    return isinstance(wanted, dict) and wanted.get("type") != "text"


def resume_request(request: Request, form: Form, text: str, *, last_event_id: str = "") -> Request:
    """The request that goes on with an answer.

    Args:
        request: What was asked in the first place.
        form: One of `resume_forms`.
        text: The answer so far.
        last_event_id: For the form `server`.
    """
    if form == "server":
        headers = {**request.headers, "Last-Event-ID": last_event_id}
        return replace(request, headers=headers)
    if form == "restart":
        return request
    fields, messages = _read(request)
    last = messages[-1]
    if last.get("role") == "assistant" and isinstance(last.get("content"), str):
        # The caller's own beginning of the answer, and ours: one turn.
        text = messages.pop()["content"] + text
    turn: dict[str, Any] = {"role": "assistant", "content": text}
    messages.append(turn)
    if form == "prefix":
        turn["prefix"] = True
    elif form == "final_message":
        fields |= {"continue_final_message": True, "add_generation_prompt": False}
    else:
        is_chinese = any("\u4e00" <= c <= "\u9fff" for c in text)
        messages.append({"role": "user", "content": GO_ON_ZH if is_chinese else GO_ON_EN})
    written = estimate_tokens(text)
    for name in ("max_completion_tokens", "max_tokens"):
        if isinstance(fields.get(name), int):
            fields[name] = max(1, fields[name] - written)
    return replace(
        request,
        body=to_json({**fields, "messages": messages}),
        prompt_tokens=request.prompt_tokens + written if request.prompt_tokens else 0,
        answer_tokens=max(1, request.answer_tokens - written) if request.answer_tokens else 0,
    )


def _read(request: Request) -> _Conversation:
    assert isinstance(request.body, bytes)
    fields = read_json(request.body)
    return _Conversation(fields, list(fields.get("messages", ())))


def least_overlap(form: Form) -> int:
    """The shortest repetition at the seam that is taken for one."""
    return 1 if form == "emulated" else LEAST_OVERLAP_OF_PROMISE
