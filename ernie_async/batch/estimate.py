"""What a run would ask, and what that would take: a run that sends nothing and writes nothing."""

from contextlib import aclosing
from typing import NamedTuple

from ernie_async.batch.asking import Asker
from ernie_async.batch.file_run import FileRun
from ernie_async.batch.lines import Line
from ernie_async.batch.progress import Progress

__all__ = ["Estimate", "estimate"]


class Estimate(NamedTuple):
    """What is left to do.

    Attributes:
        lines: To be asked.
        bad: Lines that ask nothing.
        skipped: Lines that are done.
        prompt_tokens: Of all prompts, roughly.
        answer_tokens: Of all answers: what the lines allow, or else what is usual.
        cost: CNY, of the lines whose model has a price.
        unpriced: Lines whose model has none.
        seconds: That the limits make it take at least; `None` without limits.
    """

    lines: int
    bad: int
    skipped: int
    prompt_tokens: int
    answer_tokens: int
    cost: float
    unpriced: int
    seconds: float | None


async def estimate(run: FileRun, asker: Asker, rpm: float | None, tpm: float | None) -> Estimate:
    """Look through the input.

    Args:
        run: Not opened.
        asker: Knows tokens and prices.
        rpm: Requests per minute.
        tpm: Tokens per minute.

    Raises:
        BatchError: The output is damaged, or the input has changed.
        OSError: The input cannot be read.
    """
    run.look_back()
    progress = Progress(0.0)
    lines = bad = prompt = answer = unpriced = 0
    cost = 0.0
    async with aclosing(run.items(progress)) as items:
        async for line, _ in items:
            if not isinstance(line, Line):
                bad += 1
                continue
            need = asker.need(line)
            lines, prompt, answer = lines + 1, prompt + need.prompt, answer + need.answer
            cost += need.cost
            unpriced += not asker.has_price(line)
    run.before.ids.close()
    times = [60 * lines / rpm] if rpm else []
    times += [60 * (prompt + answer) / tpm] if tpm else []
    seconds = max(times) if times else None
    return Estimate(lines, bad, progress.skipped, prompt, answer, cost, unpriced, seconds)
