"""Files of this machine, read and written off the event loop.

What is sent is read anew for each sending, so that a retry sends all of it. What is received gets
its name when it is whole, so that a broken download leaves no half of a file.
"""

import asyncio
import io
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from ernie_async.errors import ConfigError, ErnieError
from ernie_async.net.reply import Reply

__all__ = ["FileSource", "Progress", "receive_into", "write_whole"]

# Told how many bytes were sent or received so far, and of how many; `None` if nobody knows.
Progress = Callable[[int, int | None], None]

# A thread has to be asked for each piece, which costs as much as copying half of one.
PIECE_BYTES = 256 * 1024


class FileSource:
    """A file, or bytes, between the head and the tail of a form; to be sent any number of times.

    Args:
        source: A path, or the bytes themselves.
        on_progress: Told of each piece; begins again at a retry.

    Raises:
        ConfigError: The file cannot be read.
    """

    def __init__(
        self, source: bytes | str | os.PathLike[str], on_progress: Progress | None
    ) -> None:
        self._source = source if isinstance(source, bytes) else Path(source)
        self._on_progress = on_progress
        self.size: int = self._size()

    def _size(self) -> int:
        if isinstance(self._source, bytes):
            return len(self._source)
        try:
            with self._source.open("rb") as file:
                return os.fstat(file.fileno()).st_size
        except OSError as error:
            raise _unreadable(self._source, error) from error

    def between(self, head: bytes, tail: bytes) -> AsyncIterator[bytes]:
        """The form, in pieces.

        Raises:
            ConfigError: The file can no longer be read, or is another one than before.
        """
        # Checked here and not in the iterator, where aiohttp would take it for a broken connection.
        if self._size() != self.size:
            raise ConfigError(f"file: {self._source!r} changed while it was being sent")
        return self._pieces(head, tail)

    def _open(self) -> IO[bytes]:
        return (
            io.BytesIO(self._source) if isinstance(self._source, bytes) else self._source.open("rb")
        )

    async def _pieces(self, head: bytes, tail: bytes) -> AsyncIterator[bytes]:
        yield head
        sent = 0
        with await asyncio.to_thread(self._open) as file:
            while sent < self.size:
                piece = await asyncio.to_thread(file.read, min(PIECE_BYTES, self.size - sent))
                if not piece:
                    raise OSError("the file became shorter")  # found by the check of the next try
                yield piece
                sent += len(piece)
                if self._on_progress is not None:
                    self._on_progress(sent, self.size)
        yield tail


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"file: cannot read {str(path)!r}: {error.strerror}")


async def receive_into(
    reply: Reply,
    path: str | os.PathLike[str],
    on_progress: Progress | None,
    *,
    begun: bytes,
) -> None:
    """Write the body of an answer into a file, which is there when it is whole.

    Args:
        reply: The answer.
        path: Where to.
        on_progress: Told of each piece.
        begun: What was read of the body already.

    Raises:
        ConfigError: The file cannot be written.
        ConnectError: The body was cut; there is no file.
    """
    length = reply.headers.get("Content-Length")
    total = int(length) if length is not None and length.isdecimal() else None
    target = Path(path)
    file = await _opened(target)
    received = 0
    try:
        with file:
            while piece := begun or await reply.read(PIECE_BYTES):
                begun = b""
                await asyncio.to_thread(file.write, piece)
                received += len(piece)
                if on_progress is not None:
                    on_progress(received, total)
        os.replace(file.name, target)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(file.name)
        if isinstance(error, OSError) and not isinstance(error, ErnieError):
            raise _unwritable(target, error) from error
        raise


async def _opened(target: Path) -> IO[bytes]:
    opening = asyncio.get_running_loop().run_in_executor(None, _open_beside, target)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_discard)  # the thread opens it all the same
        raise


def _discard(opened: asyncio.Future[IO[bytes]]) -> None:
    if not opened.cancelled() and opened.exception() is None:
        with opened.result() as file, suppress(OSError):
            os.unlink(file.name)


def write_whole(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write a file, which is there when it is whole.

    Raises:
        ConfigError: It cannot be written.
    """
    target = Path(path)
    file = _open_beside(target)
    try:
        with file:
            file.write(content)
        Path(file.name).replace(target)
    except OSError as error:
        Path(file.name).unlink(missing_ok=True)
        raise _unwritable(target, error) from error
    return target


def _open_beside(target: Path) -> IO[bytes]:
    """A new file in the same folder, to be renamed."""
    try:
        if target.is_dir():
            raise IsADirectoryError(21, "it is a folder")
        file: IO[bytes] = NamedTemporaryFile(  # noqa: SIM115 - the caller closes it
            dir=target.parent, prefix=f".{target.name[:100]}.", delete=False
        )
    except OSError as error:
        raise _unwritable(target, error) from error
    return file


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"path: cannot write {str(path)!r}: {error.strerror}")
