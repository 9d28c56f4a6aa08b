"""What it saves to keep a client: one for all requests beside one for each, plain and over TLS.

`python -m benchmarks.reuse` prints the time of an answer, by the clock and of the CPU, one after
the other on loopback, for aiohttp alone and for us. The certificate is made by trustme.
"""

import argparse
import asyncio
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import aiohttp
import trustme

from benchmarks.contenders import ANSWER, KEY, MODEL, PROMPT
from benchmarks.load_server import Mode
from benchmarks.machine import describe, pick_cores, pin
from benchmarks.options import positive
from benchmarks.report import Panel, add_plot_option, write
from ernie_async import AsyncClient

WARM_UP = 5

Costs = tuple[float, float]
"""Seconds of an answer, by the clock and of the CPU."""

Ask = Callable[[], Awaitable[str]]
Run = Callable[[str, str | None, int, bool], Coroutine[None, None, Costs]]
Found = defaultdict[tuple[str, str], list[tuple[Costs, Costs]]]
"""For each round the costs with a client that is kept, and with new ones, by kind and contender."""


async def per_answer(ask: Ask, requests: int) -> Costs:
    for _ in range(WARM_UP):
        await ask()
    began, used = time.perf_counter(), time.process_time()
    for _ in range(requests):
        if await ask() != ANSWER:
            raise RuntimeError("the answer came back changed")
    took = time.perf_counter() - began
    return took / requests, (time.process_time() - used) / requests


async def ours(base_url: str, ca_file: str | None, requests: int, is_kept: bool) -> Costs:
    async with AsyncClient(KEY, base_url=base_url, model=MODEL, ca_file=ca_file) as client:

        async def ask() -> str:
            if is_kept:
                return (await client.chat(PROMPT)).text
            async with AsyncClient(KEY, base_url=base_url, model=MODEL, ca_file=ca_file) as own:
                return (await own.chat(PROMPT)).text

        return await per_answer(ask, requests)


async def bare(base_url: str, ca_file: str | None, requests: int, is_kept: bool) -> Costs:
    headers = {"Authorization": f"Bearer {KEY}"}
    body = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]}

    def connector() -> aiohttp.TCPConnector:
        context = ssl.create_default_context(cafile=ca_file) if ca_file else True
        return aiohttp.TCPConnector(ssl=context)

    async with aiohttp.ClientSession(headers=headers, connector=connector()) as session:

        async def post(on: aiohttp.ClientSession) -> str:
            async with on.post(f"{base_url}/chat/completions", json=body) as response:
                completion = await response.json()
            return cast("str", completion["choices"][0]["message"]["content"])

        async def ask() -> str:
            if is_kept:
                return await post(session)
            async with aiohttp.ClientSession(headers=headers, connector=connector()) as own:
                return await post(own)

        return await per_answer(ask, requests)


CONTENDERS: dict[str, Run] = {"aiohttp": bare, "ours": ours}


@contextmanager
def base_url(core: int | None, certificate: Path | None) -> Iterator[str]:
    """A load server, and where it is."""
    command = [sys.executable, "-m", "benchmarks.load_server"]
    command += [] if core is None else ["--core", str(core)]
    command += [] if certificate is None else ["--certificate", str(certificate)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        scheme = "http" if certificate is None else "https"
        yield f"{scheme}://127.0.0.1:{int(server.stdout.readline())}/{Mode(0)}/v2"


def compare(requests: int, rounds: int) -> Found:
    core, server_core = pick_cores()
    pin(core)
    found: Found = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        authority = trustme.CA()
        ca_file, certificate = Path(folder) / "ca.pem", Path(folder) / "server.pem"
        authority.cert_pem.write_to_path(str(ca_file))
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
            str(certificate)
        )
        with base_url(server_core, None) as plain, base_url(server_core, certificate) as tls:
            for _ in range(rounds):
                for kind, url, trusted in (("plain", plain, None), ("TLS", tls, str(ca_file))):
                    for name, run in CONTENDERS.items():
                        kept = asyncio.run(run(url, trusted, requests, True))
                        new = asyncio.run(run(url, trusted, requests, False))
                        found[kind, name].append((kept, new))
    return found


def panels(found: Found) -> list[Panel]:
    return [
        Panel(
            f"{what} of an answer, {kind}",
            "ms",
            {
                f"{name}, {how}": [pair[place][clock] * 1000 for pair in found[kind, name]]
                for name in CONTENDERS
                for place, how in enumerate(("kept", "new for each"))
            },
        )
        for kind in ("plain", "TLS")
        for clock, what in enumerate(("time", "CPU"))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=positive, default=200)
    parser.add_argument("--rounds", type=positive, default=7)
    add_plot_option(parser)
    options = parser.parse_args()
    found = compare(options.requests, options.rounds)
    for what, value in describe().items():
        print(f"{what}: {value}")
    print(f"\nms per answer, median of {options.rounds} rounds of {options.requests}\n")
    titles = [f"{what}, {how}" for what in ("time", "CPU") for how in ("kept", "new", "gain")]
    print("| | " + " | ".join(titles) + " |")
    print("| --- " * (len(titles) + 1) + "|")
    for (kind, name), pairs in found.items():
        cells = []
        for clock in range(2):
            held = statistics.median(pair[0][clock] for pair in pairs)
            fresh = statistics.median(pair[1][clock] for pair in pairs)
            gain = statistics.median(pair[1][clock] / pair[0][clock] for pair in pairs)
            cells += [f"{held * 1000:.2f}", f"{fresh * 1000:.2f}", f"x {gain:.1f}"]
        print(f"| {name}, {kind} | " + " | ".join(cells) + " |")
    if options.plot:
        write(options.plot, "reuse", panels(found))


if __name__ == "__main__":
    main()
