"""The adapter of nonebot2, and the example plugin, driven by nonebug with OneBot events."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nonebug", reason="nonebot2 and nonebug are not installed")
pytest.importorskip("nonebot.adapters.onebot.v11", reason="nonebot-adapter-onebot is not installed")

# nonebot2 has one driver for a process, and logs in its own way: a process of its own.
CODE = """
import asyncio, sys, time
from dataclasses import replace

import nonebot
from nonebug import App
from nonebug.provider import NoneBugProvider

nonebot.init(driver="~none", ernie_chat_api_key="k", log_level="ERROR")
from nonebot.adapters.onebot.v11 import ActionFailed, Adapter, Bot, GroupMessageEvent, Message
from nonebot.matcher import matchers

matchers.set_provider(NoneBugProvider)
nonebot.get_driver().register_adapter(Adapter)
sys.path.insert(0, sys.argv[1])
from ernie_async.testing import MockErnie, reply
import ernie_async.bots.nonebot as adapter
import ernie_async.bots.platforms as platforms

quick = replace(platforms.platform("onebot"), interval=0.05)
adapter.platform = lambda name: quick
import nonebot_plugin_ernie_chat as plugin


def event(text):
    return GroupMessageEvent(
        time=1, self_id=1, post_type="message", sub_type="normal", user_id=9, message_id=7,
        group_id=5, message_type="group", message=Message(text), raw_message=text, font=1,
        to_me=True, sender={"user_id": 9},
    )


async def main():
    times = []
    async with MockErnie() as server:
        plugin.AsyncClient = lambda key, model: client_of(key, base_url=server.base_url)
        async with nonebot.get_driver()._lifespan:
            long = "第一段。\\n\\n第二段。\\n\\n" + "长" * 10
            server.script(reply(long, chunk_ms=5), reply("好。"))
            app = App()

            async with app.test_matcher(plugin.chat) as ctx:
                bot = ctx.create_bot(base=Bot, adapter=nonebot.get_adapter(Adapter))
                real_send = bot.send

                async def timed(*a, **k):
                    times.append(time.monotonic())
                    return await real_send(*a, **k)

                bot.send = timed
                asked = event("讲讲")
                ctx.receive_event(bot, asked)
                ctx.should_call_send(asked, "第一段。", None)
                ctx.should_call_send(asked, "第二段。", None)
                ctx.should_call_send(asked, "长" * 10, None)
            async with app.test_matcher(plugin.chat) as ctx:
                bot = ctx.create_bot(base=Bot, adapter=nonebot.get_adapter(Adapter))
                asked = event("谢谢[CQ:image,file=x,url=https://example.com/a.png]")
                ctx.receive_event(bot, asked)
                ctx.should_call_send(asked, "好。", None, exception=ActionFailed(retcode=1))
                told = "没有发送成功：not delivered: refused: ActionFailed(retcode=1)"
                ctx.should_call_send(asked, told, None)
                ctx.should_finished(plugin.chat)
            told = server.requests[-1].json["messages"]
            assert told[1]["content"] == "讲讲", told
            assert told[-1]["content"][0]["image_url"]["url"] == "https://example.com/a.png", told
    gaps = [b - a for a, b in zip(times, times[1:])]
    assert len(gaps) == 2 and min(gaps) >= 0.05, gaps
    print("all is well")


from ernie_async import AsyncClient as client_of
asyncio.run(main())
"""


def test_the_plugin_answers_in_paragraphs_at_the_pace_of_the_platform(tmp_path: Path) -> None:
    examples = Path(__file__).parents[2] / "docs" / "examples"
    plugin = examples / "nonebot_plugin_ernie_chat.py"
    assert len(plugin.read_text("utf-8").splitlines()) < 60
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(examples)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    assert "all is well" in done.stdout
