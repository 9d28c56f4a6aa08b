"""A report as one page that needs nothing else: numbers, and plots drawn as SVG. Pure."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

from ernie_async.batch.progress import duration
from ernie_async.batch.summary import BatchReport, undone_text

__all__ = ["render_page"]

WIDTH, HEIGHT = 640, 180
LEFT, BOTTOM, TOP = 56, 22, 10

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 700px; color: #222 }
table { border-collapse: collapse } td { padding: .1rem 1rem .1rem 0; vertical-align: top }
svg { width: 100%; background: #fafafa } text { font: 11px system-ui, sans-serif; fill: #555 }
.a { stroke: #2a6fdb; fill: none; stroke-width: 1.5 } .b { stroke: #c33; fill: none }
.bar { fill: #2a6fdb } .bad { fill: #c33 } .axis { stroke: #bbb }
"""

Points = Sequence[tuple[float, float]]


def render_page(report: BatchReport, currency: str = "¥") -> str:
    """The whole page as HTML."""
    told = report.summary
    rows = {
        "ended": f"{report.reason} (exit code {report.exit_code})",
        "from": told["started_at"],
        "to": told["ended_at"],
        "lines that succeeded": f"{report.ok:,}",
        "lines that failed": f"{report.failed:,}",
        "lines done before": f"{report.skipped:,}",
        "lines not done": undone_text(report),
        "attempts made again": f"{told['retried']:,}",
        "tokens": f"{report.tokens_in:,} in, {report.tokens_out:,} out",
        "cost": "" if report.cost is None else f"{currency}{report.cost:,.4f}",
        "input": told["limits"].get("input", ""),
        "output": told["limits"].get("output", ""),
    }
    samples = report.samples
    seconds = max((sample.at for sample in samples), default=0.0)
    speed = [
        (later.at, (later.over - earlier.over) / (later.at - earlier.at))
        for earlier, later in pairwise(samples)
        if later.at > earlier.at
    ]
    parts = [
        f"<h1>Batch</h1>{_table(rows)}",
        _plot("Lines per second", seconds, {"a": speed}),
        _plot(
            "Calls under way (blue), and how many may be (red)",
            seconds,
            {
                "a": [(sample.at, sample.in_flight) for sample in samples],
                "b": [(sample.at, sample.limit) for sample in samples],
            },
        ),
        _plot(
            "Lines that failed", seconds, {"b": [(sample.at, sample.failed) for sample in samples]}
        ),
        _latencies(report.histogram),
        _codes(report.codes),
    ]
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Batch</title>\n'
        f"<style>{STYLE}</style>\n{body}\n</html>\n"
    )


def _table(rows: Mapping[str, str]) -> str:
    cells = "".join(
        f"<tr><td>{escape(name)}<td>{escape(str(value))}" for name, value in rows.items() if value
    )
    return f"<table>{cells}</table>"


def _plot(title: str, seconds: float, lines: Mapping[str, Points]) -> str:
    """Lines over time; the highest value and the length of the run are written at the axes."""
    most = max((y for points in lines.values() for _, y in points), default=0.0)
    if not most or not seconds:
        return f"<h2>{escape(title)}</h2><p>nothing to show</p>"
    drawn = []
    for kind, points in lines.items():
        places = " ".join(
            f"{LEFT + x / seconds * (WIDTH - LEFT):.1f},"
            f"{HEIGHT - BOTTOM - y / most * (HEIGHT - BOTTOM - TOP):.1f}"
            for x, y in points
        )
        drawn.append(f'<polyline class="{kind}" points="{places}"/>')
    return _frame(title, "".join(drawn), f"{most:,.4g}", "0 s", duration(seconds))


def _latencies(histogram: Mapping[int, int]) -> str:
    if not histogram:
        return "<h2>Latency</h2><p>nothing to show</p>"
    first, last = min(histogram), max(histogram)
    most = max(histogram.values())
    step = (WIDTH - LEFT) / (last - first + 1)
    bars = []
    for place in range(first, last + 1):
        count = histogram.get(place, 0)
        size = count / most * (HEIGHT - BOTTOM - TOP)
        bars.append(
            f'<rect class="bar" x="{LEFT + (place - first) * step:.1f}" width="{step * 0.9:.1f}" '
            f'y="{HEIGHT - BOTTOM - size:.1f}" height="{size:.1f}">'
            f"<title>up to {2 ** (place / 2):.3g} s: {count:,}</title></rect>"
        )
    low, high = f"{2 ** ((first - 1) / 2):.2g} s", f"{2 ** (last / 2):.2g} s"
    title = "Latency (each bar up to 1.4 times as long)"
    return _frame(title, "".join(bars), f"{most:,}", low, high)


def _codes(codes: Mapping[str, int]) -> str:
    if not codes:
        return ""
    rows = {code: f"{count:,}" for code, count in sorted(codes.items(), key=lambda item: -item[1])}
    return f"<h2>Failures by code</h2>{_table(rows)}"


def _frame(title: str, inside: str, most: str, low: str, high: str) -> str:
    axis = HEIGHT - BOTTOM
    return (
        f'<h2>{escape(title)}</h2><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f'<line class="axis" x1="{LEFT}" y1="{axis}" x2="{WIDTH}" y2="{axis}"/>'
        f'<text x="{LEFT - 6}" y="{TOP + 8}" text-anchor="end">{most}</text>'
        f'<text x="{LEFT - 6}" y="{axis}" text-anchor="end">0</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 6}">{low}</text>'
        f'<text x="{WIDTH - 4}" y="{HEIGHT - 6}" text-anchor="end">{high}</text>{inside}</svg>'
    )
