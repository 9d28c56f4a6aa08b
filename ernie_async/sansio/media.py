"""Pictures and videos as the service takes them: what they are, whether they fit, as data URIs.

Looks at the first bytes alone. Source: cloud.baidu.com/doc/qianfan-api/s/rm7u7qdiq (vision).
"""

from base64 import b64encode
from collections.abc import Iterator
from struct import error as StructError  # noqa: N812 - an error is called one
from struct import unpack_from

from ernie_async.errors import ConfigError

__all__ = [
    "MAX_PICTURE_BYTES",
    "MAX_VIDEO_BYTES",
    "check_address",
    "check_size",
    "picture_uri",
    "video_uri",
]

MAX_ADDRESS_BYTES = 1024
MAX_PICTURE_BYTES = 10 * 1024 * 1024
MAX_VIDEO_BYTES = 128 * 1024 * 1024  # of ERNIE 4.5 Turbo VL and 5.0; 64 MB of others
LEAST_SIDE, MOST_SIDE = 5, 6000

PIECE_BYTES = 3 * 256 * 1024

# Frames of a JPEG that tell its size; others with such a number are tables.
JPEG_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}

EXPECTED = "a PNG, JPEG, GIF, WebP or BMP picture"


def check_address(url: str) -> None:
    """Refuse a web address that the service would not take.

    Raises:
        ConfigError: It is too long.
    """
    if not url.startswith("data:") and len(url.encode()) > MAX_ADDRESS_BYTES:
        raise ConfigError(
            f"url: expected at most {MAX_ADDRESS_BYTES:,} bytes, got {len(url.encode()):,}"
        )


def picture_uri(data: bytes, *, name: str) -> str:
    """A picture as a data URI.

    Args:
        data: The file.
        name: What to call it in an error.

    Raises:
        ConfigError: It is no picture, or larger than the service takes.
    """
    check_size(len(data), MAX_PICTURE_BYTES, name)
    kind = _picture_kind(data)
    if kind is None:
        raise ConfigError(f"{name}: expected {EXPECTED}, got bytes that begin with {data[:8]!r}")
    try:
        sides = _sides(data, kind)
    except (StructError, IndexError):
        raise ConfigError(f"{name}: expected {EXPECTED}, got a {kind} without its size") from None
    if not all(LEAST_SIDE <= side <= MOST_SIDE for side in sides):
        raise ConfigError(
            f"{name}: expected sides of {LEAST_SIDE} to {MOST_SIDE:,} pixels, "
            f"got {sides[0]:,} x {sides[1]:,}"
        )
    return _uri(f"image/{kind}", data)


def video_uri(data: bytes, *, name: str) -> str:
    """A video as a data URI.

    Raises:
        ConfigError: It is no video, or larger than the service takes.
    """
    check_size(len(data), MAX_VIDEO_BYTES, name)
    kind = _video_kind(data)
    if kind is None:
        raise ConfigError(
            f"{name}: expected an MP4, MOV, AVI, MKV, WebM or FLV video, "
            f"got bytes that begin with {data[:12]!r}"
        )
    return _uri(f"video/{kind}", data)


def check_size(size: int, most: int, name: str) -> None:
    """Refuse a file that is empty or too large.

    Raises:
        ConfigError: It is.
    """
    if not 0 < size <= most:
        raise ConfigError(f"{name}: expected 1 to {most:,} bytes, got {size:,}")


def _uri(kind: str, data: bytes) -> str:
    # In pieces, each a multiple of three bytes: the interpreter is free for others in between.
    pieces = (b64encode(data[at : at + PIECE_BYTES]) for at in range(0, len(data), PIECE_BYTES))
    return b"".join((f"data:{kind};base64,".encode(), *pieces)).decode("ascii")


def _picture_kind(data: bytes) -> str | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return "bmp" if data.startswith(b"BM") else None


def _video_kind(data: bytes) -> str | None:
    if data[4:8] == b"ftyp":
        return "quicktime" if data[8:10] == b"qt" else "mp4"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "x-msvideo"
    if data.startswith(b"\x1aE\xdf\xa3"):
        return "webm" if b"webm" in data[:64] else "x-matroska"
    return "x-flv" if data.startswith(b"FLV\x01") else None


def _sides(data: bytes, kind: str) -> tuple[int, int]:
    """Width and height in pixels."""
    if kind == "png":
        return unpack_from(">II", data, 16)
    if kind == "gif":
        return unpack_from("<HH", data, 6)
    if kind == "bmp":
        width, height = unpack_from("<ii", data, 18)
        return width, abs(height)  # negative: from top to bottom
    if kind == "webp":
        return _webp_sides(data)
    for marker, place in _jpeg_frames(data):
        if marker in JPEG_SIZES:
            height, width = unpack_from(">HH", data, place + 5)
            return width, height
    raise IndexError


def _webp_sides(data: bytes) -> tuple[int, int]:
    form = data[12:16]
    if form == b"VP8 ":
        width, height = unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if form == b"VP8L":
        (packed,) = unpack_from("<I", data, 21)
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    if len(data) < 30:
        raise IndexError
    return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1


def _jpeg_frames(data: bytes) -> Iterator[tuple[int, int]]:
    place = 2
    while place + 4 <= len(data):
        (marker,) = unpack_from(">H", data, place)
        if marker >> 8 != 0xFF:
            return
        if marker == 0xFFFF:  # filling
            place += 1
            continue
        # Behind the marker's own two bytes, as the size is counted.
        yield marker & 0xFF, place
        (length,) = unpack_from(">H", data, place + 2)
        place += 2 + max(length, 2)
