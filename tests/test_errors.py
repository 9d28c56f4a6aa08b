"""The tree of errors: as it is drawn, through pickle, and without a secret in it."""

import copy
import inspect
import pickle
import traceback
from collections.abc import Callable, Iterator

import pytest

from ernie_async import errors
from ernie_async.errors import (
    APIError,
    BlockedError,
    BudgetError,
    CircuitOpenError,
    ConfigError,
    ConnectError,
    DeadlineError,
    DecodeError,
    ErnieError,
    FailedAttempt,
    InterruptedStreamError,
    NoKeyError,
    OutputError,
    RateLimitError,
    ToolLoopError,
    shorten,
)
from ernie_async.sansio.auth import ApiKey
from ernie_async.sansio.refusals import refusal
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.messages import user

SECRET = "bce-v3/ALTAK-planted/secret"

Again = Callable[[ErnieError], ErnieError]

PARTIAL = ChatCompletion.model_validate(
    {"id": "as-1", "choices": [{"message": {"content": "前半"}}], "brand_new": 1}
)
REFUSED = {
    "status": 429, "code": "rpm_rate_limit_exceeded", "request_id": "as-1", "retry_after": 1.5,
    "remedy": "wait", "remedy_zh": "等待", "partial": PARTIAL,
}  # fmt: skip

# An attribute list for each class that has more than its base.
FULL: dict[type[ErnieError], dict[str, object]] = {
    ConnectError: {"was_sent": False},
    DeadlineError: {"clock": "idle", "seconds": 1.5, "partial": PARTIAL},
    InterruptedStreamError: {"partial": PARTIAL, "last_event_id": "7"},
    DecodeError: {"body": b"\xff", "partial": PARTIAL},
    CircuitOpenError: {"retry_after": 1.5},
    NoKeyError: {"retry_after": 1.5},
    BlockedError: {"partial": PARTIAL, "term": "x"},
    BudgetError: {"tokens": 5, "cost": 0.5, "partial": PARTIAL},
    OutputError: {"text": "{"},
    ToolLoopError: {"messages": (user("x"),)},
}


def tree(kind: type[ErnieError] = ErnieError, depth: int = 0) -> Iterator[tuple[int, str]]:
    yield depth, kind.__name__
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:  # a wing may have one of its own
            yield from tree(below, depth + 1)


EVERY_CLASS = [getattr(errors, name) for _, name in tree()]


def made(kind: type[ErnieError]) -> ErnieError:
    """An error of this class with everything it can carry."""
    fields = dict(FULL.get(kind, REFUSED if issubclass(kind, APIError) else {}))
    error = kind("what happened 发生了什么", **fields)  # type: ignore[arg-type]
    error.attempts = (
        FailedAttempt(error="ConnectError: refused", status=None, code=None, waited=0.0),
        FailedAttempt(error="ServerError: 500", status=500, code="internal_error", waited=0.5),
    )
    error.request_id = "as-1"
    error.add_note("a note")
    return error


def test_tree_is_as_it_is_drawn() -> None:
    assert errors.__doc__ is not None
    drawn = [
        ((len(line) - len(line.lstrip())) // 2, line.split()[0])
        for line in inspect.cleandoc(errors.__doc__).splitlines()
        if line.startswith("    ")
    ]
    assert [(depth - 2, name) for depth, name in drawn] == list(tree())


def test_attributes_are_as_they_are_drawn() -> None:
    assert errors.__doc__ is not None
    for line in errors.__doc__.splitlines():
        if line.startswith("    ") and " ." in line:
            name, *words = line.split()
            error = made(getattr(errors, name))
            for word in words:
                assert not word.startswith(".") or hasattr(error, word[1:]), line


def test_every_error_is_named_in_all() -> None:
    assert set(errors.__all__) == {name for _, name in tree()} | {"FailedAttempt", "shorten"}


def test_errors_are_also_what_python_would_raise() -> None:
    assert issubclass(ConfigError, ValueError)
    assert issubclass(DeadlineError, TimeoutError)


@pytest.mark.parametrize("kind", EVERY_CLASS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "again", [lambda error: pickle.loads(pickle.dumps(error)), copy.deepcopy, copy.copy],
    ids=["pickle", "deepcopy", "copy"],
)  # fmt: skip
def test_error_can_be_copied_and_pickled_with_all_it_carries(
    kind: type[ErnieError], again: Again
) -> None:
    error = made(kind)
    other = again(error)
    assert type(other) is kind
    assert vars(other) == vars(error)
    assert vars(error).keys() >= {"attempts", "request_id", "__notes__", *FULL.get(kind, ())}
    assert (other.args, str(other), other.message) == (error.args, str(error), error.message)


@pytest.mark.parametrize("kind", EVERY_CLASS, ids=lambda kind: kind.__name__)
def test_error_needs_no_more_than_a_message(kind: type[ErnieError]) -> None:
    error = kind("why")
    assert str(error) == error.message == "why"
    assert (error.attempts, error.request_id) == ((), None)


def test_error_after_several_attempts_tells_of_the_earlier_ones() -> None:
    error = made(RateLimitError)
    tries = "ConnectError: refused; ServerError: 500"
    assert str(error) == f"what happened 发生了什么 [2 attempts: {tries}]"
    error.attempts = error.attempts[:1] * 3
    assert str(error) == "what happened 发生了什么 [3 attempts, all the same]"
    error.attempts = error.attempts[:1]
    assert str(error) == error.message


def test_body_of_an_error_is_short() -> None:
    assert len(DecodeError("x", body=b"x" * 10_000).body) == 2000


@pytest.mark.parametrize(
    ("value", "limit", "shown"),
    [
        ("abc", 80, "'abc'"),
        ("x" * 78, 80, "'" + "x" * 78 + "'"),
        ("x" * 79, 80, "'" + "x" * 76 + "..."),
        (b"ab", 80, "b'ab'"),
        ([1, 2, 3], 5, "[1..."),
    ],
)
def test_value_in_a_message_is_shortened(value: object, limit: int, shown: str) -> None:
    assert shorten(value, limit) == shown
    assert len(shown) <= limit


def deep(key: ApiKey, headers: dict[str, str]) -> None:
    """Frames such as a call has while it runs: the key, its header, and an error."""
    header = key.header()
    headers["Authorization"] = header
    raise refusal(401, b'{"error":{"code":"invalid_iam_token","message":"x"}}', {}, utc_now=0.0)


def test_key_shows_neither_in_an_error_nor_in_its_frames() -> None:
    with pytest.raises(APIError) as caught:
        deep(ApiKey(SECRET), {})
    error = caught.value
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    shown = "".join(told.format())
    assert "***" in shown
    assert "planted" not in shown + str(error) + repr(error) + str(vars(error))
    assert b"planted" not in pickle.dumps(error)
