"""A pool of keys over a real connection: who is asked with which key, and what happens to it."""

import asyncio
import copy
import logging
import pickle
import traceback
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

import pytest
from aiohttp import web

from ernie_async import (
    AsyncClient,
    AuthError,
    Client,
    ConfigError,
    ErnieError,
    Hedging,
    IamKeys,
    KeyPool,
    Limits,
    NoKeyError,
    NotFoundError,
    PooledKey,
    QuotaError,
    RateLimitError,
    RetryPolicy,
    ServerError,
    Timeouts,
)
from ernie_async.testing import MockErnie
from tests.waiting import until

pytestmark = pytest.mark.anyio

A, B, C = (f"bce-v3/ALTAK-planted{name}/secret{name}" for name in "ABC")
ONCE = RetryPolicy(attempts=1)
Refusal = tuple[int, str | None, dict[str, str]]

ANSWER = {
    "id": "as-1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "好"},
                 "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}  # fmt: skip


class Service:
    """Answers by the key it is asked with. The mock accepts one key, and here are several."""

    def __init__(self) -> None:
        self.base_url = ""
        self.asked: list[str] = []
        self.refusals: dict[str, Refusal] = {}
        self.seconds = 0.0
        self.running: Counter[str] = Counter()
        self.peaks: Counter[str] = Counter()

    def refuse(self, key: str, status: int, code: str | None, **headers: str) -> None:
        self.refusals[key] = (status, code, headers)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        key = request.headers["Authorization"].removeprefix("Bearer ")
        body = await request.json()
        self.asked.append(key)
        self.running[key] += 1
        self.peaks[key] = max(self.peaks[key], self.running[key])
        try:
            await asyncio.sleep(self.seconds)
            if key in self.refusals:
                status, code, headers = self.refusals[key]
                error = {"error": {"code": code, "message": "no"}, "id": "as-1"}
                return web.json_response(error, status=status, headers=headers)
            if not body.get("stream"):
                return web.json_response(ANSWER)
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            for text in "一二三":
                choice = f'{{"index":0,"delta":{{"content":"{text}"}}}}'
                event = f'data: {{"id":"as-1","model":"m","created":1,"choices":[{choice}]}}\n\n'
                await response.write(event.encode())
                await asyncio.sleep(self.seconds)
            await response.write(b"data: [DONE]\n\n")
            return response
        finally:
            self.running[key] -= 1


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    told = Service()
    application = web.Application()
    application.router.add_post("/v2/chat/completions", told.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    told.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v2"
    yield told
    await runner.cleanup()


@asynccontextmanager
async def client_of(service: Service, pool: KeyPool, **settings) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(pool, base_url=service.base_url, model="m", **settings) as client:
        yield client
        await asyncio.sleep(0)
    assert [health.in_flight for health in pool.health()] == [0] * len(pool)


# Which key


async def test_calls_at_once_are_spread_evenly(service: Service) -> None:
    service.seconds = 0.05
    async with client_of(service, KeyPool([A, B, C])) as client:
        await asyncio.gather(*(client.chat("hi") for _ in range(30)))
    assert Counter(service.asked) == {A: 10, B: 10, C: 10}


async def test_streams_hold_their_key_until_they_are_over(service: Service) -> None:
    pool = KeyPool([A, B])
    async with client_of(service, pool) as client:
        async with client.stream("hi") as stream:
            await anext(stream)
            assert [health.in_flight for health in pool.health()] == [1, 0]
            for _ in range(3):
                await client.chat("hi")
            assert service.asked == [A, B, B, B]
        assert [health.in_flight for health in pool.health()] == [0, 0]
        dropped = client.stream("hi")
        await anext(dropped)
        del dropped
        assert [health.in_flight for health in pool.health()] == [0, 0]
        assert await client.stream("hi").text() == "一二三"


async def test_one_user_is_served_with_one_key(service: Service) -> None:
    async with client_of(service, KeyPool([A, B, C])) as client:
        for n in range(20):
            await asyncio.gather(*(client.chat("hi", user=f"user {n}") for _ in range(3)))
            assert len(set(service.asked[-3:])) == 1
        assert set(service.asked) == {A, B, C}
        key = service.asked[-1]
        service.refuse(key, 401, "invalid_iam_token")
        assert (await client.chat("hi", user="user 19")).text == "好"
        assert len({*service.asked[-2:]}) == 2


# Refusals


@pytest.mark.parametrize(
    ("status", "code", "state"),
    [
        (401, "invalid_iam_token", "quarantined"),
        (403, "account_overdue", "quarantined"),
        (429, "rpm_rate_limit_exceeded", "cooling"),
    ],
)
@pytest.mark.parametrize("limits", [Limits(), Limits(concurrency=5)], ids=["free", "limited"])
async def test_call_goes_on_with_another_key_at_no_cost(
    service: Service, status: int, code: str, state: str, limits: Limits
) -> None:
    service.refuse(A, status, code)
    pool = KeyPool([A, B])
    async with client_of(service, pool, retry=ONCE, limits=limits) as client:
        began = monotonic()
        answer = await client.chat("hi")
        assert monotonic() - began < 1
        assert (answer.text, answer.timing.attempts) == ("好", 2)
        assert await client.stream("hi").text() == "一二三"
        for _ in range(5):
            await client.chat("hi")
        first, second = pool.health()
        assert (first.state, first.reason, second.state) == (state, code, "ready")
        assert first.retry_after > 4
    assert service.asked == [A, *[B] * 7]


async def test_refusal_that_is_no_key_s_fault_is_raised(service: Service) -> None:
    service.refuse(A, 401, "invalid_model")
    pool = KeyPool([A, B])
    async with client_of(service, pool) as client:
        with pytest.raises(NotFoundError):
            await client.chat("hi")
    assert service.asked == [A]
    assert {health.state for health in pool.health()} == {"ready"}


async def test_server_that_is_down_is_no_key_s_fault(service: Service) -> None:
    service.refuse(A, 503, None)
    service.refuse(B, 503, None)
    pool = KeyPool([A, B])
    async with client_of(service, pool, retry=RetryPolicy(attempts=3, base_delay=0.01)) as client:
        with pytest.raises(ServerError) as caught:
            await client.chat("hi")
    assert len(caught.value.attempts) == 3
    assert {health.state for health in pool.health()} == {"ready"}


async def test_keys_of_one_account_share_its_quota(service: Service) -> None:
    service.refuse(A, 429, "rpm_rate_limit_exceeded")
    pool = KeyPool([PooledKey(A, account="x"), PooledKey(B, account="x"), PooledKey(C)])
    async with client_of(service, pool, retry=ONCE) as client:
        await client.chat("hi")
        assert service.asked == [A, C]
    assert [health.state for health in pool.health()] == ["cooling", "cooling", "ready"]


async def test_each_account_has_a_lane_of_its_own_in_the_limiter(service: Service) -> None:
    service.seconds = 0.02
    pool = KeyPool([A, B, C])
    async with client_of(service, pool, limits=Limits(concurrency=2)) as client:
        await asyncio.gather(*(client.chat("hi") for _ in range(60)))
        assert client.limiter is not None
        assert client.limiter.snapshot().in_flight == 0
    assert service.peaks == {A: 2, B: 2, C: 2}
    assert Counter(service.asked) == {A: 20, B: 20, C: 20}


async def test_calls_that_wait_in_line_for_a_key_that_is_refused_go_to_another(
    service: Service,
) -> None:
    service.seconds = 0.05
    service.refuse(A, 401, "invalid_iam_token")
    async with client_of(service, KeyPool([A, B]), limits=Limits(concurrency=1)) as client:
        answers = await asyncio.gather(*(client.chat("hi") for _ in range(6)))
    assert {answer.text for answer in answers} == {"好"}
    assert service.asked.count(A) == 1


@pytest.mark.parametrize("limits", [Limits(), Limits(concurrency=5)], ids=["free", "limited"])
async def test_a_hedged_request_uses_the_key_of_the_one_that_is_late(
    service: Service, limits: Limits
) -> None:
    service.seconds = 0.2
    pool = KeyPool([A, B])
    hedge = Hedging(after=0.05, share=1.0)
    async with client_of(service, pool, hedge=hedge, limits=limits, retry=ONCE) as client:
        assert (await client.chat("hi")).text == "好"
        assert service.asked == [A, A]
        assert await client.stream("hi").text() == "一二三"
        assert service.asked[2:] == [B, B]
        service.refuse(A, 401, "invalid_iam_token")
        assert (await client.chat("hi")).text == "好"
    assert [health.state for health in pool.health()] == ["quarantined", "ready"]


async def test_another_model_is_asked_with_the_keys_of_its_client(service: Service) -> None:
    service.refuse(A, 429, "rpm_rate_limit_exceeded")
    first, second = KeyPool([A]), KeyPool([B, C])
    async with (
        client_of(service, second) as reserve,
        client_of(service, first, retry=ONCE, fallback=[(reserve, "n")]) as client,
    ):
        for _ in range(3):  # the second and third meet a pool that has no key
            assert (await client.chat("hi")).fell_back_from == ("m",)
        assert await client.stream("hi").text() == "一二三"
    assert Counter(service.asked) == {A: 1, B: 2, C: 2}


# When all are out


async def test_without_patience_the_error_says_when_the_first_comes_back(service: Service) -> None:
    service.refuse(A, 429, "rpm_rate_limit_exceeded", **{"Retry-After": "30"})
    service.refuse(B, 403, "account_overdue")
    pool = KeyPool([A, B])
    async with client_of(service, pool, retry=ONCE) as client:
        with pytest.raises((QuotaError, RateLimitError)):
            await client.chat("hi")
        with pytest.raises(NoKeyError) as caught:
            await client.chat("hi")
        assert 29 < caught.value.retry_after <= 30
        assert "rpm_rate_limit_exceeded" in str(caught.value)
        assert "account_overdue" in str(caught.value)
        assert "planted" not in str(caught.value)
        # Patient, but not beyond the end of the call.
        hasty = client.with_options(retry=RetryPolicy(), timeouts=Timeouts(total=2))
        with pytest.raises(NoKeyError):
            await hasty.chat("hi")
    assert len(service.asked) == 2


async def test_patient_call_waits_for_the_first_that_comes_back(service: Service) -> None:
    service.refuse(A, 429, "rpm_rate_limit_exceeded", **{"Retry-After": "0.2"})
    service.refuse(B, 401, "invalid_iam_token")
    async with client_of(service, KeyPool([A, B]), retry=RetryPolicy(base_delay=0.1)) as client:
        asking = asyncio.create_task(client.chat("hi"))
        await until(lambda: len(service.asked) == 2)
        service.refusals.clear()
        answer = await asking
        waiting = [client.chat("hi") for _ in range(5)]
        assert all(done.text == "好" for done in await asyncio.gather(*waiting))
    assert answer.text == "好"
    assert set(service.asked[2:]) == {A}


async def test_wait_for_a_key_can_be_cancelled(service: Service) -> None:
    service.refuse(A, 429, "rpm_rate_limit_exceeded", **{"Retry-After": "20"})
    async with client_of(service, KeyPool([A]), retry=ONCE) as client:
        with pytest.raises(RateLimitError):
            await client.chat("hi")
        patient = client.with_options(retry=RetryPolicy(attempts=10))
        tasks = [asyncio.create_task(patient.chat("hi")) for _ in range(10)]
        await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(error) for error in done} == {asyncio.CancelledError}
    assert service.asked == [A]


async def test_one_key_behaves_like_a_pool_of_one(service: Service) -> None:
    service.refuse(A, 401, "invalid_iam_token")
    async with client_of(service, KeyPool([A])) as client:
        with pytest.raises(AuthError):
            await client.chat("hi")
    assert service.asked == [A]


async def test_a_hundred_calls_with_a_dead_key_among_three_all_succeed(service: Service) -> None:
    service.refuse(B, 401, "invalid_iam_token")
    service.seconds = 0.01
    async with client_of(service, KeyPool([A, B, C]), retry=ONCE) as client:
        answers = await asyncio.gather(*(client.chat("hi") for _ in range(100)))
    assert len(answers) == 100


# Pairs of keys


async def test_token_of_a_pair_is_renewed_before_the_pair_is_blamed() -> None:
    async with MockErnie(iam_keys=("ALTAKplanted", "secret")) as server:
        assert server.tokens is not None
        pair = IamKeys("ALTAKplanted", "secret", iam_url=server.iam_url)
        pool = KeyPool([pair])
        async with AsyncClient(pool, base_url=server.base_url, retry=ONCE) as client:
            await client.chat("hi")
            server.tokens.revoke()
            assert (await client.chat("hi")).timing.attempts == 2
            assert server.tokens.issued == 2
            assert pool.health()[0].state == "ready"


async def test_pair_that_gets_no_token_makes_room_for_another_key() -> None:
    async with MockErnie(iam_keys=("ALTAKgood", "secret"), api_key=A) as server:
        wrong = IamKeys("ALTAKplanted", "wrong", iam_url=server.iam_url)
        away = IamKeys("ALTAKaway", "secret", iam_url="http://127.0.0.1:9")
        pool = KeyPool([wrong, away, A])
        async with AsyncClient(pool, base_url=server.base_url, retry=ONCE) as client:
            assert (await client.chat("hi")).text
            assert [health.state for health in pool.health()] == [
                "quarantined", "quarantined", "ready",
            ]  # fmt: skip
            assert pool.health()[1].retry_after < 10


# What is shown, and copies


async def test_no_key_is_ever_shown(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    pool = KeyPool([A, PooledKey(B, account="main"), IamKeys("ALTAKplanted", "secretpair")])
    service.refuse(A, 401, "invalid_iam_token")
    service.refuse(B, 401, "invalid_iam_token")
    records: list[object] = []
    async with AsyncClient(
        pool, base_url=service.base_url, model="m", retry=ONCE, hooks=[records.append]
    ) as client:
        shown = [repr(client)]
        for _ in range(2):
            with pytest.raises(ErnieError) as caught:
                await client.chat("hi", timeouts=Timeouts(connect=0.2))
            error = caught.value
            told = traceback.TracebackException.from_exception(error, capture_locals=True)
            shown += ["".join(told.format()), repr(error), str(error), str(vars(error))]
            shown.append(repr(pickle.dumps(error)))
    health = pool.health()
    shown += [repr(pool), repr(health), caplog.text, repr(records), repr(pickle.dumps(health))]
    assert len(shown) > 10
    for text in shown:
        assert "planted" not in text
        assert "secretpair" not in text


def test_pool_travels_with_its_keys_and_without_its_state() -> None:
    pool = KeyPool([A, PooledKey(B, account="main")])
    pool.lanes.quarantine(pool.lanes.lanes[0], "x", monotonic())
    again = pickle.loads(pickle.dumps(pool))
    assert [health.state for health in again.health()] == ["ready", "ready"]
    assert [health[:2] for health in again.health()] == [health[:2] for health in pool.health()]
    assert copy.deepcopy(pool) is pool
    client = AsyncClient(pool, base_url="http://127.0.0.1:9")
    assert repr(pickle.loads(pickle.dumps(client))).startswith("AsyncClient(KeyPool(2 keys), ")


def test_sync_client_takes_a_pool(mock_ernie: MockErnie) -> None:
    with Client(KeyPool([A, B]), base_url=mock_ernie.base_url) as client:
        assert client.chat("hi").text


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ([], "at least one key"),
        ("bce", "keys: expected a list of keys, got one text"),
        ([A, 3], "key 2 of the pool: expected a key, got int"),
        ([A, B, f"Bearer {A}"], "1 and 3 of the pool are the same key"),
        ([A, ""], r"API key \(key 2 of the pool\)"),
    ],
)
def test_what_is_no_pool_is_refused(keys: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        KeyPool(keys)
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    frames = "".join(told.format()).partition("key_pool.py")[2]
    own = frames[frames.index("ernie_async") :] if "ernie_async" in frames else ""
    assert "planted" not in own
