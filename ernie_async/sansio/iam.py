"""Short-lived tokens made with an IAM key pair: how to ask for one, and when to ask again.

Lives are counted on a monotonic clock, from the two dates of the answer, so that a wall clock that
is wrong spoils no token. It does spoil a signature: then the error says by how much it is off.
Source: cloud.baidu.com/doc/WENXINWORKSHOP/s/vm40x9q45.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple, NoReturn
from urllib.parse import urlsplit

from ernie_async.errors import APIError, AuthError, DecodeError, RateLimitError, ServerError
from ernie_async.sansio.auth import IamKeys, MaskedStr
from ernie_async.sansio.refusals import refusal
from ernie_async.sansio.retry import Chance
from ernie_async.sansio.signing import authorization, bce_date, canonical_query
from ernie_async.types.wire import read_json

__all__ = ["TOKEN_PATH", "BearerToken", "TokenRequest", "read_token", "token_request"]

TOKEN_PATH = "/v1/BCE-BEARER/token"  # noqa: S105 - no secret

# How long a signature is good for: the vendor's own clients say 300.
SIGNATURE_SECONDS = 300

# A token is renewed between one and two leads before its end, so that many processes which began
# at once do not renew at once.
LEAD_SECONDS = 300.0
LEAD_SHARE = 0.1

# What a request needs to reach the service; a token with less left than this is not sent.
MARGIN_SECONDS = 10.0
MARGIN_SHARE = 0.02

# The service checks the date of a signature against its own clock.
SKEW_SECONDS = 60.0


class TokenRequest(NamedTuple):
    """The request for a token: a `GET` without a body."""

    path: str
    headers: dict[str, str]


class BearerToken:
    """A short-lived token, good for as long as its two moments say. Never printed, never pickled.

    Attributes:
        renew_at: When to ask for another, on the clock that `now` came from.
        ends_at: When not to send it any more.
    """

    __slots__ = ("_secret", "ends_at", "renew_at")

    def __init__(self, secret: str, *, renew_at: float, ends_at: float) -> None:
        self._secret = MaskedStr(secret)
        self.renew_at: float = renew_at
        self.ends_at: float = ends_at

    def header(self) -> MaskedStr:
        """The value of the `Authorization` header."""
        return MaskedStr(f"Bearer {self._secret}")

    def __repr__(self) -> str:
        return f"BearerToken('***', renew_at={self.renew_at:.0f}, ends_at={self.ends_at:.0f})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a token is not pickled; pickle the IamKeys that make it")


def token_request(keys: IamKeys, *, utc_now: datetime) -> TokenRequest:
    """The signed request for a token, below the URL of the keys."""
    parts = urlsplit(keys.iam_url)
    default_port = {"http": 80, "https": 443}[parts.scheme]
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    host = host if parts.port in (None, default_port) else f"{host}:{parts.port}"
    headers = {"Host": host, "x-bce-date": bce_date(utc_now)}
    if keys.session_token is not None:
        headers["x-bce-security-token"] = keys.session_token
    query = {"expireInSeconds": str(keys.token_seconds)}
    headers["Authorization"] = authorization(
        "GET",
        parts.path + TOKEN_PATH,
        query,
        headers,
        access_key=keys.access_key,
        secret_key=keys.secret_key,
        date=headers["x-bce-date"],
        seconds=SIGNATURE_SECONDS,
        signed=sorted(name.lower() for name in headers),
    )
    return TokenRequest(f"{TOKEN_PATH}?{canonical_query(query)}", headers)


def read_token(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    utc_now: float,
    chance: Chance,
) -> BearerToken:
    """Read the answer to a request for a token.

    Args:
        status: HTTP status.
        headers: Names in any case.
        body: The whole of it.
        now: When the request was sent, on a monotonic clock.
        utc_now: Seconds since 1970.
        chance: Says how early it is renewed.

    Raises:
        APIError: There is no token.
        DecodeError: The answer is none.
    """
    if status != 200:
        raise _refusal(status, headers, body, utc_now)
    # Only what may be seen is kept in a name: a traceback might show it.
    secret, seconds, is_enabled = _read(body)
    del body
    if secret is None:
        raise DecodeError("the IAM service's answer has no token, createTime and expireTime in it")
    if not is_enabled:
        raise AuthError(
            "the IAM service gave a token that is not enabled; look at the key pair's rights",
            status=status,
        )
    lead = min(LEAD_SECONDS, LEAD_SHARE * seconds)
    margin = min(MARGIN_SECONDS, MARGIN_SHARE * seconds)
    return BearerToken(
        secret,
        renew_at=now + seconds - lead * (1 + chance.uniform(0.0, 1.0)),
        ends_at=now + seconds - margin,
    )


class _Told(NamedTuple):
    secret: MaskedStr | None
    seconds: float
    is_enabled: bool


def _read(body: bytes) -> _Told:
    try:
        match read_json(body):
            case {"token": str(secret), "createTime": str(made), "expireTime": str(ends), **rest}:
                del body
                masked = MaskedStr(secret)
                del secret
                life = _moment(ends) - _moment(made)
                is_enabled = rest.get("status", "enable") == "enable"
                if masked and masked.isascii() and masked.isprintable() and life > 0:
                    return _Told(masked, life, is_enabled)
            case _:
                pass
    except ValueError:
        pass
    return _Told(None, 0.0, False)


def _moment(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


# What the messages mean that the vendor's own client recognises.
HINTS = {
    "could not find credential": "the access key is unknown: mistyped, or deleted",
    "signature does not match": "the secret key does not belong to this access key",
    "signaturedoesnotmatch": "the secret key does not belong to this access key",
    "expired": "check this machine's clock",
    "accessdenied": "this user needs the policy IAMManageAPIKeyPolicy",
    "access denied": "this user needs the policy IAMManageAPIKeyPolicy",
}


def _refusal(status: int, headers: Mapping[str, str], body: bytes, utc_now: float) -> APIError:
    found = {name.lower(): value for name, value in headers.items()}
    said: bytes | dict[str, str] = body
    if "x-bce-error-message" in found:
        code = found.get("x-bce-error-code", "")
        said = {"code": code, "message": found["x-bce-error-message"]}
    error = refusal(status, said, headers, utc_now=utc_now)
    is_passing = isinstance(error, RateLimitError | ServerError)
    kind = type(error) if is_passing else AuthError
    text = error.message.partition(" - ")[0]
    hint = next((what for sign, what in HINTS.items() if sign in text.lower()), error.remedy)
    skew = _skew(found.get("date"), utc_now)
    if not is_passing and abs(skew) > SKEW_SECONDS:
        side = "ahead of" if skew > 0 else "behind"
        hint = f"this machine's clock is {abs(skew):.0f} s {side} the service's; set it"
    return kind(
        f"no token from the IAM service: {text}" + (f" - {hint}" if hint else ""),
        status=status,
        code=error.code,
        request_id=error.request_id,
        retry_after=error.retry_after,
        remedy=hint,
    )


def _skew(date: str | None, utc_now: float) -> float:
    """Seconds by which our clock is ahead of a `Date` header; 0 if that cannot be read."""
    try:
        return utc_now - parsedate_to_datetime(date or "").timestamp()
    except (ValueError, TypeError):
        return 0.0
