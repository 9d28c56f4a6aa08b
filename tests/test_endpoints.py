"""The verbs besides chat, against a server: what is sent, retried, limited, read and refused."""

import asyncio
import struct
from pathlib import Path

import pytest

from ernie_async import (
    APIError,
    AsyncClient,
    CallEnded,
    Client,
    ConfigError,
    ConnectError,
    DeadlineError,
    DecodeError,
    ImageResult,
    Limits,
    NotFoundError,
    RateLimitError,
    RetryPolicy,
    ServerError,
    Timeouts,
)
from ernie_async.testing import MockErnie, cut, error_event, raw, refuse, reply, stall

pytestmark = pytest.mark.anyio

ONCE = RetryPolicy(attempts=1)
VERBS = [
    ("/embeddings", lambda c: c.embed(["a"])),
    ("/rerank", lambda c: c.rerank("q", ["a"])),
    ("/images/generations", lambda c: c.generate_image("p")),
    ("/images/edits", lambda c: c.edit_image("data:x", "p")),
    ("/models", lambda c: c.list_models()),
    ("/files", lambda c: c.files.list()),
    ("/files", lambda c: c.files.upload(b"x", purpose="batch")),
    ("/ai_search/web_search", lambda c: c.web_search("q")),
    ("/video/generations", lambda c: c.generate_video("p", model="m", poll_every=0.001)),
]
each_verb = pytest.mark.parametrize(("path", "call"), VERBS, ids=[path for path, _ in VERBS])


# What all of them share


@each_verb
async def test_a_refusal_is_tried_again_and_then_raised(server, client, path, call) -> None:
    server.script(refuse(429, retry_after=0.001), refuse(500), path=path)
    assert await call(client)
    assert [seen.path.endswith(path) for seen in server.requests[:3]] == [True] * 3
    server.script(refuse(400, "invalid_argument", "no"), path=path)
    with pytest.raises(APIError, match="400 invalid_argument: no") as caught:
        await call(client)
    assert caught.value.request_id


@each_verb
async def test_an_error_inside_a_good_answer_is_an_error(server, client, path, call) -> None:
    server.script(error_event("internal_error"), path=path)
    assert await call(client.with_options(retry=RetryPolicy(attempts=2, base_delay=0.001)))
    server.script(raw(b'{"code":"QUOTA_USER_DAILY_FREE","message":"x"}'), path=path)
    with pytest.raises(APIError, match="QUOTA_USER_DAILY_FREE"):
        await call(client.with_options(retry=ONCE))


@each_verb
async def test_a_cut_and_rubbish_and_silence_have_their_errors(server, client, path, call) -> None:
    impatient = client.with_options(retry=ONCE, timeouts=Timeouts(total=0.3))
    server.script(cut(after_bytes=5), raw(b"<html>", content_type="text/html"), path=path)
    server.script(stall(before_headers=True), path=path)
    for error in (ConnectError, DecodeError, DeadlineError):
        with pytest.raises(error):
            await call(impatient)


@each_verb
async def test_options_of_the_call_are_heeded(server, client, path, call) -> None:
    seen = []
    watched = client.with_options(hooks=[seen.append])
    assert await call(watched)
    assert server.requests[0].headers["Authorization"] == "Bearer test-key"
    assert server.requests[0].headers["X-Request-Id"].startswith("ea-")
    assert next(record.outcome for record in seen if isinstance(record, CallEnded)) == "ok"


@pytest.mark.parametrize(
    "call",
    [
        lambda c, **o: c.embed("a", **o),
        lambda c, **o: c.rerank("q", ["a"], **o),
        lambda c, **o: c.generate_image("p", **o),
        lambda c, **o: c.web_search("q", **o),
        lambda c, **o: c.generate_video("p", model="m", poll_every=0.001, **o),
        lambda c, **o: c.files.upload(b"x", purpose="batch", **o),
        lambda c, **o: c.files.list(**o),
    ],
)
async def test_misspelt_options_are_refused_and_call_options_taken(server, client, call) -> None:
    with pytest.raises(ConfigError, match="modle: no such option"):
        await call(client, modle="x")
    with pytest.raises(ConfigError, match="timeouts: expected Timeouts"):
        await call(client, timeouts=5)
    assert server.requests == []
    await call(client, request_id="mine", extra_headers={"X-Trace": "t"}, extra_body={"new": "1"})
    first = server.requests[0]
    assert (first.headers["X-Request-Id"], first.headers["X-Trace"]) == ("mine", "t")
    assert first.method == "GET" or b"new" in first.body


# Embeddings


async def test_embed_splits_and_keeps_the_order(server, client) -> None:
    texts = [f"文本 {number}" for number in range(50)]
    answer = await client.embed(texts, user="u-1")
    assert [len(seen.json["input"]) for seen in server.requests] == [16, 16, 16, 2]
    assert server.requests[0].json == {
        "model": "embedding-v1",
        "input": texts[:16],
        "user": "u-1",
    }
    assert answer.vectors == [(await client.embed(text)).vectors[0] for text in texts]
    assert {len(vector) for vector in answer.vectors} == {384}
    assert answer.usage.prompt_tokens == sum(map(len, texts))
    assert not answer.usage.is_estimate


async def test_embed_obeys_the_table_and_the_argument(server, client) -> None:
    await client.embed(["a", "b", "c"], model="tao-8k", request_id="mine")
    assert sorted(seen.headers["X-Request-Id"] for seen in server.requests) == [
        "mine-1",
        "mine-2",
        "mine-3",
    ]
    await client.embed(["a", "b", "c"], model="tao-8k", batch_size=3)
    assert server.requests[3].json["input"] == ["a", "b", "c"]
    with pytest.raises(ConfigError, match=r"texts\.0: expected at most 1,000 characters"):
        await client.embed("a" * 1001)
    await client.embed("a" * 1001, max_characters=None)
    with pytest.raises(ConfigError, match="concurrency"):
        await client.embed("a", concurrency=0)
    assert len(server.requests) == 5


async def test_embed_asks_several_at_a_time_and_no_more(server, client) -> None:
    server.script(*[reply(first_ms=30)] * 12, path="/embeddings")
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, len(server._running))
            await asyncio.sleep(0.002)

    watching = asyncio.create_task(watch())
    await client.embed(list("abcdefghijkl"), batch_size=1, concurrency=3)
    watching.cancel()
    assert most == 3


async def test_embed_goes_through_the_limiter_and_settles(server) -> None:
    limits = Limits(tokens_per_minute=100_000, concurrency=1)
    async with AsyncClient("k", base_url=server.base_url, limits=limits) as client:
        await client.embed(list("abcdef"), batch_size=2)
        assert client.limiter.in_flight == 0
    assert len({seen.connection for seen in server.requests}) == 1


async def test_one_failed_batch_ends_all_of_them(server, client) -> None:
    server.script(reply(), refuse(400), path="/embeddings")
    with pytest.raises(APIError) as caught:
        await client.embed(list("abcdefgh"), batch_size=1, concurrency=2)
    assert caught.value.status == 400
    assert len(server.requests) < 8
    await server.wait_idle()


async def test_a_cancelled_embed_leaves_nothing(server, client) -> None:
    server.script(*[stall(before_headers=True)] * 4, path="/embeddings")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.embed(list("abcdefgh"), batch_size=1)
    await server.wait_idle()


async def test_embed_takes_pictures(server, client) -> None:
    item = {"text": "一只猫", "image": "https://example.com/cat.jpg"}
    answer = await client.embed([item, item], model="gme-Qwen2-VL-2B-Instruct")
    assert server.requests[0].json["input"] == [item]
    assert len(answer.vectors) == 2


async def test_missing_vectors_are_an_error(server, client) -> None:
    server.script(raw(b'{"data":[{"index":0,"embedding":[1]}]}'), path="/embeddings")
    with pytest.raises(DecodeError, match="each of 2 texts"):
        await client.embed(["a", "b"])


# Reranking, search, models


async def test_rerank_orders_and_fills_in(server, client) -> None:
    documents = ["北京美食", "上海气候", "上海天气预报"]
    ranking = await client.rerank("上海天气", documents, top_n=2)
    assert [found.document for found in ranking.results] == ["上海天气预报", "上海气候"]
    assert [found.index for found in ranking.results] == [2, 1]
    assert ranking.usage.total_tokens > 0
    await client.rerank("a", ["a"], path="/rerankers")
    assert server.requests[1].path == "/v2/rerankers"
    body = b'{"results":[{"index":0,"relevance_score":0.1},{"index":1,"relevance_score":0.2}]}'
    server.script(raw(body), path="/rerank")
    ranking = await client.rerank("q", ["x", "y"])
    assert [found.document for found in ranking.results] == ["y", "x"]


async def test_web_search(server, client) -> None:
    answer = await client.web_search("油价", top_k=5, recency="week")
    assert answer.references[0].title == "油价"
    assert server.requests[0].path == "/v2/ai_search/web_search"
    body = b'{"code":"RATE_LIMIT_TOTAL_QPS","message":"slow","request_id":"r"}'
    server.script(raw(body), path="/ai_search/web_search")
    with pytest.raises(RateLimitError) as caught:
        await client.with_options(retry=ONCE).web_search("x")
    assert caught.value.request_id == "r"


async def test_models_have_types_and_prices(client) -> None:
    cards = {card.id: card for card in await client.list_models()}
    assert cards["ernie-5.1"].prompt_price == 0.004
    assert cards["embedding-v1"].type == "embeddings"
    assert cards["deepseek-v3.2"].context_length is None


# Pictures


def size_of(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


async def test_only_what_is_set_is_sent_for_a_picture(server, client) -> None:
    await client.generate_image("小狗")
    assert server.requests[0].json == {"model": "qwen-image", "prompt": "小狗"}
    await client.generate_image("小狗", model="musesteamer-air-image", size="1280x720")
    assert server.requests[1].path == "/v2/musesteamer/images/generations"
    await client.edit_image("data:image/png;base64,aGk=", "海边", seed=3)
    assert server.requests[2].json == {
        "model": "qwen-image-edit",
        "prompt": "海边",
        "image": "data:image/png;base64,aGk=",
        "seed": 3,
    }


async def test_a_picture_is_given_two_minutes() -> None:
    assert Timeouts().total_for(stream=False) >= 120


async def test_a_picture_is_saved_from_its_address(server, client, tmp_path) -> None:
    images = await client.generate_image("小狗", n=2)
    assert images.data[0] != images.data[1]
    path = await client.save_image(images.first, tmp_path / "dog.png")
    assert size_of(path.read_bytes()) == (16, 16)
    assert await client.download_image(images.first) == path.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["dog.png"]


async def test_a_picture_in_base64_needs_no_request(server, client, tmp_path) -> None:
    images = await client.generate_image("小狗", response_format="b64_json")
    path = await client.save_image(images.first, tmp_path / "dog.png")
    assert size_of(path.read_bytes()) == (16, 16)
    assert len(server.requests) == 1


async def test_another_host_learns_nothing_of_the_caller(server) -> None:
    async with (
        MockErnie() as storage,
        AsyncClient("secret", base_url=server.base_url, app_id="app-1") as client,
    ):
        url = f"{storage.base_url.removesuffix('/v2')}/pictures/00ff00aa.png"
        assert size_of(await client.download_image(ImageResult(url=url))) == (16, 16)
        await client.request("GET", f"{storage.base_url}/models")
    for seen in storage.requests:
        assert "Authorization" not in seen.headers
        assert "appid" not in seen.headers


async def test_an_expired_address_says_so(server, client, tmp_path) -> None:
    image = ImageResult(url=f"{server.base_url}/gone.png")
    with pytest.raises(NotFoundError, match="24 hours"):
        await client.save_image(image, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
    for image in (ImageResult(task_status="FAILED"), ImageResult(url="file:///etc/passwd")):
        with pytest.raises(ConfigError):
            await client.download_image(image)
    images = await client.generate_image("a")
    with pytest.raises(ConfigError, match="cannot write"):
        await client.save_image(images.first, tmp_path / "no" / "a.png")


async def test_a_failed_picture_is_an_error_and_paid_for_once(server, client) -> None:
    body = b'{"id":"as-1","data":[{"task_status":"FAILED","task_error_code":"x"}]}'
    server.script(raw(body), path="/images/generations")
    seen = []
    with pytest.raises(APIError) as caught:
        await client.with_options(hooks=[seen.append]).generate_image("a")
    assert (caught.value.code, caught.value.status) == ("x", 200)
    assert len(caught.value.attempts) == len(server.requests) == 1
    assert [r.outcome for r in seen if isinstance(r, CallEnded)] == ["error"]
    server.script(raw(body.replace(b'"x"', b'"internal_error"')), path="/images/generations")
    assert (await client.generate_image("a")).first.url
    assert len(server.requests) == 3


# Files


async def test_a_file_goes_there_and_back(server, client, tmp_path) -> None:
    source = tmp_path / "批.jsonl"
    source.write_bytes(b'{"custom_id":"1"}\r\n' * 100_000)
    told: list[tuple[int, int | None]] = []
    file = await client.files.upload(
        source, purpose="batch", on_progress=lambda sent, total: told.append((sent, total))
    )
    assert (file.filename, file.purpose, file.bytes) == ("批.jsonl", "batch", 1_900_000)
    assert told[-1] == (1_900_000, 1_900_000)
    assert len(told) > 3
    assert int(server.requests[0].headers["Content-Length"]) == len(server.requests[0].body)
    assert await client.files.content(file.id) == source.read_bytes()
    got: list[tuple[int, int | None]] = []
    path = await client.files.download(
        file.id, tmp_path / "back", on_progress=lambda n, total: got.append((n, total))
    )
    assert path.read_bytes() == source.read_bytes()
    assert got[-1] == (1_900_000, 1_900_000)
    assert await client.files.delete(file.id)
    with pytest.raises(NotFoundError, match="file not found"):
        await client.files.content(file.id)
    with pytest.raises(NotFoundError, match="file not found"):
        await client.files.delete(file.id)


async def test_a_retried_upload_sends_all_of_it_again(server, client, tmp_path) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(bytes(range(256)) * 2000)
    server.script(refuse(500), cut(before_headers=True), path="/files")
    file = await client.files.upload(source, purpose="batch")
    assert file.bytes == 512_000
    assert [len(seen.body) for seen in server.requests] == [len(server.requests[0].body)] * 3
    assert await client.files.content(file.id) == source.read_bytes()


async def test_bytes_are_uploaded_under_any_name(server, client) -> None:
    file = await client.files.upload(b"--x\r\n\0", purpose="vision", filename="a b.png")
    assert (file.filename, file.bytes) == ("a b.png", 6)
    assert await client.files.content(file.id) == b"--x\r\n\0"
    empty = await client.files.upload(b"", purpose="batch")
    assert (empty.filename, await client.files.content(empty.id)) == ("file", b"")


async def test_what_cannot_be_uploaded_is_refused_at_once(server, client, tmp_path) -> None:
    for source in (tmp_path / "nothing", tmp_path):
        with pytest.raises(ConfigError, match="cannot read"):
            await client.files.upload(source, purpose="batch")
    assert server.requests == []


async def test_a_file_that_changes_meanwhile_is_not_sent(server, client, tmp_path) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(b"x" * 1_000_000)
    server.script(refuse(500), path="/files")

    def grow(sent: int, total: int | None) -> None:
        source.write_bytes(b"x" * 1_000_001)

    with pytest.raises(ConfigError, match="changed while it was being sent"):
        await client.files.upload(source, purpose="batch", on_progress=grow)
    assert len(server.requests) == 1


async def test_a_large_file_is_refused_before_it_travels(tmp_path) -> None:
    source = tmp_path / "large"
    with source.open("wb") as file:
        file.truncate(512 * 1024 * 1024 + 1)
    async with AsyncClient("k") as client:
        with pytest.raises(ConfigError, match="at most 536,870,912 bytes"):
            await client.files.upload(source, purpose="batch")


async def test_pages_of_files(server, client) -> None:
    for number in range(5):
        await client.files.upload(b"x", purpose="batch" if number < 4 else "vision")
    page = await client.files.list(limit=2, order="asc")
    ids = [file.id for file in page.data]
    rest = await client.files.list(after=ids[-1], order="asc")
    assert [file.id for file in rest.data] == [f"file-mock{n:06d}" for n in (3, 4, 5)]
    before = len(server.requests)
    found = [file async for file in client.files.all(limit=2, purpose="batch")]
    assert len({file.id for file in found}) == 4
    assert len(server.requests) - before == 3
    assert [file async for file in client.files.all(purpose="none")] == []


async def test_a_file_that_may_not_be_read_says_why(client, tmp_path) -> None:
    file = await client.files.upload(b"x", purpose="assistants")
    for call in (
        client.files.content(file.id),
        client.files.download(file.id, tmp_path / "a"),
    ):
        with pytest.raises(APIError, match="Not allowed to download") as caught:
            await call
        assert caught.value.code == "invalid_retrieve_content_file"
    assert list(tmp_path.iterdir()) == []


async def test_an_error_in_place_of_a_file_is_an_error(server, client, tmp_path) -> None:
    files, path = client.with_options(retry=ONCE).files, tmp_path / "a"
    server.script(*[error_event("internal_error")] * 2, path="/content")
    for ask in (files.content("file-1"), files.download("file-1", path)):
        with pytest.raises(ServerError):
            await ask
    assert list(tmp_path.iterdir()) == []
    envelope = b'{"error": {"code": "internal_error"}}'
    for content in (envelope + b" and more", envelope + b" " * 20_000, b""):
        server.script(raw(content, content_type="application/json"), path="/content")
        assert (await files.download("file-1", path)).read_bytes() == content


async def test_a_broken_download_begins_again_and_leaves_no_half(server, client, tmp_path) -> None:
    file = await client.files.upload(b"whole" * 1000, purpose="batch")
    broken = raw(b"who", headers={"Content-Length": "5000"}, end="close")
    server.script(broken, path="/content")
    path = await client.files.download(file.id, tmp_path / "a")
    assert path.read_bytes() == b"whole" * 1000
    server.script(broken, path="/content")
    with pytest.raises(ConnectError):
        await client.with_options(retry=ONCE).files.download(file.id, tmp_path / "b")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    with pytest.raises(ConfigError, match="cannot write"):
        await client.files.download(file.id, tmp_path)


# Videos


async def test_a_video_is_waited_for(server, client) -> None:
    task = await client.generate_video("海浪", model="musesteamer-air-i2v", poll_every=0.01)
    assert task.video_url.endswith("/videos/task-1.mp4")
    assert [seen.path for seen in server.requests] == ["/video/generations"] * 4
    assert server.requests[0].headers["Authorization"] == "Bearer test-key"
    assert (await client.video_task(task.task_id)).state == "succeeded"


async def test_a_video_has_a_deadline_and_can_be_asked_for_later(server, client) -> None:
    status = raw(b'{"task_id":"task-1","status":"Rendering"}')
    server.script(reply(), *[status] * 1000, path="/video/generations")
    with pytest.raises(DeadlineError, match=r"video_task\('task-1'\)") as caught:
        await client.generate_video("a", model="m", poll_every=0.01, deadline=0.1)
    assert caught.value.clock == "deadline"
    for wrong in ({"poll_every": 0}, {"deadline": -1}):
        with pytest.raises(ConfigError):
            await client.generate_video("a", model="m", **wrong)


async def test_a_failed_video_is_an_error(server, client) -> None:
    failed = raw(b'{"task_id":"task-1","status":"Fail","base_resp":{"status_msg":"no"}}')
    server.script(reply(), failed, path="/video/generations")
    with pytest.raises(APIError, match="'Fail': no"):
        await client.generate_video("a", model="m", poll_every=0.01)
    server.script(raw(b"{}"), path="/video/generations")
    with pytest.raises(DecodeError, match="task_id"):
        await client.generate_video("a", model="m")


# Without await


async def test_the_other_client_has_all_of_it(tmp_path: Path) -> None:
    def use(url: str) -> None:
        with Client("k", base_url=url) as client:
            assert len(client.embed(["a", "b"]).vectors) == 2
            assert client.rerank("a", ["b", "a"]).results[0].document == "a"
            image = client.generate_image("p").first
            assert client.save_image(image, tmp_path / "p.png").exists()
            assert client.download_image(image)
            assert client.edit_image("data:x", "p").data
            assert client.web_search("q").references
            assert client.generate_video("p", model="m", poll_every=0.01).is_over
            assert client.video_task("task-1").is_over
            file = client.files.upload(b"x", purpose="batch")
            assert [held.id for held in client.files.all(limit=1)] == [file.id]
            assert client.files.list().data == [file]
            assert client.files.content(file.id) == b"x"
            assert client.files.download(file.id, tmp_path / "f").read_bytes() == b"x"
            assert client.files.delete(file.id)

    async with MockErnie() as server:
        await asyncio.to_thread(use, server.base_url)
