"""Pictures of any size, made byte by byte."""

import struct
import zlib


def png(width: int = 16, height: int = 16) -> bytes:
    def block(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * (3 * width + 1) * min(height, 16))
    return b"\x89PNG\r\n\x1a\n" + block(b"IHDR", head) + block(b"IDAT", rows)


def jpeg(width: int, height: int, *, marker: int = 0xC2, table: int = 0xC4) -> bytes:
    """With a note and a table before its size, and a filling byte between them."""
    note = b"\xff\xe1" + struct.pack(">H", 10) + b"Exif\0\0\xff\xc0"
    rows = struct.pack(">BBH", 0xFF, table, 21) + b"\0" * 19
    size = struct.pack(">BBHBHH", 0xFF, marker, 17, 8, height, width) + b"\0" * 10
    return b"\xff\xd8" + note + b"\xff" + rows + size


def webp(form: bytes, body: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(body) + 12) + b"WEBP" + form + b"\0\0\0\0" + body
