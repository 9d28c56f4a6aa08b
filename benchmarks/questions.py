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
    peak_of_answer,
    peak_of_long_stream,
    peak_of_text,
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
        at_most: What ours may reach, in what is shown: a ratio, or an amount in `unit`; `None`
            where no line is drawn.
        is_memory: Asks for bytes: hardly varies, and needs the allocator as users have it.
        is_large: Takes minutes or thousands of sockets: put only by name or with `--full`.
        asked: The contenders to whom alone the question means something; all if empty.
        note: What a reader of the row must know.
        measure: The measurement of the default run; `None` if it is no worker's (`import_time`).
        quick: The same in small.
    """

    title: str
    unit: str
    scale: float
    shown: Literal["ratio", "difference", "value"]
    at_most: float | None
    measure: Measure | None = None
    quick: Measure | None = None
    is_memory: bool = False
    is_large: bool = False
    asked: tuple[str, ...] = ()
    note: str = ""

    def is_put_to(self, contender: str) -> bool:
        return not self.asked or contender in self.asked


stream_paced = partial(cpu_per_chunk, streams=64, pause=0.02)
stream_one = partial(cpu_per_chunk, streams=1, pause=0)
stream_64 = partial(cpu_per_chunk, streams=64, pause=0)
answer_cpu = partial(per_request, clock=time.process_time, workers=64)
answer_wall = partial(per_request, clock=time.perf_counter, workers=256)

KEEPERS = ("hand-made", "typed", "openai", "ours")
UNLIMITED = ("socket", "floor", "by-line", "hand-made", "typed", "ours")
"""Contenders that open as many connections as they are asked to, and in a time that allows it."""

QUESTIONS = {
    "paced": Question(
        "CPU per chunk, 64 streams, 20 ms between chunks",
        "µs",
        1e6,
        "ratio",
        1.45,
        partial(stream_paced, chunks=50, at_least=0.4),
        partial(stream_paced, chunks=25, at_least=0.02),
    ),
    "paced-1000": Question(
        "CPU per chunk, 1,000 streams, 20 ms between chunks",
        "µs",
        1e6,
        "ratio",
        None,
        partial(cpu_per_chunk, streams=1_000, pause=0.02, chunks=25, at_least=0.05),
        partial(cpu_per_chunk, streams=1_000, pause=0.02, chunks=10, at_least=0.02),
        note="50,000 chunks a second are more than one core takes, so they come bundled",
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
    "first-p99": Question(
        "time to first token, warm connection, p99",
        "µs",
        1e6,
        "ratio",
        None,
        partial(time_to_first_chunk, requests=1_000, percentile=99),
        partial(time_to_first_chunk, requests=200, percentile=99),
    ),
    "answers": Question(
        "CPU per answer, 64 workers",
        "µs",
        1e6,
        "ratio",
        1.5,
        partial(answer_cpu, requests=320, at_least=1.0),
        partial(answer_cpu, requests=64, at_least=0.05),
    ),
    "wall": Question(
        "wall time per answer, 256 workers",
        "µs",
        1e6,
        "ratio",
        1.5,
        partial(answer_wall, requests=512, at_least=1.0),
        partial(answer_wall, requests=256, at_least=0.1),
    ),
    "batch": Question(
        "wall time per answer, 20,000 answers, 256 workers",
        "µs",
        1e6,
        "ratio",
        1.5,
        partial(answer_wall, requests=20_000, at_least=0),
        partial(answer_wall, requests=2_000, at_least=0),
        is_large=True,
        asked=("floor", "hand-made", "typed", "openai", "openai-aiohttp", "qianfan", "ours"),
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
    "memory-5000": Question(
        "memory per open slow stream, 5,000 open",
        "kB",
        1e-3,
        "ratio",
        None,
        partial(memory_per_stream, streams=5_000),
        partial(memory_per_stream, streams=1_000),
        is_memory=True,
        is_large=True,
        asked=UNLIMITED,
    ),
    "memory-10000": Question(
        "memory per open slow stream, 10,000 open",
        "kB",
        1e-3,
        "ratio",
        None,
        partial(memory_per_stream, streams=10_000),
        partial(memory_per_stream, streams=2_000),
        is_memory=True,
        is_large=True,
        asked=UNLIMITED,
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
    "joined": Question(
        "peak memory added by 100,000 chunks, text joined",
        "MB",
        1e-6,
        "value",
        None,
        partial(peak_of_text, chunks=100_000),
        partial(peak_of_text, chunks=20_000),
        is_memory=True,
        asked=KEEPERS,
    ),
    "kept": Question(
        "peak memory added by 100,000 chunks, all kept",
        "MB",
        1e-6,
        "value",
        None,
        partial(peak_of_text, chunks=100_000, keeps_chunks=True),
        partial(peak_of_text, chunks=20_000, keeps_chunks=True),
        is_memory=True,
        asked=KEEPERS,
    ),
    "whole": Question(
        "peak memory added by a whole answer of that text",
        "MB",
        1e-6,
        "value",
        None,
        partial(peak_of_answer, words=100_000),
        partial(peak_of_answer, words=20_000),
        is_memory=True,
        asked=KEEPERS,
    ),
    "import": Question(
        "import and first client, CPU",
        "ms",
        1e3,
        "ratio",
        1.3,
        asked=("floor", "httpx", "openai", "openai-aiohttp", "qianfan", "litellm", "ours"),
        note="the floor is `import aiohttp, pydantic`",
    ),
}
