"""One measurement in a process of its own: `python -m benchmarks.worker ours paced --port 1234`.

Prints one line of JSON, `{"value": ...}`, in seconds or bytes.
"""

import argparse
import asyncio
import json
from importlib import import_module

from benchmarks.contenders import MODULES, load
from benchmarks.machine import MANY, allow_descriptors, pin
from benchmarks.measure import Load
from benchmarks.questions import QUESTIONS

LOOPS = ("asyncio", "uvloop")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", choices=MODULES)
    parser.add_argument("question", choices=QUESTIONS)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--core", type=int)
    parser.add_argument("--loop", choices=LOOPS, default="asyncio")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    pin(options.core)
    allow_descriptors(MANY)
    question = QUESTIONS[options.question]
    measure = question.quick if options.quick else question.measure
    if measure is None:
        parser.error(f"{options.question} is measured by a program of its own")

    async def run() -> float:
        return await measure(load(options.contender), Load(options.port))

    new_loop = asyncio.new_event_loop
    if options.loop != "asyncio":
        new_loop = import_module(options.loop).new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        print(json.dumps({"value": runner.run(run())}))


if __name__ == "__main__":
    main()
