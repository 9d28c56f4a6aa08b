"""What an answer's headers tell of the limits."""

import pytest

from ernie_async.sansio.rate_headers import RateHeaders, read_rate_headers


def read(**headers: str) -> RateHeaders | None:
    return read_rate_headers(
        {name.replace("_", "-"): value for name, value in headers.items()}, utc_now=0.0
    )


def test_all_of_them_are_read_in_any_case() -> None:
    headers = {
        "X-Ratelimit-Limit-Requests": "300",
        "x-ratelimit-limit-tokens": "300000",
        "X-RATELIMIT-REMAINING-REQUESTS": "299",
        "X-RateLimit-Remaining-Tokens": " 123.5 ",
        "Content-Type": "application/json",
    }
    assert read_rate_headers(headers, utc_now=0.0) == RateHeaders(300, 300_000, 299, 123.5)


@pytest.mark.parametrize(
    ("text", "value"), [("600;w=60", 600), ("600, 600;w=60", 600), ("0.5", 0.5), ("3", 3)]
)
def test_number_with_something_behind_it_is_read(text: str, value: float) -> None:
    assert read(X_Ratelimit_Limit_Requests=text) == RateHeaders(limit_requests=value)


@pytest.mark.parametrize("text", ["", "many", "-1", "nan", "inf", "１２", "0", "0.0"])
def test_what_is_no_limit_is_as_good_as_not_there(text: str) -> None:
    told = read(X_Ratelimit_Limit_Requests=text, X_Ratelimit_Remaining_Tokens="7")
    assert told == RateHeaders(remaining_tokens=7)


def test_answer_without_any_tells_nothing() -> None:
    assert read() is None
    assert read(Content_Type="text/plain", Retry_After="3") is None
    assert read(X_Ratelimit_Reset_Requests="1s") is None


def test_nothing_left_is_told_with_the_time_to_wait() -> None:
    told = read(X_Ratelimit_Remaining_Requests="0", Retry_After="7")
    assert told == RateHeaders(remaining_requests=0, retry_after=7)
    assert told.is_spent
    told = read(X_Ratelimit_Remaining_Tokens="0", retry_after_ms="70")
    assert told == RateHeaders(remaining_tokens=0, retry_after=0.07)
    told = read(X_Ratelimit_Remaining_Tokens="1", Retry_After="7")
    assert told == RateHeaders(remaining_tokens=1)
    assert not told.is_spent


def test_nothing_left_of_no_limit_is_not_spent() -> None:
    assert read(X_Ratelimit_Limit_Tokens="0", X_Ratelimit_Remaining_Tokens="0") is None
