"""Many requests at once: from file to file, or from iterator to iterator.

    async with AsyncClient() as client:
        report = await BatchRunner(client, rpm=3_000).run_file("prompts.jsonl", "out.jsonl")
    print(report.ok, report.failed, report.cost)

Results are those of OpenAI's batch files. The output is the checkpoint: a run that was killed goes
on where it ended. See the guide "Batch".
"""

from ernie_async.batch.options import FileOptions
from ernie_async.batch.records import BatchResult
from ernie_async.batch.results import BatchResults
from ernie_async.batch.runner import BatchRunner
from ernie_async.batch.stopping import BatchError
from ernie_async.batch.summary import BatchReport
from ernie_async.sansio.adaptive import Adaptive

__all__ = [
    "Adaptive",
    "BatchError",
    "BatchReport",
    "BatchResult",
    "BatchResults",
    "BatchRunner",
    "FileOptions",
]
