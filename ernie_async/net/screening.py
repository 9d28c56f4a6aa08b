"""Ask those who judge texts, and filter whole answers and prompts with them.

A judge that fails or takes too long is no reason to show a text, unless that was asked for. Knows
no stream; that is `filtered`.
"""

import asyncio
import logging
from collections.abc import Sequence

from ernie_async.errors import BlockedError
from ernie_async.net.hooks import ContentFiltered, Hook, tell
from ernie_async.sansio.answer_filter import ClauseVerdict
from ernie_async.sansio.clauses import ClauseCutter
from ernie_async.sansio.content_filter import ContentFilter
from ernie_async.sansio.filter_values import Channel, Clause, TextChecker
from ernie_async.sansio.message_texts import rewrite_completion, rewrite_prompt, said_by_user
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.messages import Message
from ernie_async.types.request import ChatRequest

__all__ = ["filter_prompt", "judge", "judge_prompt", "screen_completion"]

logger: logging.Logger = logging.getLogger("ernie_async")

# Clauses of one text under way at a time.
CONCURRENCY = 2


async def judge(
    checkers: Sequence[TextChecker], clauses: Sequence[Clause], hooks: Sequence[Hook]
) -> list[ClauseVerdict | None]:
    """Have clauses judged; return a verdict for each, in order, or `None` where nothing is wrong.

    After a clause that is blocked no more are asked about, and those that follow have `None`.
    """
    verdicts: list[ClauseVerdict | None] = []
    for start in range(0, len(clauses), CONCURRENCY):
        batch = clauses[start : start + CONCURRENCY]
        if any(verdict is not None and verdict.action == "block" for verdict in verdicts):
            break
        verdicts += await asyncio.gather(*(_judge_one(checkers, one, hooks) for one in batch))
    return verdicts + [None] * (len(clauses) - len(verdicts))


async def _judge_one(
    checkers: Sequence[TextChecker], clause: Clause, hooks: Sequence[Hook]
) -> ClauseVerdict | None:
    for checker in checkers:
        verdict = await _ask(checker, clause, hooks)
        if verdict is not None:
            tell(hooks, ContentFiltered(clause.channel, verdict.action, verdict.reason))
            return verdict
    return None


async def _ask(checker: TextChecker, clause: Clause, hooks: Sequence[Hook]) -> ClauseVerdict | None:
    try:
        async with asyncio.timeout(checker.timeout):
            reason = await checker.check(clause)
    except Exception as error:  # noqa: BLE001 - whatever it is, the text was not judged
        # Its own words might repeat the text.
        logger.warning("a content check failed: %s", type(error).__name__)
        failure = f"the check failed: {type(error).__name__}"
        if checker.on_error == "allow":
            tell(hooks, ContentFiltered(clause.channel, "allow", failure))
            return None
        return ClauseVerdict("block", failure)
    return None if reason is None else ClauseVerdict(checker.action, reason)


async def screen_completion(
    content_filter: ContentFilter, completion: ChatCompletion, hooks: Sequence[Hook]
) -> ChatCompletion:
    """Filter a whole answer.

    Raises:
        BlockedError: It must not be shown.
    """
    texts: list[tuple[Channel, str]] = []

    def collect(channel: Channel, text: str) -> str:
        texts.append((channel, text))
        return text

    rewrite_completion(completion, content_filter.channels, collect)
    try:
        shown = [await _screen(content_filter, channel, text, hooks) for channel, text in texts]
    except BlockedError as error:
        error.request_id = completion.request_id
        raise
    new = iter(shown)
    return rewrite_completion(completion, content_filter.channels, lambda *_: next(new))


async def _screen(
    content_filter: ContentFilter, channel: Channel, text: str, hooks: Sequence[Hook]
) -> str:
    text = _apply(content_filter, channel, text, hooks)
    if not content_filter.checkers or not text:
        return text
    cutter = ClauseCutter(channel)
    clauses = [*cutter.feed(text), *cutter.close()]
    verdicts = await judge(content_filter.checkers, clauses, hooks)
    pieces = []
    for clause, verdict in zip(clauses, verdicts, strict=True):
        if verdict is not None and verdict.action == "block":
            raise BlockedError(f"the content filter stopped the text ({verdict.reason})")
        new = verdict and content_filter.replacement(verdict.action, len(clause.text))
        pieces.append(clause.text if new is None else new)
    return "".join(pieces)


def _apply(
    content_filter: ContentFilter, channel: Channel, text: str, hooks: Sequence[Hook]
) -> str:
    part = content_filter.open()
    shown = part.feed(text) + part.close()
    for match in part.matches:
        tell(hooks, ContentFiltered(channel, match.action, match.category))
    if part.blocked is not None:
        raise part.error()
    return shown


def filter_prompt(
    content_filter: ContentFilter, request: ChatRequest, hooks: Sequence[Hook]
) -> ChatRequest:
    """Filter what the user says in a request, with terms and patterns.

    Raises:
        BlockedError: It must not be sent, or nothing would be left to send.
    """

    def change(text: str) -> str:
        shown = _apply(content_filter, "prompt", text, hooks)
        if text and not shown:
            raise BlockedError("the content filter left nothing of a message of the prompt")
        return shown

    return rewrite_prompt(request, change)


async def judge_prompt(
    content_filter: ContentFilter, messages: Sequence[Message], hooks: Sequence[Hook]
) -> None:
    """Have the user's last message judged: those before it were, when they were the last.

    Raises:
        BlockedError: Something is wrong with it, and the checker's action is more than `flag`.
    """
    if "prompt" not in content_filter.channels or not content_filter.checkers:
        return
    text = next(filter(None, map(said_by_user, reversed(messages))), "")
    cutter = ClauseCutter("prompt")
    clauses = [*cutter.feed(text), *cutter.close()]
    for verdict in await judge(content_filter.checkers, clauses, hooks):
        if verdict is not None and verdict.action != "flag":
            raise BlockedError(f"the content filter stopped the prompt ({verdict.reason})")
