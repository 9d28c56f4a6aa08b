"""CPU seconds to import a library and make the first client.

`python -m benchmarks.import_time ours` prints one line of JSON, `{"value": ...}`. Imports as little
as it can: what is already loaded when the clock starts costs nobody anything.
"""

import os
import sys
import time

STATEMENTS = {
    "floor": "import aiohttp, pydantic",
    "httpx": "import httpx; httpx.AsyncClient()",
    "openai": "import openai; openai.AsyncOpenAI(api_key='key')",
    "openai-aiohttp": "import openai; openai.AsyncOpenAI(api_key='key', "
    "http_client=openai.DefaultAioHttpClient())",
    "qianfan": "import qianfan; qianfan.get_config().BEARER_TOKEN = 'key'; "
    "qianfan.ChatCompletion(version='2')",
    "litellm": "import litellm; litellm.acompletion",
    "ours": "import ernie_async; ernie_async.AsyncClient('key')",
}


def main() -> None:
    contender, *core = sys.argv[1:]
    if core:
        os.sched_setaffinity(0, {int(core[0])})
    before = time.process_time()
    exec(STATEMENTS[contender], {})
    print(f'{{"value": {time.process_time() - before}}}')


if __name__ == "__main__":
    main()
