"""The signature of Baidu's cloud, `bce-auth-v1`, byte for byte.

Knows no clock: the moment of signing is an argument. Only the call that makes a short-lived token
is signed (`sansio.iam`); chat takes the token.
Source: cloud.baidu.com/doc/Reference/s/njwvz1yfu.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from urllib.parse import quote

from ernie_async.sansio.auth import MaskedStr

__all__ = [
    "authorization",
    "bce_date",
    "canonical_query",
    "canonical_request",
    "canonical_uri",
    "signing_key",
]

# Signed when no list of names says otherwise, besides everything that begins with x-bce-.
DEFAULT_HEADERS = frozenset({"host", "content-md5", "content-length", "content-type"})


def bce_date(utc_now: datetime) -> str:
    """A moment as the signature writes it: `2026-01-02T03:04:05Z`."""
    return f"{utc_now:%Y-%m-%dT%H:%M:%SZ}"


def authorization(
    method: str,
    path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    *,
    access_key: str,
    secret_key: str,
    date: str,
    seconds: int,
    signed: Collection[str] | None = None,
) -> MaskedStr:
    """The value of the `Authorization` header for one request.

    Args:
        method: The HTTP method.
        path: Not encoded.
        query: Not encoded.
        headers: Those of the request, `Host` among them; names in any case.
        access_key: Named in the result.
        secret_key: Signs, and is nowhere in the result.
        date: When it is signed, from `bce_date`.
        seconds: How long the signature is good for.
        signed: Names of the headers to sign, in lower case, `host` among them; `None` for the
            default ones, of which the result then says nothing.
    """
    prefix = f"bce-auth-v1/{access_key}/{date}/{seconds}"
    request = canonical_request(method, path, query, headers, signed=signed)
    signature = _sign(signing_key(secret_key, prefix), request)
    names = "" if signed is None else ";".join(sorted(signed))
    return MaskedStr(f"{prefix}/{names}/{signature}")


def signing_key(secret_key: str, prefix: str) -> MaskedStr:
    """The key for one moment, made from the secret key: hexadecimal text, used as it stands."""
    return MaskedStr(_sign(secret_key, prefix))


def _sign(key: str, text: str) -> str:
    # Imported here, since only those who sign need it.
    from hmac import digest

    return digest(key.encode(), text.encode(), "sha256").hex()


def canonical_request(
    method: str,
    path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    *,
    signed: Collection[str] | None,
) -> str:
    """What is signed of a request."""
    lines = []
    for name, value in headers.items():
        name, value = name.strip().lower(), value.strip()  # noqa: PLW2901
        is_default = name in DEFAULT_HEADERS or name.startswith("x-bce-")
        if value and (is_default if signed is None else name in signed):
            lines.append(f"{_encode(name)}:{_encode(value)}")
    return "\n".join((method.upper(), canonical_uri(path), canonical_query(query), *sorted(lines)))


def canonical_uri(path: str) -> str:
    """A path, encoded; the slashes stay."""
    return quote(path if path.startswith("/") else f"/{path}", safe="/-._~")


def canonical_query(query: Mapping[str, str]) -> str:
    """A query, encoded and sorted: the finished pairs, not their names."""
    pairs = [
        f"{_encode(name)}={_encode(value)}"
        for name, value in query.items()
        if name.lower() != "authorization"
    ]
    return "&".join(sorted(pairs))


def _encode(text: str) -> str:
    return quote(text, safe="-._~")
