"""From file to file: what is left to do, and what is written of it.

The output is also the checkpoint: a run that was killed goes on where its output ends.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from secrets import randbits
from typing import Any, Literal

from ernie_async.batch.checkpoint import (
    Before,
    drop_records,
    errors_path,
    mend_tail,
    read_back,
    rotate,
)
from ernie_async.batch.flow import Item
from ernie_async.batch.ids import Ids, State
from ernie_async.batch.inputs import (
    MAX_LINE_BYTES,
    InputKind,
    count_lines,
    kind_of,
    read_ahead,
    read_lines,
)
from ernie_async.batch.journal import Journal, journal_path, read_journal
from ernie_async.batch.lines import DEFAULT_URL, Fault, Line, LineReader, duplicate, shard_of
from ernie_async.batch.lock import OutputLock
from ernie_async.batch.order import Order
from ernie_async.batch.progress import Progress
from ernie_async.batch.records import UNDONE, BatchResult, record_id, write_record
from ernie_async.batch.stopping import BatchError, StopReason
from ernie_async.batch.writing import AppendFile, Fsync
from ernie_async.errors import ConfigError

__all__ = ["FileOptions", "FileRun"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions:
    """How a file is read, and how its results are written.

    Attributes:
        kind: `jsonl`, `csv` or `parquet`; `None` to go by the file's name.
        template: A format string over the columns of a row, which becomes its prompt.
        id_column: The column that names a row; `None` for `custom_id`, else `row-<number>`.
        url: Where prompts go, such as `/v2/embeddings`.
        defaults: Fields of a body, for lines that do not have them.
        errors: Where dead letters go; `None` for `<OUT stem>.errors.jsonl`.
        ordered: Write results in the order of the input.
        order_window: How far the newest line may be ahead of the oldest that is not over.
        delivery: After a crash, either ask again what was under way, or never.
        fsync: When lines are safe from a loss of power: `interval` (1,000 lines or 1 s), `always`,
            `never`.
        fresh: Refuse an output that is not empty.
        repair: Move unreadable lines of the output aside, instead of giving up.
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
    errors: Path | None = None
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


class FileRun:
    """One run from file to file.

    Args:
        source: The input.
        out: The results; `None` for standard output, which has no checkpoint.
        options: See `FileOptions`.
        models: The model of lines that name none, by path.

    Attributes:
        is_over: Whether all lines are; to be set at the end.
    """

    def __init__(
        self, source: Path, out: Path | None, options: FileOptions, models: Mapping[str, str]
    ) -> None:
        self.source = source
        self.out = out
        self.options = options
        self.kind: InputKind = options.kind or kind_of(source)
        self.err = options.errors or (None if out is None else errors_path(out))
        self.before = Before()
        self.reader = self._make_reader(models)
        self.is_over = False
        self._models = models
        self._order: Order[BatchResult] = Order(options.order_window)
        self._held = 0
        self._results: AppendFile | None = None
        self._letters: AppendFile | None = None
        if out is not None and out.exists() and source.exists() and out.samefile(source):
            raise ConfigError(f"output: {out} is the input")
        if out is None and (options.only_failed or options.delivery == "at-most-once"):
            raise ConfigError("standard output has no checkpoint, which this needs")

    def _make_reader(self, models: Mapping[str, str]) -> LineReader:
        return LineReader(
            defaults=self.options.defaults,
            models=models,
            template=self.options.template,
            id_column=self.options.id_column,
            url=self.options.url,
        )

    # Before anything is sent

    async def open(self, stack: AsyncExitStack) -> Journal | None:
        """Lock the output, mend it and read it back, and open it.

        Raises:
            BatchError: The run cannot begin; its reason says why.
            ConfigError: The options do not fit what is there.
        """
        try:
            self.source.open("rb").close()
        except OSError as error:
            raise BatchError(f"{self.source}: {error.strerror}", "input") from None
        if self.options.strict:
            await asyncio.to_thread(self._check_strictly)
        out, err = self.out, self.err
        if out is not None and err is not None:
            try:
                lock = OutputLock(out.with_name(f"{out.name}.lock"))
            except OSError as error:
                raise BatchError(f"{out}: {error.strerror}", "locked") from None
            stack.callback(lock.release)
            stack.callback(self._forget_journal)
            try:
                await asyncio.to_thread(self._read_back, out, err)
            except OSError as error:
                raise BatchError(f"{error.filename or out}: {error.strerror}", "io") from None
        stack.callback(self.before.ids.close)
        try:
            self._results = await self._append_to(stack, out)
            self._letters = None if err is None else await self._append_to(stack, err)
        except OSError as error:
            raise BatchError(f"{error.filename}: {error.strerror}", "locked") from None
        if self.options.delivery == "at-least-once" or out is None:
            return None
        journal = Journal(journal_path(out))
        stack.push_async_callback(journal.aclose)
        return journal

    async def _append_to(self, stack: AsyncExitStack, path: Path | None) -> AppendFile:
        file = AppendFile(path, self.options.fsync)
        stack.push_async_callback(file.aclose)
        return file

    def _read_back(self, out: Path, err: Path) -> None:
        options = self.options
        if options.fresh and out.exists() and out.stat().st_size:
            raise ConfigError(f"--fresh: {out} is not empty")
        for path in (out, err, journal_path(out)):
            mend_tail(path)
        if options.only_failed:
            rotate(err)
        self.before = self._look_back(out, err)
        if options.on_changed == "rerun":
            changed = {
                line.custom_id
                for line in self._all_lines(self._make_reader(self._models))
                if isinstance(line, Line) and _is_changed(self.before.ids, line)
            }
            if changed:
                drop_records(
                    out, lambda record: isinstance(record, tuple) and record.custom_id in changed
                )
                self.before = self._look_back(out, err)
        if options.delivery == "at-most-once":
            for name, is_begun in read_journal(journal_path(out)):
                if is_begun:
                    self.before.ids.note(name, State.STARTED)
                else:
                    self.before.ids.forget_start(name)

    def _look_back(self, out: Path, err: Path) -> Before:
        self.before.ids.close()
        return read_back(out, err, repair=self.options.repair, only_failed=self.options.only_failed)

    def _check_strictly(self) -> None:
        ids = Ids()
        for line in self._all_lines(self._make_reader(self._models)):
            fault = line if isinstance(line, Fault) else None
            if isinstance(line, Line) and ids.take(line.custom_id) is not None:
                fault = duplicate(line)
            if fault is not None:
                ids.close()
                text = f"{self.source}: line {fault.number}: {fault.code}: {fault.message}"
                raise BatchError(text, "invalid_input")
        ids.close()

    def _all_lines(self, reader: LineReader) -> Iterator[Line | Fault]:
        limit = self.options.max_line_bytes
        return read_lines(self.source, self.kind, reader, max_line_bytes=limit)

    # What is left to do

    async def items(self, progress: Progress) -> AsyncGenerator[Item, None]:
        """The lines that are to be done, each with its place in the order.

        Raises:
            BatchError: A line has changed since it was done.
            OSError: The input cannot be read.
        """
        async with aclosing(read_ahead(self._all_lines(self.reader))) as lines:
            async for line in lines:
                if not self._is_ours(line):
                    continue
                wanted = self._choose(line)
                if wanted is None:
                    progress.skipped += 1
                else:
                    is_placed = isinstance(wanted, Line)
                    yield Item(wanted, self._order.begin() if is_placed else None)

    def _is_ours(self, line: Line | Fault) -> bool:
        if self.options.shard is None:
            return True
        i, n = self.options.shard
        name = line.custom_id
        return (line.number % n if name is None else shard_of(name, n)) == i

    def _choose(self, line: Line | Fault) -> Line | Fault | None:
        """What is to be done with a line; `None` if nothing."""
        ids = self.before.ids
        if ids.is_bad(line.number, line.key):
            return None
        known = None if line.custom_id is None else ids.take(line.custom_id)
        if known is None:
            # A line without a name was among the dead letters, if it was read before.
            is_wanted = not self.options.only_failed or line.custom_id is None
            return line if is_wanted else None
        match known.state:
            case State.DONE:
                if known.key not in {line.key, None} and self.options.on_changed == "error":
                    raise BatchError(
                        f"line {line.number}: {line.custom_id!r} asks something else than the line "
                        "that is done; see --on-changed",
                        "damaged",
                    )
                return None
            case State.FAILED:
                return line if self.options.only_failed else None
            case State.STARTED:
                return Fault(
                    line.number,
                    "unknown_outcome",
                    "an earlier run had sent it and died before its answer",
                    line.key,
                    line.custom_id,
                    line.metadata,
                )
            case State.SEEN:
                assert isinstance(line, Line)  # only they are taken note of
                return duplicate(line)

    def has_room(self) -> bool:
        """Whether one more line may begin, for the sake of the order."""
        return not self.options.ordered or self._order.has_room

    async def count(self, progress: Progress) -> None:
        """Count the lines of the input, in a thread."""
        if self.options.shard is None and not self.options.only_failed:
            try:
                progress.total = await asyncio.to_thread(count_lines, self.source, self.kind)
            except (OSError, ConfigError):
                return  # whoever reads it will tell

    # What is written

    async def tell(self, result: BatchResult) -> None:
        """Write a result, or hold it until its turn.

        Raises:
            OSError: The disk is full, or broken.
        """
        if not result.ok and result.code not in UNDONE and self._letters is not None:
            await self._letters.append(_record(result))
        if not self.options.ordered:
            if result.ok:
                await self._write(result)
            return
        if result.row is None or result.code in UNDONE:
            return
        self._held += result.ok
        for told in self._order.end(result.row, result if result.ok else None):
            self._held -= 1
            await self._write(told)

    async def _write(self, result: BatchResult) -> None:
        assert self._results is not None
        await self._results.append(_record(result))

    @property
    def held(self) -> int:
        """Results that wait for one before them, and are lost if the run stops here."""
        return self._held

    def _forget_journal(self) -> None:
        # Before the lock is released: the next run has a journal of its own.
        if self.is_over and self.out is not None:
            journal_path(self.out).unlink(missing_ok=True)

    def finish(self, reason: StopReason) -> StopReason:
        """Why the run ended, dead letters of earlier runs counted in."""
        if reason == "finished" and self.before.failed:
            return "failures"
        return reason

    def told_options(self) -> dict[str, Any]:
        """The options, as the summary has them."""
        given = asdict(self.options)
        given["errors"] = None if self.err is None else str(self.err)
        return {"input": str(self.source), "output": str(self.out or "-"), **given}

    @property
    def notes(self) -> Counter[str]:
        """What was odd about the input."""
        return self.reader.notes


def _record(result: BatchResult) -> bytes:
    return write_record(result, record_id(result.finished_at, randbits(80)))


def _is_changed(ids: Ids, line: Line) -> bool:
    return ids.key(line.custom_id) not in {None, line.key}
