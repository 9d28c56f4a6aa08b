"""What calls tell the limiter: quotas that are spent, limits that are told, overload."""

import asyncio
from collections.abc import AsyncIterator
from time import monotonic

import pytest

from ernie_async import (
    Adaptive,
    AnyLimiter,
    AsyncClient,
    CallEnded,
    ConfigError,
    DeadlineError,
    DrainError,
    ErnieError,
    Limiter,
    LimiterPaused,
    LimiterSnapshot,
    Limits,
    Permit,
    Queued,
    RateLimitError,
    Record,
    RetryPolicy,
    RetryScheduled,
    Timeouts,
)
from ernie_async.testing import MockErnie, cut, error_event, refuse, reply, stall
from ernie_async.testing.script import Step
from tests.silent import silent_server
from tests.waiting import until

pytestmark = pytest.mark.anyio

TWO = RetryPolicy(attempts=2, base_delay=0.001)
WIDE = Limits(requests_per_minute=6000)


@pytest.fixture
def records() -> list[Record]:
    return []


@pytest.fixture
async def client(server: MockErnie, records: list[Record]) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(
        "k", base_url=server.base_url, limits=WIDE, retry=TWO, hooks=[records.append]
    ) as client:
        yield client


def of_kind(records: list[Record], kind: type[Record]) -> list[Record]:
    return [record for record in records if isinstance(record, kind)]


def standing(client: AsyncClient) -> LimiterSnapshot:
    assert client.limiter is not None
    return client.limiter.snapshot()


@pytest.mark.parametrize(
    "code",
    ["rpm_rate_limit_exceeded", "tpm_rate_limit_exceeded", "input_tpm_rate_limit_exceeded",
     "output_tpm_rate_limit_exceeded", "user_rate_limit_exceeded", "some_new_rate_limit_exceeded"],
)  # fmt: skip
async def test_a_spent_quota_costs_no_attempt(
    server: MockErnie, client: AsyncClient, records: list[Record], code: str
) -> None:
    server.script(*[refuse(429, code, retry_after=0.02)] * 4, refuse(500), reply("好"))
    answer = await client.chat("hi")
    assert answer.text == "好"
    assert answer.timing is not None
    assert answer.timing.attempts == 6
    assert answer.timing.queued > 0
    paused = of_kind(records, LimiterPaused)
    assert [(one.seconds, one.model) for one in paused] == [(0.02, "ernie-5.1")] * 4  # type: ignore[union-attr]
    assert len(of_kind(records, RetryScheduled)) == 5
    assert standing(client).in_flight == 0


async def test_everybody_waits_for_the_quota_not_only_who_was_refused(
    server: MockErnie, client: AsyncClient
) -> None:
    server.script(refuse(429, retry_after=0.4))
    refused = asyncio.create_task(client.chat("hi"))
    await until(lambda: standing(client).paused_for)
    assert standing(client).paused_for <= 0.4
    others = [asyncio.create_task(client.chat("hi")) for _ in range(3)]
    others.append(asyncio.create_task(client.stream("hi").text()))
    await asyncio.gather(refused, *others)
    times = [seen.received_at for seen in server.requests]
    assert len(times) == 6
    assert times[1] - times[0] >= 0.35


@pytest.mark.parametrize(
    "step",
    [
        refuse(429, "cluster_rate_limit_exceeded"),
        refuse(429, body="full"),
        refuse(503),
        refuse(529),
        cut(0),
        cut(before_headers=True),
        error_event("336100"),
    ],
)
async def test_overload_is_congestion_and_costs_attempts(server: MockErnie, step: Step) -> None:
    server.default(step)
    async with AsyncClient(
        "k", base_url=server.base_url, limits=Limits(concurrency=Adaptive()), retry=TWO
    ) as client:
        with pytest.raises(ErnieError) as caught:
            await client.stream("hi").final()
        assert len(caught.value.attempts) == 2
        view = standing(client)
        assert (view.concurrency, view.paused_for) == (2, 0.0)  # 8 * 0.6 * 0.6


@pytest.mark.parametrize("step", [refuse(400), refuse(500), refuse(401), error_event()])
async def test_other_errors_say_nothing_of_the_load(server: MockErnie, step: Step) -> None:
    server.default(step)
    async with AsyncClient(
        "k", base_url=server.base_url, limits=Limits(concurrency=Adaptive()), retry=TWO
    ) as client:
        with pytest.raises(Exception, match="request id"):
            await client.chat("hi")
        assert standing(client).concurrency == 8


@pytest.mark.parametrize("code", ["336501", "336502", "rpm_rate_limit_exceeded"])
@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_quota_error_inside_a_good_answer_pauses_as_well(
    server: MockErnie, client: AsyncClient, code: str, *, is_stream: bool
) -> None:
    server.script(error_event(code), reply("好"))
    answer = client.stream("hi").final() if is_stream else client.chat("hi")
    task = asyncio.ensure_future(answer)
    await until(lambda: standing(client).paused_for)
    assert 4 < standing(client).paused_for <= 5  # no time was named
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    view = standing(client)
    assert (view.in_flight, view.waiting) == (0, 0)


async def test_a_stream_that_meets_the_quota_after_its_first_chunk_fails_and_pauses(
    server: MockErnie, client: AsyncClient
) -> None:
    server.script(error_event("rpm_rate_limit_exceeded", after_chunks=2))
    with pytest.raises(RateLimitError) as caught:
        await client.stream("hi").final()
    assert caught.value.partial is not None
    assert standing(client).paused_for > 4


async def test_who_never_retries_is_told_at_once(server: MockErnie, client: AsyncClient) -> None:
    server.script(refuse(429))
    with pytest.raises(RateLimitError):
        await client.with_options(retry=RetryPolicy(attempts=1)).chat("hi")
    assert len(server.requests) == 1
    assert standing(client).paused_for > 4


async def test_a_wait_beyond_what_is_allowed_is_told_at_once_and_holds_nobody_up(
    server: MockErnie, client: AsyncClient
) -> None:
    server.script(refuse(429, retry_after=3600))
    with pytest.raises(RateLimitError) as caught:
        await client.chat("hi")
    assert caught.value.retry_after == 3600
    assert standing(client).paused_for == 0.0


@pytest.mark.parametrize(
    ("timeouts", "retry"),
    [
        (Timeouts(total=1), RetryPolicy(attempts=3)),
        (Timeouts(), RetryPolicy(attempts=3, time_budget=1)),
    ],
)
async def test_no_wait_is_begun_that_cannot_end_in_time(
    server: MockErnie, client: AsyncClient, timeouts: Timeouts, retry: RetryPolicy
) -> None:
    server.script(refuse(429, retry_after=30))
    began = monotonic()
    with pytest.raises(RateLimitError):
        await client.with_options(timeouts=timeouts, retry=retry).chat("hi")
    assert monotonic() - began < 0.9


async def test_without_a_limiter_the_retry_policy_counts_every_refusal(server: MockErnie) -> None:
    server.default(refuse(429, retry_after=0.01))
    async with AsyncClient("k", base_url=server.base_url, retry=TWO) as client:
        with pytest.raises(RateLimitError) as caught:
            await client.chat("hi")
    assert len(caught.value.attempts) == len(server.requests) == 2


async def test_who_is_told_to_come_again_at_once_is_not_the_quicker_for_it(
    server: MockErnie,
) -> None:
    server.default(refuse(429, retry_after=0))
    limits = Limits(requests_per_minute=60_000)
    async with AsyncClient("k", base_url=server.base_url, retry=TWO, limits=limits) as client:
        with pytest.raises(RateLimitError):
            await client.chat("hi")
    assert len(server.requests) == 2


async def test_a_limiter_without_limits_pauses_too(server: MockErnie) -> None:
    server.script(*[refuse(429, retry_after=0.02)] * 3, reply("好"))
    limiter = Limiter(Limits())
    async with AsyncClient("k", base_url=server.base_url, retry=TWO, limits=limiter) as client:
        assert (await client.chat("hi")).text == "好"


async def test_nothing_left_pauses_and_a_smaller_limit_is_learnt(
    server: MockErnie, client: AsyncClient, records: list[Record]
) -> None:
    server.script(
        reply("好", headers={"x-ratelimit-limit-requests": "60"}),
        reply("好", headers={"X-Ratelimit-Remaining-Requests": "0", "Retry-After": "3"}),
    )
    assert standing(client).requests is None or standing(client).requests == 500
    await client.chat("hi")
    assert standing(client).requests == pytest.approx(5, abs=0.1)
    await client.stream("hi").final()
    assert 2 < standing(client).paused_for <= 3
    [paused] = of_kind(records, LimiterPaused)
    assert isinstance(paused, LimiterPaused)
    assert (paused.seconds, paused.reason) == (3.0, "nothing is left of the quota")


async def test_success_lets_more_calls_go_at_once_streams_too(server: MockErnie) -> None:
    limits = Limits(concurrency=Adaptive(start=1))
    async with AsyncClient("k", base_url=server.base_url, limits=limits) as client:
        await client.chat("hi")
        assert standing(client).concurrency == 2
        await asyncio.gather(*(client.stream("hi").text() for _ in range(2)))
        assert standing(client).concurrency == 3
        async with client.stream("hi") as stream:
            await anext(stream)
        assert standing(client).concurrency == 3  # left before its end


async def test_who_waits_is_told_of_and_who_does_not_is_not(
    server: MockErnie, records: list[Record]
) -> None:
    async with AsyncClient(
        "k",
        base_url=server.base_url,
        limits=Limits(requests_per_minute=600, burst=1),
        hooks=[records.append],
    ) as client:
        await client.chat("hi", priority="batch")
        assert not of_kind(records, Queued)
        await asyncio.gather(*(client.chat("hi", priority="batch") for _ in range(2)))
        await asyncio.gather(client.chat("hi", max_wait=9), client.chat("hi", max_wait=9))
    queued = [one for one in records if isinstance(one, Queued)]
    assert [(one.priority, one.position) for one in queued] == [
        ("batch", 1), ("batch", 2), ("interactive", 1), ("interactive", 2),
    ]  # fmt: skip
    assert all(0 < one.estimated_wait < 0.3 for one in queued)


async def test_max_wait_ends_a_call_before_it_is_sent(
    server: MockErnie, records: list[Record]
) -> None:
    async with AsyncClient(
        "k", base_url=server.base_url, limits=Limits(requests_per_minute=6), hooks=[records.append]
    ) as client:
        await client.chat("hi")
        for answer in (client.chat("hi", max_wait=1), client.stream("hi", max_wait=1).text()):
            with pytest.raises(DeadlineError) as caught:
                await answer
            assert (caught.value.clock, caught.value.attempts) == ("queue", ())
        view = standing(client)
        assert (view.in_flight, view.waiting) == (0, 0)
    assert len(server.requests) == 1
    assert len(of_kind(records, CallEnded)) == 3


async def test_a_call_larger_than_a_minute_is_refused_unsent(server: MockErnie) -> None:
    limits = Limits(tokens_per_minute=1000)
    async with AsyncClient("k", base_url=server.base_url, limits=limits) as client:
        with pytest.raises(ConfigError, match="tokens_per_minute"):
            await client.chat("hi", max_completion_tokens=1001)
    assert not server.requests


@pytest.mark.parametrize(
    ("option", "message"),
    [({"priority": "urgent"}, "priority: expected"), ({"max_wait": -1}, "max_wait: expected")],
)
async def test_wrong_option_is_refused(
    client: AsyncClient, option: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        await client.chat("hi", **option)  # type: ignore[arg-type]


class Recording:
    """Somebody else's limiter."""

    def __init__(self) -> None:
        self.inner = Limiter(Limits())
        self.limits = Limits(requests_per_minute=5)
        self.counts_tokens = False
        self.asked: list[dict[str, object]] = []

    def admit(self, tokens: int = 0, **options: object) -> Permit:
        self.asked.append(options)
        return self.inner.admit(tokens)

    def snapshot(self, model: str | None = None, account: str = "") -> LimiterSnapshot:
        return self.inner.snapshot(model, account)


async def test_any_limiter_will_do(server: MockErnie) -> None:
    limiter = Recording()
    assert isinstance(limiter, AnyLimiter)
    async with AsyncClient("secret", base_url=server.base_url, limits=limiter) as client:
        assert client.limiter is limiter
        await client.chat("hi", priority="batch", max_wait=3)
        await client.list_models()
    first, second = limiter.asked
    assert first["model"] == "ernie-5.1"
    assert (first["priority"], first["max_wait"]) == ("batch", 3)
    assert (second["model"], second["account"]) == (None, first["account"])
    assert first["account"] == AsyncClient("secret")._desk.account != AsyncClient("x")._desk.account
    assert "secret" not in str(first["account"])


async def test_a_request_that_was_never_sent_costs_nothing(server: MockErnie) -> None:
    async with silent_server() as host:
        limits = Limits(requests_per_minute=60, burst=5, tokens_per_minute=60_000)
        async with AsyncClient(
            "k",
            base_url=f"https://{host}/v2",
            limits=limits,
            retry=RetryPolicy(attempts=1),
            timeouts=Timeouts(connect=0.1),
        ) as client:
            before = standing(client)
            with pytest.raises(DeadlineError) as caught:
                await client.chat("hi", max_tokens=5000)
            assert caught.value.clock == "connect"
            after = standing(client)
    assert (after.requests, after.tokens) == (before.requests, before.tokens)


async def test_who_ends_in_line_made_no_attempt(
    server: MockErnie, client: AsyncClient, records: list[Record]
) -> None:
    server.script(stall(before_headers=True))
    async with AsyncClient(
        "k", base_url=server.base_url, limits=Limits(concurrency=1), hooks=[records.append]
    ) as client:
        ahead = asyncio.create_task(client.chat("ahead"))
        await until(lambda: server.requests_made == 1)
        short = Timeouts(total=0.1)
        for ask in (client.chat("hi", timeouts=short), client.chat("hi", max_wait=0.1)):
            with pytest.raises(DeadlineError) as caught:
                await ask
            assert (caught.value.attempts, caught.value.request_id) == ((), None)
        for ended in of_kind(records, CallEnded):
            assert isinstance(ended, CallEnded)
            assert (ended.timing.attempts, round(ended.timing.queued, 1)) == (0, 0.1)
        drained = asyncio.create_task(client.chat("hi"))
        await asyncio.sleep(0)
        await client.drain(0)
        with pytest.raises(DrainError) as stopped:
            await drained
        assert stopped.value.attempts == ()
        with pytest.raises(DrainError) as stopped:
            await ahead
        assert len(stopped.value.attempts) == 1
    assert server.requests_made == 1
