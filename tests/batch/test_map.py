"""From iterator to iterator: bounded, back-pressured, and nothing left behind."""

import asyncio
import gc
import pickle
from pathlib import Path

import pytest

from ernie_async import AsyncClient, ConfigError, Timeouts
from ernie_async.batch import Adaptive, BatchRunner
from ernie_async.testing import MockErnie, refuse, reply, stall
from tests.batch.files import asked

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(server: MockErnie):
    async with AsyncClient("k", base_url=server.base_url, timeouts=Timeouts(total=5)) as client:
        yield client


def ask(row) -> dict:
    return {"messages": [{"role": "user", "content": row["text"]}]}


async def test_every_row_comes_back_with_its_answer(client, server) -> None:
    server.default(reply("好"))
    rows = [{"sku": n, "text": f"t{n}"} for n in range(30)]
    async with BatchRunner(client, concurrency=Adaptive()) as runner:
        found = [r async for r in runner.map(rows, id=lambda r: r["sku"], request=ask)]
    assert {r.custom_id for r in found} == {str(n) for n in range(30)}
    assert all(r.ok and r.text == "好" and r.row["text"] == f"t{r.custom_id}" for r in found)
    assert asked(server) == {f"t{n}": 1 for n in range(30)}
    assert {seen.json["model"] for seen in server.requests} == {client.model}


async def test_rows_may_be_prompts_lines_or_async(client, server) -> None:
    async def rows():
        yield "你好"
        yield {"prompt": "hi", "custom_id": "a"}
        yield {"custom_id": "b", "url": "/v1/chat/completions", "body": {"messages": []}}
        yield 7

    found = {r.custom_id: r async for r in BatchRunner(client).map(rows())}
    assert set(found) == {"row-1", "a", "b", "row-4"}
    assert found["a"].ok
    assert found["b"].status == 400
    assert found["row-4"].code == "invalid_request"


async def test_rows_that_cannot_be_asked_are_results(client) -> None:
    rows = [{"text": "a"}, {}, {"text": "b"}]
    found = [r async for r in BatchRunner(client).map(rows, id=lambda r: "same", request=ask)]
    assert sorted((r.number, r.code) for r in found) == [
        (1, None),
        (2, "invalid_request"),
        (3, "duplicate_custom_id"),
    ]


async def test_a_slow_consumer_stops_the_reader(client, server) -> None:
    n_read = 0

    def rows():
        nonlocal n_read
        while True:
            n_read += 1
            yield {"text": str(n_read)}

    results = BatchRunner(client, concurrency=4, window=8).map(rows(), request=ask)
    for _ in range(3):
        await anext(results)
    await asyncio.sleep(0.3)
    stopped_at = n_read, server.requests_made
    assert n_read <= 3 + 8 + 3
    assert server.requests_made <= 3 + 1 + 4 + 1
    await asyncio.sleep(0.2)
    assert (n_read, server.requests_made) == stopped_at
    await results.aclose()
    await results.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(results)


async def test_closing_ends_the_wait_of_another_task(client, server) -> None:
    server.default(stall(before_headers=True))
    results = BatchRunner(client).map(["a"])
    waiting = asyncio.create_task(anext(results, "over"))
    await asyncio.sleep(0.05)
    await results.aclose()
    async with asyncio.timeout(5):
        assert await waiting == "over"


@pytest.mark.parametrize("how", ["break", "with", "close"])
async def test_leaving_early_leaves_nothing_behind(client, server, how) -> None:
    server.script(reply("x"))
    server.default(stall(before_headers=True))
    before = len(asyncio.all_tasks())
    rows = ({"text": str(n)} for n in range(100))
    runner = BatchRunner(client, concurrency=8)
    if how == "with":
        async with runner:
            async for _ in runner.map(rows, request=ask):
                break
    else:
        results = runner.map(rows, request=ask)
        async for _ in results:
            break
        if how == "close":
            await results.aclose()
        del results
    gc.collect()
    await server.wait_idle(2.0)
    assert len([t for t in asyncio.all_tasks() if "_work" in repr(t) or "_fill" in repr(t)]) == 0
    assert before >= 1


async def test_a_stop_tells_of_the_lines_that_were_read(client, server) -> None:
    server.default(reply("x", first_ms=100))
    runner = BatchRunner(client, concurrency=2, deadline=0.25)
    found = [r async for r in runner.map([{"text": str(n)} for n in range(50)], request=ask)]
    codes = {r.code for r in found}
    assert codes == {None, "deadline_exceeded"}
    assert sum(r.ok for r in found) == server.requests_made


async def test_an_error_of_the_source_is_raised(client) -> None:
    def rows():
        yield {"text": "a"}
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        async for _ in BatchRunner(client).map(rows(), request=ask):
            pass


async def test_partitions_give_records(client, server) -> None:
    server.script(refuse(400))
    rows = [{"prompt": "a"}, {"prompt": "b"}]
    found = [r async for r in BatchRunner(client, concurrency=1).run_partition(rows)]
    assert [r["custom_id"] for r in found] == ["row-1", "row-2"]
    assert [r["response"]["status_code"] for r in found] == [400, 200]
    assert pickle.loads(pickle.dumps(found)) == found


async def test_settings_are_checked(client) -> None:
    for settings in ({"concurrency": 0}, {"max_cost": 0}, {"max_errors": "x"}, {"tpm": -1}):
        with pytest.raises(ConfigError, match=r"concurrency|max_cost|max_errors|tokens_per_minute"):
            BatchRunner(client, **settings)
    with pytest.raises(ConfigError, match="url"):
        BatchRunner(client).map([], url="/v2/rerank")
    with pytest.raises(ConfigError, match="client"):
        BatchRunner("key")


def test_import_does_not_bring_the_batch() -> None:
    import subprocess
    import sys

    code = "import sys, ernie_async; sys.exit('ernie_async.batch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(), check=False).returncode == 0
