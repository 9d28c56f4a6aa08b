"""Which credential to send, and what to say about the wrong kinds.

Knows the shapes of Baidu's credentials; reads the environment only as a mapping it is handed.
Source: cloud.baidu.com/doc/qianfan/s/Kmh4sutww and the vendor's own clients.
"""

import re
from collections.abc import Mapping
from hashlib import sha256

from ernie_async.errors import ConfigError, shorten

__all__ = ["TOKEN_REFUSED", "ApiKey", "IamKeys", "MaskedStr", "from_env"]

KEY_PAGE = "https://console.bce.baidu.com/iam/#/iam/apikey/list"

# First hit wins. QIANFAN_API_KEY is what guides use, QIANFAN_BEARER_TOKEN the vendor's own SDKs.
KEY_VARIABLES = (
    "QIANFAN_API_KEY",
    "QIANFAN_BEARER_TOKEN",
    "BAIDU_QIANFAN_API_KEY",
    "WENXIN_API_KEY",
)
IAM_VARIABLES = ("QIANFAN_ACCESS_KEY", "QIANFAN_SECRET_KEY")
IAM_URL_VARIABLE = "QIANFAN_IAM_BASE_URL"
V1_VARIABLES = ("QIANFAN_ACCESS_TOKEN", "QIANFAN_AK", "QIANFAN_SK")

# The service says this of a token that has expired, as of one that was never good.
TOKEN_REFUSED = "invalid_iam_token"  # noqa: S105 - no secret

DEFAULT_IAM_URL = "https://iam.bj.baidubce.com"

# The service allows 300 to 2592000. An hour, as the vendor's Go client asks for: what leaks is soon
# worth nothing, and 24 renewals a day are no burden.
TOKEN_SECONDS = 3600
TOKEN_SECONDS_RANGE = (300, 2_592_000)

V1_FORM = r"2[45]\.[0-9a-f]{32}\.\d+\.\d+\.\d+-\d+"


class MaskedStr(str):
    """Text that is sent as it is but printed as `'***'`, also inside a dict or a traceback."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class ApiKey:
    """An API key of Qianfan V2 (`bce-v3/ALTAK-...`), or whatever a compatible server takes.

    A word `Bearer` in front is taken off. Compared by value; never printed. A pickle of it holds
    the key, else a worker process could not use it.

    Raises:
        ConfigError: The text is recognised as another kind of credential, or cannot be a header.
    """

    __slots__ = ("_header", "_secret", "source")

    def __init__(self, key: str, *, source: str = "argument") -> None:
        secret = MaskedStr(_without_bearer(key))
        del key  # a traceback that shows what names hold has nothing to show
        self.source: str = source  # first, so that a half-made key can be shown in a traceback
        _refuse_wrong_kind(secret, source)
        self._secret = secret
        self._header = MaskedStr(f"Bearer {secret}")

    def header(self) -> MaskedStr:
        """The value of the `Authorization` header."""
        return self._header

    @property
    def account(self) -> str:
        """A name for whose quota it uses; the same everywhere, and no secret."""
        return _account(self._secret)

    @property
    def is_baidu(self) -> bool:
        """Whether it has the form of Baidu's keys; those of other servers have any."""
        return self._secret.startswith("bce-v3/")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ApiKey) and other._secret == self._secret

    def __hash__(self) -> int:
        return hash(self._secret)

    def __repr__(self) -> str:
        return f"ApiKey('***', source={self.source!r})"


class IamKeys:
    """An access key and its secret key. They sign the request for a short-lived token.

    The client fetches the token when it is first needed and renews it ahead of its end. Compared by
    value; never printed. A pickle of it holds the pair, and no token.

    Args:
        access_key: As the console shows it (`ALTAK...`).
        secret_key: Its other half.
        session_token: For temporary credentials (STS).
        token_seconds: How long a token is to live, from 300 to 2592000.
        iam_url: Where tokens are made.
        source: Where the pair was found; for messages.

    Raises:
        ConfigError: One half is missing, or of another kind, or cannot be a header.
    """

    __slots__ = ("access_key", "iam_url", "secret_key", "session_token", "source", "token_seconds")

    def __init__(
        self,
        access_key: str,
        secret_key: str,
        *,
        session_token: str | None = None,
        token_seconds: int = TOKEN_SECONDS,
        iam_url: str = DEFAULT_IAM_URL,
        source: str = "argument",
    ) -> None:
        self.source: str = source  # first, so that a half-made pair can be shown in a traceback
        self.access_key: MaskedStr = MaskedStr(access_key.strip())
        self.secret_key: MaskedStr = MaskedStr(secret_key.strip())
        self.session_token: MaskedStr | None = (
            None if session_token is None else MaskedStr(session_token.strip())
        )
        del access_key, secret_key, session_token
        self.token_seconds: int = token_seconds
        self.iam_url: str = iam_url.strip().rstrip("/")
        self._check()

    def _check(self) -> None:
        where = f"IAM keys ({self.source})"
        halves = {"access key": self.access_key, "secret key": self.secret_key}
        if self.session_token is not None:
            halves["session token"] = self.session_token
        for name, text in halves.items():
            if not text:
                raise ConfigError(f"{where}: the {name} is missing; the two come as a pair")
            if text.startswith("bce-v3/"):
                raise ConfigError(f"{where}: {name}: this is an API key; pass it alone, as api_key")
            if not (text.isascii() and text.isprintable()) or " " in text:
                raise ConfigError(f"{where}: {name}: expected printable ASCII without blanks")
        if not re.match(r"https?://[^/@?#]+[^@?#]*$", self.iam_url):
            raise ConfigError(f"{where}: iam_url: expected something like {DEFAULT_IAM_URL}")
        least, most = TOKEN_SECONDS_RANGE
        if not isinstance(self.token_seconds, int) or not least <= self.token_seconds <= most:
            raise ConfigError(
                f"{where}: token_seconds: expected a whole number from {least} to {most}, "
                f"got {shorten(self.token_seconds)}"
            )

    @property
    def account(self) -> str:
        """A name for whose quota it uses; the same everywhere, and no secret."""
        return _account(self.access_key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IamKeys) and other._values() == self._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def _values(self) -> tuple[object, ...]:
        return (
            self.access_key,
            self.secret_key,
            self.session_token,
            self.token_seconds,
            self.iam_url,
        )

    def __repr__(self) -> str:
        return f"IamKeys('***', '***', source={self.source!r})"


def from_env(environ: Mapping[str, str]) -> ApiKey | IamKeys | None:
    """Find the credential among the environment variables; `None` if there is none at all.

    An API key wins over a pair of IAM keys.

    Raises:
        ConfigError: Only half a pair is set, or only a credential that V2 does not take.
    """
    names = (*KEY_VARIABLES, *IAM_VARIABLES, *V1_VARIABLES, IAM_URL_VARIABLE)
    found = {name: MaskedStr(environ.get(name, "").strip()) for name in names}
    del environ  # a traceback that shows what names hold has nothing to show
    for name in KEY_VARIABLES:
        if found[name]:
            return ApiKey(found[name], source=name)
    pair = [found[name] for name in IAM_VARIABLES]
    if all(pair):
        return IamKeys(
            *pair,
            iam_url=found[IAM_URL_VARIABLE] or DEFAULT_IAM_URL,
            source=" and ".join(IAM_VARIABLES),
        )
    if any(pair):
        missing = next(name for name in IAM_VARIABLES if not found[name])
        raise ConfigError(
            f"found half a pair of IAM keys: {missing} is missing; set it, or create an API key "
            f"at {KEY_PAGE} and set QIANFAN_API_KEY"
        )
    if any(found[name] for name in V1_VARIABLES):
        raise ConfigError(
            "found credentials of the V1 API (QIANFAN_AK, QIANFAN_SK or QIANFAN_ACCESS_TOKEN), "
            f"which was shut down on 2026-08-31; create a V2 API key at {KEY_PAGE} and set "
            "QIANFAN_API_KEY"
        )
    return None


def _account(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()[:12]


def _without_bearer(text: str) -> str:
    word, _, rest = text.strip().partition(" ")
    return rest.strip() if word == "Bearer" else text.strip()


def _refuse_wrong_kind(secret: str, source: str) -> None:
    if not secret:
        raise ConfigError(f"API key ({source}): expected a key such as bce-v3/ALTAK-..., got none")
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        raise ConfigError(
            f"API key ({source}): expected printable ASCII without blanks; "
            "look for a line break or a full-width character that was copied along"
        )
    if secret.startswith(("24.", "25.")) and re.fullmatch(V1_FORM, secret):
        raise ConfigError(
            f"API key ({source}): this is an access_token of the V1 API, which was shut down on "
            f"2026-08-31; create a V2 API key at {KEY_PAGE}"
        )
    if len(secret) == 26 and secret.startswith("ALTAK") and secret.isalnum():
        raise ConfigError(
            f"API key ({source}): this is an access key id (AK), half of a pair: pass both "
            "as api_key=IamKeys(access_key, secret_key), or create an API key "
            f"(bce-v3/ALTAK-...) at {KEY_PAGE}"
        )
