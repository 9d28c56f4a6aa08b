"""What is told while a run goes, and the page at its end."""

from html.parser import HTMLParser

import pytest

from ernie_async.batch.page import render_page
from ernie_async.batch.progress import (
    MAX_SAMPLES,
    Gauges,
    Progress,
    duration,
    progress_line,
    rounded,
)
from ernie_async.batch.records import BatchResult
from ernie_async.batch.summary import make_report

FIELDS = {
    "done", "total", "skipped", "ok", "failed", "retried", "in_flight", "limit", "waiting_for",
    "rps_60s", "rpm_used_pct", "tpm_used_pct", "tokens_in", "tokens_out", "cost",
    "cost_projected", "eta_s", "p50_ms", "p95_ms", "rate_limited_60s",
}  # fmt: skip


def over(n: int, **more) -> BatchResult:
    settings = {"latency": n / 100, "prompt_tokens": 2, "completion_tokens": 3, **more}
    return BatchResult(custom_id=str(n), number=n, key="k", **settings)


def test_all_fields_are_there_from_the_beginning() -> None:
    told = Progress(0.0).snapshot(Gauges(), 0.0)
    assert set(told) >= FIELDS
    assert told["total"] is told["eta_s"] is told["cost"] is told["p50_ms"] is None
    assert progress_line(told) == "0  ok 0  bad 0  in 0/0  0.0/s"


def test_counts_rates_and_money() -> None:
    progress = Progress(100.0, total=400, rpm=600, tpm=6000)
    progress.skipped = 100
    for n in range(1, 101):
        progress.requests += 1
        progress.over(over(n, cost=0.1), 100 + n / 10)
    progress.over(over(7, code="timeout"), 110)
    progress.over(over(8, code="cancelled"), 110)
    progress.refused += 1
    told = progress.snapshot(Gauges(4, 8, "rate"), 110.0)
    assert (told["done"], told["ok"], told["failed"], told["undone"]) == (201, 100, 1, 1)
    assert told["rps_60s"] == pytest.approx(10.1)
    assert (told["rpm_used_pct"], told["tpm_used_pct"]) == (100, 50)
    assert (told["p50_ms"], told["p95_ms"]) == (500, 950)
    assert told["cost"] == pytest.approx(10)
    assert told["cost_projected"] == pytest.approx(10 * (1 + 199 / 101))
    assert told["eta_s"] == 20
    assert told["rate_limited_60s"] == 1
    line = progress_line(told)
    assert line.startswith("201/400 50%  ok 100  bad 1  in 4/8  10.1/s  rpm 100% tpm 50%  ¥10.00")
    assert line.endswith("p50 0.5s p95 0.9s  waits for rate  eta 20s")
    assert progress.snapshot(Gauges(), 171.0)["rps_60s"] == 0


def test_samples_stay_few() -> None:
    progress = Progress(0.0)
    for second in range(100_000):
        progress.sample(Gauges(1, 2), float(second))
    assert MAX_SAMPLES / 4 < len(progress.samples) <= MAX_SAMPLES
    assert progress.samples[0].at == 0
    assert progress.samples[-1].at > 90_000


def test_durations() -> None:
    assert [duration(s) for s in (0, 59.4, 61, 3600, 8460)] == [
        "0s",
        "59s",
        "1m01s",
        "1h00m",
        "2h21m",
    ]


def test_numbers() -> None:
    assert [rounded(n) for n in (0, 9_999, 10_499, 999_000, 8_249_000)] == [
        "0",
        "9,999",
        "10k",
        "999k",
        "8.2M",
    ]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.seen.append(tag)
        assert not {"src", "href"} & {name for name, _ in attrs}


@pytest.mark.parametrize("n", [0, 50])
def test_the_page_needs_nothing_else(n) -> None:
    progress = Progress(0.0)
    for second in range(n):
        progress.over(over(second + 1, code="<b>" if second % 9 == 0 else None), float(second))
        progress.sample(Gauges(second, n), float(second))
    report = make_report(
        progress,
        "failures",
        began=0.0,
        now=float(n),
        notes={},
        limits={"input": "<script>"},
    )
    page = render_page(report)
    tags = Tags()
    tags.feed(page)
    assert "script" not in tags.seen
    assert tags.seen.count("svg") == (4 if n else 0)
    assert ("&lt;b&gt;" in page) == bool(n)
