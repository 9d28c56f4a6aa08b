"""What a bot says itself, in Chinese and in English."""

from dataclasses import dataclass

__all__ = ["CHINESE", "ENGLISH", "Wording"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """The sentences of a bot. Change some with `dataclasses.replace`.

    `{seconds}` is how long to wait; `{request_id}` is for the service's support.
    """

    busy: str = "上一条消息还在回答中，请稍候。"
    limited: str = "发送得太频繁了，请在 {seconds} 秒后再试。"
    too_long: str = "这条消息太长了，请缩短后再发。"
    failed: str = "（出错了，回答没有完成。请求编号：{request_id}）"
    blocked: str = "（根据安全规则，无法显示这个回答。）"
    stopped: str = "（已停止。）"
    nothing_to_stop: str = "现在没有正在进行的回答。"
    left_out: str = "（较早的消息已略去。）"
    no_key: str = "机器人还没有配置好，请联系管理员。"
    bad_picture: str = "这张图片无法识别，请换一张（不超过 10 MB）。"
    forgotten: str = "好的，我们重新开始。"


CHINESE = Wording()
"""What a bot says if nothing else is asked for."""

ENGLISH = Wording(
    busy="I am still answering your last message. One moment, please.",
    limited="That was a lot of messages. Please try again in {seconds} s.",
    too_long="This message is too long for me. Please send a shorter one.",
    failed="(Something went wrong, and the answer is not complete. Request id: {request_id})",
    blocked="(Safety rules do not allow me to show this answer.)",
    stopped="(Stopped.)",
    nothing_to_stop="There is nothing to stop.",
    left_out="(Older messages were left out.)",
    no_key="This bot is not set up yet. Please tell its owner.",
    bad_picture="I cannot read this picture. Please send another one, of at most 10 MB.",
    forgotten="All right, let us start over.",
)
"""The same in English."""
