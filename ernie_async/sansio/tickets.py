"""Who may ask: tokens that are known by their SHA-256 only, and tickets for a single stream.

A browser's `EventSource` sends no headers, so the address of a stream carries a ticket. It is good
for that stream alone, and says nothing of the token. Everything is compared in constant time.
"""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from hashlib import sha256
from typing import TypeVar

__all__ = ["find_holder", "fingerprint", "is_ticket", "make_ticket", "token_hash"]

T = TypeVar("T")


def token_hash(token: str) -> str:
    """What is kept of a token: 64 hexadecimal digits."""
    return sha256(token.encode(errors="surrogateescape")).hexdigest()  # a header may be any bytes


def find_holder(token: str, holders: Iterable[tuple[str, T]]) -> T | None:
    """Whose token it is; `None` if nobody's. Takes as long for a wrong token as for a right one.

    Args:
        token: As it was sent.
        holders: Pairs of a hash and what it stands for.
    """
    given = token_hash(token)
    found: T | None = None
    for known, holder in holders:
        if hmac.compare_digest(given, known):
            found = holder
    return found


def make_ticket(secret: bytes, stream_id: str) -> str:
    """A ticket for one stream."""
    digest = hmac.digest(secret, b"ticket:" + stream_id.encode(), "sha256")
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def is_ticket(secret: bytes, stream_id: str, ticket: str) -> bool:
    """Whether a ticket is one for this stream."""
    return hmac.compare_digest(make_ticket(secret, stream_id).encode(), ticket.encode())


def fingerprint(*parts: bytes) -> str:
    """What tells two requests apart."""
    digest = sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.hexdigest()
