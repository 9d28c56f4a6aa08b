"""`run_partition` in the workers of Dask, as the guide has it.

Dask is not among the packages of the tests: `pip install dask distributed`, then run this file.
"""

import asyncio

import pytest

from ernie_async import AsyncClient
from ernie_async.batch import BatchRunner
from ernie_async.testing import MockErnie, reply
from tests.batch.files import request_line

distributed = pytest.importorskip("distributed", reason="Dask: pip install dask distributed")
pytestmark = pytest.mark.filterwarnings("default")  # Dask's own affairs


def test_parts_in_workers(tmp_path) -> None:
    def work(rows, url):
        async def ask_all():
            async with AsyncClient("k", base_url=url) as client:
                return [record async for record in BatchRunner(client).run_partition(rows)]

        return asyncio.run(ask_all())

    parts = [[request_line(f"{part}-{n}") for n in range(50)] for part in range(4)]
    with MockErnie() as server:
        server.default(reply("好", first_ms=10))
        with distributed.Client(
            n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=tmp_path
        ) as cluster:
            calls = cluster.map(work, parts, url=server.base_url)
            found = [record for records in cluster.gather(calls) for record in records]
        assert server.requests_made == 200
    names = {record["custom_id"] for record in found}
    assert names == {row["custom_id"] for rows in parts for row in rows}
    assert {record["response"]["status_code"] for record in found} == {200}
