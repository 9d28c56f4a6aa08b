"""What typed parts of an answer cost while it is written, against parsing it once at its end.

`python -m benchmarks.partial_json` prints one table: for answers of several lengths, read in pieces
of a few characters, the CPU of all partial reading as a ratio to one `model_validate_json` of the
whole text in the same round. Twice is what was promised for a megabyte in ten thousand pieces.
"""

import argparse
import gc
import json
from statistics import median
from time import process_time

from pydantic import BaseModel

from benchmarks.options import positive
from ernie_async.sansio.partial import JSONReader
from ernie_async.sansio.shapes import shape_of

LENGTHS = (20_000, 200_000, 1_000_000)
PIECES = (4, 20, 100)


class Item(BaseModel):
    name: str
    count: int
    tags: list[str]


class Stock(BaseModel):
    title: str
    items: list[Item]


def document(length: int) -> str:
    """A Stock of about so many characters."""
    item = {"name": "第 100000 件货物", "count": 100_000, "tags": ["新", "易碎"]}
    n_items = max(1, length // (len(json.dumps(item, ensure_ascii=False)) + 2))
    items = [{**item, "name": f"第 {n} 件货物", "count": n} for n in range(n_items)]
    return json.dumps({"title": "仓库", "items": items}, ensure_ascii=False)


def whole_seconds(text: str) -> float:
    """CPU of one parse of all of it."""
    started = process_time()
    Stock.model_validate_json(text)
    return process_time() - started


def partial_seconds(pieces: list[str]) -> tuple[float, int]:
    """CPU of reading it in pieces, and how often there was more to show."""
    reader = JSONReader(SHAPE)
    shown = 0
    started = process_time()
    for piece in pieces:
        shown += reader.feed(piece)
    shown += reader.feed("", is_last=True)
    took = process_time() - started
    assert reader.is_over
    return took, shown


SHAPE = shape_of(Stock)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=positive, default=15)
    rounds = parser.parse_args().rounds
    gc.disable()  # it would run for whoever makes objects at the wrong moment
    print("| characters | piece | pieces | shown | ratio to one parse | ns a character |")
    print("| --- | --- | --- | --- | --- | --- |")
    for length in LENGTHS:
        text = document(length)
        for size in PIECES:
            pieces = [text[at : at + size] for at in range(0, len(text), size)]
            repeat = max(1, 200_000 // length)
            ratios, costs = [], []
            shown = 0
            for _ in range(rounds):
                whole = sum(whole_seconds(text) for _ in range(repeat))
                partial = 0.0
                for _ in range(repeat):
                    took, shown = partial_seconds(pieces)
                    partial += took
                gc.collect()
                ratios.append(partial / whole)
                costs.append(1e9 * partial / repeat / len(text))
            spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(
                f"| {len(text):,} | {size} | {len(pieces):,} | {shown:,} | {spread} "
                f"| {median(costs):.0f} |"
            )


if __name__ == "__main__":
    main()
