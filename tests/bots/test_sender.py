"""A growing text on its way into a chat: every mode, the pace, and what platforms answer."""

import asyncio
import itertools
import statistics
from dataclasses import replace

import pytest
from bot_fakes import TELEGRAM, FakeChat, caps, run

from ernie_async.bots.pace import Traffic
from ernie_async.bots.sender import StreamSender
from ernie_async.bots.transport import (
    ChatClosedError,
    FloodError,
    MarkupError,
    MessageGoneError,
    PlatformError,
    UndeliveredError,
)
from ernie_async.errors import ConfigError

TEXT = "量子纠缠是两个粒子共享同一个状态的现象。" * 20


async def say(
    chat: FakeChat, text: str = TEXT, *, pause: float = 0.025, size: int = 2, **options
) -> str:
    async with StreamSender(chat, **options) as sender:
        for n in range(0, len(text), size):
            sender.push(text[n : n + size])
            await asyncio.sleep(pause)
        return await sender.finish()


def kinds(chat: FakeChat) -> list[str]:
    return [kind for _, kind, _ in chat.calls]


def test_fifty_chats_are_served_without_a_violation() -> None:
    """Acceptance 1: 1 call/s for each chat, penalties of 30 s, 50 chats, 40 tokens/s each."""
    chats = [FakeChat(caps(chat=n)) for n in range(50)]
    lags: list[float] = []

    async def one(chat: FakeChat, traffic: Traffic) -> None:
        time = asyncio.get_running_loop().time
        pushed: list[tuple[float, int]] = []

        def look() -> None:
            shown = chat.calls[-1][2]
            length = len(shown if isinstance(shown, str) else shown[1])
            lags.extend(time() - at for at, end in pushed if seen[0] < end <= length)
            seen[0] = length

        seen = [0]
        chat.on_call = look
        async with StreamSender(chat, traffic=traffic) as sender:
            for n in range(0, 1200, 2):
                sender.push(TEXT[n % 400 : n % 400 + 2])
                pushed.append((time(), n + 2))
                await asyncio.sleep(1 / 40)
            assert await sender.finish() == "".join(
                TEXT[n % 400 : n % 400 + 2] for n in range(0, 1200, 2)
            )

    async def everyone() -> None:
        traffic = Traffic()
        async with asyncio.TaskGroup() as group:
            for chat in chats:
                group.create_task(one(chat, traffic))

    run(everyone())
    assert sum(chat.n_violations for chat in chats) == 0
    whole = "".join(TEXT[n % 400 : n % 400 + 2] for n in range(0, 1200, 2))
    assert all(chat.messages == [whole] for chat in chats)
    assert statistics.median(lags) <= 2.0


def test_the_final_text_arrives_once_behind_a_flood_answer() -> None:
    """Acceptance 2: flood 126 s to the last edit."""
    chat = FakeChat()

    async def main() -> None:
        async with StreamSender(chat) as sender:
            sender.push("开始" * 15)
            await asyncio.sleep(5)
            chat.faults = [FloodError(retry_after=126)]
            sender.push("结束")
            assert await sender.finish() == "开始" * 15 + "结束"

    run(main())
    times = [at for at, _, what in chat.calls if "结束" in str(what)]
    assert len(times) == 2
    assert 126 <= times[1] - times[0] < 128
    assert chat.messages == ["开始" * 15 + "结束"]
    assert chat.n_violations == 0


def test_a_penalty_that_is_too_long_is_an_error_with_the_rest() -> None:
    chat = FakeChat(faults=[FloodError(retry_after=1000)])
    with pytest.raises(UndeliveredError, match="not delivered within 300 s") as caught:
        run(say(chat, "你好" * 20))
    assert caught.value.rest == "你好" * 20
    assert chat.messages == []


def test_a_bot_s_chats_share_its_limit() -> None:
    limited = replace(TELEGRAM, per_second=10)
    chats = [FakeChat(caps(chat=n, platform=limited)) for n in range(20)]

    async def everyone() -> None:
        traffic = Traffic()
        async with asyncio.TaskGroup() as group:
            for chat in chats:
                group.create_task(say(chat, traffic=traffic))

    run(everyone())
    times = sorted(at for chat in chats for at, _, _ in chat.calls)
    assert all(b - a >= 0.1 - 1e-9 for a, b in itertools.pairwise(times))


def test_two_answers_in_one_chat_share_its_pace() -> None:
    chat = FakeChat(caps(is_private=False))

    async def both() -> None:
        traffic = Traffic()
        await asyncio.gather(
            say(chat, "甲" * 300, traffic=traffic), say(chat, "乙" * 300, traffic=traffic)
        )

    run(both())
    assert chat.n_violations == 0
    assert sorted(chat.messages, key=str) == ["乙" * 300, "甲" * 300]


def test_the_first_message_waits_for_twenty_characters_or_a_moment() -> None:
    quick, slow = FakeChat(), FakeChat()
    run(say(quick, "字" * 100, pause=0.01))
    assert quick.calls[0][0] == pytest.approx(0.09)
    assert len(quick.calls[0][2]) == 20
    run(say(slow, "字" * 10, pause=0.4))
    assert slow.calls[0][0] == pytest.approx(0.8)


def test_blanks_are_never_a_message() -> None:
    chat = FakeChat()
    assert run(say(chat, " \n" * 40)) == " \n" * 40
    assert chat.calls == []


def test_the_cursor_is_gone_at_the_end_and_unchanged_text_makes_no_call() -> None:
    chat = FakeChat()

    async def main() -> None:
        async with StreamSender(chat, cursor=" ▌") as sender:
            sender.push("字" * 30)
            await asyncio.sleep(100)
            assert chat.messages == ["字" * 30 + " ▌"]
            assert len(chat.calls) == 1
            await sender.finish()

    run(main())
    assert chat.messages == ["字" * 30]
    assert kinds(chat) == ["send", "edit"]


def test_long_answers_become_several_messages_and_old_ones_stay() -> None:
    chat = FakeChat(caps(platform=replace(TELEGRAM, limit=100)))
    text = "".join(f"第{n}段。" + "字" * 30 + "\n\n" for n in range(12))
    run(say(chat, text))
    assert "".join(str(m) for m in chat.messages) == text
    newest = 0
    for _, kind, what in chat.calls:
        if kind == "send":
            newest += 1
        else:
            assert chat.messages[newest - 1][:3] == what[1][:3]


def test_finished_messages_are_formatted_once_and_plain_text_helps_a_refusal() -> None:
    chat = FakeChat(caps(markup="final"))
    run(say(chat, "**粗体**" * 20))
    assert chat.formats == ["markdown"]
    assert kinds(chat).count("send") == 1
    chat = FakeChat(caps(markup="final", modes=("final",)), faults=[MarkupError("can't parse")])
    run(say(chat, "**粗体**"))
    assert (chat.messages, chat.formats) == (["**粗体**"], [None])


def test_previews_are_repaired_where_markdown_is_always_read() -> None:
    chat = FakeChat(caps(markup="always"))
    shown = []
    chat.on_call = lambda: shown.append(str(chat.calls[-1][2]))
    run(
        say(
            chat,
            "看：**很长的粗体文字"
            + "字" * 100
            + "**，完。\n\n```py\nprint(1)\n"
            + "x = 1\n" * 40
            + "```\n",
        )
    )
    assert all(text.count("**") % 2 == 0 and text.count("```") % 2 == 0 for text in shown)
    assert len(shown) > 3


def test_a_message_that_is_gone_is_sent_again() -> None:
    chat = FakeChat(faults=[None, MessageGoneError("deleted")])
    run(say(chat))
    assert chat.messages[1:] == [TEXT]


def test_a_closed_chat_stops_the_model() -> None:
    chat = FakeChat(faults=[None, ChatClosedError("bot was blocked by the user")])
    pushed = 0

    async def main() -> None:
        nonlocal pushed
        async with StreamSender(chat) as sender:
            for _ in range(1000):
                sender.push("字" * 10)
                pushed += 1
                await asyncio.sleep(0.1)

    with pytest.raises(UndeliveredError, match="blocked") as caught:
        run(main())
    assert pushed < 30
    assert isinstance(caught.value.__cause__, ChatClosedError)
    assert caught.value.rest.startswith("字")


def test_network_errors_are_waited_out() -> None:
    chat = FakeChat(faults=[PlatformError("connection reset")] * 6)
    run(say(chat, "你好" * 15))
    assert chat.messages == ["你好" * 15]
    gaps = [round(b[0] - a[0], 3) for a, b in zip(chat.calls, chat.calls[1:], strict=False)]
    assert gaps == sorted(gaps)  # each time later, up to 10 s
    assert gaps[-1] > 9


def test_a_mistake_in_a_transport_is_not_hidden() -> None:
    chat = FakeChat(faults=[KeyError("x")])
    with pytest.raises(UndeliveredError) as caught:
        run(say(chat))
    assert isinstance(caught.value.__cause__, KeyError)


def test_drafts_are_renewed_and_followed_by_a_message() -> None:
    platform = replace(TELEGRAM, draft_seconds=25)
    chat = FakeChat(caps(platform=platform, modes=("draft", "edit")))

    async def main() -> None:
        async with StreamSender(chat) as sender:
            assert sender.mode == "draft"
            sender.push("字" * 30)
            await asyncio.sleep(80)
            await sender.finish()

    run(main())
    assert [round(at) for at, _, _ in chat.drafts] == [0, 25, 50, 75]
    assert all(number != 0 for _, number, _ in chat.drafts)
    assert chat.messages == ["字" * 30]
    assert chat.typed == []  # a draft says it
    # Not in groups.
    assert StreamSender(FakeChat(replace(chat.caps, is_private=False))).mode == "edit"


def test_cards_count_their_updates_and_are_closed() -> None:
    chat = FakeChat(caps(modes=("card",), platform=replace(TELEGRAM, limit=300)))
    run(say(chat))
    numbers = [what[0] for _, kind, what in chat.calls if kind == "edit"]
    assert numbers == sorted(set(numbers))
    assert chat.closed == [0, 1]
    assert "".join(str(m) for m in chat.messages) == TEXT


def test_appending_sends_only_what_is_new() -> None:
    chat = FakeChat(caps(modes=("append", "final")))
    run(say(chat))
    assert chat.messages == [TEXT]
    assert kinds(chat)[0] == "begin"
    assert kinds(chat)[-1] == "finish"
    assert "".join(what for _, kind, what in chat.calls if kind != "finish") == TEXT
    chat = FakeChat(caps(modes=("append",)), faults=[None, None, MessageGoneError("too long")])
    run(say(chat))
    assert "".join(str(m) for m in chat.messages) == TEXT
    assert len(chat.messages) == 2


def test_sentences_are_messages_and_the_last_one_takes_the_rest() -> None:
    chat = FakeChat(caps(modes=("sentence", "final"), platform=replace(TELEGRAM, max_messages=3)))
    text = "一。\n\n```\na\n\nb\n```\n\n三。\n\n四。\n\n五。"
    run(say(chat, text, pause=1.0))
    assert chat.messages == ["一。\n\n", "```\na\n\nb\n```\n\n", "三。\n\n四。\n\n五。"]


def test_more_messages_than_the_platform_takes_are_an_error() -> None:
    chat = FakeChat(caps(platform=replace(TELEGRAM, max_messages=2, limit=100), modes=("final",)))
    with pytest.raises(UndeliveredError, match="2 messages at most") as caught:
        run(say(chat, "字" * 250))
    assert caught.value.rest == "字" * 50
    assert chat.messages == ["字" * 100] * 2


def test_final_mode_is_silent_until_the_end() -> None:
    chat = FakeChat(caps(modes=("final",), platform=replace(TELEGRAM, limit=100)))
    run(say(chat, "字" * 150, pause=0.1))
    assert [kind for _, kind, _ in chat.calls] == ["send", "send"]
    assert chat.calls[0][0] >= 7.4


def test_old_messages_are_left_for_new_ones() -> None:
    chat = FakeChat(caps(platform=replace(TELEGRAM, edit_seconds=20)))
    run(say(chat, "字" * 60, pause=1.0))
    assert len(chat.messages) == 2
    assert "".join(str(m) for m in chat.messages) == "字" * 60


def test_typing_is_renewed_until_something_can_be_read() -> None:
    chat = FakeChat()

    async def main() -> None:
        async with StreamSender(chat) as sender:
            await asyncio.sleep(9)
            sender.push("字" * 30)
            await asyncio.sleep(20)
            await sender.finish()

    run(main())
    assert chat.typed == [0, 4, 8]


def test_the_whole_text_can_be_set_instead() -> None:
    chat = FakeChat(caps(platform=replace(TELEGRAM, limit=100)))

    async def main() -> None:
        async with StreamSender(chat) as sender:
            for n in range(0, 201, 10):
                sender.set("字" * n)
                await asyncio.sleep(1)
            sender.set("不可以说。")
            await sender.finish()

    run(main())
    assert chat.messages == ["不可以说。", None]


def test_another_text_follows_what_cannot_be_edited() -> None:
    chat = FakeChat(caps(modes=("sentence",)))

    async def main() -> None:
        async with StreamSender(chat) as sender:
            sender.push("一。\n\n二。")
            await asyncio.sleep(3)
            sender.set("不可以说。")

    run(main())
    assert chat.messages == ["一。\n\n", "不可以说。"]


def test_a_card_is_closed_in_the_end() -> None:
    chat = FakeChat(caps(modes=("card",)), faults=[None, PlatformError("reset")])
    run(say(chat, "字" * 30, size=30))
    assert (chat.messages, chat.closed) == (["字" * 30], [0])


def test_an_error_of_the_model_leaves_the_text_and_a_notice() -> None:
    chat = FakeChat()

    async def main() -> None:
        async with StreamSender(chat, notice="[broken off]") as sender:
            sender.push("字" * 30)
            await asyncio.sleep(3)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run(main())
    assert chat.messages == ["字" * 30 + "\n\n[broken off]"]


def test_a_cancelled_answer_delivers_its_last_state_and_leaves_no_task() -> None:
    chat = FakeChat()

    async def main() -> int:
        async def answer() -> None:
            async with StreamSender(chat, cursor="|") as sender:
                sender.push("字" * 30)
                await asyncio.sleep(1.3)
                sender.push("更多")
                await asyncio.sleep(1000)

        task = asyncio.create_task(answer())
        await asyncio.sleep(1.35)
        task.cancel()
        started = asyncio.get_running_loop().time()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.get_running_loop().time() - started < 3
        return len(asyncio.all_tasks())

    assert run(main()) == 1
    assert chat.messages == ["字" * 30 + "更多"]


def test_a_mode_that_a_transport_cannot_do_is_refused() -> None:
    with pytest.raises(ConfigError, match="mode: expected one of edit, final, got 'append'"):
        StreamSender(FakeChat(), mode="append")


def test_chats_are_forgotten() -> None:
    async def main() -> Traffic:
        traffic = Traffic()
        for n in range(1200):
            await say(FakeChat(caps(chat=n), latency=0), "好", traffic=traffic, pause=0.01)
        return traffic

    assert len(run(main())._lanes) <= 1000


@pytest.mark.parametrize("mode", ["edit", "final", "sentence"])
def test_a_transport_may_have_no_handles(mode) -> None:
    class Nameless(FakeChat):
        async def send(self, text, **options):
            await super().send(text, **options)

        async def edit(self, handle, text, **options) -> None:
            assert handle is None
            await super().edit(0, text, **options)

    chat = Nameless(caps(modes=(mode,)))
    run(say(chat))
    assert chat.messages == [TEXT]
