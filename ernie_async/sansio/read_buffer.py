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
        latency: Seconds until bytes come, where they have to be waited for; a moving average.
        bandwidth: Bytes per second that arrive; a moving average.
        size: Bytes to take at once: latency times bandwidth, within the bounds.
        least: Bytes to take at once at least, if they are there.
        most: Bytes to take at once at most.
        max_delay: Seconds to hold a packet at most; 0 for never.
    """

    __slots__ = (
        "_arrived",
        "_at",
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
        self._at: float | None = None
        self._arrived = 0
        self.latency: float = 0.0
        self.bandwidth: float = 0.0
        self.most: int = bounds.maximum
        self.size: int = self.most  # until something is known

    def note(self, now: float, arrived: int, waited: float) -> None:
        """Tell of a read. Once something is known, it is measured anew for each `least` bytes.

        Args:
            now: When it was over.
            arrived: Bytes that have come so far in all, read or not.
            waited: Seconds for which it had to wait; 0 if bytes were there.
        """
        n_new = arrived - self._arrived
        if n_new < self.least and (self.bandwidth or not n_new):
            return  # too little to be worth the work, or taken from what had come before
        # Written out, without a call: this runs for each packet.
        latency, bandwidth = self.latency, self.bandwidth
        if waited:
            latency = self.latency = latency + WEIGHT * (waited - latency) if latency else waited
        if self._at is not None and (seconds := now - self._at) > 0:
            rate = n_new / max(seconds, LEAST)
            bandwidth = bandwidth + WEIGHT * (rate - bandwidth) if bandwidth else rate
            self.bandwidth = bandwidth
            size = latency * bandwidth
            if size < self.least:
                self.size = self.least
            else:
                self.size = int(size) if size < self.most else self.most
        self._at, self._arrived = now, arrived

    def delay(self, n_bytes: int) -> float:
        """Seconds to hold a packet of so many bytes, so that it is handed over with the next."""
        most = self.max_delay
        if n_bytes >= self.most or self.bandwidth * most <= WORTHWHILE * n_bytes:
            return 0.0
        return min(most, (self.most - n_bytes) / self.bandwidth)
