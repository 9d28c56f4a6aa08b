"""Which lines were seen, and what became of them. Ten million of them do not fill the memory.

A table in a temporary file of SQLite's, which the system removes with the process. What is in it
was read from the output files, and is never the truth itself.
"""

import sqlite3
from enum import IntEnum
from typing import NamedTuple

__all__ = ["Ids", "Known", "State"]

# Pages that SQLite keeps in memory, in kB.
CACHE_KB = 1024


class State(IntEnum):
    """What is known of a `custom_id`."""

    DONE = 0
    FAILED = 1
    STARTED = 2  # and nobody knows what became of it
    RESTARTED = 3  # the same, of one that had failed before
    SEEN = 4  # in the input of this run


class Known(NamedTuple):
    """An id that was met before, and the key of its request if it is done."""

    state: State
    key: str | None


class Ids:
    """What is known of each `custom_id`, and which lines are known to be bad. Serves one run."""

    def __init__(self) -> None:
        # A thread reads the files of earlier runs, and the loop goes on, never both at a time.
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KB}"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute(
            "CREATE TABLE ids (id BLOB PRIMARY KEY, state INTEGER, key TEXT) WITHOUT ROWID"
        )
        self._db.execute("CREATE TABLE bad (line INTEGER PRIMARY KEY, key TEXT)")
        self._db.execute("BEGIN")

    def note(self, custom_id: str, state: State, key: str | None = None) -> bool:
        """Note what is known of an id; whether it is new. An old one stays as it is."""
        done = self._db.execute(
            "INSERT OR IGNORE INTO ids VALUES (?, ?, ?)", (encoded(custom_id), state, key)
        )
        return done.rowcount == 1

    def note_start(self, custom_id: str) -> None:
        """Note that a line was begun, perhaps one that had failed before."""
        if not self.note(custom_id, State.STARTED):
            self._turn(custom_id, State.FAILED, State.RESTARTED)

    def forget_start(self, custom_id: str) -> None:
        """Note that the service did not work on a line that was begun."""
        query = "DELETE FROM ids WHERE id = ? AND state = ?"
        self._db.execute(query, (encoded(custom_id), State.STARTED))
        self._turn(custom_id, State.RESTARTED, State.FAILED)

    def _turn(self, custom_id: str, before: State, after: State) -> None:
        query = "UPDATE ids SET state = ? WHERE id = ? AND state = ?"
        self._db.execute(query, (after, encoded(custom_id), before))

    def __contains__(self, custom_id: str) -> bool:
        query = "SELECT 1 FROM ids WHERE id = ?"
        return self._db.execute(query, (encoded(custom_id),)).fetchone() is not None

    def key(self, custom_id: str) -> str | None:
        """The key of a line that is done."""
        query = "SELECT key FROM ids WHERE id = ?"
        row = self._db.execute(query, (encoded(custom_id),)).fetchone()
        return None if row is None else row[0]

    def note_bad(self, number: int, key: str | None) -> None:
        """Note that a dead letter stands for this line."""
        self._db.execute("INSERT OR REPLACE INTO bad VALUES (?, ?)", (number, key))

    def is_bad(self, number: int, key: str) -> bool:
        """Whether a dead letter stands for this line already."""
        row = self._db.execute("SELECT key FROM bad WHERE line = ?", (number,)).fetchone()
        return row is not None and row[0] in {key, None}

    def take(self, custom_id: str) -> Known | None:
        """Meet an id in the input; `None` if it was never seen."""
        if self.note(custom_id, State.SEEN):
            return None
        name = encoded(custom_id)
        state, key = self._db.execute("SELECT state, key FROM ids WHERE id = ?", (name,)).fetchone()
        self._db.execute("UPDATE ids SET state = ? WHERE id = ?", (State.SEEN, name))
        return Known(State(state), key)

    def close(self) -> None:
        """Forget everything."""
        self._db.close()

    def __del__(self) -> None:
        # A run may end in an error anywhere; Python 3.13 warns of a table that is only dropped.
        self._db.close()


def encoded(custom_id: str) -> bytes:
    """An id as the table has it. A program may give half a surrogate pair."""
    return custom_id.encode("utf-8", "surrogatepass")
