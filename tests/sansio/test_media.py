"""What is read of a picture or a video is what was written, and what does not fit is told."""

import base64
import struct
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.errors import ConfigError
from ernie_async.sansio.media import (
    MAX_PICTURE_BYTES,
    MAX_VIDEO_BYTES,
    PIECE_BYTES,
    check_address,
    check_size,
    picture_uri,
    video_uri,
)
from tests.pictures import jpeg, png, webp

# What makes a picture of any size, what it is, and how many bytes tell what it is and how large.
FORMS: dict[str, tuple[Callable[[int, int], bytes], str, int, int]] = {
    "png": (png, "png", 8, 24),
    "jpeg": (jpeg, "jpeg", 3, 47),
    "gif": (lambda w, h: b"GIF89a" + struct.pack("<HH", w, h), "gif", 6, 10),
    "old gif": (lambda w, h: b"GIF87a" + struct.pack("<HH", w, h), "gif", 6, 10),
    "bmp": (lambda w, h: b"BM" + bytes(16) + struct.pack("<ii", w, h), "bmp", 2, 26),
    "bmp upside down": (lambda w, h: b"BM" + bytes(16) + struct.pack("<ii", w, -h), "bmp", 2, 26),
    "webp": (lambda w, h: webp(b"VP8 ", bytes(6) + struct.pack("<HH", w, h)), "webp", 12, 30),
    "scaled webp": (
        lambda w, h: webp(b"VP8 ", bytes(6) + struct.pack("<HH", w | 1 << 14, h | 3 << 14)),
        "webp", 12, 30,
    ),
    "lossless webp": (
        lambda w, h: webp(b"VP8L", b"\x2f" + struct.pack("<I", w - 1 | h - 1 << 14 | 15 << 28)),
        "webp", 12, 25,
    ),
    "extended webp": (
        lambda w, h: webp(b"VP8X", bytes(4) + (w - 1 | h - 1 << 24).to_bytes(6, "little")),
        "webp", 12, 30,
    ),
}  # fmt: skip

forms = pytest.mark.parametrize("form", FORMS)


@forms
def test_a_picture_is_known_by_its_bytes(form: str) -> None:
    make, kind, _, _ = FORMS[form]
    head, _, body = picture_uri(make(300, 200), name="it").partition(",")
    assert head == f"data:image/{kind};base64"
    assert base64.b64decode(body) == make(300, 200)


@given(st.sampled_from(sorted(FORMS)), st.integers(1, 16_000), st.integers(1, 16_000))
def test_the_sides_that_are_read_are_those_that_were_written(form: str, w: int, h: int) -> None:
    data = FORMS[form][0](w, h)
    if 5 <= w <= 6000 and 5 <= h <= 6000:
        picture_uri(data, name="it")
    else:
        with pytest.raises(ConfigError, match=f"sides of 5 to 6,000 pixels, got {w:,} x {h:,}$"):
            picture_uri(data, name="it")


@forms
def test_sides_at_the_limit_fit_and_those_beyond_do_not(form: str) -> None:
    make = FORMS[form][0]
    for sides in ((5, 6000), (6000, 5)):
        picture_uri(make(*sides), name="it")
    for w, h in ((4, 9), (9, 4), (6001, 9), (9, 6001)):
        with pytest.raises(ConfigError, match=f"got {w:,} x {h:,}"):
            picture_uri(make(w, h), name="it")


@forms
def test_a_picture_that_ends_before_its_size_is_told(form: str) -> None:
    make, kind, n_known, n_needed = FORMS[form]
    whole = make(300, 200)
    picture_uri(whole[:n_needed], name="it")
    for size in range(n_known, n_needed):
        with pytest.raises(ConfigError, match=f"^it: .* got a {kind} without its size$"):
            picture_uri(whole[:size], name="it")
    with pytest.raises(ConfigError, match=r"^it: expected a PNG, .* got bytes that begin with b'"):
        picture_uri(whole[: n_known - 1], name="it")


@pytest.mark.parametrize("marker", range(0xC0, 0xD0))
def test_of_the_frames_of_a_jpeg_tables_tell_no_size(marker: int) -> None:
    if marker in {0xC4, 0xC8, 0xCC}:
        picture_uri(jpeg(300, 200, table=marker), name="it")
    else:
        picture_uri(jpeg(300, 200, marker=marker), name="it")
        with pytest.raises(ConfigError, match="got 0 x 0"):
            picture_uri(jpeg(300, 200, table=marker), name="it")


def test_a_jpeg_whose_frames_do_not_follow_each_other_has_no_size() -> None:
    broken = b"\xff\xd8\xff\xe1" + struct.pack(">H", 4) + b"ab" + b"no frame" + jpeg(9, 9)
    with pytest.raises(ConfigError, match="got a jpeg without its size"):
        picture_uri(broken, name="it")


@pytest.mark.parametrize("length", [0, 1])
def test_a_frame_that_is_shorter_than_its_own_length_is_passed_over(length: int) -> None:
    head = b"\xff\xd8\xff\xe1" + struct.pack(">H", length)
    picture_uri(head + jpeg(9, 9)[2:], name="it")
    with pytest.raises(ConfigError, match="got a jpeg without its size"):
        picture_uri(head, name="it")


VIDEOS = {
    b"\0\0\0\x20ftypisom": "mp4",
    b"\0\0\0\x20ftypqt  ": "quicktime",
    b"RIFF\0\0\0\0AVI LIST": "x-msvideo",
    b"\x1aE\xdf\xa3....webm": "webm",
    b"\x1aE\xdf\xa3....matroska": "x-matroska",
    b"\x1aE\xdf\xa3" + b"." * 60 + b"webm": "x-matroska",
    b"FLV\x01": "x-flv",
}


@pytest.mark.parametrize(("data", "kind"), VIDEOS.items(), ids=VIDEOS.values())
def test_a_video_is_known_by_its_bytes(data: bytes, kind: str) -> None:
    assert video_uri(data, name="it").startswith(f"data:video/{kind};base64,")


def test_a_picture_is_no_video_and_a_video_no_picture() -> None:
    for form, (make, _, _, _) in FORMS.items():
        with pytest.raises(ConfigError, match="expected an MP4, MOV, AVI, MKV, WebM or FLV video"):
            video_uri(make(300, 200), name=form)
    for data, kind in VIDEOS.items():
        with pytest.raises(ConfigError, match="expected a PNG, JPEG, GIF, WebP or BMP picture"):
            picture_uri(data, name=kind)


@pytest.mark.parametrize("extra", [-1, 0, 1, 2, PIECE_BYTES])
def test_a_file_is_encoded_in_pieces_as_it_would_be_at_once(extra: int) -> None:
    data = b"FLV\x01" + bytes(range(256)) * (PIECE_BYTES // 256 + 1)
    data = data[: PIECE_BYTES + extra]
    assert video_uri(data, name="it").partition(",")[2] == base64.b64encode(data).decode()


@pytest.mark.parametrize("most", [MAX_PICTURE_BYTES, MAX_VIDEO_BYTES])
def test_a_file_is_neither_empty_nor_larger_than_the_service_takes(most: int) -> None:
    for size in (1, most):
        check_size(size, most, "it")
    for size in (0, most + 1):
        with pytest.raises(ConfigError, match=f"^it: expected 1 to {most:,} bytes, got {size:,}$"):
            check_size(size, most, "it")


def test_a_picture_and_a_video_are_held_to_that() -> None:
    with pytest.raises(ConfigError, match="1 to 10,485,760 bytes, got 10,485,761"):
        picture_uri(png().ljust(10 * 1024 * 1024 + 1, b"\0"), name="it")
    assert picture_uri(png().ljust(10 * 1024 * 1024, b"\0"), name="it")
    with pytest.raises(ConfigError, match="1 to 134,217,728 bytes, got 0"):
        video_uri(b"", name="it")


def test_a_web_address_has_a_limit_in_bytes_and_a_data_uri_none() -> None:
    for most in ("https://a.cn/".ljust(1024, "x"), "https://a.cn/x" + "图" * 336 + "xx"):
        check_address(most)
        with pytest.raises(ConfigError, match=r"^url: expected at most 1,024 bytes, got 1,025$"):
            check_address(most + "x")
    check_address("data:image/png;base64,".ljust(2000, "A"))


@given(st.binary(max_size=80), st.sampled_from([make(9, 9)[:30] for make, *_ in FORMS.values()]))
def test_garbage_is_a_clear_error(tail: bytes, head: bytes) -> None:
    for encode in (picture_uri, video_uri):
        for data in (tail, head + tail):
            with suppress(ConfigError):
                encode(data, name="it")
