"""The files that the service keeps: sent, listed, read and deleted."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from time import time
from typing import Unpack

from ernie_async.calling import ask, split_options
from ernie_async.errors import ConfigError
from ernie_async.net.answer import fetch, get_answer
from ernie_async.net.body import read_body
from ernie_async.net.desk import Desk
from ernie_async.net.files import FileSource, Progress, receive_into
from ernie_async.net.reply import Reply
from ernie_async.sansio.address import is_qianfan
from ernie_async.sansio.files import (
    MAX_ENVELOPE_BYTES,
    MAX_UPLOAD_BYTES,
    content_path,
    file_path,
    is_refusal,
    list_path,
    next_after,
)
from ernie_async.sansio.multipart import form
from ernie_async.sansio.refusals import refusal
from ernie_async.settings import CallOptions
from ernie_async.types.files import FileObject, FilePage

__all__ = ["Files", "Progress"]


DEFAULT_FILENAME = "file"


@dataclass(frozen=True, slots=True)
class Files:
    """The files of an account, from `client.files`. Shares the client's connections and limits."""

    _desk: Desk

    async def upload(
        self,
        source: bytes | str | os.PathLike[str],
        *,
        purpose: str,
        filename: str | None = None,
        on_progress: "Progress | None" = None,
        **options: Unpack[CallOptions],
    ) -> FileObject:
        """Send a file, read from disk piece by piece. A retry sends it from its beginning.

        Args:
            source: A path, or the bytes themselves. The service takes at most 512 MB.
            purpose: `batch`, `fine-tune`, `assistants`, `vision`, `user_data` or `evals`.
            filename: What the service shall call it; `None` for the path's own name.
            on_progress: Called in the event loop with the bytes sent so far, and all of them.
            **options: See `CallOptions`. `extra_body` adds fields to the form.

        Raises:
            ConfigError: The file cannot be read, or is too large.
            ErnieError: See the tree in `errors`.
        """
        call = _call(options)
        content = FileSource(source, on_progress)
        if content.size > MAX_UPLOAD_BYTES and is_qianfan(self._desk.transport.base_url):
            raise ConfigError(
                f"file: expected at most {MAX_UPLOAD_BYTES:,} bytes, got {content.size:,}"
            )
        own_name = DEFAULT_FILENAME if isinstance(source, bytes) else Path(source).name
        extra = {name: str(value) for name, value in call.get("extra_body", {}).items()}
        head, tail, content_type = form(
            {"purpose": purpose, **extra}, filename or own_name, boundary=f"ernie-{token_hex(16)}"
        )
        desk, request = ask(
            self._desk,
            "POST",
            "/files",
            lambda: content.between(head, tail),
            call,
            headers={
                "Content-Type": content_type,
                "Content-Length": str(len(head) + content.size + len(tail)),
            },
        )
        return await get_answer(desk, request, FileObject)

    async def list(
        self,
        *,
        after: str | None = None,
        limit: int | None = None,
        order: str | None = None,
        purpose: str | None = None,
        **options: Unpack[CallOptions],
    ) -> FilePage:
        """One page of the files.

        Args:
            after: The id of the last file of the page before.
            limit: Files on a page, 1 to 10,000; `None` for as many as the service gives.
            order: `asc` or `desc`, by time of creation.
            purpose: Only files of this purpose.
            **options: See `CallOptions`.

        Raises:
            ErnieError: See the tree in `errors`.
        """
        path = list_path(after=after, limit=limit, order=order, purpose=purpose)
        desk, request = ask(self._desk, "GET", path, None, _call(options))
        return await get_answer(desk, request, FilePage)

    async def all(
        self,
        *,
        limit: int | None = None,
        order: str | None = None,
        purpose: str | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncIterator[FileObject]:
        """Iterate over all files, page after page. Holds no connection in between.

        Args:
            limit: Files on a page.
            order: `asc` or `desc`, by time of creation.
            purpose: Only files of this purpose.
            **options: See `CallOptions`.

        Raises:
            ErnieError: See the tree in `errors`.
        """
        after: str | None = None
        while True:
            page = await self.list(
                after=after, limit=limit, order=order, purpose=purpose, **options
            )
            for file in page.data:
                yield file
            after = next_after(page, after, limit)
            if after is None:
                return

    async def content(self, file_id: str, **options: Unpack[CallOptions]) -> bytes:
        """The bytes of a file, all at once; `download` writes them to disk instead.

        Raises:
            ErnieError: See the tree in `errors`. Files of some purposes cannot be read.
        """
        desk, request = ask(self._desk, "GET", content_path(file_id), None, _call(options))
        return await fetch(desk, request, _read)

    async def download(
        self,
        file_id: str,
        path: str | os.PathLike[str],
        *,
        on_progress: "Progress | None" = None,
        **options: Unpack[CallOptions],
    ) -> Path:
        """Write the bytes of a file to disk as they come. There is a file only if it is whole.

        Args:
            file_id: Which file.
            path: What to write; a file that is there is replaced.
            on_progress: Called in the event loop with the bytes received so far, and all of them;
                `None` if the server does not tell.
            **options: See `CallOptions`.

        Returns:
            The path.

        Raises:
            ConfigError: The path cannot be written.
            ErnieError: See the tree in `errors`. Files of some purposes cannot be read.
        """

        async def take(reply: Reply) -> bytes:
            if reply.status != 200:
                raise refusal(reply.status, await read_body(reply), reply.headers, utc_now=time())
            begun = b""
            while len(begun) <= MAX_ENVELOPE_BYTES and (
                more := await reply.read(MAX_ENVELOPE_BYTES)
            ):
                begun += more
            if is_refusal(begun):
                raise refusal(reply.status, begun, reply.headers, utc_now=time())
            await receive_into(reply, path, on_progress, begun=begun)
            return b""

        desk, request = ask(self._desk, "GET", content_path(file_id), None, _call(options))
        return await fetch(desk, request, lambda *_: Path(path), take=take)

    async def delete(self, file_id: str, **options: Unpack[CallOptions]) -> bool:
        """Delete a file; tell whether it is gone.

        Raises:
            ErnieError: See the tree in `errors`.
        """
        path = file_path(file_id)
        desk, request = ask(self._desk, "DELETE", path, None, _call(options))
        return bool((await get_answer(desk, request, FileObject)).deleted)


def _read(reply: Reply, body: bytes) -> bytes:
    if reply.status != 200 or is_refusal(body):
        raise refusal(reply.status, body, reply.headers, utc_now=time())
    return body


def _call(options: CallOptions) -> CallOptions:
    return split_options(options, CallOptions)[1]
