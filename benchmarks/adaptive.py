"""Does adaptive concurrency find what a server bears? `python -m benchmarks.adaptive` simulates it.

Virtual time and seeded chance, so the table is the same everywhere. There is always one more call
to make. The server holds at most so many and answers each after 0.5 to 3 s; it refuses any more
within 20 to 200 ms.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from ernie_async.sansio.adaptive import Adaptive, ConcurrencyControl

__all__ = ["Run", "simulate"]

LATENCY = (0.5, 3.0)
REFUSAL = (0.02, 0.2)
SETTLED = 30.0
END = 150.0
CHANGE = 60.0


@dataclass
class Run:
    """What one simulation saw.

    Attributes:
        ends: When each call ended, and whether it was refused.
        steps: Calls in flight, from a moment on.
    """

    ends: list[tuple[float, bool]] = field(default_factory=list)
    steps: list[tuple[float, int]] = field(default_factory=list)

    def refused(self, begin: float, end: float) -> float:
        """Part of the calls that ended between two moments and were refused."""
        outcomes = [is_refused for at, is_refused in self.ends if begin <= at < end]
        return sum(outcomes) / len(outcomes)

    def mean(self, begin: float, end: float) -> float:
        """Calls in flight, on average over time."""
        total = 0.0
        for (at, level), (until, _) in zip(self.steps, [*self.steps[1:], (end, 0)], strict=True):
            total += level * max(0.0, min(until, end) - max(at, begin))
        return total / (end - begin)

    def level(self, moment: float) -> int:
        """Calls in flight at a moment."""
        return next((level for at, level in reversed(self.steps) if at <= moment), 0)

    def reaches(self, level: int, begin: float) -> float:
        """Seconds after `begin` until so many were in flight; infinity if never."""
        return next(
            (at - begin for at, now in self.steps if at >= begin and now >= level), float("inf")
        )


def simulate(capacity: Sequence[tuple[float, int]], *, seed: int, end: float = END) -> Run:
    """Run one client against one server.

    Args:
        capacity: What the server holds, from a moment on.
        seed: Of the latencies.
        end: Seconds to simulate.
    """
    chance = Random(seed)
    control = ConcurrencyControl(Adaptive(), 0.0)
    run = Run()
    under_way: list[tuple[float, int, bool, int]] = []  # its end, a number, refused, epoch
    now, n_calls, n_served = 0.0, 0, 0
    while now < end:
        holds = [most for since, most in capacity if since <= now][-1]
        while control.admits(len(under_way)):
            is_refused = n_served >= holds
            n_served += not is_refused
            takes = chance.uniform(*(REFUSAL if is_refused else LATENCY))
            n_calls += 1
            heapq.heappush(under_way, (now + takes, n_calls, is_refused, control.started()))
        run.steps.append((now, len(under_way)))
        now, _, is_refused, epoch = under_way[0]
        if is_refused:
            control.congested(epoch, now)
        else:
            control.succeeded(epoch, len(under_way), now)
            n_served -= 1
        heapq.heappop(under_way)
        run.ends.append((now, is_refused))
    return run


def main() -> None:
    print("| the server holds | | |")
    print("|---|---|---|")
    for most in (4, 16, 64, 200):
        runs = [simulate([(0.0, most)], seed=seed) for seed in range(10)]
        means = sorted(run.mean(SETTLED, END) / most for run in runs)
        refused = sorted(run.refused(SETTLED, END) for run in runs)
        print(
            f"| {most} | after 30 s in flight, of what it holds: {means[0]:.2f} to {means[-1]:.2f} "
            f"(0.80 to 1.00) | refused: {refused[0]:.2%} to {refused[-1]:.2%} (below 3%) |"
        )
    falls = [simulate([(0.0, 64), (CHANGE, 16)], seed=seed) for seed in range(10)]
    left = [run.level(CHANGE + 5) for run in falls]
    print(f"| 64, then 16 | in flight 5 s later: {min(left)} to {max(left)} (at most 20) | |")
    rises = [simulate([(0.0, 16), (CHANGE, 64)], seed=seed) for seed in range(10)]
    took = [run.reaches(41, CHANGE) for run in rises]
    print(f"| 16, then 64 | above 40 after {min(took):.0f} to {max(took):.0f} s (within 90 s) | |")
    print()
    print("Least and greatest of 10 seeds; in brackets what is asked for.")


if __name__ == "__main__":
    main()
