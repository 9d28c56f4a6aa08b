"""The table: what was measured, round by round, compared with the floor of the same round."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.contenders import FLOOR
from benchmarks.questions import Question

OURS = "ours"

Rounds = Mapping[int, float]
"""Values by round; a round without a value is missing."""


def spread(
    values: Sequence[float], unit: str = "", sign: str = "", *, is_brief: bool = False
) -> str:
    """The median, then the least and the greatest unless `is_brief`, with about three digits."""
    if not values:
        return "-"
    middle, least, greatest = statistics.median(values), min(values), max(values)
    form = f"{sign},.{0 if middle >= 100 else 1 if middle >= 10 else 2}f"
    if is_brief:
        return f"{middle:{form}}{unit}"
    return f"{middle:{form}}{unit} ({least:{form}} to {greatest:{form}})"


def compared(question: Question, values: Rounds, floor: Rounds) -> list[float]:
    """What a cell is made of: one number per round, in what the question is shown in."""
    if question.shown == "value":
        return [value * question.scale for value in values.values()]
    pairs = [(value, floor[number]) for number, value in values.items() if number in floor]
    if question.shown == "difference":
        return [(value - least) * question.scale for value, least in pairs]
    return [value / least for value, least in pairs]


def row(
    question: Question,
    results: Mapping[str, Rounds],
    contenders: Sequence[str],
    *,
    is_brief: bool = False,
) -> list[str]:
    floor = results.get(FLOOR, {})
    absolute = [value * question.scale for value in floor.values()]
    unit = f" {question.unit}"
    cells = [question.title, spread(absolute, unit, is_brief=is_brief)]
    unit_shown = "" if question.shown == "ratio" else unit
    sign = "+" if question.shown == "difference" else ""
    verdict = ""
    for contender in contenders:
        numbers = compared(question, results.get(contender, {}), floor)
        cells.append(spread(numbers, unit_shown, sign, is_brief=is_brief and contender != OURS))
        if contender == OURS and numbers and question.at_most is not None:
            verdict = " met" if statistics.median(numbers) <= question.at_most else " MISSED"
    if question.at_most is None:
        return [*cells, ""]
    return [*cells, f"{question.at_most:{sign}g}{unit_shown}{verdict}"]


def render(
    questions: Mapping[str, Question],
    results: Mapping[str, Mapping[str, Rounds]],
    contenders: Sequence[str],
    *,
    is_brief: bool = False,
) -> str:
    """The whole table as Markdown.

    Args:
        questions: The rows, by name.
        results: Values by question, contender and round, in seconds or bytes.
        contenders: The columns; the floor need not be among them.
        is_brief: Medians only, but for ours.
    """
    others = [contender for contender in contenders if contender != FLOOR]
    rows = [["measure", FLOOR, *others, "ours at most"]]
    rows += [
        row(question, results[name], others, is_brief=is_brief)
        for name, question in questions.items()
    ]
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(rows[0]))]
    rows.insert(1, ["-" * size for size in widths])
    return "\n".join("| " + " | ".join(map(str.ljust, cells, widths)) + " |" for cells in rows)


def footnotes(questions: Mapping[str, Question]) -> list[str]:
    """What a reader of the table must know about single rows."""
    notes = []
    for question in questions.values():
        if question.note:
            notes.append(f"{question.title}: {question.note}.")
    return notes
