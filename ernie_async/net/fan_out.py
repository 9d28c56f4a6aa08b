"""Several calls at once, as many as is decent, and all of them or none."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

__all__ = ["run_all"]

T = TypeVar("T")

# Of one call that had to be split. Who wants less has a limiter, which each of them passes.
AT_ONCE = 8


async def run_all(jobs: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """Run all jobs; their results in order. The first that fails cancels the others.

    Raises:
        Exception: What that job raised.
    """
    if len(jobs) == 1:
        return [await jobs[0]()]
    room = asyncio.Semaphore(AT_ONCE)

    async def run(job: Callable[[], Awaitable[T]]) -> T:
        async with room:
            return await job()

    failure: BaseException
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(job)) for job in jobs]
    except BaseExceptionGroup as failures:
        failure = failures.exceptions[0]
    else:
        return [task.result() for task in tasks]
    raise failure
