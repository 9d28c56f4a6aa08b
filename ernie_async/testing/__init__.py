"""A Qianfan of your own: `MockErnie`, a real HTTP server on loopback that plays a script.

    async with MockErnie() as server:
        server.script(reply("你好"), cut(after_chunks=3), refuse(429, retry_after=2))
        client = AsyncClient("any-key", base_url=server.base_url)

No key, no network, no patching. It knows nothing of the client: any HTTP client may talk to it.
"""

from ernie_async.testing.cassette import Cassette
from ernie_async.testing.faults import FAULTS, Fault
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
from ernie_async.testing.seen import Seen
from ernie_async.testing.server import MockErnie
from ernie_async.testing.tape import CassetteError
from ernie_async.testing.virtual_clock import VirtualClock

__all__ = [
    "FAULTS",
    "Cassette",
    "CassetteError",
    "Fault",
    "MockErnie",
    "Seen",
    "Step",
    "VirtualClock",
    "cut",
    "error_event",
    "heartbeats",
    "raw",
    "refuse",
    "reply",
    "stall",
]
