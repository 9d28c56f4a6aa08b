"""A call whose answer comes in one piece: asked, read, counted. Streams are in `net.source`."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic, time
from typing import Any, TypeVar

from pydantic import BaseModel

from ernie_async.errors import ErnieError
from ernie_async.net.admission import AnyPermit
from ernie_async.net.body import read_body
from ernie_async.net.call import Call
from ernie_async.net.deadline import Deadline
from ernie_async.net.desk import Desk
from ernie_async.net.feedback import settle_failed, tell_success
from ernie_async.net.reply import Reply
from ernie_async.sansio.rest import Request, read_answer
from ernie_async.types.completion import AnswerHead, ChatCompletion
from ernie_async.types.usage import Usage, tokens_used

__all__ = ["fetch", "get_answer"]

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


def get_answer(
    desk: Desk, request: Request, model: type[M], *, check: Callable[[M], M] | None = None
) -> Coroutine[Any, Any, M]:
    """Make a call whose answer comes in one piece, and read it.

    Args:
        desk: Who asks.
        request: What to ask.
        model: What the answer is.
        check: Puts an answer in order, or says what is wrong with it.

    Raises:
        ErnieError: See the tree in `errors`.
    """

    async def receive(reply: Reply) -> M:
        body = await read_body(reply)
        answer = read_answer(model, reply.status, reply.headers, body, utc_now=time())
        return answer if check is None else check(answer)

    return fetch(desk, request, receive)


async def fetch(desk: Desk, request: Request, receive: Callable[[Reply], Awaitable[T]]) -> T:
    """Make a call whose answer comes in one piece, whatever it is.

    Args:
        desk: Who asks.
        request: What to ask.
        receive: Reads an answer to its end, or says what is wrong with it; once for each
            attempt.

    Raises:
        ErnieError: See the tree in `errors`.
    """
    call = Call(desk, request)
    try:
        with Deadline(None) as deadline:
            call.stop_with(lambda _: deadline.expire())
            call.start_clock()
            answer = await call.answer_of(_asking(call, receive))
    except ErnieError as error:
        call.end("error", error=error)
        raise
    except TimeoutError:
        failure = call.clock_ran_out()
    except BaseException as error:
        call.end("cancelled" if isinstance(error, asyncio.CancelledError) else "error")
        raise
    else:
        usage = _told_usage(answer)
        if not isinstance(answer, ChatCompletion):
            if usage is not None:
                call.charge_with(usage)
            call.end("ok", usage=usage, answer=lambda: AnswerHead(model=_told_model(answer)))
            return answer
        desk, request = call.desk, call.request  # of the model that answered
        if usage is None:
            usage = desk.estimate(request, answer.reasoning + answer.text)
        else:
            desk.output.note(usage.completion_tokens)
            desk.learn(request, usage)
        desk.ledger.note(request.model, usage)
        call.charge_with(usage)
        completion = answer
        timing = call.end(
            "ok",
            usage=usage,
            request_id=answer.request_id,
            answer=lambda: completion.head,
            completion=lambda: completion,
        )
        answer.observed(
            request_id=request.request_id,
            timing=timing,
            usage=usage,
            fell_back_from=call.fell_back_from,
        )
        return answer
    # Raised outside the handler: the cancellation inside is no news to the caller.
    call.end("error", error=failure)
    raise failure


def _asking(
    call: Call, receive: Callable[[Reply], Awaitable[T]]
) -> Callable[[], Coroutine[Any, Any, T]]:
    """What makes one attempt, or two at a time if the first one is late."""

    def ask() -> Coroutine[Any, Any, T]:
        hedger = call.desk.hedger  # of whichever client's model is asked
        if hedger is None or not call.request.messages:
            return _answer_to(call, receive)
        return hedger.attempt(
            call,
            lambda permit: _answer_to(call, receive, permit, is_admitted=True),
            drop=lambda _: None,
        )

    return ask


async def _answer_to(
    call: Call,
    receive: Callable[[Reply], Awaitable[T]],
    permit: AnyPermit | None = None,
    *,
    is_admitted: bool = False,
) -> T:
    """Make one attempt: wait for room unless it is admitted, send the request, read its answer."""
    if not is_admitted:
        permit = await call.admit()
    if permit is None:
        reply = await call.send()
        try:
            return await receive(reply)
        finally:
            reply.close()
    began = monotonic()
    try:
        reply = await call.send()
        try:
            call.learn(permit, reply)
            answer = await receive(reply)
        finally:
            reply.close()
        usage = _told_usage(answer)
        if usage is not None:
            permit.settle(tokens=tokens_used(usage))
        tell_success(permit, usage, monotonic() - began)
    except ErnieError as error:
        call.report(permit, error)
        settle_failed(permit, error)
        raise
    except asyncio.CancelledError:
        # Of an answer in one piece, the whole time is the only clock. Most of it in line is no
        # fault of the service's.
        now = monotonic()
        if call.ends_at is not None and now >= max(call.ends_at, 2 * began - call.started):
            permit.congested()
        raise
    finally:
        permit.release()
    return answer


def _told_usage(answer: object) -> Usage | None:
    """The usage that an answer tells; `None` if it tells none."""
    if not isinstance(answer, BaseModel) or "usage" not in answer.__pydantic_fields_set__:
        return None
    usage = answer.__dict__.get("usage")  # one of unknown form is no field
    return usage if isinstance(usage, Usage) and not usage.is_estimate else None


def _told_model(answer: object) -> str | None:
    """The model that an answer names; `None` if it names none."""
    model = answer.__dict__.get("model") if isinstance(answer, BaseModel) else None
    return model if isinstance(model, str) else None
