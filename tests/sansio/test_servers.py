"""Presets: what is sent to which server."""

import json
from typing import Any, get_args

import pytest

from ernie_async.errors import ConfigError
from ernie_async.sansio.address import read_base_url
from ernie_async.sansio.chat_request import chat_body, chat_request
from ernie_async.sansio.servers import SERVERS, Server, ServerName, read_server


def body(name: ServerName, extra: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    sent: dict[str, Any] = json.loads(
        chat_body(chat_request("x", options), extra or {}, read_server(name))
    )
    del sent["messages"]
    return sent


def test_every_name_has_its_preset() -> None:
    assert tuple(SERVERS) == get_args(ServerName)
    for name, server in SERVERS.items():
        assert (server.name, read_base_url(server.base_url)) == (name, server.base_url)


@pytest.mark.parametrize("name", ["qianfan", "aistudio"])
def test_baidus_services_take_the_switch_at_the_top(name: ServerName) -> None:
    assert body(name, enable_thinking=True) == {"enable_thinking": True}


@pytest.mark.parametrize("name", ["fastdeploy", "vllm", "sglang", "llama.cpp"])
def test_own_servers_take_the_switch_for_the_template(name: ServerName) -> None:
    assert body(name) == {}
    assert body(name, enable_thinking=False) == {"chat_template_kwargs": {"enable_thinking": False}}


def test_callers_own_template_arguments_stay_and_win() -> None:
    extra = {"chat_template_kwargs": {"a": 1}, "top_k": 5}
    merged = {"chat_template_kwargs": {"enable_thinking": True, "a": 1}, "top_k": 5}
    assert body("vllm", extra, enable_thinking=True) == merged
    assert extra == {"chat_template_kwargs": {"a": 1}, "top_k": 5}
    wins = {"chat_template_kwargs": {"enable_thinking": False}}
    assert body("vllm", wins, enable_thinking=True) == wins


def test_template_arguments_of_an_odd_kind_are_the_callers_own_affair() -> None:
    assert body("vllm", {"chat_template_kwargs": 7}, enable_thinking=True) == {
        "chat_template_kwargs": 7
    }
    assert body("vllm", {"chat_template_kwargs": None}, enable_thinking=True) == {
        "chat_template_kwargs": {"enable_thinking": True}
    }


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"vllm, sglang, llama\.cpp, got 'ollama'"):
        read_server("ollama")  # type: ignore[arg-type]
    own = Server(name="mine", base_url="http://127.0.0.1:1/v1")
    assert read_server(own) is own
