"""A TCP proxy that breaks some of its connections: cut, reset, stalled or slow.

What happens to a connection is drawn from a seeded generator before its first byte. Only the way
from the server to the client is broken; that is where streams are lost.
"""

import asyncio
import random
import socket
import struct
from collections import Counter
from dataclasses import dataclass
from typing import Literal

Kind = Literal["pass", "cut", "reset", "stall", "slow"]

SLOW_BYTES = 100
SLOW_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one connection.

    Attributes:
        kind: `cut` says goodbye (FIN), `reset` does not (RST), `stall` stays silent.
        after: Bytes of the response that pass before it.
    """

    kind: Kind
    after: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How many connections are broken, as shares of 1, and after how many bytes at most."""

    cut: float = 0.1
    reset: float = 0.1
    stall: float = 0.05
    slow: float = 0.2
    within: int = 4000

    def draw(self, chance: random.Random) -> Fault:
        kinds: tuple[Kind, ...] = ("cut", "reset", "stall", "slow", "pass")
        shares = (self.cut, self.reset, self.stall, self.slow)
        [kind] = chance.choices(kinds, (*shares, 1 - sum(shares)))
        return Fault(kind, chance.randrange(self.within))


class FaultProxy:
    """Forwards connections to a port on loopback, as well as its plan allows.

    Attributes:
        counts: Connections by what happened to them.
    """

    def __init__(self, upstream: int, plan: Plan, *, seed: int) -> None:
        self.counts: Counter[Kind] = Counter()
        self._upstream = upstream
        self._plan = plan
        self._chance = random.Random(seed)
        self._running: set[asyncio.Task[None] | None] = set()

    async def start(self) -> asyncio.Server:
        """Listen on a port of the system's choice."""
        return await asyncio.start_server(self._forward, "127.0.0.1", 0, backlog=4096)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = self._plan.draw(self._chance)
        self.counts[fault.kind] += 1
        task = asyncio.current_task()
        self._running.add(task)  # asyncio's server keeps none, and a stalled one would be collected
        try:
            there = await asyncio.open_connection("127.0.0.1", self._upstream)
            sending = asyncio.create_task(pump(reader, there[1]))
            try:
                await self._answer(there[0], writer, fault, sending)
            finally:
                sending.cancel()
                there[1].close()
        except ConnectionError:
            pass  # one of the two is gone
        finally:
            self._running.discard(task)
            writer.close()

    async def _answer(
        self,
        upstream: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        fault: Fault,
        sending: asyncio.Task[None],
    ) -> None:
        passed = 0
        is_broken = fault.kind in {"cut", "reset", "stall"}
        while data := await upstream.read(SLOW_BYTES if fault.kind == "slow" else 65536):
            if is_broken and passed + len(data) >= fault.after:
                client.write(data[: fault.after - passed])
                await self._break(client, fault, sending)
                return
            passed += len(data)
            client.write(data)
            await client.drain()
            if fault.kind == "slow":
                await asyncio.sleep(SLOW_SECONDS)

    async def _break(
        self, client: asyncio.StreamWriter, fault: Fault, sending: asyncio.Task[None]
    ) -> None:
        if fault.kind == "stall":
            await sending  # until the client leaves
        elif fault.kind == "reset":
            await client.drain()
            # Lingering for zero seconds turns the goodbye into a RST.
            linger = struct.pack("ii", 1, 0)
            held = client.get_extra_info("socket")
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            client.transport.abort()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass everything on, until either side ends."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
