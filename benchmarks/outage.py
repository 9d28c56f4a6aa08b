"""Many calls while the server is down: what it sees of them, and what becomes of them.

`python -m benchmarks.outage` prints a table, with and without the retry budget and the circuit
breaker. All calls begin at the moment in which the server goes down, the worst that can happen.
Ends with 1 if, with both, more was repeated than the budget allows, or a call was lost.
"""

import argparse
import asyncio
import contextlib
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from benchmarks.machine import allow_descriptors
from benchmarks.options import positive
from ernie_async import AsyncClient, Breaker, BreakerPolicy, ErnieError, RetryPolicy

Way = Literal["503", "dropped"]

ANSWER = (
    b'{"id":"as-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"ok"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'
)
BUSY = b'{"error":{"code":"internal_error","message":"down"}}'


def http(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


GOOD, BAD = http("200 OK", ANSWER), http("503 Service Unavailable", BUSY)


class Connection(asyncio.Protocol):
    """Counts requests, and answers each as things stand."""

    transport: asyncio.Transport

    def __init__(self, server: "Server") -> None:
        self.server = server
        self.held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server.open.add(transport)

    def data_received(self, data: bytes) -> None:
        self.held += data
        head, end, body = self.held.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length: ")[2].split()[0]):
            return
        self.held = b""
        server = self.server
        if server.is_down:
            name = head.lower().partition(b"x-request-id: ")[2].split()[0]
            if name in server.names:
                server.repeated.append(time.monotonic())
            server.names.add(name)
        if server.is_down and server.way == "dropped":
            self.transport.abort()
        else:
            self.transport.write(BAD if server.is_down else GOOD)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        self.server.open.discard(self.transport)


class Server:
    """A server that can be down: it answers 503, or breaks off each connection without an answer.

    Attributes:
        names: Ids of the requests that came while it was down.
        repeated: When one came whose id had come before.
    """

    def __init__(self, way: Way) -> None:
        self.way = way
        self.is_down = False
        self.names: set[bytes] = set()
        self.repeated: list[float] = []
        self.open: set[asyncio.Transport] = set()
        self.port = 0
        self._listener: asyncio.Server | None = None

    async def __aenter__(self) -> "Server":
        loop = asyncio.get_running_loop()
        connection = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port = connection.getsockname()[1]
        self._listener = await loop.create_server(lambda: Connection(self), sock=connection)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listener is not None
        self._listener.close()
        for transport in list(self.open):
            transport.abort()
        await asyncio.sleep(0)


@dataclass
class Outcome:
    """What the server saw while it was down, and what became of the calls."""

    repeated: int = 0  # requests that were no call's first
    peak: int = 0  # of them, in the busiest second
    ok: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0  # from the recovery to the last answer


class Setting(NamedTuple):
    """What is on."""

    budget: bool
    breaker: bool


# Patience for the outage, as a batch would have it, and delays as they are by default.
RETRY = RetryPolicy(attempts=9)


def scaled(seconds: float) -> tuple[RetryPolicy, BreakerPolicy]:
    """The defaults, made quicker for an outage shorter than ten seconds."""
    part = min(1.0, seconds / 10)
    retry = replace(RETRY, base_delay=RETRY.base_delay * part)
    return retry, BreakerPolicy(open_for=part, max_open=10 * part)


async def run(setting: Setting, way: Way, *, calls: int, clients: int, seconds: float) -> Outcome:
    """Have so many calls meet a server that is down for so long.

    Args:
        setting: What is on.
        way: How it is down.
        calls: In all.
        clients: How many they are spread over; several share one breaker.
        seconds: How long it is down.
    """
    retry, policy = scaled(seconds)
    if not setting.budget:
        retry = replace(retry, budget_ratio=None)
    breaker = Breaker(policy) if setting.breaker else None
    outcome = Outcome()

    async def ask(client: AsyncClient) -> None:
        try:
            await client.chat("hi")
        except ErnieError as error:
            outcome.failures[type(error).__name__] += 1
        else:
            outcome.ok += 1

    async with Server(way) as server, contextlib.AsyncExitStack() as stack:
        url = f"http://127.0.0.1:{server.port}/v2"
        many = [
            await stack.enter_async_context(
                AsyncClient("k", base_url=url, model="m", retry=retry, breaker=breaker)
            )
            for _ in range(clients)
        ]
        server.is_down = True
        began = time.monotonic()
        tasks = [asyncio.create_task(ask(many[n % clients])) for n in range(calls)]
        await asyncio.sleep(seconds)
        server.is_down = False
        recovered = time.monotonic()
        async with asyncio.timeout(120):
            await asyncio.gather(*tasks)
        outcome.seconds = time.monotonic() - recovered
    outcome.repeated = len(server.repeated)
    outcome.peak = max(Counter(int(at - began) for at in server.repeated).values(), default=0)
    return outcome


def allowed(calls: int, clients: int) -> int:
    """Retries that the budgets of so many clients allow within ten seconds."""
    assert RETRY.budget_ratio is not None
    return int(clients * RETRY.budget_floor + calls * RETRY.budget_ratio)


SETTINGS = {
    "neither": Setting(budget=False, breaker=False),
    "budget": Setting(budget=True, breaker=False),
    "breaker": Setting(budget=False, breaker=True),
    "both (the default)": Setting(budget=True, breaker=True),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=positive, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long the server is down")
    arguments = parser.parse_args()
    allow_descriptors(4 * arguments.calls + 200)
    calls, seconds = arguments.calls, arguments.seconds
    is_right = True
    budget = allowed(calls, 1)
    print(
        f"{calls} calls, a server that is down for {seconds:g} s; one client's budget: {budget}\n"
    )
    print("| answer | clients | on | repeated while down | busiest second | ok | failed | over |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    ways: tuple[Way, ...] = ("503", "dropped")
    for way in ways:
        for clients in (1, calls):
            for name, setting in SETTINGS.items():
                done = asyncio.run(run(setting, way, calls=calls, clients=clients, seconds=seconds))
                failed = ", ".join(f"{n} {kind}" for kind, n in done.failures.items()) or "0"
                print(
                    f"| {way} | {clients} | {name} | {done.repeated} | {done.peak} "
                    f"| {done.ok} | {failed} | {done.seconds:.1f} s |",
                    flush=True,
                )
                if all(setting):
                    is_right &= done.repeated <= budget and done.ok == calls
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
