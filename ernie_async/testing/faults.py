r"""The ways in which a service fails, by name: a table to run your own handlers against.

Each one is a step of the script, with the error that a client raises if it tries only once. What
your program makes of that error is what you test:

    @pytest.mark.parametrize("fault", FAULTS.values(), ids=str)
    def test_handler_survives(fault, mock_ernie):
        mock_ernie.default(fault.step)
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from ernie_async.errors import (
    AuthError,
    BadRequestError,
    BlockedError,
    ConnectError,
    DeadlineError,
    DecodeError,
    ErnieError,
    InterruptedStreamError,
    NotFoundError,
    QuotaError,
    RateLimitError,
    RefusedError,
    ServerError,
)
from ernie_async.testing.script import (
    Step,
    cut,
    error_event,
    heartbeats,
    raw,
    refuse,
    reply,
    stall,
)

__all__ = ["FAULTS", "Fault"]

HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
CHUNK = (
    'data: {"id":"as-fault","model":"ernie-5.1","choices":[{"index":0,"delta":'
    '{"role":"assistant","content":"量子"},"finish_reason":null}]}\n\n'
).encode()
WHOLE = (
    '{"id":"as-fault","object":"chat.completion","model":"ernie-5.1","choices":[{"index":0,'
    '"message":{"role":"assistant","content":"量子"},"finish_reason":"stop"}]}'
).encode()


class Fault(NamedTuple):
    """One way to fail.

    Attributes:
        name: Short, and never changed.
        step: What the server does with a request.
        streamed: What a stream raises; `None` if it ends well.
        whole: What `chat` raises.
    """

    name: str
    step: Step
    streamed: type[ErnieError] | None
    whole: type[ErnieError] | None

    def __str__(self) -> str:
        return self.name


# One good piece, and then no size of a piece where one has to be.
FRAMED = b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK)
BROKEN = raw([FRAMED, b"\xff\xffzz\r\nxx\r\n"], framing=False, pause_ms=30)


FAULTS: Mapping[str, Fault] = {
    fault.name: fault
    for fault in (
        # Refused before anything was said.
        Fault("bad_request", refuse(400), BadRequestError, BadRequestError),
        Fault("bad_key", refuse(401), AuthError, AuthError),
        Fault("no_such_model", refuse(404), NotFoundError, NotFoundError),
        Fault("overdue", refuse(403, "account_overdue"), QuotaError, QuotaError),
        Fault("unsafe_prompt", refuse(400, "system_unsafe"), RefusedError, RefusedError),
        Fault("too_many", refuse(429), RateLimitError, RateLimitError),
        Fault(
            "too_many_retry_after", refuse(429, retry_after=0.05), RateLimitError, RateLimitError
        ),
        Fault(
            "too_many_for_an_hour", refuse(429, retry_after=3600), RateLimitError, RateLimitError
        ),
        Fault("server_error", refuse(500), ServerError, ServerError),
        Fault("overloaded", refuse(503), ServerError, ServerError),
        Fault(
            "gateway_page",
            refuse(502, body=HTML, content_type="text/html"),
            ServerError,
            ServerError,
        ),
        # The connection fails.
        Fault("hangs_up", cut(before_headers=True), ConnectError, ConnectError),
        Fault("reset", cut(before_headers=True, how="reset"), ConnectError, ConnectError),
        Fault("cut_at_start", cut(after_chunks=0), InterruptedStreamError, ConnectError),
        Fault("cut", cut(after_chunks=3), InterruptedStreamError, ConnectError),
        Fault(
            "reset_midway", cut(after_chunks=3, how="reset"), InterruptedStreamError, ConnectError
        ),
        Fault("ends_early", cut(after_chunks=3, how="end"), InterruptedStreamError, DecodeError),
        # The connection stays, and nothing comes of it.
        Fault("silent", stall(before_headers=True), DeadlineError, DeadlineError),
        Fault("silent_after_headers", stall(), DeadlineError, DeadlineError),
        Fault("stall", stall(after_chunks=3), DeadlineError, DeadlineError),
        Fault("heartbeats_only", heartbeats(20), DeadlineError, DeadlineError),
        Fault("heartbeats_midway", heartbeats(20, after_chunks=3), DeadlineError, DeadlineError),
        # An error where an answer was expected.
        Fault("error_first", error_event(), ServerError, ServerError),
        Fault("error_midway", error_event(after_chunks=3), ServerError, ServerError),
        Fault("error_bare", error_event(after_chunks=3, bare=True), ServerError, ServerError),
        Fault(
            "error_too_many", error_event("rpm_rate_limit_exceeded"), RateLimitError, RateLimitError
        ),
        # What comes is no answer.
        Fault("empty", raw(b""), InterruptedStreamError, DecodeError),
        Fault("page", raw(HTML, content_type="text/html"), DecodeError, DecodeError),
        Fault("not_a_stream", raw(WHOLE, content_type="application/json"), DecodeError, None),
        Fault("truncated_event", raw([CHUNK, CHUNK[:40] + b"\n\n"]), DecodeError, DecodeError),
        Fault(
            "truncated_json",
            raw(WHOLE[:40], content_type="application/json"),
            DecodeError,
            DecodeError,
        ),
        # aiohttp does not see these, and would wait for ever.
        Fault("broken_framing", BROKEN, DeadlineError, DeadlineError),
        Fault("broken_framing_open", replace(BROKEN, end="stall"), DeadlineError, DeadlineError),
        # The service takes its answer back.
        Fault("blocked", reply(flag=4), BlockedError, BlockedError),
        Fault("content_filter", reply(finish_reason="content_filter"), BlockedError, BlockedError),
        # The model does not come to an end, and says so.
        Fault("length", reply(finish_reason="length"), None, None),
    )
}
