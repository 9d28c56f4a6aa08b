"""One step of a lane that processes share: what is sent to the server, and what it says.

Both sides have to understand it alike; the server's is `redis.lua`. What a process makes of it
stands in `sansio.shared_lane`.
"""

from math import inf
from typing import Literal, NamedTuple

from ernie_async.sansio.bucket import default_burst

__all__ = ["Answer", "Ask", "Verdict", "shared_quota"]


class Verdict(NamedTuple):
    """What the service said of the quota. See `sansio.pause`, which obeys the same rules.

    Attributes:
        what: It refused a call, or said that this one was the last, or answered one.
        pause: The number of the last pause when that call was admitted.
        retry_after: Seconds to wait, if the service said so.
    """

    what: Literal["refused", "spent", "succeeded"]
    pause: int
    retry_after: float | None = None


class Ask(NamedTuple):
    """What to send.

    Attributes:
        held: Calls under way, and promised.
        requests: To put back,
        tokens: and tokens; below 0 to take.
        promise: The promise among what is put back; 0 for none.
        verdict: What the service said.
        told: The limits that the service told: requests and tokens per minute.
        age: Seconds that the first of those wanted has waited, as far as they count.
        wanted: Tokens of each, and seconds it would wait.
    """

    held: int
    requests: float
    tokens: float
    promise: int
    verdict: Verdict | None
    told: tuple[float | None, float | None]
    age: float
    wanted: list[tuple[int, float]]


class Answer(NamedTuple):
    """What the server says.

    Attributes:
        waits: Seconds, for each wanted call that it dealt with; below 0 if the call would not wait
            so long.
        promise: The latest moment promised, as the server knows it.
        others: Other processes in line.
        is_in_line: Whether this one is: for a call to end, or a pause.
        look_in: Seconds after which to ask again, if it is.
        pause: The number of the last pause.
        paused_for: Seconds that it still lasts.
        is_probing: Whether single calls are let through, to see whether the pause may end.
        full_in: Seconds after which the buckets of requests and of tokens are full.
        told: The limits that the service told.
    """

    waits: list[float]
    promise: int
    others: int
    is_in_line: bool
    look_in: float
    pause: int
    paused_for: float
    is_probing: bool
    full_in: tuple[float, float]
    told: tuple[float | None, float | None]


def shared_quota(
    quota: float | None, burst: float | None, told: float | None
) -> tuple[float, float]:
    """A quota per minute, and what may go at once, after the service told what it allows.

    `redis.lua` says the same. An unlimited quota stays so, as infinity.
    """
    if quota is None:
        return inf, inf
    if told is None or told >= quota:
        return quota, default_burst(quota) if burst is None else burst
    return told, default_burst(told) if burst is None else min(burst, max(1.0, told))
