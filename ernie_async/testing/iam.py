"""The mock's IAM service: short-lived tokens for whoever signs the request well.

Knows one key pair and the tokens made with it. Whether the dates of a signature fit is checked
against this machine's clock.
"""

import hmac
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from ernie_async.sansio.auth import MaskedStr
from ernie_async.sansio.signing import authorization
from ernie_async.testing import render
from ernie_async.testing.script import Refuse

TOKEN_PATH = "/v1/BCE-BEARER/token"  # noqa: S105 - no secret

# As the service shortens them.
MOST_SECONDS = 2_592_000
DEFAULT_SECONDS = 1800


class TokenOffice:
    """Makes tokens, and says which are good.

    Attributes:
        issued: How many were made.
        seconds: How long they live, whatever is asked for; `None` for what is asked for.
    """

    def __init__(self, access_key: str, secret_key: str) -> None:
        self._access_key = MaskedStr(access_key)
        self._secret_key = MaskedStr(secret_key)
        self._good: dict[str, datetime] = {}
        self.issued: int = 0
        self.seconds: float | None = None

    def accepts(self, header: str | None) -> bool:
        """Whether an `Authorization` header holds a token that is good now."""
        ends = self._good.get((header or "").removeprefix("Bearer "))
        return ends is not None and datetime.now(UTC) < ends

    def revoke(self) -> None:
        """Accept no token that was made so far."""
        self._good.clear()

    def answer(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> bytes | Refuse:
        """A token, as the service writes it, or its refusal."""
        refusal = self._check(method, path, query, headers)
        if refusal is not None:
            return refusal
        asked = int(query.get("expireInSeconds", DEFAULT_SECONDS))
        seconds = min(asked, MOST_SECONDS) if self.seconds is None else self.seconds
        token = f"bce-v3/ALTAK-mock/{secrets.token_hex(20)}"
        now = datetime.now(UTC)
        self._good[token] = now + timedelta(seconds=seconds)
        self.issued += 1
        return render.to_json(
            {
                "userId": "mock",
                "token": token,
                "status": "enable",
                "createTime": _date(now),
                "expireTime": _date(self._good[token]),
            }
        )

    def _check(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> Refuse | None:
        given = headers.get("Authorization", "")
        try:
            version, access_key, date, seconds, names, _ = given.split("/")
            made = datetime.strptime(date, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
            ends = made + timedelta(seconds=int(seconds))
        except ValueError:
            return _refuse("AccessDenied", "Access denied.")
        if version != "bce-auth-v1" or access_key != self._access_key:
            return _refuse("NotFound", "NotFound, cause: Could not find credential.")
        expected = authorization(
            method,
            path,
            query,
            headers,
            access_key=access_key,
            secret_key=self._secret_key,
            date=date,
            seconds=int(seconds),
            signed=names.split(";") if names else None,
        )
        # Bytes, since text that is no ASCII cannot be compared so.
        if not hmac.compare_digest(expected.encode(), given.encode()):
            message = "SignatureDoesNotMatch, cause: Fail to authn user: Signature does not match"
            return _refuse("SignatureDoesNotMatch", message)
        if not made - timedelta(seconds=300) <= datetime.now(UTC) <= ends:
            return _refuse("RequestExpired", "The request has expired.")
        return None


def _refuse(code: str, message: str) -> Refuse:
    body = render.to_json({"requestId": "mock", "code": code, "message": message})
    headers = {"X-Bce-Error-Code": code, "X-Bce-Error-Message": message}
    return Refuse(403, body=body, headers=headers)


def _date(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"
