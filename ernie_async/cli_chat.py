"""One question, or a conversation of many.

Knows a client and how to show its answers; which client it is was decided before.
"""

import asyncio
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ernie_async.cli_terminal import answer_view, note
from ernie_async.client import AsyncClient
from ernie_async.errors import APIError, ErnieError
from ernie_async.settings import ChatOptions
from ernie_async.types.completion import ChatCompletion

__all__ = ["Asker", "converse", "explain"]

# Any other end is worth a word: there may be more that the model would have said.
GOOD_ENDS: set[str | None] = {None, "", "stop", "normal"}

PROMPT = "> "
HELP = "/clear forgets the conversation; /exit or Ctrl-D ends it; Ctrl-C stops an answer"

Messages = Sequence[dict[str, Any]]


class Asker:
    """Asks a client, shows the answer, and tells of it what was wished.

    Args:
        client: Whom to ask.
        options: For every question.
        is_stream: Whether to show the answer while it is being written.
        is_verbose: Whether to tell usage and timing.
        shows_thoughts: Whether to show thinking that would not be shown.
    """

    def __init__(
        self,
        client: AsyncClient,
        options: ChatOptions,
        *,
        is_stream: bool,
        is_verbose: bool,
        shows_thoughts: bool,
    ) -> None:
        self._client = client
        self._options = options
        self._is_stream = is_stream
        self._is_verbose = is_verbose
        self._shows_thoughts = shows_thoughts

    async def show(self, messages: Messages) -> ChatCompletion:
        """Ask, and show the answer, or as much as comes of it."""
        with answer_view(shows_thoughts=self._shows_thoughts) as view:
            if self._is_stream:
                options = self._options.copy()
                if self._is_verbose:
                    options["stream_options"] = {"include_usage": True}
                async with self._client.stream(messages, **options) as stream:
                    async for chunk in stream:
                        view.think(chunk.reasoning)
                        view.say(chunk.text)
                    answer = await stream.final()
            else:
                answer = await self._client.chat(messages, **self._options)
                view.think(answer.reasoning)
                view.say(answer.text)
        self.tell_about(answer)
        return answer

    async def whole(self, messages: Messages) -> ChatCompletion:
        """Ask, and show nothing of the answer."""
        answer = await self._client.chat(messages, **self._options)
        self.tell_about(answer)
        return answer

    def tell_about(self, answer: ChatCompletion) -> None:
        """Tell why the answer ended, if not by itself, and what it cost, if that was wished."""
        if answer.finish_reason not in GOOD_ENDS:
            note(f"the answer ended with finish_reason {answer.finish_reason}")
        for source in answer.sources:
            note(f"[{source.index}] {source.title or ''} {source.url or ''}")
        if not self._is_verbose:
            return
        told = [f"model {answer.model}"]
        usage, timing = answer.usage, answer.timing
        told.append(
            f"{usage.prompt_tokens} + {usage.completion_tokens} = {usage.total_tokens} tokens"
            + (" (estimate)" if usage.is_estimate else "")
        )
        if timing.first_token is not None:
            told.append(f"first token {timing.first_token:.2f} s")
        told.append(f"total {timing.total:.2f} s")
        told.append(f"attempts {timing.attempts}")
        note("; ".join([*told, f"request id {answer.request_id}"]))


def converse(runner: asyncio.Runner, asker: Asker, instructions: Messages) -> None:
    """Ask what the user types, until the user has enough.

    A question that got no whole answer is not part of the conversation afterwards.
    """
    with suppress(ModuleNotFoundError):
        importlib.import_module("readline")  # gives `input` a history and keys to edit with
    note(HELP)
    messages = list(instructions)
    while True:
        try:
            line = input(PROMPT).strip()
        except EOFError:
            sys.stdout.write("\n")
            return
        except KeyboardInterrupt:
            sys.stdout.write("\n")
            note(HELP)
            continue
        if line == "/exit":
            return
        if line == "/clear":
            messages = list(instructions)
            note("forgotten")
        elif line.startswith("/") and len(line.split()) == 1:
            note(HELP)
        elif line:
            question = {"role": "user", "content": line}
            try:
                answer = runner.run(asker.show([*messages, question]))
            except KeyboardInterrupt:
                note("stopped; this question and its answer are left out of the conversation")
            except ErnieError as error:
                note(explain(error))
            else:
                if answer.text:
                    messages += [question, {"role": "assistant", "content": answer.text}]


def explain(error: ErnieError) -> str:
    """An error as the user is told of it, with the remedy in Chinese too where that is spoken."""
    language = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    if isinstance(error, APIError) and error.remedy_zh and language.startswith("zh"):
        return f"{error}\n{error.remedy_zh}"
    return str(error)
