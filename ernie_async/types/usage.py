"""What a call consumed: tokens, as the service counts them, and seconds, as we do."""

from typing import NamedTuple

from ernie_async.types.wire import AnswerModel

__all__ = ["CompletionTokensDetails", "PromptTokensDetails", "Timing", "Usage"]


class PromptTokensDetails(AnswerModel):
    """Of the prompt tokens: how many came from a cache, how many from web search."""

    cached_tokens: int | None = None
    search_tokens: int | None = None


class CompletionTokensDetails(AnswerModel):
    """Of the completion tokens: how many were spent on reasoning."""

    reasoning_tokens: int | None = None


class Usage(AnswerModel):
    """Tokens of one call. `completion_tokens` includes the reasoning tokens."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: PromptTokensDetails | None = None
    completion_tokens_details: CompletionTokensDetails | None = None


class Timing(NamedTuple):
    """Where the seconds of one call went, all attempts together.

    Attributes:
        queued: Waiting for the limiter.
        first_token: From the start of the call to the first event of the answer; `None` for an
            answer that was not streamed, or a stream that has not begun.
        total: From the start of the call to its end; so far, while it runs.
        attempts: How many requests were sent, without a free resend on a stale connection.
    """

    queued: float
    first_token: float | None
    total: float
    attempts: int
