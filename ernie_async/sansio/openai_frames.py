"""The events of a gateway as chunks of OpenAI's chat completions, for clients that know only those.

Every frame has the id of its event, so that a client may resume. What that format cannot say (text
is taken back, or comes anew as a whole) ends the stream in a way that its clients understand.
"""

from collections.abc import Iterable
from typing import Any

from pydantic_core import to_json

from ernie_async.sansio.replay import StreamEvent

__all__ = ["ChunkFrames"]

END_MARK = b"data: [DONE]\n\n"

# The service's own classes: "take back what was shown", "must not be shown".
RETRACT_FLAG, HIDE_FLAG = 4, 3


class ChunkFrames:
    """Writes the frames of one response.

    Args:
        stream_id: Stands for the id of the answer.
        epoch: Of the events' ids.
        model: As was asked for.
        created: Seconds since 1970.
        has_usage: Whether a chunk with the usage was asked for.
    """

    def __init__(
        self, stream_id: str, epoch: str, *, model: str, created: int, has_usage: bool
    ) -> None:
        self._epoch = epoch.encode()
        self._head = {
            "id": stream_id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self._has_usage = has_usage
        self._is_retracted = False
        mark = to_json("\0")
        # The last one is the text: a model may have any name.
        chunk = to_json(self._chunk({"content": "\0"}))
        self._before, _, self._behind = chunk.rpartition(mark)

    def encode(self, events: Iterable[StreamEvent]) -> bytes:
        """Write events."""
        return b"".join(map(self._encode, events))

    def _encode(self, event: StreamEvent) -> bytes:
        if event.kind == "delta" and "text" in event.payload:
            # Nearly all are such; of these only the text is written anew.
            text = to_json(event.payload["text"])
            return b"id: %b-%d\ndata: %b%b%b\n\n" % (
                self._epoch, event.seq, self._before, text, self._behind,
            )  # fmt: skip
        event_id = b"%b-%d" % (self._epoch, event.seq)
        return b"".join(
            b"id: %b\ndata: %b\n\n" % (event_id, to_json(body)) if isinstance(body, dict) else body
            for body in self._bodies(event)
        )

    def _bodies(self, event: StreamEvent) -> list[dict[str, Any] | bytes]:
        told = event.payload
        match event.kind:
            case "start":
                return [self._chunk({"role": "assistant", "content": ""})]
            case "delta":
                return [self._chunk({"reasoning_content": told["reasoning"]})]
            case "tool_call":
                function = {"arguments": told["arguments_delta"]}
                if "name" in told:
                    function["name"] = told["name"]
                call = {"index": told["index"], "type": "function", "function": function}
                if "id" in told:
                    call["id"] = told["id"]
                return [self._chunk({"tool_calls": [call]})]
            case "retract":
                self._is_retracted = True
                return []
            case "done" if not told["cancelled"]:
                return self._end(told)
            case "done":
                error = {"code": "cancelled", "message": "the answer was cancelled"}
                return [{"error": error}, END_MARK]
            case "error" if told["code"] == "content_filter":
                flag = RETRACT_FLAG if self._is_retracted else HIDE_FLAG
                return [self._chunk({}, finish_reason="content_filter", flag=flag), END_MARK]
            case "error":
                return [{"error": told}, END_MARK]
            case _:
                return []

    def _end(self, told: dict[str, Any]) -> list[dict[str, Any] | bytes]:
        flag = {"flag": 2} if told.get("conversation_closed") else {}
        last = self._chunk({}, finish_reason=told["finish_reason"] or "stop", **flag)
        if "search_results" in told:
            last["search_results"] = told["search_results"]
        usage = {**self._head, "choices": [], "usage": told["usage"]}
        return [last, *([usage] if self._has_usage else []), END_MARK]

    def _chunk(self, delta: dict[str, Any], **fields: Any) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": None, **fields}
        return {**self._head, "choices": [choice]}
