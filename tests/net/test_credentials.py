"""Short-lived tokens over a real socket: one request for a hundred callers, renewed in time."""

import asyncio
import logging
import pickle
import traceback
from collections.abc import AsyncIterator

import anyio
import pytest

from ernie_async import (
    AsyncClient,
    AuthError,
    Client,
    ConnectError,
    ErnieError,
    IamKeys,
    Limits,
    RetryPolicy,
    Timeouts,
)
from ernie_async.testing import MockErnie, refuse, reply
from tests.silent import silent_server
from tests.waiting import until

pytestmark = pytest.mark.anyio

ACCESS, SECRET = "ALTAKplanted", "secret-planted"
ONCE = RetryPolicy(attempts=1)


@pytest.fixture
async def office() -> AsyncIterator[MockErnie]:
    async with MockErnie(iam_keys=(ACCESS, SECRET)) as mock:
        yield mock


def keys(server: MockErnie, secret: str = SECRET) -> IamKeys:
    return IamKeys(ACCESS, secret, iam_url=server.iam_url)


def client_of(server: MockErnie, **settings) -> AsyncClient:
    return AsyncClient(keys(server), base_url=server.base_url, **{"retry": ONCE, **settings})


def n_fetches(server: MockErnie) -> int:
    return sum(seen.path.endswith("/token") for seen in server.requests)


async def test_a_token_is_fetched_once_and_used_by_every_verb(office: MockErnie) -> None:
    async with client_of(office) as client:
        assert (await client.chat("hi")).text
        assert [chunk async for chunk in client.stream("hi")]
        assert await client.list_models()
        assert (await client.with_options(model="m").chat("hi")).text
    assert office.tokens.issued == n_fetches(office) == 1


async def test_a_hundred_calls_with_an_expired_token_fetch_one(office: MockErnie) -> None:
    async with client_of(office) as client:
        office.tokens.seconds = 0.05
        await client.chat("hi")
        await asyncio.sleep(0.06)
        office.tokens.seconds = None
        answers = await asyncio.gather(*(client.chat("hi") for _ in range(100)))
    assert all(answer.timing.attempts == 1 for answer in answers)
    assert office.tokens.issued == n_fetches(office) == 2


async def test_a_hundred_calls_whose_token_is_refused_fetch_one_and_fail_none(
    office: MockErnie,
) -> None:
    """The policy allows one attempt; the repetition with a new token is not of its count."""
    async with client_of(office) as client:
        await client.chat("hi")
        office.tokens.revoke()
        answers = await asyncio.gather(*(client.chat("hi") for _ in range(100)))
        assert {answer.timing.attempts for answer in answers} == {2}
        office.tokens.revoke()
        async with client.stream("hi") as stream:
            assert (await stream.final()).text
    assert office.tokens.issued == n_fetches(office) == 3


async def test_a_new_token_that_is_refused_as_well_is_the_error(office: MockErnie) -> None:
    async with client_of(office, retry=RetryPolicy(attempts=5)) as client:
        office.script(*[refuse(401, "invalid_iam_token")] * 3)
        with pytest.raises(AuthError) as caught:
            await client.chat("hi")
    assert caught.value.code == "invalid_iam_token"
    assert len(caught.value.attempts) == 2
    assert n_fetches(office) == 2


async def test_another_refusal_with_401_renews_nothing(office: MockErnie) -> None:
    async with client_of(office) as client:
        office.script(refuse(401, "invalid_appid"))
        with pytest.raises(AuthError):
            await client.chat("hi")
    assert n_fetches(office) == 1


async def test_renewal_comes_ahead_of_the_end_and_once(office: MockErnie) -> None:
    async with client_of(office) as client:
        office.tokens.seconds = 0.5
        await client.chat("hi")
        await asyncio.sleep(0.46)  # due between 0.4 and 0.45 s, and good until 0.49 s
        office.tokens.seconds = None
        await asyncio.gather(*(client.chat("hi") for _ in range(20)))
        fetched = [n for n, seen in enumerate(office.requests) if seen.path.endswith("/token")]
    assert len(fetched) == 2


async def test_a_token_that_is_still_good_is_used_while_no_other_can_be_had(
    office: MockErnie,
) -> None:
    async with client_of(office) as client:
        office.tokens.seconds = 2.0
        await client.chat("hi")
        tokens = client._desk.key
        tokens._token.renew_at = 0.0
        tokens.keys = keys(office, "another")
        for _ in range(3):
            assert (await client.chat("hi")).text
    assert n_fetches(office) == 2  # the failed one is not repeated at every call


async def test_no_call_waits_for_another_token_while_it_has_a_good_one(office: MockErnie) -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(never, "127.0.0.1", 0)
    async with silent, client_of(office) as client:
        await client.chat("hi")
        tokens = client._desk.key
        tokens._token.renew_at = 0.0
        tokens._transport.base_url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
        hasty = client.with_options(timeouts=Timeouts(total=0.5))
        for _ in range(3):
            assert (await hasty.chat("hi")).text


async def test_a_cancelled_waiter_leaves_the_token_to_the_others(office: MockErnie) -> None:
    async with client_of(office) as client:
        calls = [asyncio.create_task(client.chat("hi")) for _ in range(10)]
        while not n_fetches(office):
            await asyncio.sleep(0)
        calls[0].cancel()
        calls[5].cancel()
        ended = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(end, asyncio.CancelledError) for end in ended) == 2
    assert sum(not isinstance(end, BaseException) for end in ended) == 8
    assert n_fetches(office) == 1


async def test_the_last_waiter_that_is_cancelled_ends_the_request() -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    before = len(asyncio.all_tasks())
    async with server, AsyncClient(IamKeys("a", "b", iam_url=url), base_url=f"{url}/v2") as client:
        calls = [asyncio.create_task(client.chat("hi")) for _ in range(3)]
        await asyncio.sleep(0.05)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await until(lambda: not any("IamTokens" in repr(task) for task in asyncio.all_tasks()))
    assert len(asyncio.all_tasks()) <= before + 1


async def test_closing_while_a_token_is_fetched_is_an_error_and_no_cancellation() -> None:
    async with silent_server() as place:
        url = f"http://{place}"
        client = AsyncClient(IamKeys("a", "b", iam_url=url), base_url=f"{url}/v2")
        call = asyncio.create_task(client.chat("hi"))
        await asyncio.sleep(0.05)
        await client.aclose()
        with pytest.raises(ErnieError, match="closed"):
            await call


async def test_wrong_secret_is_a_clear_error_and_chat_hears_nothing(office: MockErnie) -> None:
    client = AsyncClient(keys(office, "wrong"), base_url=office.base_url)
    async with client:
        ended = await asyncio.gather(*(client.chat("hi") for _ in range(5)), return_exceptions=True)
    assert all(isinstance(end, AuthError) for end in ended)
    assert "secret key does not belong" in str(ended[0])
    assert len({id(end) for end in ended}) == 5
    assert n_fetches(office) == len(office.requests) == 1


async def test_iam_service_that_is_away_is_tried_again_and_costs_no_quota() -> None:
    async with MockErnie() as gone:
        url = gone.iam_url
    policy = RetryPolicy(attempts=2, base_delay=0.001)
    limits = Limits(requests_per_minute=1, burst=1)
    async with AsyncClient(
        IamKeys("a", "b", iam_url=url),
        base_url="http://127.0.0.1:1/v2",
        retry=policy,
        limits=limits,
    ) as client:
        with pytest.raises(ConnectError, match="no token from the IAM service") as caught:
            with anyio.fail_after(5):
                await client.chat("hi")
    assert len(caught.value.attempts) == 2
    assert not caught.value.was_sent


def test_client_with_iam_keys_works_in_successive_loops_and_after_a_pickle() -> None:
    with MockErnie(iam_keys=(ACCESS, SECRET)) as office:
        client = client_of(office)

        async def use(client: AsyncClient) -> None:
            async with asyncio.timeout(5):
                assert (await client.chat("hi")).text

        for _ in range(3):
            asyncio.run(use(client))
        assert office.tokens.issued == 1  # the token does not belong to a loop
        state = pickle.dumps(client)
        assert b"bce-v3" not in state
        again = pickle.loads(state)
        asyncio.run(use(again))
        assert office.tokens.issued == 2
        with Client(keys(office), base_url=office.base_url) as sync:
            assert sync.chat("hi").text


async def test_secrets_are_shown_nowhere(
    office: MockErnie, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with client_of(office) as client:
        await client.chat("hi")
        header = str.__str__(client._desk.key._token.header())
        shown = [repr(client), repr(client._desk), repr(client._desk.key._token)]
        office.tokens.revoke()
        office.script(reply("x"), refuse(400))
        wrong = AsyncClient(keys(office, "wrong-planted"), base_url=office.base_url)
        for broken in (client, wrong):
            with pytest.raises(ErnieError) as caught:
                async with broken:
                    await broken.chat("hi")
                    await broken.chat("hi")
            error = caught.value.with_traceback(caught.value.__traceback__.tb_next)
            report = traceback.TracebackException.from_exception(error, capture_locals=True)
            shown += ["".join(report.format()), repr(error.args)]
    shown.append(caplog.text)
    for secret in (ACCESS, "secret-planted", header.removeprefix("Bearer ")):
        assert secret not in "\n".join(shown), secret
