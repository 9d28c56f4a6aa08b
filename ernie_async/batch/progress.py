"""How a run goes: counts, rates, latencies, money, and what it waits for. Pure.

Time is an argument. What is kept does not grow with the number of lines.
"""

from collections import Counter, deque
from dataclasses import dataclass, field
from math import ceil, log2
from typing import Any, Literal, NamedTuple

from ernie_async.batch.records import UNDONE, BatchResult

__all__ = ["Gauges", "Progress", "Sample", "duration", "progress_line", "rounded"]

WaitingFor = Literal["rate", "concurrency", "input", "consumer", "cooldown"]

RATE_SECONDS = 60
RECENT_LATENCIES = 1000

# Samples for the plots. When there are too many, every other one is dropped.
MAX_SAMPLES = 600
SAMPLE_SECONDS = 1.0

# Bounds of the histogram grow by the square root of 2.
BINS_PER_DOUBLING = 2


class Gauges(NamedTuple):
    """What is so right now: calls under way, how many may be, and what the run waits for."""

    in_flight: int = 0
    limit: int = 0
    waiting_for: WaitingFor | None = None


class Sample(NamedTuple):
    """One point of the plots: seconds since the start, lines over, failures, calls and limit."""

    at: float
    over: int
    failed: int
    in_flight: int
    limit: int


class Counts(NamedTuple):
    """What has happened up to a moment."""

    at: float
    over: int
    requests: int
    tokens: int
    refused: int


@dataclass(slots=True)
class Progress:
    """Counts what happens in one run.

    Attributes:
        started: On a clock in seconds.
        total: Lines of the input; `None` until they are counted.
        skipped: Lines that earlier runs had done.
        ok: Lines that succeeded in this run.
        failed: Lines that failed in it.
        undone: Lines that it read and left.
        requests: Attempts that were made.
        refused: Those for which the service had no quota, or no room.
        retried: Those that were made again.
        unknown_usage: Calls that may have been billed, and did not tell.
        tokens_in: Of the prompts.
        tokens_out: Of the answers.
        cost: CNY; `None` if no line had a price.
        codes: Failed lines by code.
        rpm: The limit, if there is one.
        tpm: The limit, if there is one.
    """

    started: float
    total: int | None = None
    skipped: int = 0
    ok: int = 0
    failed: int = 0
    undone: int = 0
    requests: int = 0
    refused: int = 0
    retried: int = 0
    unknown_usage: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float | None = None
    codes: Counter[str] = field(default_factory=Counter)
    rpm: float | None = None
    tpm: float | None = None
    samples: list[Sample] = field(default_factory=list)
    histogram: Counter[int] = field(default_factory=Counter)
    _latencies: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_LATENCIES))
    _last_minute: deque[Counts] = field(init=False)  # a second from one to the next
    _sample_every: float = SAMPLE_SECONDS

    def __post_init__(self) -> None:
        self._last_minute = deque([self._counts(self.started)])

    def over(self, result: BatchResult, now: float) -> None:
        """A line is over."""
        if result.code in UNDONE:
            self.undone += 1
            return
        if result.ok:
            self.ok += 1
            self._latencies.append(result.latency)
            place = ceil(BINS_PER_DOUBLING * log2(max(result.latency, 0.001)))
            self.histogram[place] += 1
        else:
            self.failed += 1
            self.codes[str(result.code)] += 1
        self.tokens_in += result.prompt_tokens
        self.tokens_out += result.completion_tokens
        if result.cost is not None:
            self.cost = (self.cost or 0.0) + result.cost
        if now - self._last_minute[-1].at >= 1:
            self._last_minute.append(self._counts(now))

    def sample(self, gauges: Gauges, now: float) -> None:
        """Note a point of the plots, if it is time for one."""
        at = now - self.started
        if self.samples and at - self.samples[-1].at < self._sample_every:
            return
        over = self.ok + self.failed
        self.samples.append(Sample(at, over, self.failed, gauges.in_flight, gauges.limit))
        if len(self.samples) > MAX_SAMPLES:
            del self.samples[1::2]
            self._sample_every *= 2

    def snapshot(self, gauges: Gauges, now: float) -> dict[str, Any]:
        """All of it as JSON has it; what is not known is null."""
        over = self.ok + self.failed
        done = self.skipped + over
        elapsed = max(now - self.started, 1e-3)
        window = min(elapsed, RATE_SECONDS)
        recent = self._recent(now)
        rate = recent.over / window
        left = None if self.total is None else max(self.total - done, 0)
        cost = None if self.cost is None else round(self.cost, 6)
        projected = None
        if self.cost is not None and left is not None and over:
            projected = round(self.cost * (1 + left / over), 6)
        latencies = sorted(self._latencies)
        return {
            "done": done,
            "total": self.total,
            "skipped": self.skipped,
            "ok": self.ok,
            "failed": self.failed,
            "undone": self.undone,
            "retried": self.retried,
            "in_flight": gauges.in_flight,
            "limit": gauges.limit,
            "waiting_for": gauges.waiting_for,
            "rps_60s": round(rate, 3),
            "rpm_used_pct": _percent(recent.requests * 60 / window, self.rpm),
            "tpm_used_pct": _percent(recent.tokens * 60 / window, self.tpm),
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "cost": cost,
            "cost_projected": projected,
            "unknown_usage": self.unknown_usage,
            "eta_s": round(left / rate) if left is not None and rate else None,
            "p50_ms": _percentile(latencies, 0.5),
            "p95_ms": _percentile(latencies, 0.95),
            "rate_limited_60s": recent.refused,
            "elapsed_s": round(elapsed, 3),
        }

    def _counts(self, now: float) -> Counts:
        tokens = self.tokens_in + self.tokens_out
        return Counts(now, self.ok + self.failed, self.requests, tokens, self.refused)

    def _recent(self, now: float) -> Counts:
        """What has happened in the 60 s before now, to the second."""
        kept, after = self._last_minute, self._counts(now)
        kept.append(after)
        while len(kept) > 1 and kept[1].at <= now - RATE_SECONDS:
            kept.popleft()
        before = kept[0]
        return Counts(
            now - before.at,
            after.over - before.over,
            after.requests - before.requests,
            after.tokens - before.tokens,
            after.refused - before.refused,
        )


def _percent(used: float, limit: float | None) -> int | None:
    return None if limit is None else round(100 * used / limit)


def _percentile(ordered: list[float], share: float) -> int | None:
    return round(1000 * ordered[ceil(len(ordered) * share) - 1]) if ordered else None


def progress_line(told: dict[str, Any], currency: str = "¥") -> str:
    """A snapshot as one line for people."""
    done, total = told["done"], told["total"]
    parts = [f"{done:,}"]
    if total:
        parts = [f"{done:,}/{total:,} {100 * done // total}%"]
    parts.append(f"ok {told['ok']:,}  bad {told['failed']:,}")
    parts.append(f"in {told['in_flight']}/{told['limit']}")
    parts.append(f"{told['rps_60s']:.1f}/s")
    used = {name: told[f"{name}_used_pct"] for name in ("rpm", "tpm")}
    if any(percent is not None for percent in used.values()):
        parts.append(" ".join(f"{name} {p}%" for name, p in used.items() if p is not None))
    if told["cost"] is not None:
        money = f"{currency}{told['cost']:.2f}"
        if told["cost_projected"] is not None:
            money += f" -> ~{currency}{told['cost_projected']:.2f}"
        parts.append(money)
    if told["tokens_out"]:
        parts.append(f"{rounded(told['tokens_in'] + told['tokens_out'])} tokens")
    if told["p50_ms"] is not None:
        parts.append(f"p50 {told['p50_ms'] / 1000:.1f}s p95 {told['p95_ms'] / 1000:.1f}s")
    if told["waiting_for"] not in {None, "concurrency"}:
        parts.append(f"waits for {told['waiting_for']}")
    if told["eta_s"] is not None:
        parts.append(f"eta {duration(told['eta_s'])}")
    return "  ".join(parts)


def rounded(number: int) -> str:
    """A number as people say it, such as `8.2M`."""
    if number < 10_000:
        return f"{number:,}"
    return f"{number / 1e3:,.0f}k" if number < 1_000_000 else f"{number / 1e6:,.1f}M"


def duration(seconds: float) -> str:
    """A time as people say it, such as `2h21m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"
