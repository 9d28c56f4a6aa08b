"""Hours that pass in a moment."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from ernie_async import (
    AsyncClient,
    DeadlineError,
    Limits,
    RateLimitError,
    RetryPolicy,
)
from ernie_async.bots.limits import UserLimiter
from ernie_async.testing import MockErnie, Step, VirtualClock, heartbeats, refuse, reply, stall


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    began = time.monotonic()
    with VirtualClock() as clock:
        yield clock
    assert time.monotonic() - began < 10


def test_sleeping_takes_no_time(clock: VirtualClock) -> None:
    async def scenario() -> list[str]:
        done: list[str] = []

        async def nap(seconds: float) -> None:
            await asyncio.sleep(seconds)
            done.append(f"{seconds:g} s at {clock.elapsed:.0f}")

        async with asyncio.TaskGroup() as group:
            for seconds in (86_400, 60, 3600):
                group.create_task(nap(seconds))
        return done

    assert clock.run(scenario()) == ["60 s at 60", "3600 s at 3600", "86400 s at 86400"]
    assert clock.elapsed == pytest.approx(86_400)


def test_deadlines_of_asyncio_and_anyio_pass(clock: VirtualClock) -> None:
    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(600):
                await asyncio.Event().wait()
        with anyio.move_on_after(600) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught

    clock.run(scenario())
    assert clock.elapsed == pytest.approx(1200)


def test_retries_wait_as_long_as_they_would(clock: VirtualClock) -> None:
    async def scenario() -> None:
        async with MockErnie() as server:
            server.script(refuse(429, retry_after=30), refuse(429, retry_after=20), reply("好"))
            async with AsyncClient("k", base_url=server.base_url) as client:
                answer = await client.chat("问")
        assert answer.timing.attempts == 3
        assert answer.timing.total == pytest.approx(50, abs=10)

    clock.run(scenario())
    assert clock.elapsed == pytest.approx(50, abs=10)


@pytest.mark.parametrize(
    ("step", "name", "seconds"),
    [
        (stall(before_headers=True), "first_event", 60),
        (stall(after_chunks=3), "idle", 60),
        (heartbeats(every_ms=5000, after_chunks=3), "idle", 60),
    ],
)
def test_the_default_clocks_run_out(
    step: Step, name: str, seconds: float, clock: VirtualClock
) -> None:
    async def scenario() -> None:
        async with MockErnie() as server:
            server.default(step)
            async with AsyncClient(
                "k", base_url=server.base_url, retry=RetryPolicy(attempts=1)
            ) as client:
                with pytest.raises(DeadlineError) as caught:
                    await client.stream("问").final()
        assert (caught.value.clock, caught.value.seconds) == (name, seconds)

    clock.run(scenario())
    assert clock.elapsed == pytest.approx(seconds, abs=6)


def test_a_paced_stream_comes_whole(clock: VirtualClock) -> None:
    async def scenario() -> None:
        async with MockErnie() as server:
            server.script(reply("一二三四" * 5, chunk_ms=2000, first_ms=30_000))
            async with AsyncClient("k", base_url=server.base_url) as client:
                stream = client.stream("数")
                assert (await stream.final()).text == "一二三四" * 5
        assert stream.timing.first_token == pytest.approx(30, abs=0.1)
        assert stream.timing.total == pytest.approx(50, abs=2.1)

    clock.run(scenario())


def test_limits_let_through_what_they_would(clock: VirtualClock) -> None:
    async def scenario() -> list[float]:
        async with MockErnie(requests_per_minute=60) as server:
            limits = Limits(requests_per_minute=60, burst=1)
            async with AsyncClient("k", base_url=server.base_url, limits=limits) as client:
                answers = await asyncio.gather(*(client.chat("问") for _ in range(120)))
        assert sum(answer.timing.attempts for answer in answers) == 120
        return sorted(answer.timing.queued for answer in answers)

    waits = clock.run(scenario())
    assert waits[0] == 0
    assert 118 < waits[-1] < 125


def test_the_quota_of_the_mock_is_on_the_same_clock(clock: VirtualClock) -> None:
    async def scenario() -> None:
        async with MockErnie(requests_per_minute=1) as server:
            async with AsyncClient(
                "k", base_url=server.base_url, retry=RetryPolicy(attempts=1)
            ) as client:
                await client.chat("一")
                with pytest.raises(RateLimitError):
                    await client.chat("二")
                await asyncio.sleep(61)
                await client.chat("三")

    clock.run(scenario())


def test_what_takes_a_clock_takes_this_one(clock: VirtualClock) -> None:
    async def scenario() -> list[bool]:
        limiter = UserLimiter(messages="1/10m", clock=clock)
        allowed = []
        for seconds in (0, 60, 600):
            await asyncio.sleep(seconds)
            allowed.append((await limiter.check("u")).allowed)
        return allowed

    assert clock.run(scenario()) == [True, False, True]


def test_time_can_be_moved_by_hand() -> None:
    clock = VirtualClock()
    clock.advance(600)
    assert clock.elapsed == pytest.approx(600)
    with pytest.raises(ValueError, match="expected 0 or more"):
        clock.advance(-1)


def test_work_in_a_thread_is_waited_for(clock: VirtualClock) -> None:
    async def scenario() -> str:
        async with asyncio.timeout(60):
            return await asyncio.to_thread(lambda: time.sleep(0.1) or "done")

    assert clock.run(scenario()) == "done"
    assert clock.elapsed < 60


def test_a_program_that_waits_for_nothing_is_told_so(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ernie_async.testing.virtual_clock.PATIENCE", 0.05)

    async def scenario() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="every task waits"):
        clock.run(scenario())


NEW_PROCESS = """
import importlib, pkgutil, sys, time
import ernie_async.testing

with ernie_async.testing.VirtualClock() as clock:
    for name in ("embedding", "searching", "images", "files", "videos", "parsing", "media"):
        importlib.import_module(f"ernie_async.{name}")  # as the first call of a verb does
    modules = [m for n, m in sys.modules.items() if n.startswith("ernie_async.")]
    telling = [m for m in modules if "monotonic" in vars(m)]
    assert len(telling) > 15
    assert [m for m in telling if m.monotonic is not clock] == []
assert [m for m in telling if m.monotonic is not time.monotonic] == []
"""


def test_all_that_a_client_needs_keeps_this_time() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", NEW_PROCESS], check=True)


@pytest.fixture
def anyio_backend(virtual_clock: VirtualClock) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": virtual_clock.new_loop}


def test_a_day_is_a_day_whatever_the_real_clock_says() -> None:
    before = time.monotonic()
    clock = VirtualClock()
    assert before <= clock() < time.monotonic() + 1
    due = clock() + 86_400  # as a loop schedules it
    clock.advance(0.1)
    clock.advance(due - clock())
    assert clock.elapsed == 86_400


@pytest.mark.anyio
async def test_the_plugin_of_anyio_takes_its_loops(virtual_clock: VirtualClock) -> None:
    began = time.monotonic()
    await anyio.sleep(86_400)
    assert virtual_clock.elapsed >= 86_400
    assert time.monotonic() - began < 10
