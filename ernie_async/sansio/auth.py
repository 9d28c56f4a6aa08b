"""Which credential to send, and what to say about the wrong kinds.

Knows the shapes of Baidu's credentials; reads the environment only as a mapping it is handed.
Source: cloud.baidu.com/doc/qianfan/s/Kmh4sutww and the vendor's own clients.
"""

import re
from collections.abc import Mapping

from ernie_async.errors import ConfigError

__all__ = ["ApiKey", "MaskedStr", "from_env"]

KEY_PAGE = "https://console.bce.baidu.com/iam/#/iam/apikey/list"

# First hit wins. QIANFAN_API_KEY is what guides use, QIANFAN_BEARER_TOKEN the vendor's own SDKs.
KEY_VARIABLES = (
    "QIANFAN_API_KEY",
    "QIANFAN_BEARER_TOKEN",
    "BAIDU_QIANFAN_API_KEY",
    "WENXIN_API_KEY",
)
IAM_VARIABLES = ("QIANFAN_ACCESS_KEY", "QIANFAN_SECRET_KEY")
V1_VARIABLES = ("QIANFAN_ACCESS_TOKEN", "QIANFAN_AK", "QIANFAN_SK")

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

    __slots__ = ("_secret", "source")

    def __init__(self, key: str, *, source: str = "argument") -> None:
        secret = MaskedStr(_without_bearer(key))
        del key  # a traceback that shows what names hold has nothing to show
        self.source = source  # first, so that a half-made key can be shown in a traceback
        _refuse_wrong_kind(secret, source)
        self._secret = secret

    def header(self) -> MaskedStr:
        """The value of the `Authorization` header."""
        return MaskedStr(f"Bearer {self._secret}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ApiKey) and other._secret == self._secret

    def __hash__(self) -> int:
        return hash(self._secret)

    def __repr__(self) -> str:
        return f"ApiKey('***', source={self.source!r})"


def from_env(environ: Mapping[str, str]) -> ApiKey | None:
    """Find the API key among the environment variables; `None` if there is none at all.

    Raises:
        ConfigError: Only credentials of a kind that V2 does not take are set.
    """
    names = (*KEY_VARIABLES, *IAM_VARIABLES, *V1_VARIABLES)
    found = {name: MaskedStr(environ.get(name, "").strip()) for name in names}
    del environ  # a traceback that shows what names hold has nothing to show
    for name in KEY_VARIABLES:
        if found[name]:
            return ApiKey(found[name], source=name)
    if any(found[name] for name in IAM_VARIABLES):
        raise ConfigError(
            "found QIANFAN_ACCESS_KEY / QIANFAN_SECRET_KEY, which sign requests and are not sent "
            f"to the chat service; create an API key at {KEY_PAGE} and set QIANFAN_API_KEY"
        )
    if any(found[name] for name in V1_VARIABLES):
        raise ConfigError(
            "found credentials of the V1 API (QIANFAN_AK, QIANFAN_SK or QIANFAN_ACCESS_TOKEN), "
            f"which was shut down on 2026-08-31; create a V2 API key at {KEY_PAGE} and set "
            "QIANFAN_API_KEY"
        )
    return None


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
            f"API key ({source}): this is an access key id (AK), half of a pair that signs "
            f"requests; an API key looks like bce-v3/ALTAK-... and is made at {KEY_PAGE}"
        )
