"""From file to file: what is left to do, and what is written of it.

The output is also the checkpoint: a run that was killed goes on where its output ends.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import Any

from ernie_async.batch.checkpoint import (
    Before,
    drop_lines,
    errors_path,
    mend_tail,
    read_back,
    read_records,
    repair,
    rotate,
    torn_path,
)
from ernie_async.batch.flow import Item
from ernie_async.batch.ids import Ids, State
from ernie_async.batch.inputs import (
    InputKind,
    check_input,
    count_lines,
    is_once,
    is_same,
    kind_of,
    read_ahead,
    read_lines,
)
from ernie_async.batch.journal import Journal, journal_path, named_by, read_journal
from ernie_async.batch.lines import Fault, Line, LineReader, duplicate, fault_of, shard_of
from ernie_async.batch.lock import OutputLock
from ernie_async.batch.options import FileOptions
from ernie_async.batch.order import Order
from ernie_async.batch.progress import Progress
from ernie_async.batch.records import UNDONE, BatchResult, read_record, write_record
from ernie_async.batch.stopping import BatchError, StopReason
from ernie_async.batch.writing import AppendFile
from ernie_async.errors import ConfigError

__all__ = ["FileRun"]


class FileRun:
    """One run from file to file.

    Args:
        source: The input; `-` for standard input.
        out: The results; `None` for standard output, which has no checkpoint.
        options: See `FileOptions`.
        models: The model of lines that name none, by path.

    Attributes:
        before: What earlier runs have done.
        reader: Has notes of what was odd about the input.
        held: Results that wait for one before them, and are lost if the run stops here.
        is_over: Whether all lines are; to be set at the end.
    """

    def __init__(
        self, source: Path, out: Path | None, options: FileOptions, models: Mapping[str, str]
    ) -> None:
        self.source = source
        self.out = out
        self.err: Path | None = None if out is None else errors_path(out)
        self.options = options
        self.before: Before = Before()
        self.reader: LineReader = LineReader(
            defaults=options.defaults,
            models=models,
            template=options.template,
            id_column=options.id_column,
            url=options.url,
        )
        self.held: int = 0
        self.is_over = False
        self._kind: InputKind = options.kind or kind_of(source)
        self._order: Order[BatchResult] = Order(options.order_window)
        self._results: AppendFile | None = None
        self._letters: AppendFile | None = None
        twice = [] if not options.strict else ["strict"]
        twice += [] if options.on_changed != "rerun" else ["on_changed=rerun"]
        check_input(source, self._kind, twice)
        self._is_once = is_once(source)
        if out is not None and is_same(source, out):
            raise ConfigError(f"output: {out} is the input")
        if out is None and (options.only_failed or options.delivery == "at-most-once"):
            raise ConfigError("standard output has no checkpoint, which this needs")

    # Before anything is sent

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[Journal | None, None]:
        """Lock the output, mend it and read it back, and open it.

        Raises:
            BatchError: The run cannot begin; its reason says why.
            ConfigError: The options do not fit what is there.
        """
        out, err = self.out, self.err
        if not self._is_once:
            with failing_for("input"):
                self.source.open("rb").close()
        if self.options.strict:
            await asyncio.to_thread(self._check_strictly)
        async with AsyncExitStack() as stack:
            if out is not None and err is not None:
                if out.is_dir():
                    raise BatchError(f"output: {out} is a directory; name a file", "locked")
                with failing_for("locked"):
                    lock = OutputLock(out.with_name(f"{out.name}.lock"))
                stack.callback(lock.release)
                stack.callback(self._forget_journal)
                with failing_for("io"):
                    await asyncio.to_thread(self._read_back, out, err)
            stack.callback(self.before.ids.close)
            with failing_for("locked"):
                self._results = await self._append_to(stack, out)
                self._letters = None if err is None else await self._append_to(stack, err)
            journal = None
            if out is not None and self.options.delivery == "at-most-once":
                journal = Journal(journal_path(out))
                stack.push_async_callback(journal.aclose)
            yield journal

    async def _append_to(self, stack: AsyncExitStack, path: Path | None) -> AppendFile:
        file = AppendFile(path, self.options.fsync)
        stack.push_async_callback(file.aclose)
        return file

    def look_back(self) -> None:
        """See what earlier runs have done; nothing is changed.

        Raises:
            BatchError: The output is damaged.
            OSError: It cannot be read.
        """
        if self.out is not None and self.err is not None:
            self.before.ids.close()
            self.before = read_back(self.out, self.err, only_failed=self.options.only_failed)

    def _read_back(self, out: Path, err: Path) -> None:
        options = self.options
        if options.fresh and out.exists() and out.stat().st_size:
            raise ConfigError(f"--fresh: {out} is not empty")
        started = journal_path(out)
        for path in (out, err, started):
            mend_tail(path)
        if options.repair:
            repair(out, err)
            drop_lines(started, lambda raw: not named_by(raw), aside=torn_path(started))
        if options.only_failed:
            if options.delivery == "at-most-once":
                self._forget_failed(out, err)
            rotate(err)
        self.look_back()
        if options.on_changed == "rerun":
            changed = {line.custom_id for line in self._lines() if self._is_changed(line)}
            if drop_lines(out, lambda raw: read_record(raw).custom_id in changed):
                self.look_back()
            self.reader.notes.clear()
        if options.delivery == "at-most-once":
            for name, is_begun in read_journal(started):
                if not is_begun:
                    self.before.ids.forget_start(name)
                elif options.only_failed:
                    self.before.ids.note_start(name)
                else:  # of one that failed it is known what became of it
                    self.before.ids.note(name, State.STARTED)

    def _forget_failed(self, out: Path, err: Path) -> None:
        """Have the journal name no line that failed: to ask those again is what this run is for."""
        with closing(Ids()) as failed:
            for record, _ in read_records(err):
                if record.custom_id is not None:
                    failed.note(record.custom_id, State.FAILED)
            drop_lines(journal_path(out), lambda raw: named_by(raw) in failed)

    def _check_strictly(self) -> None:
        with closing(Ids()) as ids:
            for line in self._lines():
                fault = line if isinstance(line, Fault) else None
                if isinstance(line, Line) and ids.take(line.custom_id) is not None:
                    fault = duplicate(line)
                if fault is not None:
                    text = f"{self.source}: line {fault.number}: {fault.code}: {fault.message}"
                    raise BatchError(text, "invalid_input")
        self.reader.notes.clear()

    def _forget_journal(self) -> None:
        # Before the lock is released: the next run has a journal of its own.
        if self.is_over and self.out is not None:
            journal_path(self.out).unlink(missing_ok=True)

    # What is left to do

    def _lines(self) -> Iterator[Line | Fault]:
        limit = self.options.max_line_bytes
        return read_lines(self.source, self._kind, self.reader, max_line_bytes=limit)

    async def items(self, progress: Progress) -> AsyncGenerator[Item, None]:
        """The lines that are to be done, each with its place in the order.

        Raises:
            BatchError: A line has changed since it was done.
            OSError: The input cannot be read.
        """
        n_items = 0
        async with aclosing(read_ahead(self._lines())) as lines:
            async for line in lines:
                if not self._is_ours(line):
                    continue
                wanted = self._choose(line)
                if wanted is None:
                    progress.skipped += 1
                else:
                    n_items += 1
                    yield Item(wanted, self._order.begin() if isinstance(wanted, Line) else None)
        progress.total = progress.skipped + n_items

    def _is_ours(self, line: Line | Fault) -> bool:
        if self.options.shard is None:
            return True
        i, n = self.options.shard
        name = line.custom_id
        return (line.number % n if name is None else shard_of(name, n)) == i

    def _is_changed(self, line: Line | Fault) -> bool:
        """Whether it asks something else than what is done."""
        if not isinstance(line, Line):
            return False
        return self.before.ids.key(line.custom_id) not in {None, line.key}

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
                    reason = f"line {line.number}: {line.custom_id!r} asks something else than the "
                    raise BatchError(f"{reason}line that is done; see --on-changed", "damaged")
                return None
            case State.FAILED:
                return line if self.options.only_failed else None
            case State.STARTED | State.RESTARTED:
                reason = "an earlier run had sent it and died before its answer"
                return fault_of(line, "unknown_outcome", reason)
            case State.SEEN:
                return duplicate(line)

    def has_room(self) -> bool:
        """Whether one more line may begin, for the sake of the order."""
        return not self.options.ordered or self._order.has_room

    async def count(self, progress: Progress) -> None:
        """Guess the lines of the input, in a thread, until all are read."""
        if self._is_once or self.options.shard is not None or self.options.only_failed:
            return
        is_over = Event()
        try:
            total = await asyncio.to_thread(count_lines, self.source, self._kind, is_over.is_set)
            progress.total = total if progress.total is None else progress.total
        except (OSError, ConfigError):
            return  # whoever reads it will tell
        finally:
            is_over.set()  # else a thread would count on after the run

    # What is written

    async def tell(self, result: BatchResult) -> None:
        """Write a result, or hold it until its turn.

        Raises:
            OSError: The disk is full, or broken.
        """
        assert self._results is not None
        if not result.ok and result.code not in UNDONE and self._letters is not None:
            await self._letters.append(write_record(result))
        if not self.options.ordered:
            if result.ok:
                await self._results.append(write_record(result))
        elif result.row is not None and result.code not in UNDONE:
            self.held += result.ok
            for told in self._order.end(result.row, result if result.ok else None):
                self.held -= 1
                await self._results.append(write_record(told))

    def why(self, reason: StopReason | None, failed: int) -> StopReason:
        """Why the run ended, dead letters of earlier runs counted in.

        Args:
            reason: What stopped it, if anything did.
            failed: Lines that failed in it.
        """
        return reason or ("failures" if failed or self.before.failed else "finished")

    def told_options(self) -> dict[str, Any]:
        """The options, as the summary has them."""
        return {"input": str(self.source), "output": str(self.out or "-"), **asdict(self.options)}


@contextmanager
def failing_for(reason: StopReason) -> Iterator[None]:
    """Have errors of files tell that the run cannot begin."""
    try:
        yield
    except OSError as error:
        raise BatchError(f"{error.filename}: {error.strerror}", reason) from None
