"""Where requests go: the base URL, and the proxy on the way.

Pure: the environment is a mapping it is handed, and nothing is looked up.
"""

from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from ernie_async.errors import ConfigError, shorten
from ernie_async.sansio.auth import MaskedStr

__all__ = [
    "DEFAULT_BASE_URL",
    "find_proxy",
    "is_qianfan",
    "origin",
    "read_base_url",
    "read_proxy",
]

DEFAULT_BASE_URL = "https://qianfan.baidubce.com/v2"

V1_HOST = "aip.baidubce.com"


def read_base_url(text: str) -> str:
    """Check a base URL and take off its last slash.

    Raises:
        ConfigError: It is not one, holds a credential, is the closed V1 service, or is the full
            address of one endpoint.
    """
    parts = _split(text.strip())
    if parts is None or parts.scheme not in {"http", "https"}:
        # Not shown if it may be, or hold, a credential.
        came = "" if "@" in text or "://" not in text else f", got {shorten(text)}"
        raise ConfigError(f"base_url: expected something like {DEFAULT_BASE_URL}{came}")
    if parts.hostname == V1_HOST:
        raise ConfigError(
            f"base_url: {V1_HOST} is the V1 API, which was shut down on 2026-08-31; "
            f"use {DEFAULT_BASE_URL} with a V2 API key"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "base_url: expected no user name, password, query or fragment in it; "
            "pass the credential as api_key"
        )
    path = parts.path.rstrip("/")
    for endpoint in ("/chat/completions", "/embeddings", "/models"):
        if path.endswith(endpoint):
            raise ConfigError(
                f"base_url: leave out {endpoint}, which is added for each call; got {shorten(text)}"
            )
    return f"{parts.scheme}://{parts.netloc}{path}"


def _split(text: str) -> SplitResult | None:
    """The parts of an address; `None` if it names no host, or a port that cannot be."""
    try:
        parts = urlsplit(text)
        is_usable = parts.hostname and parts.port != 0 and not any(map(str.isspace, parts.netloc))
    except ValueError:
        return None
    return parts if is_usable else None


def is_qianfan(base_url: str) -> bool:
    """Whether this is Baidu's own service, which takes no request without a key."""
    host = urlsplit(base_url).hostname or ""
    return host == "baidubce.com" or host.endswith(".baidubce.com")


def origin(url: str) -> str:
    """The scheme, host and port of an address, such as `https://qianfan.baidubce.com`.

    Raises:
        ConfigError: It is no address of HTTP.
    """
    parts = _split(url)
    if parts is None or parts.scheme not in {"http", "https"}:
        raise ConfigError(
            f"expected a path that begins with /, or an http or https address, got {shorten(url)}"
        )
    return f"{parts.scheme}://{parts.netloc}".lower()


def find_proxy(base_url: str, environ: Mapping[str, str]) -> str | None:
    """The proxy that the environment names for this address, `no_proxy` respected.

    This machine itself is never behind a proxy.
    Reads `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`; lower case wins over upper case.
    """
    proxies: dict[str, str] = {}
    for name, value in sorted(environ.items(), key=lambda item: item[0].islower()):
        if name.lower().endswith("_proxy") and value:
            proxies[name.lower().removesuffix("_proxy")] = value
    parts = urlsplit(base_url)
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy is None or _goes_direct(parts, proxies.get("no", "")):
        return None
    return read_proxy(proxy)


def _goes_direct(parts: SplitResult, no_proxy: str) -> bool:
    """Whether `no_proxy` (`*`, or names with or without a leading dot or a port) has this host."""
    host = parts.hostname or ""
    if host in {"localhost", "::1"} or host.startswith("127."):
        return True
    names = (host, f"[{host}]", parts.netloc.lower())
    for entry in no_proxy.split(","):
        name = entry.strip().lstrip(".").lower()
        if name == "*" or (name and any(f".{n}".endswith(f".{name}") for n in names)):
            return True
    return False


def read_proxy(text: str) -> MaskedStr:
    """Check a proxy's address, which is masked from then on: it may hold a password.

    Raises:
        ConfigError: It is not an HTTP proxy.
    """
    address = MaskedStr(text if "://" in text else f"http://{text}")
    del text  # a traceback that shows what names hold has nothing to show
    parts = _split(address)
    scheme = None if parts is None else parts.scheme
    del parts
    if scheme is not None and scheme.startswith("socks"):
        raise ConfigError(
            f"proxy: {scheme} proxies are not built in; give the client a session of your "
            "own: AsyncClient(session=ClientSession(connector=...)) with aiohttp-socks, "
            "or unset the variable"
        )
    if scheme not in {"http", "https"}:
        raise ConfigError("proxy: expected something like http://host:port")
    return address
