"""Tokens: what is asked, how the answer is read, and when the next one is due."""

import pickle
import random
import traceback
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async.errors import APIError, AuthError, DecodeError, ErnieError, ServerError
from ernie_async.sansio.auth import IamKeys
from ernie_async.sansio.iam import BearerToken, read_token, token_request

FIXTURES = Path(__file__).parents[1] / "fixtures" / "auth"
NOON = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KEYS = IamKeys("test-ak-0000000000000000000000000", "test-sk-0000000000000000000000000")
SECRET = "bce-v3/ALTAK-planted/0123"


class Chosen:
    def __init__(self, share: float) -> None:
        self.share = share

    def uniform(self, a: float, b: float, /) -> float:
        return a + self.share * (b - a)


def read(body: bytes, *, status: int = 200, share: float = 0.0, **headers: str) -> BearerToken:
    return read_token(
        status, headers, body, now=1000.0, utc_now=NOON.timestamp(), chance=Chosen(share)
    )


def told(seconds: float, **fields: str) -> bytes:
    ends = datetime.fromtimestamp(NOON.timestamp() + seconds, UTC)
    token = {"token": SECRET, "createTime": f"{NOON:%FT%T}.000Z", "expireTime": ends.isoformat()}
    return repr({**token, **fields}).replace("'", '"').encode()


def test_request_is_signed_for_its_host() -> None:
    asked = token_request(KEYS, utc_now=NOON)
    assert asked.path == "/v1/BCE-BEARER/token?expireInSeconds=3600"
    assert asked.headers["Host"] == "iam.bj.baidubce.com"
    signed = str.__str__(asked.headers["Authorization"])
    assert signed.startswith(f"bce-auth-v1/{KEYS.access_key}/2026-01-02T03:04:05Z/300/")
    assert "/host;x-bce-date/" in signed


def test_session_token_is_signed_too() -> None:
    keys = IamKeys("a", "b", session_token="sts", iam_url="http://[::1]:8080/iam")
    asked = token_request(keys, utc_now=NOON)
    assert asked.headers["Host"] == "[::1]:8080"
    assert asked.headers["x-bce-security-token"] == "sts"
    names = "/host;x-bce-date;x-bce-security-token/"
    assert names in str.__str__(asked.headers["Authorization"])


@pytest.mark.parametrize("url", ["https://iam.test:443", "http://iam.test:80", "https://iam.test"])
def test_default_port_is_no_part_of_the_host(url: str) -> None:
    asked = token_request(IamKeys("a", "b", iam_url=url), utc_now=NOON)
    assert asked.headers["Host"] == "iam.test"


def test_documented_answer_is_read() -> None:
    token = read((FIXTURES / "bearer_token_response.json").read_bytes())
    assert token.header().startswith("Bearer bce-v3/")
    assert (token.renew_at, token.ends_at) == (1000 + 86400 - 300, 1000 + 86400 - 10)


@given(st.floats(1, 2_592_000), st.floats(0, 1))
def test_renewal_comes_before_the_end_and_after_most_of_the_life(life: float, share: float) -> None:
    token = read(told(life), share=share)
    assert 1000 + 0.79 * life <= token.renew_at < token.ends_at < 1000.001 + life


def test_life_is_measured_on_the_services_own_clock() -> None:
    assert read(told(3600)).ends_at == 4590.0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"token": "x"}',
        told(-1),
        told(60, token=""),
        told(60, createTime="never"),
        told(60, token="two\nlines"),
    ],
)
def test_answer_without_a_token_is_an_error_that_does_not_show_it(body: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        read(body)
    assert not caught.value.body


def test_disabled_token_is_not_used() -> None:
    with pytest.raises(AuthError, match="not enabled"):
        read(told(60, status="disable"))


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("NotFound, cause: Could not find credential.", "access key is unknown"),
        (
            "SignatureDoesNotMatch, cause: Fail to authn user: Signature does not match",
            "secret key does not belong",
        ),
        ("The request has expired.", "clock"),
        ("Access denied.", "IAMManageAPIKeyPolicy"),
    ],
)
def test_refusal_says_what_is_wrong(message: str, hint: str) -> None:
    body = b'{"requestId": "r-1", "code": "X", "message": "%s"}' % message.encode()
    for headers in ({}, {"X-Bce-Error-Code": "X", "X-Bce-Error-Message": message}):
        with pytest.raises(AuthError, match=hint) as caught:
            read(body, status=404, **headers)
        assert str(caught.value).startswith("no token from the IAM service: 404 X: ")


def test_wrong_clock_is_named() -> None:
    with pytest.raises(AuthError, match="clock is 3600 s ahead"):
        read(b"{}", status=403, Date="Fri, 02 Jan 2026 02:04:05 GMT")
    with pytest.raises(AuthError) as caught:
        read(b"{}", status=403, Date="Fri, 02 Jan 2026 03:04:35 GMT")
    assert "clock" not in str(caught.value)


@pytest.mark.parametrize(("status", "kind"), [(500, ServerError), (503, ServerError)])
def test_overload_may_pass(status: int, kind: type[APIError]) -> None:
    with pytest.raises(kind):
        read(b"busy", status=status)


def test_token_is_never_shown_and_never_pickled() -> None:
    token = read(told(3600))
    assert "planted" not in f"{token} {token!r} {token.header()!r}"
    with pytest.raises(TypeError, match="IamKeys"):
        pickle.dumps(token)


@pytest.mark.parametrize("body", [told(-1), told(60, status="disable"), told(60) + b"x"])
def test_no_local_of_a_traceback_shows_the_token(body: bytes) -> None:
    held = [body]  # this frame cannot be helped
    with pytest.raises(ErnieError) as caught:
        read_token(200, {}, held.pop(), now=0.0, utc_now=0.0, chance=random.Random())
    del body
    error = caught.value.with_traceback(caught.value.__traceback__.tb_next)
    shown = traceback.TracebackException.from_exception(error, capture_locals=True).format()
    assert "planted" not in "".join(shown)
