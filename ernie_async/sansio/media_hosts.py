"""Where pictures and videos of strangers may be: nowhere inside the operator's own network.

A model's server fetches the addresses in a message. Whoever may send messages could have it ask
hosts that only it can reach, such as those that hand out a cloud's credentials. Names are not
looked up here: what they lead to may change before the server looks.
"""

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from ernie_async.errors import ConfigError, shorten
from ernie_async.types.content import ImagePart, VideoPart
from ernie_async.types.messages import Message

__all__ = ["check_media", "is_public"]

# Names for hosts that are not on the internet, by the standards and by habit.
INNER = ("localhost", "local", "internal", "intranet", "lan", "home", "corp", "home.arpa")

# The forms in which programs disagree on what the host is.
DOUBTFUL = re.compile(r"[\\\s\x00-\x20\x7f]")

NAT64 = IPv6Network("64:ff9b::/96")

# A host whose last part is a number is one of IPv4, in whatever form it is written.
NUMBER = re.compile(r"(?:.*\.)?(?:\d+|0x[0-9a-f]*)")


def check_media(messages: Sequence[Message], allowed: Collection[str] = ()) -> None:
    """Refuse addresses that lead into a private network.

    Args:
        messages: What somebody wants to send.
        allowed: Hosts that may be asked all the same.

    Raises:
        ConfigError: There is one.
    """
    for place, url in _addresses(messages):
        if not url.startswith("data:") and not is_public(url, allowed):
            raise ConfigError(
                f"{place}: expected a picture or video on a public host, got {shorten(url)}"
            )


def _addresses(messages: Sequence[Message]) -> Iterator[tuple[str, str]]:
    for number, message in enumerate(messages):
        parts = message.content if isinstance(message.content, list) else ()
        for index, part in enumerate(parts):
            place = f"messages[{number}].content[{index}]"
            if isinstance(part, ImagePart):
                yield place, part.image_url.url
            elif isinstance(part, VideoPart):
                yield place, part.video_url.url


def is_public(url: str, allowed: Collection[str] = ()) -> bool:
    """Whether an address of HTTP leads to a host on the internet, as far as can be told from it."""
    if DOUBTFUL.search(url):
        return False
    try:
        parts = urlsplit(url)
        host = unicodedata.normalize("NFKC", parts.hostname or "").lower().rstrip(".")
    except ValueError:
        return False
    if parts.scheme not in {"http", "https"} or "@" in parts.netloc or "%" in parts.netloc:
        return False
    if host in allowed:
        return True
    try:
        return _is_global(ip_address(host))
    except ValueError:
        pass  # it is a name
    is_inner = any(host == name or host.endswith(f".{name}") for name in INNER)
    return "." in host and not is_inner and NUMBER.fullmatch(host) is None


def _is_global(address: IPv4Address | IPv6Address) -> bool:
    inner = None
    if isinstance(address, IPv6Address):
        # An address of IPv4 inside one of IPv6 leads to the former.
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and address in NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
    if inner is not None:
        return _is_global(inner)
    return address.is_global and not address.is_multicast
