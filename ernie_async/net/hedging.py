"""Send a request a second time when its first token is late, and take the answer that comes first.

When that is stands in `sansio.hedging`. Whoever loses is cancelled, and waited for: no request, no
permit and no task is left behind.
"""

import asyncio
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, TypeVar

from ernie_async.errors import ErnieError
from ernie_async.net.admission import AnyPermit
from ernie_async.net.call import Call
from ernie_async.net.hooks import Hedged, tell
from ernie_async.sansio.hedging import HedgePlan, Hedging
from ernie_async.types.usage import Usage

__all__ = ["Hedger"]

T = TypeVar("T")

# So long a second request waits for room: a round trip to a limiter that processes share.
ROOM_SECONDS = 0.05


class Hedger:
    """Makes the attempts of a client that hedges. Copies of the client plan by themselves."""

    def __init__(self, policy: Hedging) -> None:
        self._plan = HedgePlan(policy)

    async def attempt(
        self,
        call: Call,
        start: Callable[[AnyPermit | None], Coroutine[Any, Any, T]],
        *,
        drop: Callable[[T], None],
    ) -> T:
        """Make one attempt, and a second one beside it if the first is late.

        Args:
            call: The call that it is part of.
            start: Makes an attempt with a permit that it then has to release; without one if
                nothing is limited.
            drop: Leaves an answer that came in the same moment as the one that is taken.

        Raises:
            ErnieError: The attempt failed; if there were two, both did.
        """
        key = call.request.model, call.request.is_stream
        permit = await call.admit()
        began = monotonic()
        delay = self._plan.begin(key, began)
        if delay is None:
            answer = await start(permit)
            self._plan.note(key, monotonic() - began, monotonic())
            return answer
        first = asyncio.create_task(start(permit))
        tasks = {first: permit}
        began_again = began
        try:
            await asyncio.wait(tasks, timeout=delay)
            if not first.done() and (room := await _room(call, self._plan, first)):
                began_again = monotonic()
                tasks[asyncio.create_task(start(room[0]))] = room[0]
            winner = await _first_answer(call, list(tasks))
            answer = winner.result()
            is_hedged, is_won = len(tasks) > 1, winner is not first
            late = {task: held for task, held in tasks.items() if task is not winner}
            was_running = await _leave(late, drop)
        except BaseException:
            await _leave(tasks, drop)
            raise
        finally:
            del first, tasks  # an error's traceback holds this frame, and they hold the error
        now = monotonic()
        self._plan.note(key, now - began, now)  # at least so long, if the other one answered
        if is_won:
            self._plan.note(key, now - began_again, now)
        if is_hedged:
            _tell_cost(call, began_again - began, won=is_won, was_running=was_running)
        return answer


async def _room(
    call: Call, plan: HedgePlan, first: asyncio.Task[Any]
) -> tuple[AnyPermit | None] | None:
    """A permit for one more request, if it can be had at once; `None` if not, or not needed."""
    if not plan.may_send():
        return None
    try:
        async with asyncio.timeout(ROOM_SECONDS):
            permit = await call.admit()
    except (TimeoutError, ErnieError):
        plan.give_back()
        return None
    if not first.done():
        return (permit,)
    plan.give_back()
    if permit is not None:
        permit.give_back()
    return None


async def _first_answer(call: Call, tasks: list[asyncio.Task[T]]) -> asyncio.Task[T]:
    """Wait for the first task that succeeds; raises the error of the first one if none does."""
    running = set(tasks)
    while running:
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task not in done:
                continue
            error = None if task.cancelled() else task.exception()
            if error is None:
                return task
            if task is not tasks[0] and isinstance(error, ErnieError):
                # Of the first one, whoever makes attempts takes note.
                call.note_failure(error, has_begun=True)
    return tasks[0]


async def _leave(late: dict[asyncio.Task[T], AnyPermit | None], drop: Callable[[T], None]) -> bool:
    """Cancel what is not needed and wait for it; says whether any of it was under way."""
    was_running = any(not task.done() for task in late)

    def clean(task: asyncio.Task[T]) -> None:
        permit = late[task]
        if not task.cancelled() and task.exception() is None:
            drop(task.result())
        if permit is not None:
            permit.release()  # for a task that never began; else it is released already

    for task in late:
        task.add_done_callback(clean)
        task.cancel()
    if late:
        await asyncio.wait(late)
    return was_running


def _tell_cost(call: Call, after: float, *, won: bool, was_running: bool) -> None:
    """Note what the request cost that nobody waited for: the service bills it as any other."""
    desk, request = call.desk, call.request
    usage = desk.estimate(request, "") if was_running else Usage()
    if was_running:
        desk.ledger.note(request.model, usage)
        if call.charge is not None:
            call.charge.add(usage)
    tell(
        desk.hooks,
        Hedged(call=call.number, model=request.model or "", after=after, won=won, usage=usage),
    )
