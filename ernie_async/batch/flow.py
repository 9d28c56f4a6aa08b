"""Lines on their way: read, admitted, asked, tried again when due, and handed over.

A fixed number of workers and one feeder, whatever the number of lines. What a stop means for each
line is decided here; files and screens are unknown.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from time import monotonic, time
from typing import Any, Literal, NamedTuple

from ernie_async.batch.agenda import Agenda
from ernie_async.batch.asking import Answer, Need
from ernie_async.batch.attempts import AnyAttempts
from ernie_async.batch.journal import Journal
from ernie_async.batch.lines import Fault, Line
from ernie_async.batch.progress import Gauges, Progress, WaitingFor
from ernie_async.batch.records import MAX_ATTEMPTS_TOLD, Attempt, BatchResult, code_of
from ernie_async.batch.stopping import BatchError, Budget, Losses, StopReason, code_of_undone
from ernie_async.errors import (
    APIError,
    ConfigError,
    ConnectError,
    DeadlineError,
    ErnieError,
    NoKeyError,
    RateLimitError,
    ServerError,
)
from ernie_async.sansio.load import OVERLOAD, is_quota
from ernie_async.sansio.retry import RetryPolicy

__all__ = ["Flow", "Item", "Rules"]

# Until one line has succeeded, no more calls than this are made at once: a wrong key shall not cost
# as many of them as there are workers.
CAUTIOUS = 8

# A line that is refused for want of quota is given up after so many seconds, if the run has no
# deadline.
QUOTA_PATIENCE = 600.0

# Items that bring no work are read in a row before others have a turn.
ITEMS_IN_A_ROW = 64

# With these a service says that it did not even begin.
REFUSING = {429, 503, 529}

Phase = Literal["admission", "asking", "telling"]


class Item(NamedTuple):
    """A line of the input, and what the caller wants to see again with its result."""

    line: Line | Fault
    row: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a flow obeys.

    Attributes:
        workers: Calls at once, at most.
        window: Lines that are read and not over, at most.
        retry: How often a line is tried.
        deadline: Seconds after which nothing new begins; `None` for no limit.
        grace: Seconds that calls under way get when the run stops.
        is_once: A line is tried again only if the service cannot have worked on it.
    """

    workers: int
    window: int
    retry: RetryPolicy
    deadline: float | None
    grace: float
    is_once: bool = False

    def once(self) -> "Rules":
        """The same for lines that must not be asked twice."""
        return replace(self, is_once=True)


@dataclass(slots=True, eq=False)
class Job:
    """A line on its way."""

    line: Line
    row: Any
    need: Need
    attempts: int = 0
    refused_since: float | None = None
    errors: list[Attempt] = field(default_factory=list)


class Flow:
    """Runs once.

    Args:
        attempts: Makes them.
        rules: What it obeys.
        budget: What may be spent.
        losses: Says when there are too many.
        progress: Told of everything.
        tell: Takes each result. A failure of it stops the run.
        journal: Told before each attempt, and of those that the service refused to work on.
        has_room: Whether one more line may be read, apart from the window.
    """

    def __init__(
        self,
        attempts: AnyAttempts,
        rules: Rules,
        *,
        budget: Budget,
        losses: Losses,
        progress: Progress,
        tell: Callable[[BatchResult], Awaitable[None]],
        journal: Journal | None = None,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self.progress = progress
        self.reason: StopReason | None = None
        self.failure: Exception | None = None
        self._attempts = attempts
        self._rules = rules
        self._budget = budget
        self._losses = losses
        self._tell = tell
        self._journal = journal
        self._has_room = has_room
        self._chance = Random()
        self._agenda: Agenda[Job] = Agenda()
        self._is_read = False
        self._outstanding = 0
        self._active = 0
        self._has_succeeded = False
        self._idle: list[asyncio.Future[None]] = []
        self._room = asyncio.Event()
        self._timers: list[asyncio.TimerHandle] = []
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = float("inf")
        self._phases: dict[asyncio.Task[Any], Phase] = {}
        self._undone: list[Job] = []
        self._feeder: asyncio.Task[None] | None = None
        self._counts_tokens = budget.is_limited or attempts.counts_tokens

    async def run(self, items: AsyncIterator[Item]) -> None:
        """Take all items to their end, or stop.

        Raises:
            ExceptionGroup: Something failed that should not.
        """
        loop = asyncio.get_running_loop()
        if self._rules.deadline is not None:
            self._timers.append(loop.call_later(self._rules.deadline, self.stop, "deadline"))
        try:
            async with self._attempts, asyncio.TaskGroup() as group:
                self._feeder = group.create_task(self._feed(items))
                for _ in range(self._rules.workers):
                    group.create_task(self._work())
        finally:
            for timer in self._timers:
                timer.cancel()
            if self._alarm is not None:
                self._alarm.cancel()
        self._undone += self._agenda.clear()
        for job in self._undone:
            code = code_of_undone(self.reason or "cancelled")
            await self._hand_over(self._result(job, Answer(), code, "the run stopped before"))

    def stop(self, reason: StopReason, failure: Exception | None = None) -> None:
        """Begin nothing more, and give what is under way its time. Only the first call counts.

        Args:
            reason: Why.
            failure: What went wrong, if something did.
        """
        if self.reason is not None:
            return
        self.reason, self.failure = reason, failure
        if self._feeder is not None and self._feeder is not asyncio.current_task():
            self._feeder.cancel()
        self._cancel("admission")
        self._attempts.stop()
        self._wake(len(self._idle))
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(self._rules.grace, self.cancel))

    def cancel(self) -> None:
        """Stop, and break off what is under way."""
        self.stop("cancelled")
        self._cancel("admission", "asking")

    def gauges(self) -> Gauges:
        """What is so right now."""
        phases = list(self._phases.values())
        views = self._attempts.views()
        waiting_elsewhere = self._attempts.waiting
        in_flight = phases.count("asking") - waiting_elsewhere
        limit = min([self._limit(), *(v.concurrency for v in views if v.concurrency is not None)])
        waiting: WaitingFor | None = None
        if "telling" in phases and self._active >= limit:
            waiting = "consumer"
        elif any(one.paused_for for one in views):
            waiting = "cooldown"
        elif in_flight >= limit:
            waiting = "concurrency"
        elif "admission" in phases or waiting_elsewhere:
            waiting = "rate"
        elif self._agenda.waiting:
            waiting = "cooldown"
        elif not self._is_read:
            waiting = "input"
        return Gauges(in_flight, limit, waiting)

    def _cancel(self, *phases: Phase) -> None:
        for task, phase in list(self._phases.items()):
            if phase in phases:
                task.cancel()

    @contextmanager
    def _in(self, phase: Phase) -> Iterator[Callable[[Phase], None]]:
        task = asyncio.current_task()
        assert task is not None
        become = partial(self._phases.__setitem__, task)
        become(phase)
        try:
            yield become
        finally:
            del self._phases[task]

    # Reading

    async def _feed(self, items: AsyncIterator[Item]) -> None:
        n_items = 0
        try:
            async for item in items:
                n_items += 1
                if n_items % ITEMS_IN_A_ROW == 0:
                    await asyncio.sleep(0)
                await self._take(item)
                if self.reason is not None:
                    break
        except asyncio.CancelledError:
            if self.reason is None:
                raise
        except BatchError as error:
            self.stop(error.reason, error)
        except (OSError, ConfigError) as error:
            self.stop("input", error)
        except Exception as error:  # noqa: BLE001 - the caller's iterator; the caller is told
            self.stop("internal", error)
        finally:
            self._is_read = True
            self._wake(len(self._idle))

    async def _take(self, item: Item) -> None:
        line, row = item
        if isinstance(line, Fault):
            await self._finish(_fault_result(line, row), None)
            return
        while self._outstanding >= self._rules.window or not self._has_room():
            self._room.clear()
            try:
                await self._room.wait()
            except asyncio.CancelledError:
                self._undone.append(Job(line, row, Need()))
                raise
        if self._budget.max_cost is not None and not self._attempts.has_price(line):
            raise BatchError(f"max_cost: {line.model!r} has no price", "budget")
        self._outstanding += 1
        need = self._attempts.need(line) if self._counts_tokens else Need()
        self._agenda.add(Job(line, row, need))
        self._wake(1)

    # Working

    def _limit(self) -> int:
        workers = self._rules.workers
        return workers if self._has_succeeded else min(workers, CAUTIOUS)

    def _take_next(self) -> Job | None:
        """What a worker shall do now; `None` if it has to wait."""
        now = monotonic()
        job = self._agenda.peek(now)
        if job is None or self._active >= self._limit():
            return None
        if self._budget.is_limited and not self._budget.reserve(job.need.cost, job.need.tokens):
            if self._active == 0:
                self.stop("budget")
            return None
        return self._agenda.pop(now)

    async def _next(self) -> Job | None:
        while self.reason is None:
            job = self._take_next()
            if job is not None:
                self._active += 1
                if len(self._agenda):
                    self._wake(1)  # to begin the next one, or to look at the clock for it
                return job
            if self.reason is not None or (self._is_read and not self._outstanding):
                break
            self._set_alarm()
            idle = asyncio.get_running_loop().create_future()
            self._idle.append(idle)
            await idle
        return None

    def _wake(self, number: int) -> None:
        while number > 0 and self._idle:
            idle = self._idle.pop()
            if not idle.done():
                idle.set_result(None)
                number -= 1

    def _set_alarm(self) -> None:
        due = self._agenda.next_due()
        if due is None or due >= self._alarm_at:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = due
        loop = asyncio.get_running_loop()
        self._alarm = loop.call_later(max(0.0, due - monotonic()), self._ring)

    def _ring(self) -> None:
        self._alarm, self._alarm_at = None, float("inf")
        self._wake(1)

    async def _work(self) -> None:
        while (job := await self._next()) is not None:
            try:
                await self._try(job)
            except asyncio.CancelledError:
                if self.reason is None:
                    raise
                task = asyncio.current_task()
                if task is not None:
                    task.uncancel()
                self._undone.append(job)
            except OSError as error:  # of the journal
                self.stop("io", error)
                self._undone.append(job)
            except BatchError as error:  # nobody is left to ask
                self.stop(error.reason, error)
                self._undone.append(job)
            finally:
                self._active -= 1
                # This worker takes the next line itself; another may have room now.
                self._wake(2)

    async def _try(self, job: Job) -> None:
        try:
            answer = await self._attempt(job)
        finally:
            if self._budget.is_limited:
                self._budget.release(job.need.cost, job.need.tokens)
        if not answer.is_sent:
            await self._leave(job)
            return
        error = answer.error
        if answer.usage is not None:
            self._budget.spend(answer.cost or 0.0, answer.usage.total_tokens)
        if error is None:
            if not self._has_succeeded:
                self._has_succeeded = True
                self._wake(len(self._idle))
            await self._finish_job(self._result(job, answer, None, ""), None)
            return
        now = monotonic()
        code = code_of(error)
        job.errors.append(Attempt(time(), code, answer.status))
        del job.errors[:-MAX_ATTEMPTS_TOLD]
        if isinstance(error, RateLimitError):
            self.progress.refused(now)
        if may_be_billed(error):
            self.progress.unknown_usage += 1
        delay = self._delay(job, error, now)
        if self._journal is not None and was_refused(error):
            await self._journal.refused(job.line)
        if delay is None:
            await self._finish_job(self._result(job, answer, code, error.message), error)
        elif self.reason is not None:
            self._undone.append(job)
        else:
            self.progress.retried += 1
            self._agenda.add_at(job, now + delay)

    async def _leave(self, job: Job) -> None:
        """A line was begun, and not sent, since the run stops."""
        if self._journal is not None:
            await self._journal.refused(job.line)
        self._undone.append(job)

    def _delay(self, job: Job, error: ErnieError, now: float) -> float | None:
        """Seconds until the line is tried again; `None` if it has failed."""
        if self._rules.is_once and not was_refused(error):
            return None
        if isinstance(error, NoKeyError) or (is_quota(error) and not self._is_too_long(error)):
            # No attempt of the line's: everybody was refused.
            job.attempts -= 1
            if job.refused_since is None:
                job.refused_since = now
            if self._rules.deadline is None and now - job.refused_since > QUOTA_PATIENCE:
                return None
            # Else the limiters let nobody pass for a while.
            return error.retry_after if isinstance(error, NoKeyError) else 0.0
        return self._rules.retry.delay(error, job.attempts, 0.0, self._chance)

    def _is_too_long(self, error: ErnieError) -> bool:
        asked = error.retry_after if isinstance(error, APIError) else None
        return asked is not None and asked > self._rules.retry.max_retry_after

    async def _attempt(self, job: Job) -> Answer:
        with self._in("admission") as become:

            async def begin() -> None:
                if self._journal is not None:
                    await self._journal.begin(job.line)
                job.attempts += 1
                self.progress.sent(monotonic())
                become("asking")

            return await self._attempts.make(job.line, job.need, begin)

    def _result(self, job: Job, answer: Answer, code: str | None, message: str) -> BatchResult:
        usage = answer.usage
        return BatchResult(
            custom_id=job.line.custom_id,
            number=job.line.number,
            key=job.line.key,
            code=code,
            message=message,
            status=answer.status,
            request_id=answer.request_id,
            body=answer.body,
            attempts=job.attempts,
            latency=answer.seconds,
            finished_at=time(),
            cost=answer.cost,
            prompt_tokens=0 if usage is None else usage.prompt_tokens,
            completion_tokens=0 if usage is None else usage.completion_tokens,
            errors=tuple(job.errors),
            metadata=job.line.metadata,
            row=job.row,
        )

    async def _finish_job(self, result: BatchResult, error: ErnieError | None) -> None:
        await self._finish(result, error)
        self._outstanding -= 1
        self._room.set()
        if self._is_read and not self._outstanding:
            self._wake(len(self._idle))

    async def _finish(self, result: BatchResult, error: ErnieError | None) -> None:
        """A line is over."""
        await self._hand_over(result)
        reason = self._losses.note(error, failed=not result.ok)
        if reason is not None:
            self.stop(reason, error)

    async def _hand_over(self, result: BatchResult) -> None:
        if self.reason != "io":
            try:
                with self._in("telling"):
                    await self._tell(result)
            except OSError as error:
                self.stop("io", error)
        if self.reason == "io":
            result = replace(result, code=code_of_undone("io"))  # it is written nowhere
        self.progress.over(result, monotonic())


def may_be_billed(error: ErnieError) -> bool:
    """Whether the service may have worked, and nobody heard of it."""
    match error:
        case ConnectError(was_sent=was_sent):
            return was_sent
        case DeadlineError(clock=clock):
            return clock != "connect"
        case _:
            return False


def was_refused(error: ErnieError) -> bool:
    """Whether the service cannot have worked on the request."""
    match error:
        case ConnectError() | DeadlineError():
            return not may_be_billed(error)
        case RateLimitError() | NoKeyError():
            return True
        case ServerError(status=status, code=code):
            return status in REFUSING or (code or "").lower() in OVERLOAD
        case _:
            return False


def _fault_result(fault: Fault, row: Any) -> BatchResult:
    return BatchResult(
        custom_id=fault.custom_id,
        number=fault.number,
        key=fault.key,
        code=fault.code,
        message=fault.message,
        finished_at=time(),
        metadata=fault.metadata,
        row=row,
    )
