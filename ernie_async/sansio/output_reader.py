"""Read an answer of a type while it is being written, whatever words are around it."""

from collections import deque
from typing import Any

from ernie_async.sansio.output import OutputType
from ernie_async.sansio.partial import JSONReader, NotJSONError

__all__ = ["OutputReader"]

# The start of a value is no longer than that, blanks included.
LOOK_BACK = 64


class OutputReader:
    """Reads the answer piece by piece.

    Args:
        output: What it shall be.

    Attributes:
        items: Of a list, the items that are complete, as JSON; taken away by whoever reads them.
    """

    def __init__(self, output: OutputType[Any]) -> None:
        self.items: deque[bytes] = deque()
        self._output = output
        on_item = self.items.append if output.is_list else None
        self._reader = JSONReader(output.shape, on_item=on_item)
        self._before = ""
        self._has_begun = self._is_lost = False

    @property
    def value(self) -> Any:
        """What can be shown so far; see `JSONReader.value`."""
        return self._reader.value

    @property
    def is_over(self) -> bool:
        """Whether the value is complete."""
        return self._reader.is_over

    def feed(self, text: str, *, is_last: bool = False) -> bool:
        """Take the next piece; say whether there is more to show.

        What is no JSON is passed over here: at the end, all of the answer is looked through.
        """
        if self._is_lost:
            return False
        if not self._has_begun:
            self._before += text
            start = self._output.start(self._before)
            if start is None:
                self._before = self._before[-LOOK_BACK:]
                return False
            text, self._has_begun = self._before[start:], True
        try:
            return self._reader.feed(text, is_last=is_last)
        except NotJSONError:
            self._is_lost = True
            return False
