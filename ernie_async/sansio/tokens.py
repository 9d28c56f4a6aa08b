"""Estimate how many tokens a text has, before the service says.

The rule is the one of the vendor's own SDK (baidubce/bce-qianfan-sdk, tokenizer.py), so that
numbers agree: 0.625 for a Chinese character, 1 for a word. It errs on the low side.
"""

import re
import unicodedata
from collections import deque
from collections.abc import Iterable
from math import ceil

from ernie_async.types.content import TextPart
from ernie_async.types.messages import Message
from ernie_async.types.request import ChatRequest
from ernie_async.types.usage import Usage

__all__ = [
    "OutputEstimate",
    "estimate_prompt",
    "estimate_tokens",
    "estimate_usage",
    "is_countable",
]

# Patterns are left to the cache of `re`, since most programs never count tokens.
HAN = "[\u4e00-\u9fff]"

# Runs of anything but Chinese characters, ASCII punctuation and the blanks of ASCII.
RUN = r"[^ \t\n\r\u4e00-\u9fff!-/:-@\[-`{-~]+"

OUTPUT_WITHOUT_HISTORY = 512
OUTPUT_HISTORY = 200


def estimate_tokens(text: str) -> int:
    """Tokens of `text`, roughly; 0 for a single Chinese character, as the vendor's rule has it."""
    n_words = sum(1 if run.isascii() else _words(run) for run in re.findall(RUN, text))
    return int(len(re.findall(HAN, text)) * 0.625 + n_words)


def _words(run: str) -> int:
    """Words of a run that may hold full-width punctuation and other blanks."""
    blanked = (
        " " if unicodedata.category(c)[0] == "P" or unicodedata.category(c) == "Zs" else c
        for c in run
    )
    return len([word for word in "".join(blanked).split(" ") if word])


def estimate_prompt(messages: Iterable[Message]) -> int:
    """Tokens of a conversation, roughly; pictures and videos count nothing."""
    total = 0
    for message in messages:
        content = message.content
        if isinstance(content, str):
            total += estimate_tokens(content)
        elif content:
            total += sum(
                estimate_tokens(part.text) for part in content if isinstance(part, TextPart)
            )
    return total


def estimate_usage(messages: Iterable[Message], answer: str, *, ratio: float = 1.0) -> Usage:
    """What a conversation and its answer consume, roughly.

    Args:
        messages: The conversation.
        answer: All that the model said.
        ratio: What was learnt of this model's prompts.
    """
    return Usage.estimated(
        prompt_tokens=round(estimate_prompt(messages) * ratio),
        completion_tokens=estimate_tokens(answer),
    )


def is_countable(request: ChatRequest) -> bool:
    """Whether the prompt is all text that we see, so that its estimate can be compared."""
    return not (request.tools or request.web_search) and all(
        isinstance(message.content, str) for message in request.messages
    )


class OutputEstimate:
    """How long the next answer will be: the 95th percentile of the last 200. Serves one client."""

    __slots__ = ("_recent",)

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=OUTPUT_HISTORY)

    def note(self, completion_tokens: int) -> None:
        """Learn the length of an answer, in tokens."""
        self._recent.append(completion_tokens)

    def tokens(self, request: ChatRequest) -> int:
        """Tokens to set aside for the answer: the caller's own limit if there is one."""
        limit = request.max_completion_tokens or request.max_tokens
        if limit is not None:
            return limit * (request.n or 1)
        return self.usual()

    def usual(self) -> int:
        """Tokens to set aside for an answer of which nothing is known."""
        if not self._recent:
            return OUTPUT_WITHOUT_HISTORY
        ordered = sorted(self._recent)
        return ordered[ceil(len(ordered) * 0.95) - 1]
