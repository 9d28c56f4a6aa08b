"""Files without `await`: what `Client.files` is."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from ernie_async.settings import CallOptions
from ernie_async.sync.thread import LoopThread
from ernie_async.types.files import FileObject, FilePage

if TYPE_CHECKING:
    from ernie_async.files import Files, Progress

__all__ = ["SyncFiles"]


class SyncFiles:
    """The files of an account, from `Client.files`. See `Files`."""

    def __init__(self, files: "Files", thread: LoopThread) -> None:
        self._files = files
        self._thread = thread

    def upload(
        self,
        source: bytes | str | os.PathLike[str],
        *,
        purpose: str,
        filename: str | None = None,
        on_progress: "Progress | None" = None,
        **options: Unpack[CallOptions],
    ) -> FileObject:
        """Send a file. `on_progress` is called in the client's own thread. See `Files.upload`."""
        return self._thread.run(
            lambda: self._files.upload(
                source, purpose=purpose, filename=filename, on_progress=on_progress, **options
            )
        )

    def list(
        self,
        *,
        after: str | None = None,
        limit: int | None = None,
        order: str | None = None,
        purpose: str | None = None,
        **options: Unpack[CallOptions],
    ) -> FilePage:
        """One page of the files. See `Files.list`."""
        return self._thread.run(
            lambda: self._files.list(
                after=after, limit=limit, order=order, purpose=purpose, **options
            )
        )

    def all(
        self,
        *,
        limit: int | None = None,
        order: str | None = None,
        purpose: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Iterator[FileObject]:
        """Iterate over all files, page after page. See `Files.all`."""
        files = self._files.all(limit=limit, order=order, purpose=purpose, **options)
        while True:
            try:
                yield self._thread.run(files.__anext__)
            except StopAsyncIteration:
                return

    def content(self, file_id: str, **options: Unpack[CallOptions]) -> bytes:
        """The bytes of a file. See `Files.content`."""
        return self._thread.run(lambda: self._files.content(file_id, **options))

    def download(
        self,
        file_id: str,
        path: str | os.PathLike[str],
        *,
        on_progress: "Progress | None" = None,
        **options: Unpack[CallOptions],
    ) -> Path:
        """Write the bytes of a file to disk. See `Files.download`."""
        return self._thread.run(
            lambda: self._files.download(file_id, path, on_progress=on_progress, **options)
        )

    def delete(self, file_id: str, **options: Unpack[CallOptions]) -> bool:
        """Delete a file. See `Files.delete`."""
        return self._thread.run(lambda: self._files.delete(file_id, **options))
