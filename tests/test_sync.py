"""The synchronous face: the same verbs, the same signatures, no thread left behind."""

import gc
import inspect
import os
import pickle
import subprocess
import sys
import threading
import time

import anyio
import pytest

from ernie_async import (
    AsyncClient,
    ChatStream,
    Client,
    ConfigError,
    DrainError,
    InterruptedStreamError,
    Limits,
    SyncChatStream,
    SyncFiles,
    SyncParsedStream,
    Timeouts,
)
from ernie_async.files import Files
from ernie_async.parsing import ParsedStream
from ernie_async.testing import MockErnie, cut, reply, stall


def parameters(function: object) -> dict[str, tuple[str, object]]:
    return {
        # As text: each module has type variables of its own.
        name: (str(parameter.annotation), parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()  # type: ignore[arg-type]
        if name != "session"  # a session belongs to a loop, which a Client keeps to itself
    }


def test_both_clients_have_the_same_verbs_and_signatures() -> None:
    names = {"aclose": "close"}
    asynchronous = {name for name in vars(AsyncClient) if not name.startswith("_")}
    assert {names.get(name, name) for name in asynchronous} == {
        name for name in vars(Client) if not name.startswith("_")
    }
    verbs = {name for name in vars(Client) if inspect.isfunction(vars(Client)[name])}
    for name in {"__init__", *verbs} & vars(AsyncClient).keys() - {"__repr__", "__reduce__"}:
        assert parameters(getattr(Client, name)) == parameters(getattr(AsyncClient, name)), name
    for name, method in vars(Files).items():
        if inspect.isfunction(method) and not name.startswith("_"):
            assert parameters(getattr(SyncFiles, name)) == parameters(method), name
    stream = {name for name in vars(ChatStream) if not name.startswith("_")} - {"aclose", "tee"}
    assert stream == {name for name in vars(SyncChatStream) if not name.startswith("_")} - {"close"}
    parsed = {name for name in vars(ParsedStream) if not name.startswith("_")} - {"aclose"}
    assert parsed == {n for n in vars(SyncParsedStream) if not n.startswith("_")} - {"close"}


def test_a_session_of_the_caller_s_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"session: a Client has an event loop of its own.*Async"):
        Client("k", session=None)


def test_chat_stream_and_models(mock_ernie: MockErnie) -> None:
    threads_before = threading.active_count()
    mock_ernie.script(reply("你好"), reply("再见"))
    with Client("k", base_url=mock_ernie.base_url) as client:
        assert client.chat("hi", temperature=0.5).text == "你好"
        with client.stream("hi", stream_options={"include_usage": True}) as stream:
            assert "".join(chunk.text for chunk in stream) == "再见"
            assert stream.final().text == "再见"
        assert stream.usage is not None
        assert stream.timing.attempts == 1
        assert client.list_models()[0].id == "ernie-5.1"
        assert client.with_options(model="b").request("GET", "/models")["data"]
    anyio.run(lambda: mock_ernie.wait_idle(connections=True))
    assert threading.active_count() == threads_before


def test_errors_are_the_same(mock_ernie: MockErnie) -> None:
    mock_ernie.script(cut(3))
    with Client("k", base_url=mock_ernie.base_url) as client:
        with pytest.raises(InterruptedStreamError) as caught:
            client.stream("hi").text()
        assert caught.value.partial is not None
        with pytest.raises(ConfigError, match="temperature"):
            client.chat("hi", temperature=9)
    with pytest.raises(ConfigError, match="closed"):
        client.chat("hi")


def test_leaving_a_stream_frees_its_connection(mock_ernie: MockErnie) -> None:
    mock_ernie.default(reply("字" * 1000, chunk_ms=5))
    with Client("k", base_url=mock_ernie.base_url) as client:
        for _ in client.stream("hi"):
            break
        gc.collect()
        anyio.run(lambda: mock_ernie.wait_idle(connections=True))
        with client.stream("hi") as stream:
            next(stream)
        anyio.run(lambda: mock_ernie.wait_idle(connections=True))
        with pytest.raises(InterruptedStreamError):
            stream.final()


def test_leaving_a_stream_after_its_client_does_nothing(mock_ernie: MockErnie) -> None:
    with Client("k", base_url=mock_ernie.base_url) as client:
        whole, begun = client.stream("hi"), client.stream("hi")
        whole.text()
        next(begun)
    for stream in whole, begun:
        stream.cancel("too late")
        stream.close()
    assert whole.snapshot().finish_reason


@pytest.mark.parametrize("coalesce", [False, True])
def test_a_stream_tells_that_its_client_was_closed(mock_ernie: MockErnie, coalesce: bool) -> None:
    """Between two chunks, when nobody waits: as a stream of an `AsyncClient` does."""
    mock_ernie.default(reply("[" + "1, " * 200 + "2]", chunk_ms=5))
    with Client("k", base_url=mock_ernie.base_url, coalesce=coalesce) as client:
        stream, items = client.stream("hi"), client.stream_parse("hi", into=list[int])
        texts = [next(stream).text]
        assert next(items) == 1
    closed = "the client was closed before this call was over"
    with pytest.raises(InterruptedStreamError, match=closed) as caught:
        texts += [chunk.text for chunk in stream]
    assert caught.value.reason == closed
    assert caught.value.partial is not None
    assert caught.value.partial.text == "".join(texts)
    with pytest.raises(InterruptedStreamError):
        stream.final()
    with pytest.raises(InterruptedStreamError, match=closed) as caught:
        list(items)
    assert caught.value.partial is not None
    assert caught.value.partial.text.startswith("[1,")
    with pytest.raises(InterruptedStreamError, match=closed):
        items.final()
    assert len(mock_ernie.requests) == 2


def test_a_closed_client_begins_no_stream_and_keeps_a_whole_one(mock_ernie: MockErnie) -> None:
    with Client("k", base_url=mock_ernie.base_url) as client:
        whole, new = client.stream("hi"), client.stream("hi")
        text = whole.text()
    assert whole.final().text == text
    assert list(whole) == []
    for _ in range(2):
        with pytest.raises(ConfigError, match="this client is closed"):
            next(new)
    assert len(mock_ernie.requests) == 1


def test_closing_does_not_wait_for_those_in_line(mock_ernie: MockErnie) -> None:
    mock_ernie.script(stall(1))
    errors: list[BaseException] = []

    def wait_in_line(client: Client) -> None:
        try:
            client.chat("hi")
        except BaseException as error:  # noqa: BLE001 - whatever it is, it has to be one
            errors.append(error)

    client = Client("k", base_url=mock_ernie.base_url, limits=Limits(concurrency=1))
    stream = client.stream("hi")
    next(stream)
    thread = threading.Thread(target=wait_in_line, args=(client,))
    thread.start()
    time.sleep(0.1)
    started = time.monotonic()
    client.close()
    thread.join(5)
    assert time.monotonic() - started < 2
    assert [type(error) for error in errors] == [DrainError]
    assert client.limiter is not None
    del stream
    gc.collect()
    assert (client.limiter.in_flight, client.limiter.waiting) == (0, 0)


def test_several_threads_may_use_one_client(mock_ernie: MockErnie) -> None:
    texts = []
    with Client("k", base_url=mock_ernie.base_url) as client:
        threads = [
            threading.Thread(target=lambda: texts.append(client.stream("hi").text()))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(texts) == 8
    assert len(set(texts)) == 1


def test_a_client_travels(mock_ernie: MockErnie) -> None:
    with pickle.loads(pickle.dumps(Client("k", base_url=mock_ernie.base_url))) as twin:
        assert twin.chat("hi").text


def test_a_forgotten_client_does_not_keep_the_interpreter(mock_ernie: MockErnie) -> None:
    program = f"""
from ernie_async import Client
client = Client("k", base_url={mock_ernie.base_url!r})
for chunk in client.stream("hi"):
    break
print("end")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout == "end\n"


def test_an_interrupted_wait_stops_the_call(mock_ernie: MockErnie) -> None:
    """Ctrl-C while a chunk is awaited: the next line runs, and the request is given up."""
    mock_ernie.script(stall(1), reply("next"))
    program = f"""
import signal
from ernie_async import Client, Limits
signal.signal(signal.SIGALRM, signal.default_int_handler)
limits = Limits(concurrency=1)
with Client("k", base_url={mock_ernie.base_url!r}, limits=limits) as client:
    stream = client.stream("hi")
    try:
        for chunk in stream:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
    except KeyboardInterrupt:
        print("left")
    # There is room for one call: the other one is given up, though its stream is still there.
    print(client.chat("hi").text)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout == "left\nnext\n"
    anyio.run(lambda: mock_ernie.wait_idle(connections=True))
    assert mock_ernie.requests[0].ended == "client_gone"


def test_a_client_that_is_dropped_as_its_call_is_broken_off_ends_its_thread(
    mock_ernie: MockErnie,
) -> None:
    """The last who knows of it is the call, in the thread that is to be ended."""
    mock_ernie.script(stall(before_headers=True))
    program = f"""
import os, signal, threading, time
from ernie_async import Client
signal.signal(signal.SIGALRM, signal.default_int_handler)
def ask():
    client = Client("k", base_url={mock_ernie.base_url!r})
    client.list_models()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        client.chat("hi")
    except KeyboardInterrupt:
        pass
ask()
deadline = time.monotonic() + 10
while threading.active_count() > 1 and time.monotonic() < deadline:
    time.sleep(0.01)
print(threading.active_count())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_has_a_thread_of_its_own(mock_ernie: MockErnie) -> None:
    program = f"""
import os
from ernie_async import Client
client = Client("k", base_url={mock_ernie.base_url!r})
text = client.chat("hi").text
child = os.fork()
assert client.chat("hi").text == text
if child:
    assert os.waitpid(child, 0)[1] == 0
    client.close()
    print("both")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("both\n", "")


def test_timeouts_hold(mock_ernie: MockErnie) -> None:
    mock_ernie.script(stall(1))
    with Client("k", base_url=mock_ernie.base_url, timeouts=Timeouts(idle=0.2)) as client:
        with pytest.raises(TimeoutError):
            client.stream("hi").text()


def test_the_other_ways_to_read_a_stream(mock_ernie: MockErnie) -> None:
    mock_ernie.script(reply("你好"), reply("字" * 1000, chunk_ms=5))
    with Client("k", base_url=mock_ernie.base_url) as client:
        assert "".join(client.stream("hi").text_deltas()) == "你好"
        stream = client.stream("hi")
        first = next(stream)
        assert stream.snapshot().text == first.text
        assert stream.resumes == ()
        assert 512 <= stream.read_buffer.size <= 4096
        threading.Timer(0.05, stream.cancel, ("the user left",)).start()
        with pytest.raises(InterruptedStreamError, match="the user left"):
            for _ in stream:
                pass
        assert stream.usage is not None
        assert stream.usage.is_estimate
