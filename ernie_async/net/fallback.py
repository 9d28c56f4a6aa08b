"""Ask another model when one cannot answer, and have it go on where the first one broke off.

Which errors are worth it stands in `sansio.fallback`; how the other request is made is handed in
with `Request.fallback`.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from ernie_async.errors import ConfigError, ErnieError
from ernie_async.net.call import Call
from ernie_async.sansio.fallback import falls_back

__all__ = ["turn_to_next", "until_one_works"]

T = TypeVar("T")


async def until_one_works(call: Call, attempt: Callable[[], Awaitable[T]]) -> T:
    """Ask each model as often as the retry policy allows; the final error lists them all."""
    while True:
        try:
            return await call.until_it_works(attempt)
        except ErnieError as error:
            if not falls_back(error) or not turn_to_next(call, error):
                raise


def turn_to_next(call: Call, error: ErnieError) -> bool:
    """Have a call ask the next model that can be asked; say whether there is one."""
    while call.fallback:
        ask, *others = call.fallback
        call.fallback = tuple(others)
        try:
            call.turn_to(*ask(), error)
        except ConfigError as problem:  # this server does not take such a request
            call.note_failure(problem)
        else:
            return True
    return False
