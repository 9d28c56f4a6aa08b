"""Which events of an answer were read, so that a resumed answer tells none of them twice.

Knows the ids of events and of the answer; knows no bytes and no requests.
"""

from array import array
from collections.abc import Container

from ernie_async.errors import DecodeError

__all__ = ["EventLedger"]


class EventLedger:
    """The ids of all events read so far, over all parts of one answer. Serves one stream.

    Keeps eight bytes for each id, since an answer may have a hundred thousand events.

    Attributes:
        last_event_id: Of the last event that was read; empty if the server sends no ids.
        retry: Milliseconds to wait before asking again, as the server's `retry:` has it; `None` if
            it did not say.
    """

    __slots__ = ("_answer_id", "_earlier", "_hashes", "_is_checked", "last_event_id", "retry")

    def __init__(self) -> None:
        self._hashes: array[int] | None = None  # until there is one
        self._earlier: Container[int] = ()
        self._is_checked = True
        self._answer_id: str | None = None
        self.last_event_id: str = ""
        self.retry: int | None = None

    def begin_replay(self) -> None:
        """The server was asked for what comes after `last_event_id`."""
        self._earlier = frozenset(self._hashes or ())
        self._is_checked = False

    def admit(self, event_id: str, answer_id: str | None) -> bool:
        """Note an event; say whether it is new.

        Args:
            event_id: The event's id; empty if it has none.
            answer_id: What the event says of which answer it is a part; `None` if nothing.

        Raises:
            DecodeError: The server was asked to go on, and began from the start with another
                answer or without ids. Joined to what was read before, that would be nonsense.
        """
        is_known = hash(event_id) in self._earlier
        if not self._is_checked:
            is_other = answer_id is not None and answer_id != self._answer_id
            if not event_id or (is_known and is_other):
                raise DecodeError("the server does not resume: it began another answer")
            self._is_checked = True
        if answer_id is not None:
            self._answer_id = answer_id
        if is_known:
            return False
        if event_id and event_id != self.last_event_id:
            if self._hashes is None:
                self._hashes = array("q")
            self._hashes.append(hash(event_id))
            self.last_event_id = event_id
        return True
