"""The questions of the table: what is asked, at which size, and what we allow ourselves."""

import time
from dataclasses import dataclass
from functools import partial
from typing import Literal

from benchmarks.measure import (
    Measure,
    cpu_per_chunk,
    longest_stall,
    memory_per_stream,
    peak_of_long_stream,
    per_request,
    time_to_first_chunk,
)


@dataclass(frozen=True, slots=True)
class Question:
    """One row of the table.

    Attributes:
        title: The row's first cell.
        unit: What an absolute value is shown in.
        scale: Factor from seconds or bytes to `unit`.
        shown: How contenders are shown: divided by the floor of the same round, less the floor,
            or as they are.
        at_most: What ours may reach, in what is shown: a ratio, or an amount in `unit`.
        is_memory: Asks for bytes: hardly varies, and needs the allocator as users have it.
        not_asked: Contenders to whom the question means nothing.
        note: What a reader of the row must know.
        measure: The measurement of the default run; `None` if it is no worker's (`import_time`).
        quick: The same in small.
    """

    title: str
    unit: str
    scale: float
    shown: Literal["ratio", "difference", "value"]
    at_most: float
    measure: Measure | None = None
    quick: Measure | None = None
    is_memory: bool = False
    not_asked: tuple[str, ...] = ()
    note: str = ""


stream_paced = partial(cpu_per_chunk, streams=64, pause=0.02)
stream_one = partial(cpu_per_chunk, streams=1, pause=0)
stream_64 = partial(cpu_per_chunk, streams=64, pause=0)
answer_cpu = partial(per_request, clock=time.process_time, workers=64)
answer_wall = partial(per_request, clock=time.perf_counter, workers=256)

QUESTIONS = {
    "paced": Question(
        "CPU per chunk, 64 streams, 20 ms between chunks",
        "µs",
        1e6,
        "ratio",
        1.45,
        partial(stream_paced, chunks=50, at_least=0.05),
        partial(stream_paced, chunks=25, at_least=0.02),
    ),
    "one": Question(
        "CPU per chunk, one stream at full speed",
        "µs",
        1e6,
        "ratio",
        2.4,
        partial(stream_one, chunks=1_000, at_least=0.3),
        partial(stream_one, chunks=1_000, at_least=0.05),
    ),
    "many": Question(
        "CPU per chunk, 64 streams at full speed",
        "µs",
        1e6,
        "ratio",
        2.1,
        partial(stream_64, chunks=50, at_least=0.3),
        partial(stream_64, chunks=30, at_least=0.05),
    ),
    "first": Question(
        "time to first token, warm connection, p50",
        "µs",
        1e6,
        "ratio",
        1.25,
        partial(time_to_first_chunk, requests=200),
        partial(time_to_first_chunk, requests=50),
    ),
    "answers": Question(
        "CPU per answer, 64 workers",
        "µs",
        1e6,
        "ratio",
        1.5,
        partial(answer_cpu, requests=320, at_least=0.3),
        partial(answer_cpu, requests=64, at_least=0.05),
    ),
    "wall": Question(
        "wall time per answer, 256 workers",
        "µs",
        1e6,
        "ratio",
        1.5,
        partial(answer_wall, requests=512, at_least=0.3),
        partial(answer_wall, requests=256, at_least=0.1),
    ),
    "memory": Question(
        "memory per open slow stream, 1,000 open",
        "kB",
        1e-3,
        "ratio",
        1.7,
        partial(memory_per_stream, streams=1_000),
        partial(memory_per_stream, streams=200),
        is_memory=True,
    ),
    "stall": Question(
        "longest loop stall, 64 streams at full speed",
        "ms",
        1e3,
        "value",
        40,
        partial(longest_stall, streams=64, chunks=200, at_least=0.5),
        partial(longest_stall, streams=64, chunks=50, at_least=0.1),
    ),
    "peak": Question(
        "peak memory added by a stream of 100,000 chunks",
        "MB",
        1e-6,
        "difference",
        1.5,
        partial(peak_of_long_stream, chunks=100_000, at_most=2),
        partial(peak_of_long_stream, chunks=20_000, at_most=1),
        is_memory=True,
        note="who needs more than 2 s for it (--quick: 1 s) is measured up to there",
    ),
    "import": Question(
        "import and first client, CPU",
        "ms",
        1e3,
        "ratio",
        1.3,
        not_asked=("hand-made",),
        note="the floor is `import aiohttp, pydantic`",
    ),
}
