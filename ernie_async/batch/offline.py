"""The service's own lane for whole files: slower, cheaper, and with the same files as a run here.

What was sent is remembered beside the output, so that nothing is sent twice. What it brings is
written like the results of a run; what it does not bring remains to be done, here or there.
"""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from pydantic_core import to_json

from ernie_async.batch.answers import Answer, read_body_of
from ernie_async.batch.failures import code_of
from ernie_async.batch.file_run import FileRun
from ernie_async.batch.lines import CHAT_PATH, IMAGES_PATH, Line
from ernie_async.batch.manifest import Manifest, Part, manifest_path, state_of
from ernie_async.batch.options import FileOptions
from ernie_async.batch.progress import Progress
from ernie_async.batch.records import BatchResult
from ernie_async.batch.rows import known_models
from ernie_async.batch.stopping import BatchError
from ernie_async.client import AsyncClient
from ernie_async.errors import ErnieError
from ernie_async.sansio.retry import RetryPolicy
from ernie_async.types.prices import Prices
from ernie_async.types.wire import read_json

__all__ = ["OfflineLane"]

# The service's own bounds of a file (cloud.baidu.com/doc/qianfan-docs/s/rm8r4tl9u).
MAX_LINES = 5000
MAX_BYTES = 190 * 1024 * 1024

PATHS = (CHAT_PATH, IMAGES_PATH)

# The lane costs so much of the usual price.
PRICE_SHARE = 0.4


class OfflineLane:
    """Sends files, asks for them and brings them back.

    Args:
        client: Whose key and connections are used.
        out: The output.
        max_lines: Lines of one file.
        max_bytes: Bytes of one file.
    """

    def __init__(
        self,
        client: AsyncClient,
        out: Path,
        *,
        max_lines: int = MAX_LINES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._client = client
        self._out = out
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self.manifest: Manifest = Manifest.load(manifest_path(out))

    async def submit(
        self,
        source: Path,
        options: FileOptions = FileOptions(),
        *,
        window: str = "24h",
    ) -> int:
        """Send what is left to do; how many lines. Goes on where an earlier attempt broke off.

        Args:
            source: The input.
            options: How it is read.
            window: How long the service may take, `1h` to `672h`.

        Raises:
            BatchError: There are parts under way, or the output is damaged.
            ErnieError: The service refused.
        """
        manifest = self.manifest
        if manifest.is_complete:
            if not all(part.is_fetched for part in manifest.parts):
                raise BatchError("there are parts under way: fetch them first", "locked")
            self.manifest = manifest = Manifest(manifest.path)
        for part in manifest.parts:
            if part.batch_id is None:
                await self._begin(part, window, is_new=False)
        n_lines = 0
        run = self._file_run(source, options)
        async with run.opened():
            with TemporaryDirectory(dir=self._out.parent) as folder:
                async for file, part in self._files(run, Path(folder)):
                    part.file_id = (await self._client.files.upload(file, purpose="batch")).id
                    manifest.parts.append(part)
                    manifest.save()
                    await self._begin(part, window, is_new=True)
                    file.unlink()
                    n_lines += part.lines
        manifest.is_complete = True
        manifest.save()
        return n_lines

    def _file_run(self, source: Path, options: FileOptions) -> FileRun:
        return FileRun(source, self._out, options, known_models(self._client))

    async def _files(self, run: FileRun, folder: Path) -> AsyncIterator[tuple[Path, Part]]:
        """The lines that were not sent, in files that the service takes."""
        sent: dict[str, int] = dict.fromkeys(PATHS, 0)
        for part in self.manifest.parts:  # of an attempt that broke off
            sent[part.endpoint.removeprefix("/v2")] = part.last_line
        growing: dict[str, tuple[Path, Part]] = {}
        async with aclosing(run.items(Progress(0.0))) as items:
            async for line, _ in items:
                if not isinstance(line, Line) or line.path not in sent:
                    continue
                if line.number <= sent[line.path]:
                    continue
                raw = to_json(_remote_line(line)) + b"\n"
                if line.path in growing:
                    file, part = growing[line.path]
                    is_full = file.stat().st_size + len(raw) > self._max_bytes
                    if is_full or part.lines == self._max_lines:
                        yield growing.pop(line.path)
                file, part = growing.setdefault(
                    line.path,
                    (folder / f"part-{line.number}.jsonl", Part(f"/v2{line.path}")),
                )
                with file.open("ab") as target:
                    target.write(raw)
                part.lines, part.last_line = part.lines + 1, line.number
        for found in growing.values():
            yield found

    async def _begin(self, part: Part, window: str, *, is_new: bool) -> None:
        """Have the service work on a file, unless it does so already."""
        told = None if is_new else await self._find(part.file_id)
        if told is None:
            fields = {
                "input_file_id": part.file_id,
                "endpoint": part.endpoint,
                "completion_window": window,
            }
            # Once: whether an answer that was lost meant yes is found out by `_find`.
            once = self._client.with_options(retry=RetryPolicy(attempts=1))
            told = await once.request("POST", "/batches", json=fields)
        part.batch_id, part.status = str(told["id"]), str(told.get("status"))
        self.manifest.save()

    async def _find(self, file_id: str) -> dict[str, Any] | None:
        """The work on a file, if an attempt whose answer was lost had begun it."""
        after = ""
        while True:
            page = await self._client.request("GET", f"/batches?limit=100{after}")
            found = page.get("data") or []
            for told in found:
                if told.get("input_file_id") == file_id:
                    return dict(told)
            if not page.get("has_more") or not found:
                return None
            after = f"&after={found[-1]['id']}"

    async def refresh(self) -> list[Part]:
        """Ask how far everything is; all parts.

        Raises:
            ErnieError: The service refused.
        """
        return await self._ask_of_open("GET")

    async def cancel(self) -> list[Part]:
        """Ask the service to stop what is under way. Its documentation does not tell how.

        Raises:
            ErnieError: The service refused.
        """
        await self.refresh()
        return await self._ask_of_open("POST", "/cancel")

    async def _ask_of_open(self, method: str, suffix: str = "") -> list[Part]:
        for part in self.manifest.parts:
            if part.batch_id is not None and state_of(part.status) == "under way":
                told = await self._client.request(method, f"/batches/{part.batch_id}{suffix}")
                part.status = str(told.get("status", part.status))
                part.output_file_id = told.get("output_file_id") or part.output_file_id
                part.error_file_id = told.get("error_file_id") or part.error_file_id
        self.manifest.save()
        return self.manifest.parts

    async def fetch(
        self,
        source: Path,
        options: FileOptions = FileOptions(),
    ) -> Progress:
        """Write what is ready into the output; what was written.

        Args:
            source: The input.
            options: How it is read, as for `submit`.

        Raises:
            BatchError: The output is damaged.
            ErnieError: The service refused.
            OSError: It cannot be written.
        """
        parts = [
            part
            for part in await self.refresh()
            if not part.is_fetched and state_of(part.status) != "under way"
        ]
        progress = Progress(monotonic())
        run = self._file_run(source, options)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(run.opened())
            folder = Path(stack.enter_context(TemporaryDirectory(dir=self._out.parent)))
            db = stack.enter_context(closing(sqlite3.connect("", isolation_level=None)))
            db.execute("CREATE TABLE found (id TEXT PRIMARY KEY, file TEXT, start INT, size INT)")
            db.execute("BEGIN")
            for part in parts:
                for file_id in (part.output_file_id, part.error_file_id):
                    if file_id is not None:
                        file = await self._client.files.download(file_id, folder / file_id)
                        rows = _index(file)
                        db.executemany("INSERT OR IGNORE INTO found VALUES (?, ?, ?, ?)", rows)
            items = await stack.enter_async_context(aclosing(run.items(progress)))
            async for line, _ in items:
                if not isinstance(line, Line):
                    continue
                query = "SELECT file, start, size FROM found WHERE id = ?"
                row = db.execute(query, (line.custom_id,)).fetchone()
                if row is None:
                    progress.undone += 1
                    continue
                result = _read_result(line, _read_at(*row), self._client._desk.ledger.prices)
                await run.tell(result)
                progress.over(result, monotonic())
        for part in parts:
            part.is_fetched = True
        self.manifest.save()
        return progress


def _read_result(line: Line, raw: bytes, prices: Prices) -> BatchResult:
    """What a line of the service's results says of a line of ours."""
    fields = read_json(raw)
    if "output" in fields and "response" not in fields:  # the older form of the console
        message = {"role": "assistant", "content": str(fields["output"])}
        fields["response"] = {"status_code": 200, "body": {"choices": [{"message": message}]}}
    response = fields.get("response")
    if not isinstance(response, dict):
        told = fields.get("error")
        error = told if isinstance(told, dict) else {"message": told}
        code, reason = str(error.get("code", "internal")), str(error.get("message", ""))
        return Answer().result_for(line, code, reason, attempts=1)
    answer = Answer(
        status=int(response.get("status_code") or 0),
        request_id=response.get("request_id"),
        body=response.get("body"),
    )
    code_or_none = None
    try:
        read_body_of(line.path, answer, to_json(answer.body), {})
    except ErnieError as failure:
        code_or_none = code_of(failure)
    if answer.usage is not None and (cost := prices.cost(line.model, answer.usage)) is not None:
        answer.cost = cost * PRICE_SHARE
    return answer.result_for(line, code_or_none, attempts=1)


def _remote_line(line: Line) -> dict[str, Any]:
    return {
        "custom_id": line.custom_id,
        "method": "POST",
        "url": f"/v2{line.path}",
        "body": line.body,
    }


def _index(file: Path) -> Iterator[tuple[str, str, int, int]]:
    """Where the result of each line is; a line that cannot be read has none."""
    start = 0
    with file.open("rb") as opened:
        for raw in opened:
            try:
                fields = read_json(raw)
                name = fields.get("custom_id") or fields.get("id")
            except (ValueError, AttributeError):
                name = None
            if isinstance(name, str):
                yield name, str(file), start, len(raw)
            start += len(raw)


def _read_at(file: str, start: int, size: int) -> bytes:
    with Path(file).open("rb") as opened:
        opened.seek(start)
        return opened.read(size)
