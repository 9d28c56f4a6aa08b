"""An outage is not made worse: retries within their budget, circuits that open, and close again."""

import asyncio
import pickle
from dataclasses import replace
from time import monotonic

import pytest

from benchmarks.outage import Server, Setting, Way, allowed, run, scaled
from ernie_async import (
    AsyncClient,
    Breaker,
    BreakerPolicy,
    CircuitChanged,
    CircuitOpenError,
    ConfigError,
    ConnectError,
    DeadlineError,
    Hedging,
    InterruptedStreamError,
    Limits,
    QuotaError,
    RateLimitError,
    Record,
    RetryPolicy,
    RetryScheduled,
    RetryWithheld,
    ServerError,
    Timeouts,
)
from ernie_async.testing import MockErnie, cut, refuse, reply, stall
from tests.waiting import until

pytestmark = pytest.mark.anyio

ONCE = RetryPolicy(attempts=1)
QUICK = RetryPolicy(base_delay=0.001)
TOUCHY = BreakerPolicy(failures=2, open_for=0.1, max_open=0.1, successes=1)


def client_of(server: MockErnie, **settings) -> AsyncClient:
    return AsyncClient("k", base_url=server.base_url, model="m", **settings)


# A thousand calls at once


@pytest.mark.slow
@pytest.mark.parametrize("way", ["503", "dropped"])
async def test_a_thousand_calls_of_one_client_wait_for_the_end_of_an_outage(way: Way) -> None:
    setting = Setting(budget=True, breaker=True)
    done = await run(setting, way, calls=1000, clients=1, seconds=2)
    assert (done.ok, done.failures) == (1000, {})
    assert done.peak <= done.repeated <= allowed(1000, 1)


@pytest.mark.slow
async def test_clients_that_share_a_breaker_repeat_no_more_than_one_of_them_may() -> None:
    setting = Setting(budget=True, breaker=True)
    done = await run(setting, "503", calls=500, clients=250, seconds=2)
    assert (done.ok, done.failures) == (500, {})
    assert done.repeated <= allowed(500, 1)


@pytest.mark.slow
async def test_without_a_breaker_the_budget_alone_holds() -> None:
    done = await run(Setting(budget=True, breaker=False), "503", calls=1000, clients=1, seconds=1)
    assert done.repeated <= allowed(1000, 1)
    assert done.ok + done.failures["ServerError"] == 1000


@pytest.mark.slow
async def test_clients_with_budgets_of_their_own_keep_to_the_sum_of_them() -> None:
    done = await run(Setting(budget=True, breaker=False), "503", calls=1000, clients=10, seconds=1)
    assert done.repeated <= allowed(1000, 10)


@pytest.mark.slow
async def test_steady_traffic_outlives_an_outage_in_its_middle() -> None:
    retry, policy = scaled(2)
    async with (
        Server("503") as server,
        AsyncClient(
            "k", base_url=f"http://127.0.0.1:{server.port}/v2", model="m", retry=retry,
            breaker=policy,
        ) as client,
    ):  # fmt: skip
        tasks = []
        for n in range(300):
            server.is_down = 50 <= n < 200
            tasks.append(asyncio.create_task(client.chat("hi")))
            await asyncio.sleep(0.01)
        answers = await asyncio.gather(*tasks)
    assert {answer.text for answer in answers} == {"ok"}
    assert len(server.names) + len(server.repeated) < 80  # of 150 calls and their retries


# The budget


async def test_error_and_hook_say_that_the_budget_is_spent(server: MockErnie) -> None:
    server.default(refuse(500))
    records: list[Record] = []
    retry = RetryPolicy(attempts=9, base_delay=0.001, budget_ratio=0, budget_floor=2)
    async with client_of(server, retry=retry, breaker=None, hooks=[records.append]) as client:
        with pytest.raises(ServerError, match="not tried again, since the retry budget is spent"):
            await client.chat("hi")
        withheld = [record for record in records if isinstance(record, RetryWithheld)]
        assert [(record.attempt, record.error[:15]) for record in withheld] == [
            (3, "ServerError: 50")
        ]
        # All that was made of this client shares its budget, unless it is given another.
        with pytest.raises(ServerError, match="budget is spent"):
            await client.with_options(model="other").chat("hi")
        assert server.requests_made == 4
        other = RetryPolicy(attempts=4, base_delay=0.001, budget_ratio=None)
        with pytest.raises(ServerError) as caught:
            await client.with_options(retry=other).chat("hi")
        assert len(caught.value.attempts) == 4
        assert "budget" not in str(caught.value)


async def test_a_handful_of_calls_is_retried_as_the_policy_says(server: MockErnie) -> None:
    server.default(refuse(500))
    async with client_of(server, retry=QUICK, breaker=None) as client:
        failed = await asyncio.gather(
            *(client.chat("hi") for _ in range(5)), return_exceptions=True
        )
    assert [len(getattr(error, "attempts", ())) for error in failed] == [5] * 5


async def test_retries_that_succeed_and_refused_quotas_cost_no_budget(server: MockErnie) -> None:
    retry = RetryPolicy(base_delay=0.001, budget_ratio=0, budget_floor=1)
    async with client_of(server, retry=retry, breaker=None) as client:
        for _ in range(5):
            server.script(refuse(503), reply("好"))
            assert (await client.chat("hi")).timing.attempts == 2
        server.script(*[refuse(429)] * 4, reply("好"))
        assert (await client.chat("hi")).timing.attempts == 5


async def test_resumes_of_streams_count(server: MockErnie) -> None:
    broken = cut(after_chunks=2, of=reply("一二三四", ids=True))
    server.default(broken)
    retry = RetryPolicy(base_delay=0.001, budget_ratio=0, budget_floor=0)
    async with client_of(server, retry=retry, breaker=None) as client:
        with pytest.raises(InterruptedStreamError, match="budget is spent") as caught:
            await client.stream("hi").text()
    assert caught.value.partial is not None
    assert server.requests_made == 1


# The circuit


async def test_open_circuit_fails_fast_and_says_when_to_come_back(server: MockErnie) -> None:
    server.default(refuse(503))
    slow = BreakerPolicy(failures=2, open_for=30, max_open=30)
    async with client_of(server, retry=ONCE, breaker=slow) as client:
        for _ in range(2):
            with pytest.raises(ServerError):
                await client.chat("hi")
        for call in (client.chat("hi"), client.stream("hi").text()):
            with pytest.raises(
                CircuitOpenError, match="the last failure: ServerError: 503"
            ) as caught:
                await call
            assert 20 < caught.value.retry_after <= 30
            assert caught.value.attempts == ()
        assert server.requests_made == 2
        # Another model, and what has no model, has a circuit of its own.
        with pytest.raises(ServerError):
            await client.chat("hi", model="other")
        await client.list_models()
        # With more patience, but not for so long.
        with pytest.raises(CircuitOpenError):
            await client.with_options(retry=QUICK).chat("hi")
        patient = RetryPolicy(attempts=20)
        with pytest.raises(CircuitOpenError):
            await client.with_options(retry=patient, timeouts=Timeouts(total=5)).chat("hi")


async def test_patient_call_waits_for_the_circuit_and_its_wait_is_told(server: MockErnie) -> None:
    server.script(refuse(503), refuse(503), reply("好"))
    records: list[Record] = []
    async with client_of(server, retry=ONCE, breaker=TOUCHY, hooks=[records.append]) as client:
        for _ in range(2):
            with pytest.raises(ServerError):
                await client.chat("hi")
        answer = await client.with_options(retry=RetryPolicy()).chat("hi")
    assert (answer.text, answer.timing.attempts) == ("好", 1)
    assert answer.timing.queued >= 0.05
    changes = [record for record in records if isinstance(record, CircuitChanged)]
    assert [change.state for change in changes] == ["open", "half-open", "closed"]
    assert all("503" in change.error for change in changes)
    assert not any(isinstance(record, RetryScheduled) for record in records)


async def test_refusals_of_a_request_or_a_quota_never_open_it(server: MockErnie) -> None:
    breaker = Breaker(BreakerPolicy(failures=1, share=0.1))
    async with client_of(server, retry=ONCE, breaker=breaker) as client:
        for status, code in [
            (429, "rpm_rate_limit_exceeded"),
            (403, "account_overdue"),
            (401, None),
            (400, None),
        ]:
            server.script(refuse(status, code))
            with pytest.raises((RateLimitError, QuotaError, Exception)):
                await client.chat("hi")
        assert set(breaker.states().values()) == {"closed"}
        server.script(refuse(429, "cluster_rate_limit_exceeded"))
        with pytest.raises(ServerError):
            await client.chat("hi")
        assert set(breaker.states().values()) == {"open"}


async def test_probe_that_is_cancelled_lets_the_next_one_go(server: MockErnie) -> None:
    breaker = Breaker(TOUCHY)
    async with client_of(server, retry=ONCE, breaker=breaker) as client:
        server.script(refuse(503), refuse(503), stall(), reply("好"))
        for _ in range(2):
            with pytest.raises(ServerError):
                await client.chat("hi")
        await asyncio.sleep(0.12)
        task = asyncio.create_task(client.chat("hi"))
        await until(lambda: server.requests_made == 3)
        with pytest.raises(CircuitOpenError):
            await client.chat("hi")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await client.chat("hi")).text == "好"
        assert set(breaker.states().values()) == {"closed"}
        await server.wait_idle()


async def test_wait_for_a_circuit_can_be_cancelled_and_holds_no_permit(server: MockErnie) -> None:
    server.default(refuse(503))
    slow = BreakerPolicy(failures=1, open_for=5)
    async with client_of(server, retry=ONCE, breaker=slow, limits=Limits(concurrency=1)) as client:
        with pytest.raises(ServerError):
            await client.chat("hi")
        patient = client.with_options(retry=RetryPolicy(attempts=20))
        tasks = [asyncio.create_task(patient.chat("hi")) for _ in range(10)]
        stream = patient.stream("hi")
        tasks.append(asyncio.create_task(stream.text()))
        await asyncio.sleep(0.05)
        assert client.limiter is not None
        assert client.limiter.snapshot().in_flight == 0
        stream.cancel("no more")
        with pytest.raises(InterruptedStreamError, match="no more"):
            await tasks.pop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert server.requests_made == 1


async def test_calls_that_were_in_line_when_it_opened_are_not_sent(server: MockErnie) -> None:
    server.default(refuse(503))
    breaker = BreakerPolicy(failures=3, open_for=30, max_open=30)
    limits = Limits(concurrency=1)
    async with client_of(server, retry=ONCE, breaker=breaker, limits=limits) as client:
        done = await asyncio.gather(*(client.chat("hi") for _ in range(20)), return_exceptions=True)
        assert client.limiter is not None
        assert client.limiter.snapshot().in_flight == client.limiter.snapshot().waiting == 0
    kinds = [type(error) for error in done]
    assert kinds.count(ServerError) == 3
    assert kinds.count(CircuitOpenError) == 17
    assert server.requests_made == 3


async def test_open_circuit_has_another_model_asked(server: MockErnie) -> None:
    slow = BreakerPolicy(failures=1, open_for=30, max_open=30)
    async with client_of(server, retry=ONCE, breaker=slow, fallback=["other"]) as client:
        server.script(refuse(503))
        for _ in range(2):
            answer = await client.chat("hi")
            assert answer.fell_back_from == ("m",)
        assert [seen.json["model"] for seen in server.requests] == ["m", "other", "other"]


async def test_probe_of_a_client_that_hedges_does_not_wait_for_itself(server: MockErnie) -> None:
    breaker = Breaker(replace(TOUCHY, open_for=0.5, max_open=0.5))
    async with client_of(server, retry=ONCE, breaker=breaker, hedge=Hedging(after=5)) as client:
        server.script(refuse(503), refuse(503))
        for _ in range(2):
            with pytest.raises(ServerError):
                await client.chat("hi")
        for ask in (lambda: client.chat("hi"), lambda: client.stream("hi").text()):
            await asyncio.sleep(0.52)
            began = monotonic()
            await ask()
            assert monotonic() - began < 0.45
        assert set(breaker.states().values()) == {"closed"}


async def test_server_that_hangs_opens_it(server: MockErnie) -> None:
    server.default(stall())
    hasty = Timeouts(total=0.1, first_event=0.1)
    async with client_of(server, retry=ONCE, breaker=TOUCHY, timeouts=hasty) as client:
        with pytest.raises(DeadlineError):
            await client.chat("hi")
        with pytest.raises(DeadlineError):
            await client.stream("hi").text()
        with pytest.raises(CircuitOpenError):
            await client.chat("hi")


async def test_streams_that_are_all_cut_at_once_are_resumed_without_a_storm() -> None:
    """More than the budget allows: the circuit opens, a probe finds the server well, all go on."""
    async with MockErnie() as server:
        broken = cut(after_chunks=2, of=reply("一二三四", ids=True))
        server.script(*[broken] * 100)
        server.default(reply("一二三四", ids=True))
        policy = BreakerPolicy(failures=10, open_for=0.2)
        retry = RetryPolicy(base_delay=0.05, budget_ratio=0, budget_floor=10)
        async with client_of(server, retry=retry, breaker=policy) as client:
            done = await asyncio.gather(*(client.stream("hi").text() for _ in range(100)))
        assert done == ["一二三四"] * 100


async def test_without_a_breaker_nothing_is_stopped(server: MockErnie) -> None:
    server.default(refuse(503))
    async with client_of(server, retry=ONCE, breaker=None) as client:
        for _ in range(50):
            with pytest.raises(ServerError):
                await client.chat("hi")


async def test_server_that_comes_back_is_found_within_the_longest_time() -> None:
    async with MockErnie() as server:
        port = int(server.base_url.rpartition(":")[2].partition("/")[0])
    policy = BreakerPolicy(failures=2, open_for=0.05, max_open=0.2)
    retry = RetryPolicy(attempts=8, base_delay=0.05)
    async with AsyncClient(
        "k", base_url=f"http://127.0.0.1:{port}/v2", model="m", breaker=policy, retry=retry
    ) as client:
        tasks = [asyncio.create_task(client.chat("hi")) for _ in range(20)]
        await asyncio.sleep(0.5)
        async with MockErnie(port=port) as server:
            server.default(reply("好"))
            began = monotonic()
            answers = await asyncio.gather(*tasks)
            assert monotonic() - began < 2
        assert {answer.text for answer in answers} == {"好"}
        with pytest.raises(ConnectError):
            await client.with_options(retry=ONCE).chat("hi")


async def test_breaker_travels_with_a_pickled_client(server: MockErnie) -> None:
    server.default(refuse(503))
    async with client_of(server, breaker=Breaker(TOUCHY), retry=ONCE) as client:
        again = pickle.loads(pickle.dumps(client))
        for _ in range(2):
            with pytest.raises(ServerError):
                await client.chat("hi")
        async with again:
            for _ in range(2):
                with pytest.raises(ServerError):
                    await again.chat("hi")
            with pytest.raises(CircuitOpenError):
                await again.chat("hi")


def test_wrong_kinds_are_refused() -> None:
    with pytest.raises(ConfigError, match="breaker: expected BreakerPolicy or Breaker"):
        AsyncClient("k", breaker=3)  # type: ignore[arg-type]
