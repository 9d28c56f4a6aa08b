"""Whose fault a failure is: that of a server that answers nobody, or that of the line. Pure.

Requests are numbered as they begin, so that it is known what an answer says of another request:
those that had begun before an outage may well be answered while it lasts.
"""

from dataclasses import dataclass

from ernie_async.batch.failures import was_answered, was_unreached
from ernie_async.errors import ErnieError
from ernie_async.sansio.breaker import is_outage

__all__ = ["MANY", "Outage", "Trail"]

# So many lines have to fail, and no other to be answered, before it is the server's fault. A few
# that are left at the end may be bad ones.
MANY = 8


@dataclass(slots=True, eq=False)
class Trail:
    """What is remembered of a line.

    Attributes:
        began: The number of its latest request.
        since: Answers to requests with a higher number came in the meantime.
        is_suspect: It failed once while others were answered, so it proves nothing any more.
        out_since: When the server was first found out for it, if it is.
        n_out: How often it was, in a row.
    """

    began: int = 0
    since: int = 0
    is_suspect: bool = False
    out_since: float | None = None
    n_out: int = 0


class Outage:
    """Told of each request, and how it ended. Serves one run.

    Args:
        window: Lines that can fail before others are over, at most.
        attempts: So often a line looks for a server that never answered.
        patience: So many seconds a server that had answered may be out.
    """

    def __init__(self, window: int, *, attempts: int, patience: float) -> None:
        self._many = max(2, min(MANY, window))
        self._attempts = attempts
        self._patience = patience
        self._begun = 0
        self._answered = 0  # the highest number of a request that was
        # Since the latest answer: requests that had begun when the first one failed, and lines
        # whose requests began after that, and failed as well.
        self._failing_since: int | None = None
        self._failing: set[Trail] = set()

    @property
    def is_in_doubt(self) -> bool:
        """Whether requests fail, and it is not known why."""
        return self._failing_since is not None and len(self._failing) < self._many

    def begin(self, trail: Trail) -> None:
        """A request for a line begins."""
        self._begun += 1
        trail.began = self._begun
        if not trail.since:
            trail.since = trail.began

    def answered(self, trail: Trail) -> None:
        """It was answered, be it with a refusal."""
        self._answered = max(self._answered, trail.began)
        if self._failing_since is not None and trail.began > self._failing_since:
            self._failing_since = None
            self._failing.clear()

    def failed(self, trail: Trail, error: ErnieError) -> bool:
        """It failed; whether the server is out."""
        is_out = False
        if was_answered(error):
            self.answered(trail)
        elif was_unreached(error):
            is_out = True
        elif is_outage(error):
            is_out = self._broke(trail)
        if not is_out:
            trail.out_since, trail.n_out = None, 0
        return is_out

    def _broke(self, trail: Trail) -> bool:
        has_answered = self._answered > trail.since
        trail.is_suspect |= has_answered
        trail.since = self._begun
        if self._failing_since is None:
            self._failing_since = self._begun
        elif trail.began > self._failing_since and not trail.is_suspect:
            self._failing.add(trail)
        return not has_answered and len(self._failing) >= self._many

    def lasts_too_long(self, trail: Trail, now: float) -> bool:
        """The server was out for a line once more; whether there is no point in going on."""
        trail.n_out += 1
        if trail.out_since is None:
            trail.out_since = now
        if self._answered:
            return now - trail.out_since > self._patience
        return trail.n_out >= self._attempts
