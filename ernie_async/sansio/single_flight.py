"""When two requests are the same, so that one call can serve both.

Knows requests as bytes; knows no task. The calls themselves are in `net.flights`.
"""

from collections.abc import Mapping
from hashlib import sha256
from json import dumps

from ernie_async.types.wire import read_json

__all__ = ["fingerprint"]


def fingerprint(body: bytes, headers: Mapping[str, str]) -> bytes:
    """The same 32 bytes for the same request, in whatever order its fields are written.

    Args:
        body: JSON.
        headers: Those of this request alone, names in any case.
    """
    own = sorted((name.lower(), value) for name, value in headers.items())
    # Half a character cannot be in it: it could not be sent.
    text = dumps([read_json(body), own], sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).digest()
