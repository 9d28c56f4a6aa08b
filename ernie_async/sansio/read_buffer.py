"""How many bytes to take from a stream at once: latency times bandwidth, within bounds.

The product is what arrives while the reader is away, so taking that much keeps up with the sender;
the upper bound keeps one stream from holding up the others. Knows no socket and no clock.
"""

from dataclasses import dataclass

from ernie_async.errors import ConfigError

__all__ = ["ReadBuffer", "ReadGauge"]

# Of a moving average, the weight of what is new: half of it is from the last three measurements.
WEIGHT = 0.2

# To hold a packet costs a timer and two system calls, as much as three packets that are read one by
# one: it is done only if at least so many more are expected (`python -m benchmarks.read_buffer`).
WORTHWHILE = 4

# Small packets are measured together, up to so many bytes: what one of them tells is mostly chance.
TOGETHER = 512

# Two packets within a clock's resolution do not make an infinite bandwidth.
LEAST = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBuffer:
    """How streams are read.

    Attributes:
        minimum: Bytes; the least that is taken at once, if it is there.
        maximum: Bytes; the most, and so what other tasks have to wait for.
        max_delay: Seconds for which a packet may be held to be handed over with the next ones, if
            at least four are expected within that time: less work, later text. Never applied to
            the first chunk. 0 to hand over everything as it comes.
    """

    minimum: int = 512
    maximum: int = 4096
    max_delay: float = 0.0

    def __post_init__(self) -> None:
        sizes = (self.minimum, self.maximum)
        if not all(isinstance(size, int) for size in sizes) or not 0 < sizes[0] <= sizes[1]:
            raise ConfigError(
                f"minimum, maximum: expected bytes, 0 < minimum <= maximum, got {sizes}"
            )
        if not isinstance(self.max_delay, int | float) or not 0 <= self.max_delay < float("inf"):
            raise ConfigError(f"max_delay: expected seconds, at least 0, got {self.max_delay!r}")


class ReadGauge:
    """Measures one stream and says how to read it.

    Attributes:
        latency: Seconds until the next bytes come, where they are waited for; a moving average.
        bandwidth: Bytes per second that arrive; a moving average.
        size: Bytes to take at once: latency times bandwidth, within the bounds.
        least: Bytes to take at once at least, if they are there.
        most: Bytes to take at once at most.
        max_delay: Seconds to hold a packet at most; 0 for never.
    """

    __slots__ = (
        "_arrived",
        "_at",
        "_enough",
        "_measured",
        "_waited",
        "_waits",
        "bandwidth",
        "latency",
        "least",
        "max_delay",
        "most",
        "size",
    )

    def __init__(self, bounds: ReadBuffer) -> None:
        self.least: int = bounds.minimum
        self.max_delay: float = bounds.max_delay
        self._enough = min(bounds.minimum, TOGETHER)
        self._arrived = 0  # when it was last told of a read
        self._at: float | None = None  # when it last measured,
        self._measured = 0  # what had arrived then,
        self._waited = 0.0  # the seconds that were waited since,
        self._waits = 0  # and how often
        self.latency: float = 0.0
        self.bandwidth: float = 0.0
        self.most: int = bounds.maximum
        self.size: int = self.most  # until something is known

    def note(self, now: float, arrived: int, waited: float) -> None:
        """Tell of a read.

        Args:
            now: When it was over.
            arrived: Bytes of the response that have come so far, read or not. Fewer than before are
                another one's, after a resume.
            waited: Seconds for which it had to wait; 0 if bytes were there.
        """
        if arrived == self._arrived:
            return  # taken from what had come before, so nothing is measured
        self._arrived = arrived
        at = self._at
        if at is None or arrived < self._measured:  # the first packet: measured from here on
            self._at, self._measured = now, arrived
            self._waited, self._waits = 0.0, 0
            return
        # Written out, without a call: this runs for each packet.
        if waited:
            self._waited += waited
            self._waits += 1
        n_new = arrived - self._measured
        if n_new < self._enough:
            return
        latency, bandwidth = self.latency, self.bandwidth
        if self._waits:
            wait = self._waited / self._waits
            latency = self.latency = latency + WEIGHT * (wait - latency) if latency else wait
            self._waited, self._waits = 0.0, 0
        rate = n_new / max(now - at, LEAST)
        bandwidth = self.bandwidth = bandwidth + WEIGHT * (rate - bandwidth) if bandwidth else rate
        size = latency * bandwidth
        if size < self.least:
            self.size = self.least
        else:
            self.size = int(size) if size < self.most else self.most
        self._at, self._measured = now, arrived

    def delay(self, n_bytes: int) -> float:
        """Seconds to hold a packet of so many bytes, so that it is handed over with the next."""
        most = self.max_delay
        if n_bytes >= self.most or self.bandwidth * most <= WORTHWHILE * n_bytes:
            return 0.0
        return min(most, (self.most - n_bytes) / self.bandwidth)
