"""A call whose answer comes in one piece: asked, read, counted. Streams are in `net.source`."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from time import monotonic, time
from typing import Any, TypeVar

from pydantic import BaseModel

from ernie_async.errors import ErnieError
from ernie_async.net.admission import AnyPermit
from ernie_async.net.body import SHORT_BYTES, read_body
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

    def read(reply: Reply, body: bytes) -> M:
        answer = read_answer(model, reply.status, reply.headers, body, utc_now=time())
        return answer if check is None else check(answer)

    return fetch(desk, request, read)


async def fetch(
    desk: Desk,
    request: Request,
    read: Callable[[Reply, bytes], T],
    *,
    take: Callable[[Reply], Awaitable[bytes]] = read_body,
) -> T:
    """Make a call whose answer comes in one piece, whatever it is.

    Args:
        desk: Who asks.
        request: What to ask.
        read: Reads the body of an answer, or says what is wrong with it; once for each attempt.
        take: Receives that body. May put it elsewhere and return nothing of it.

    Raises:
        ErnieError: See the tree in `errors`.
    """
    call = Call(desk, request)
    try:
        with Deadline(None) as deadline:
            call.stop_with(lambda _: deadline.expire())
            answer = await call.answer_of(partial(_answer_to, call, read, take))
    except ErnieError as error:
        call.end("error", error=error)
        raise
    except TimeoutError:
        failure = call.clock_ran_out()
    except BaseException as error:
        call.end("cancelled" if isinstance(error, asyncio.CancelledError) else "error")
        raise
    else:
        usage, estimate = _told_usage(answer), None
        if not isinstance(answer, ChatCompletion):
            if usage is not None:
                call.charge_with(usage)
            call.end("ok", usage=usage, answer=lambda: AnswerHead(model=_told_model(answer)))
            return answer
        desk, request = call.desk, call.request  # of the model that answered
        if usage is None:
            usage = estimate = desk.estimate(request, answer.reasoning + answer.text)
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
            usage=estimate,
            fell_back_from=call.fell_back_from,
        )
        return answer
    # Raised outside the handler: the cancellation inside is no news to the caller.
    call.end("error", error=failure)
    raise failure


def _answer_to(
    call: Call,
    read: Callable[[Reply, bytes], T],
    take: Callable[[Reply], Awaitable[bytes]],
) -> Coroutine[Any, Any, T]:
    """Make one attempt, or two at a time if the first one is late."""
    hedger = call.desk.hedger  # of whichever client's model is asked
    if hedger is None or not call.request.messages:
        return _attempt(call, read, take)
    start = partial(_attempt, call, read, take, is_admitted=True)
    return hedger.attempt(call, start, drop=lambda _: None)


async def _attempt(
    call: Call,
    read: Callable[[Reply, bytes], T],
    take: Callable[[Reply], Awaitable[bytes]],
    permit: AnyPermit | None = None,
    *,
    is_admitted: bool = False,
) -> T:
    """Wait for room unless it is admitted, send the request, and read its answer."""
    if not is_admitted and not call.goes_at_once():
        permit = await call.admit()
    began = monotonic()
    try:
        reply = await call.send()
        try:
            if permit is not None:
                call.learn(permit, reply)
            body = reply.read_whole(SHORT_BYTES) if take is read_body else None
            answer = read(reply, await take(reply) if body is None else body)
        finally:
            reply.close()
        if permit is not None:
            usage = _told_usage(answer)
            if usage is not None:
                permit.settle(tokens=tokens_used(usage))
            tell_success(permit, usage, monotonic() - began)
    except ErnieError as error:
        if permit is not None:
            call.report(permit, error)
            settle_failed(permit, error)
        raise
    except asyncio.CancelledError:
        # Of an answer in one piece, the whole time is the only clock. Most of it in line is no
        # fault of the service's.
        now = monotonic()
        is_over = call.ends_at is not None and now >= max(call.ends_at, 2 * began - call.started)
        if permit is not None and is_over:
            permit.congested()
        raise
    finally:
        if permit is not None:
            permit.release()
    return answer


def _told_usage(answer: object) -> Usage | None:
    """The usage that an answer tells; `None` if it tells none."""
    # The first of these is the quick one.
    if not isinstance(answer, ChatCompletion) and not isinstance(answer, BaseModel):
        return None
    if "usage" not in answer.__pydantic_fields_set__:
        return None
    usage = answer.__dict__.get("usage")  # one of unknown form is no field
    return usage if isinstance(usage, Usage) else None


def _told_model(answer: object) -> str | None:
    """The model that an answer names; `None` if it names none."""
    model = answer.__dict__.get("model") if isinstance(answer, BaseModel) else None
    return model if isinstance(model, str) else None
