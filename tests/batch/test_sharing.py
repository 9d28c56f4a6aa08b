"""Parts of a quota, and clients for other machines."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_async import AsyncClient, Limits
from ernie_async.batch import Adaptive
from ernie_async.batch.sharing import portable_client, share_of, split
from ernie_async.net.limiter import Limiter
from ernie_async.redis import RedisLimiter

KEY = "bce-v3/ALTAK-here/0123456789abcdef"


@given(
    rpm=st.none() | st.floats(0.5, 1e6), calls=st.none() | st.integers(1, 999), n=st.integers(1, 50)
)
def test_parts_make_up_the_whole(rpm, calls, n) -> None:
    part = split(Limits(requests_per_minute=rpm, tokens_per_minute=rpm, concurrency=calls), n)
    for quota in (part.requests_per_minute, part.tokens_per_minute):
        assert quota is None if rpm is None else quota * n == pytest.approx(rpm)
    if calls is not None:
        assert isinstance(part.concurrency, int)
        assert 1 <= part.concurrency <= max(1, calls / n)


def test_bounds_of_an_adaptive_part() -> None:
    part = split(Limits(concurrency=Adaptive(start=8, min=4, max=128), burst=2), 4)
    assert part.concurrency == Adaptive(start=2, min=1, max=32)
    assert part.burst == 1


def test_what_is_shared_already_is_not_split() -> None:
    shared = RedisLimiter("redis://localhost", Limits(requests_per_minute=100))
    assert share_of(shared, 4) is shared
    own = Limiter(Limits(requests_per_minute=100))
    assert share_of(own, 4).limits == Limits(requests_per_minute=25)


def test_a_client_for_another_machine(monkeypatch) -> None:
    monkeypatch.setenv("QIANFAN_API_KEY", KEY)
    monkeypatch.setenv("QIANFAN_BASE_URL", "http://127.0.0.1:9/v2")
    monkeypatch.setenv("QIANFAN_MODEL", "ernie-x")
    client = AsyncClient(hooks=[print], limits=Limits(concurrency=1))
    packed = pickle.dumps(portable_client(client))
    for name in ("API_KEY", "BASE_URL", "MODEL"):
        monkeypatch.delenv(f"QIANFAN_{name}")
    there = pickle.loads(packed)
    assert (there.base_url, there.model) == (client.base_url, "ernie-x")
    assert there._desk.account == client._desk.account
    assert there._desk.hooks == ()
    assert there.limiter is None
