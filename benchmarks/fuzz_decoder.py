"""A coverage-guided search for bytes that the stream reader does not survive.

Needs atheris, which is no dependency: `pip install atheris`, then
`python -m benchmarks.fuzz_decoder -runs=200000`. Whatever follows is passed on to libFuzzer. For
every input: nothing escapes but our own errors, and any cutting of the bytes gives the same.
"""

import sys
from importlib import import_module

from ernie_async.errors import ErnieError
from ernie_async.sansio.chunk_reader import ChunkReader
from ernie_async.sansio.event_ids import EventLedger

MOST = 4096


def outcome(packets: list[bytes]) -> tuple[list[str], str | None, bool]:
    """The chunks, the failure and whether the end mark came, in words."""
    reader = ChunkReader(EventLedger(), max_event_bytes=MOST)
    chunks = []
    for packet in packets:
        chunks += reader.feed(packet)
        if reader.failure is not None or reader.is_done:
            break
    else:
        chunks += reader.close()
    failure = reader.failure
    assert failure is None or isinstance(failure, ErnieError)
    kind = None if failure is None else type(failure).__name__
    return [repr(chunk) for chunk in chunks], kind, reader.is_done


def check(data: bytes) -> None:
    """The first byte says how the others are cut."""
    if not data:
        return
    size, body = data[0] % 32 + 1, data[1:]
    packets = [body[at : at + size] for at in range(0, len(body), size)]
    assert outcome(packets) == outcome([body] if body else [])


def main() -> int:
    try:
        atheris = import_module("atheris")
    except ModuleNotFoundError:
        print("this needs atheris: pip install atheris", file=sys.stderr)
        return 2
    atheris.instrument_all()
    atheris.Setup([*sys.argv, f"-max_len={MOST // 4}"], check)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
