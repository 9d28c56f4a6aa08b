"""Features of a client that meet in one call."""

import asyncio

import pytest

from ernie_async import AsyncClient, BlockedError, ContentFilter, Limits
from ernie_async.testing import MockErnie, cut, refuse, reply

WORDS = ContentFilter.from_terms(["secret"], action="mask")


@pytest.mark.anyio
async def test_shared_calls_are_filtered_for_each_of_their_readers(server: MockErnie) -> None:
    server.script(reply("a sec", chunk_ms=5), reply("a secret thing", chunk_ms=5))
    async with AsyncClient(
        "k", base_url=server.base_url, coalesce=True, content_filter=WORDS
    ) as client:
        texts = await asyncio.gather(*(client.stream("hi").text() for _ in range(5)))
        assert texts == ["a sec"] * 5
        texts = await asyncio.gather(*(client.stream("hi").text() for _ in range(5)))
        assert texts == ["a ****** thing"] * 5
        server.script(reply("a secret thing"))
        answers = await asyncio.gather(*(client.chat("hi") for _ in range(5)))
    assert [answer.text for answer in answers] == ["a ****** thing"] * 5
    assert len(server.requests) == 3


@pytest.mark.anyio
async def test_those_who_filter_otherwise_do_not_share(server: MockErnie) -> None:
    server.script(reply("a secret thing", chunk_ms=5), reply("a secret thing", chunk_ms=5))
    async with AsyncClient("k", base_url=server.base_url, coalesce=True) as client:
        filtered = client.with_options(content_filter=WORDS)
        texts = await asyncio.gather(client.stream("hi").text(), filtered.stream("hi").text())
    assert texts == ["a secret thing", "a ****** thing"]
    assert len(server.requests) == 2


@pytest.mark.anyio
async def test_another_model_goes_on_with_what_came_and_not_with_what_was_shown(
    server: MockErnie,
) -> None:
    server.script(cut(after_chunks=3, text="the secret is"), refuse(400), reply(" out of the box"))
    async with AsyncClient(
        "k",
        base_url=server.base_url,
        fallback=["other"],
        resume="continue",
        content_filter=WORDS,
        limits=Limits(concurrency=1),
    ) as client:
        async with client.stream("hi", model="first") as stream:
            shown = "".join([chunk.text async for chunk in stream])
    assert "secret" not in shown
    assert b"secr" in server.requests[-1].body


@pytest.mark.anyio
async def test_a_shared_stream_is_stopped_for_all_by_what_may_not_be_shown(
    server: MockErnie,
) -> None:
    server.script(reply("fine so far, secret and more", chunk_ms=5))
    blocking = ContentFilter.from_terms(["secret"], action="block")
    async with AsyncClient(
        "k", base_url=server.base_url, coalesce=True, content_filter=blocking
    ) as client:
        failures = await asyncio.gather(
            *(client.stream("hi").text() for _ in range(3)), return_exceptions=True
        )
        assert all(isinstance(failure, BlockedError) for failure in failures)
        partials = {failure.partial.text for failure in failures}  # type: ignore[union-attr]
    assert partials == {"fine so far, "}
    assert len({id(failure) for failure in failures}) == 3
