"""Every recorded payload is read, and what is read is written again as it came.

Those of V2 have tests of their own besides; those of V1, for which there is no client, are what a
gateway that still speaks it may answer to `client.request`.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from ernie_async import APIError, DecodeError
from ernie_async.sansio.rest import read_answer, read_chunk
from ernie_async.sansio.sse import EventDecoder
from ernie_async.types.chunk import ChatChunk
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.models import AnyAnswer

FIXTURES = Path(__file__).parent / "fixtures"

V1_ANSWERS = sorted(
    path
    for path in (FIXTURES / "legacy_v1").glob("*.json")
    if path.stem.endswith("_response") or path.stem in {"oauth_token", "chat_truncated",
        "chat_need_clear_history", "chat_search_tools_info"}
)  # fmt: skip
V1_ERRORS: list[dict[str, Any]] = json.loads(
    (FIXTURES / "legacy_v1/errors.json").read_text("utf-8")
)
CHATS = sorted((FIXTURES / "chat_v2").glob("chat_*.json"))
STREAMS = sorted(FIXTURES.rglob("*.sse"))


@pytest.mark.parametrize("path", V1_ANSWERS, ids=lambda path: path.stem)
def test_answers_of_v1_are_kept_whole(path: Path) -> None:
    answer = read_answer(AnyAnswer, 200, {}, path.read_bytes(), utc_now=0)
    assert answer.model_dump() == json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize("recorded", V1_ERRORS, ids=lambda error: str(error["body"])[:40])
def test_errors_of_v1_are_errors(recorded: dict[str, Any]) -> None:
    body = json.dumps(recorded["body"]).encode()
    with pytest.raises(APIError) as caught:
        read_answer(AnyAnswer, recorded["http_status"], {}, body, utc_now=0)
    assert caught.value.code == str(recorded["body"]["error_code"])


@pytest.mark.parametrize("path", CHATS, ids=lambda path: path.stem)
def test_chat_answers_are_kept_whole(path: Path) -> None:
    told = json.loads(path.read_text("utf-8"))
    assert ChatCompletion.model_validate(told).model_dump(exclude_unset=True) == told


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_events_are_kept_whole(path: Path) -> None:
    events = EventDecoder().feed(path.read_bytes())
    is_v1 = path.parent.name == "legacy_v1"
    kept = 0
    for event in events:
        if event.data == b"[DONE]":
            continue
        try:
            told = json.loads(event.data)
        except ValueError:
            with pytest.raises(DecodeError):
                read_chunk(event.data)
            continue
        if is_v1:
            assert AnyAnswer.model_validate(told).model_dump() == told
        elif told.keys() & {"error", "error_code"} or told.get("object") == "error":
            with pytest.raises(APIError):
                read_chunk(event.data)
        else:
            chunk = read_chunk(event.data)
            assert isinstance(chunk, ChatChunk)
            assert chunk.model_dump(exclude_unset=True) == told
        kept += 1
    assert kept
