"""The shape of a conversation: what a model may refuse about it, and how to mend it.

What every known model refuses is refused before sending, in `types.messages` and `types.request`.
The rest is advice, since models differ and most served today are not strict. The strict ones are
those of which the manual of 2025 says so: ERNIE 4.5 and ERNIE X1 Turbo, cloud.baidu.com/doc/
qianfan-api/s/3m7of64lb.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from ernie_async.errors import ConfigError, shorten
from ernie_async.types.messages import AnswerMessage, Message, MessageInput

__all__ = ["MessageFinding", "fix_messages", "lint_messages"]

# Names of models that want user and assistant to take turns, and the user to have the last word.
STRICT_PREFIXES = ("ernie-4.5", "ernie-x1-turbo")

ROLES = ("system", "developer", "user", "assistant", "tool")
INSTRUCTIONS = ("system", "developer")

FindingCode = Literal[
    "unknown_role",
    "empty",
    "blank_last",
    "prefix_not_last",
    "tool_without_id",
    "tool_without_call",
    "call_without_result",
    "system_not_first",
    "several_systems",
    "starts_without_user",
    "not_alternating",
    "last_not_user",
    "even_count",
]

# Refused by every known model, and by this library before anything is sent.
REFUSED = frozenset({"unknown_role", "empty", "blank_last", "prefix_not_last", "tool_without_id"})


@dataclass(frozen=True, slots=True)
class MessageFinding:
    """One thing about a conversation that a model may refuse.

    Attributes:
        index: Of the message; `None` if it is about all of them.
        code: What it is, in one word.
        text: The same in a sentence.
        is_refused: Whether it is refused before sending; anything else is advice.
    """

    index: int | None
    code: FindingCode
    text: str
    is_refused: bool


def lint_messages(
    messages: Iterable[MessageInput], model: str | None = None
) -> list[MessageFinding]:
    """Say what a model may refuse about a conversation; nothing if all is well.

    Args:
        messages: Ours, an answer's message, or plain dicts, also such as cannot be sent.
        model: Adds the rules of the models that are strict.

    Raises:
        ConfigError: One is no message at all.
    """
    turns = _turns(messages)
    linter = _Linter(turns)
    linter.each()
    linter.tools()
    linter.order(is_strict=model is not None and model.lower().startswith(STRICT_PREFIXES))
    linter.found.sort(key=lambda finding: len(turns) if finding.index is None else finding.index)
    return linter.found


def fix_messages(messages: Iterable[MessageInput]) -> list[Message]:
    """The same conversation in the shape that every model takes.

    Empty turns are dropped; instructions are joined and put first; whatever comes before the first
    user turn is dropped; results of tools follow their calls, and calls and results that belong to
    nothing are dropped; neighbours of one role become one. Nothing is invented: if the last turn is
    the assistant's, it stays so. Fixing twice changes nothing more.

    Args:
        messages: As for `lint_messages`.

    Returns:
        The messages, ready for `chat`; empty if nothing is left.

    Raises:
        ConfigError: One is no message, or has a field that no message has.
    """
    turns = [turn for turn in _turns(messages) if turn["role"] in ROLES and not _is_empty(turn)]
    turns = _with_tools_in_order(turns)
    instructions = [turn for turn in turns if turn["role"] in INSTRUCTIONS]
    turns = [turn for turn in turns if turn["role"] not in INSTRUCTIONS]
    while turns and turns[0]["role"] != "user":
        turns.pop(0)
    merged = [_joined(instructions)] if instructions else []
    for turn in turns:
        last = merged[-1] if merged else None
        if last is not None and last["role"] == turn["role"] != "tool":
            merged[-1] = _joined([last, turn])
        else:
            merged.append(turn)
    for turn in merged[:-1]:
        turn.pop("prefix", None)
    fixed = []
    for turn in merged:
        try:
            fixed.append(Message.model_validate(turn))
        except ValueError:
            reason = shorten(turn)
        else:
            continue
        raise ConfigError(f"messages: cannot be made into one that can be sent: {reason}")
    return fixed


class _Linter:
    """The findings about one conversation."""

    def __init__(self, turns: Sequence[Mapping[str, Any]]) -> None:
        self._turns = turns
        self.found: list[MessageFinding] = []

    def _note(self, index: int | None, code: FindingCode, text: str) -> None:
        self.found.append(MessageFinding(index, code, text, code in REFUSED))

    def each(self) -> None:
        """What is wrong with one message, wherever it stands."""
        last = len(self._turns) - 1
        for n, turn in enumerate(self._turns):
            role, content = turn["role"], turn.get("content")
            if role not in ROLES:
                self._note(n, "unknown_role", f"expected one of {', '.join(ROLES)}, got {role!r}")
            if not content and not turn.get("tool_calls"):
                self._note(n, "empty", "content must not be empty")
            elif n == last and isinstance(content, str) and content.isspace():
                self._note(n, "blank_last", "the last message must not be blank")
            if turn.get("prefix") and n != last:
                self._note(n, "prefix_not_last", "only the last message may have prefix")
            if role == "tool" and not turn.get("tool_call_id"):
                self._note(n, "tool_without_id", "a tool message needs tool_call_id")
        if not self._turns:
            self._note(None, "empty", "there is no message")

    def tools(self) -> None:
        """Calls and their results, which have to follow at once."""
        open_calls: dict[str, int] = {}
        for n, turn in enumerate(self._turns):
            if turn["role"] == "tool":
                answered = turn.get("tool_call_id")
                if answered and open_calls.pop(answered, None) is None:
                    self._note(n, "tool_without_call", f"no call {answered!r} comes before it")
                continue
            self._unanswered(open_calls)
            open_calls = dict.fromkeys(_call_ids(turn), n)
        self._unanswered(open_calls)

    def _unanswered(self, calls: Mapping[str, int]) -> None:
        for call, n in calls.items():
            self._note(n, "call_without_result", f"no result follows the call {call!r}")

    def order(self, *, is_strict: bool) -> None:
        """Who speaks after whom."""
        systems = [n for n, turn in enumerate(self._turns) if turn["role"] in INSTRUCTIONS]
        for place, n in enumerate(systems):
            if n != place:
                self._note(n, "system_not_first", "instructions belong before everything else")
            elif n:
                self._note(n, "several_systems", "some models take the first instructions alone")
        spoken = [(n, t["role"]) for n, t in enumerate(self._turns) if t["role"] in ROLES[2:]]
        if not spoken:
            return
        first, role = spoken[0]
        if role != "user":
            self._note(first, "starts_without_user", f"expected the user to begin, not {role}")
        for (_, earlier), (n, role) in pairwise(spoken):
            if earlier == role != "tool" or (is_strict and (earlier, role) == ("tool", "user")):
                self._note(n, "not_alternating", f"{role} comes right after {earlier}")
        n, role = spoken[-1]
        may_end = role == "user" or (role == "tool" and not is_strict)
        if not may_end and not self._turns[n].get("prefix"):
            self._note(n, "last_not_user", f"expected the user to have the last word, not {role}")
        has_tools = any(role == "tool" for _, role in spoken)
        if is_strict and not has_tools and len(spoken) % 2 == 0:
            text = f"expected an odd number of messages without instructions, got {len(spoken)}"
            self._note(None, "even_count", text)


def _turns(messages: Iterable[MessageInput]) -> list[dict[str, Any]]:
    """The messages as dicts of the fields that are set, without the model's thinking."""
    turns = []
    for n, message in enumerate(messages):
        if isinstance(message, Message | AnswerMessage):
            turn = message.model_dump(exclude_none=True)
        elif isinstance(message, Mapping) and "role" in message:
            turn = {name: value for name, value in message.items() if value is not None}
        else:
            raise ConfigError(f"messages.{n}: expected a message, got {shorten(message)}")
        if turn["role"] == "assistant":
            turn.pop("reasoning_content", None)
            turn.pop("reasoning", None)
        turns.append(turn)
    return turns


def _is_empty(turn: Mapping[str, Any]) -> bool:
    content = turn.get("content")
    is_blank = not content or (isinstance(content, str) and content.isspace())
    return is_blank and not turn.get("tool_calls")


def _call_ids(turn: Mapping[str, Any]) -> list[str]:
    calls = turn.get("tool_calls") or ()
    return [call.id if hasattr(call, "id") else call.get("id", "") for call in calls]


def _with_tools_in_order(turns: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each result behind its call; calls without a result and results without a call left out."""
    done: list[dict[str, Any]] = []
    results = [(n, turn) for n, turn in enumerate(turns) if turn["role"] == "tool"]
    for n, turn in enumerate(turns):
        if turn["role"] == "tool":
            continue
        kept, answers = [], []
        for call, call_id in zip(turn.get("tool_calls") or (), _call_ids(turn), strict=True):
            found = next(
                (r for r in results if r[0] > n and r[1].get("tool_call_id") == call_id), None
            )
            if found is not None:
                results.remove(found)
                kept.append(call)
                answers.append(found[1])
        if "tool_calls" in turn:
            turn = {name: value for name, value in turn.items() if name != "tool_calls"}  # noqa: PLW2901
            if kept:
                turn["tool_calls"] = kept
            elif _is_empty(turn):
                continue
        done += [turn, *answers]
    return done


def _joined(turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several turns of one role as one; a name stays if all have it."""
    joined = dict(turns[0])
    for turn in turns[1:]:
        contents = [c for c in (joined.get("content"), turn.get("content")) if c]
        if all(isinstance(content, str) for content in contents):
            content: Any = "\n\n".join(contents)
        else:
            content = [part for content in contents for part in _parts(content)]
        if joined.get("name") != turn.get("name"):
            joined.pop("name", None)
        for name in ("tool_calls", "prefix"):
            if name in turn:
                joined[name] = turn[name]
        joined["content"] = content
    return joined


def _parts(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
