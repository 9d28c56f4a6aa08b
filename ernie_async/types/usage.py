"""What a call consumed: tokens, as the service counts them, and seconds, as we do."""

from typing import NamedTuple, TypeVar

from ernie_async.types.wire import AnswerModel

__all__ = ["CompletionTokensDetails", "PromptTokensDetails", "Timing", "Usage", "tokens_used"]

D = TypeVar("D", "PromptTokensDetails", "CompletionTokensDetails")


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

    @property
    def is_estimate(self) -> bool:
        """Whether some of it was counted by this library, since the service did not tell."""
        return False

    @classmethod
    def estimated(cls, *, prompt_tokens: int, completion_tokens: int) -> "Usage":
        """What a call consumed by our own count."""
        return EstimatedUsage(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
        )

    def plus(self, other: "Usage") -> "Usage":
        """What two requests consumed together. Details that only one has count as they are."""
        prompt = _sum(PromptTokensDetails, self.prompt_tokens_details, other.prompt_tokens_details)
        is_estimate = self.is_estimate or other.is_estimate
        return (EstimatedUsage if is_estimate else Usage)(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            total_tokens=tokens_used(self) + tokens_used(other),
            prompt_tokens_details=prompt,
            completion_tokens_details=_sum(
                CompletionTokensDetails,
                self.completion_tokens_details,
                other.completion_tokens_details,
            ),
        )


class EstimatedUsage(Usage):
    """The same, counted by this library, all of it or a part."""

    # A class of its own, since a private attribute would cost every usage that the service tells.
    @property
    def is_estimate(self) -> bool:
        """Whether some of it was counted by this library, since the service did not tell."""
        return True


def tokens_used(usage: Usage) -> int:
    """Prompt and answer together, also where a server tells only the two."""
    return usage.total_tokens or usage.prompt_tokens + usage.completion_tokens


def _sum(kind: type[D], first: D | None, second: D | None) -> D | None:
    if first is None or second is None:
        return first or second
    counts = dict(first)
    for name, count in second:
        counts[name] = counts.get(name) if count is None else (counts.get(name) or 0) + count
    return kind(**counts)


class Timing(NamedTuple):
    """Where the seconds of one call went, all attempts together.

    Attributes:
        queued: Waiting in line: for the limiter, a key, or a circuit to close.
        first_token: From the start of the call to the first event of the answer; `None` for an
            answer that was not streamed, or a stream that has not begun.
        total: From the start of the call to its end; so far, while it runs.
        attempts: How many requests were sent, without a free resend on a stale connection.
    """

    queued: float = 0.0
    first_token: float | None = None
    total: float = 0.0
    attempts: int = 0
