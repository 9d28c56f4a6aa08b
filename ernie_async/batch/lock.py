"""One run at a time on one output: an advisory lock, which ends with the process."""

import os
import sys
from pathlib import Path

__all__ = ["OutputLock"]


class OutputLock:
    """Held from its making until `release`. The file beside the output is removed at the end.

    Args:
        path: Of the lock's own file.

    Raises:
        BlockingIOError: Another process holds it.
        OSError: The file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        while True:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                _lock(self._file)
            except OSError as error:
                os.close(self._file)
                reason = "another run is writing there"
                raise BlockingIOError(error.errno, reason, str(path)) from None
            # Whoever held it may have removed the file between our two steps.
            if _is_at(path, self._file):
                return
            os.close(self._file)

    def release(self) -> None:
        """Let the next one in."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)


def _is_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
