"""What a gateway counts, in the text format of Prometheus. Knows no tenant and no text."""

from collections import Counter

from ernie_async.gateway.hub import StreamHub
from ernie_async.gateway.production import StreamEnded
from ernie_async.net.hooks import ContentFiltered, Record

__all__ = ["Metrics"]

PREFIX = "ernie_gateway"


class Metrics:
    """Counts from the start of the process. Serves one gateway."""

    def __init__(self) -> None:
        self._endings: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._filtered: Counter[str] = Counter()
        self._estimated = 0
        self._seconds = self._first_seconds = 0.0
        self._n_first = 0

    def note_end(self, ended: StreamEnded) -> None:
        """An answer is over."""
        self._endings[ended.ending] += 1
        self._tokens["prompt"] += ended.usage.prompt_tokens
        self._tokens["completion"] += ended.usage.completion_tokens
        self._estimated += ended.usage.is_estimate
        self._seconds += ended.duration
        if ended.first_token is not None:
            self._first_seconds += ended.first_token
            self._n_first += 1

    def note_record(self, record: Record) -> None:
        """A hook for the client: what the content filter found."""
        if isinstance(record, ContentFiltered):
            self._filtered[record.action] += 1

    def text(self, hub: StreamHub) -> str:
        """All of it, and what the hub holds now."""
        lines: list[str] = []

        def add(name: str, kind: str, values: dict[str, float]) -> None:
            lines.append(f"# TYPE {PREFIX}_{name} {kind}")
            lines.extend(f"{PREFIX}_{name}{labels} {value:g}" for labels, value in values.items())

        def labelled(label: str, counts: Counter[str]) -> dict[str, float]:
            return {f'{{{label}="{name}"}}': count for name, count in sorted(counts.items())}

        add("streams_running", "gauge", {"": hub.n_running})
        add("streams_kept", "gauge", {"": hub.n_kept})
        add("viewers", "gauge", {"": hub.n_viewers})
        add("streams_total", "counter", labelled("ending", self._endings))
        add("tokens_total", "counter", labelled("kind", self._tokens))
        add("usage_estimated_total", "counter", {"": self._estimated})
        add("filtered_total", "counter", labelled("action", self._filtered))
        add("viewers_lagged", "gauge", {"": hub.n_lagged})
        add("stream_seconds", "summary", {"_sum": self._seconds, "_count": self._endings.total()})
        add(
            "first_token_seconds", "summary", {"_sum": self._first_seconds, "_count": self._n_first}
        )
        return "\n".join(lines) + "\n"
