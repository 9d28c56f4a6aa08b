"""How a file is read, and how its results are written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ernie_async.batch.inputs import MAX_LINE_BYTES, InputKind
from ernie_async.batch.lines import DEFAULT_URL
from ernie_async.batch.writing import Fsync
from ernie_async.errors import ConfigError

__all__ = ["FileOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions:
    """How a file is read, and how its results are written.

    Attributes:
        kind: `jsonl`, `csv` or `parquet`; `None` to go by the file's name.
        template: A format string over the columns of a row, which becomes its prompt.
        id_column: The column that names a row; `None` for `custom_id`, else `row-<number>`.
        url: Where prompts go, such as `/v2/embeddings`.
        defaults: Fields of a body, for lines that do not have them.
        ordered: Write results in the order of the input.
        order_window: How far the newest line may be ahead of the oldest that is not over.
        delivery: After a crash, either ask again what was under way, or never.
        fsync: When lines are safe from a loss of power: `interval` (1,000 lines or 1 s), `always`,
            `never`.
        fresh: Refuse an output that is not empty.
        repair: Move unreadable and double lines of earlier runs aside, instead of giving up.
        on_changed: If a line that is done now asks something else: `error`, `keep` or `rerun`.
        only_failed: Do the dead letters of earlier runs again, and nothing else.
        strict: Look through the whole input first, and give up at the first bad line.
        shard: `(i, n)`: only the lines of machine i, 0 to n - 1.
        max_line_bytes: A longer line is a dead letter, and never held.
    """

    kind: InputKind | None = None
    template: str | None = None
    id_column: str | None = None
    url: str = DEFAULT_URL
    defaults: Mapping[str, Any] = field(default_factory=dict)
    ordered: bool = False
    order_window: int = 10_000
    delivery: Literal["at-least-once", "at-most-once"] = "at-least-once"
    fsync: Fsync = "interval"
    fresh: bool = False
    repair: bool = False
    on_changed: Literal["error", "keep", "rerun"] = "error"
    only_failed: bool = False
    strict: bool = False
    shard: tuple[int, int] | None = None
    max_line_bytes: int = MAX_LINE_BYTES

    def __post_init__(self) -> None:
        if self.order_window < 1 or self.max_line_bytes < 1:
            raise ConfigError("order_window, max_line_bytes: expected at least 1")
        if self.shard is not None and not 0 <= self.shard[0] < self.shard[1]:
            i, n = self.shard
            raise ConfigError(f"shard: expected i/n with i from 0 to n - 1, got {i}/{n}")
