"""What the closed V1 API had, and what V2 has instead: names of models, and keywords of requests.

A help for moving, not a client: V1 was shut down on 2026-08-31. Source: the vendor's notice,
cloud.baidu.com/doc/qianfan/s/rmse4vxp8, and the tables of baidubce/bce-qianfan-sdk at 6cacf60.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ernie_async.errors import ConfigError, shorten

__all__ = ["V1Translation", "translate_v1"]

# Endpoints that are not simply the model's name: what one finds at the end of an old URL.
ENDPOINTS: Mapping[str, str] = {
    "completions": "ernie-3.5-8k",
    "completions_pro": "ernie-4.0-8k",
    "completions_adv_pro": "ernie-4.0-8k-preview-0518",
    "ernie_speed": "ernie-speed-8k",
    "eb-instant": "ernie-lite-8k-0922",
    "ernie-lite-8k": "ernie-lite-8k-0308",
    "ai_apaas": "ernie-speed-appbuilder",
    "ai_apaas_lite": "ernie-lite-appbuilder-8k-0614",
    "ernie-func-8k": "ernie-function-8k",
}

# Names that V2 spells otherwise than in lower case with hyphens.
RENAMED: Mapping[str, str] = {
    "ernie-character-8k": "ernie-char-8k",
    "ernie-character-fiction-8k": "ernie-char-fiction-8k",
}

# Of the ERNIE names of V1, those that the tables of V2 still had in November 2026.
STILL_LISTED = frozenset(
    {
        "ernie-speed-8k",
        "ernie-speed-128k",
        "ernie-speed-pro-128k",
        "ernie-lite-8k",
        "ernie-tiny-8k",
        "ernie-char-8k",
        "ernie-char-fiction-8k",
        "ernie-novel-8k",
    }
)

# Fields that go over as they are.
SAME = frozenset(
    {
        "temperature",
        "top_p",
        "penalty_score",
        "stop",
        "response_format",
        "tool_choice",
        "frequency_penalty",
        "presence_penalty",
        "seed",
        "metadata",
        "user",
        "max_completion_tokens",
        "web_search",
    }
)

NOTHING_LIKE_IT = "V2 has nothing like it; left out"
TO_CLIENT = "left out: V2 takes an API key, which is given to the client"

# Fields without a counterpart, and what to do.
GONE: Mapping[str, str] = {
    "min_output_tokens": NOTHING_LIKE_IT,
    "enable_system_memory": f"{NOTHING_LIKE_IT}; keep what is to be remembered in the system turn",
    "system_memory_id": f"{NOTHING_LIKE_IT}; keep what is to be remembered in the system turn",
    "user_setting": f"{NOTHING_LIKE_IT}; describe the character in the system turn",
    "stream": "left out: call client.stream(...) for a stream, client.chat(...) for a whole answer",
    "access_token": TO_CLIENT,
    "ak": TO_CLIENT,
    "sk": TO_CLIENT,
    "auto_concat_truncate": 'left out: see resume="continue" and finish_reason "length"',
    "retry_count": "left out: see RetryPolicy",
    "request_timeout": "left out: see Timeouts",
}


class V1Translation(NamedTuple):
    """A V1 request in the words of V2.

    Attributes:
        messages: For `chat` and `stream`, as their first argument.
        options: For the same, as keywords.
        warnings: What changed its meaning, got lost, or has to be looked after, in words.
    """

    messages: list[dict[str, Any]]
    options: dict[str, Any]
    warnings: tuple[str, ...]


def translate_v1(request: Mapping[str, Any]) -> V1Translation:
    """Translate the keywords or the body of a V1 chat request.

    A field that is not known is kept, and there is a warning.

    Args:
        request: `messages` and whatever else was sent; `model`, or `endpoint`, or an old URL in
            place of either, names the model.

    Raises:
        ConfigError: There are no messages, or one is none.
    """
    work = _Translation(request)
    for name, value in request.items():
        if value is not None and name not in {"messages", "system", "model", "endpoint"}:
            work.take(name, value)
    messages = work.conversation(request.get("messages"), request.get("system"))
    return V1Translation(messages, work.options, tuple(dict.fromkeys(work.warnings)))


class _Translation:
    """One request under way."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.options: dict[str, Any] = {}
        self.warnings: list[str] = []
        if request.get("model"):
            self._model(str(request["model"]))
        elif request.get("endpoint"):
            self._model(f"/{request['endpoint']}")

    def _warn(self, field: str, text: str) -> None:
        self.warnings.append(f"{field}: {text}")

    def _model(self, name: str) -> None:
        _, slash, last = name.partition("?")[0].rstrip("/").rpartition("/")
        # An endpoint may be spelled as the name of another model.
        model = ENDPOINTS.get(last, last) if slash else last
        model = model.lower().replace(" ", "-").replace("_", "-")
        model = self.options["model"] = RENAMED.get(model, model)
        if model not in STILL_LISTED:
            self._warn(
                "model",
                f"{model} may have been retired; `ernie-async models` lists what your key may use",
            )

    def take(self, name: str, value: Any) -> None:
        """One field."""
        rule = RULES.get(name)
        if rule is not None:
            rule(self, value)
        elif name in GONE:
            self._warn(name, GONE[name])
        elif name in SAME:
            self.options[name] = value
        else:
            self.options.setdefault("extra_body", {})[name] = value
            self._warn(name, "not known of V1; sent as it is, in extra_body")

    def limit(self, value: Any) -> None:
        """`max_output_tokens`."""
        self.options["max_completion_tokens"] = value

    def user(self, value: Any) -> None:
        """`user_id`."""
        self.options["user"] = value

    def search(self, field: str, value: Any) -> None:
        """The switches of the search that was built in."""
        self.options.setdefault("web_search", {})[field] = value

    def functions(self, value: Sequence[Mapping[str, Any]]) -> None:
        """Each becomes a tool."""
        tools = self.options.setdefault("tools", [])
        for function in value:
            kept = {n: function[n] for n in ("name", "description", "parameters") if n in function}
            tool = {"type": "function", "function": kept}
            if tool not in tools:
                tools.append(tool)
            for lost in sorted(function.keys() - kept.keys()):
                self._warn("functions", f"{lost} of {function.get('name')}: {NOTHING_LIKE_IT}")

    def tools(self, value: Sequence[Mapping[str, Any]]) -> None:
        """Functions stay; the tool for searching becomes `web_search`."""
        for tool in value:
            if tool.get("type") == "function":
                self.options.setdefault("tools", []).append(dict(tool))
            elif tool.get("type") in {"baidu_search", "web_search"}:
                self.search("enable", True)
            else:
                self._warn("tools", f"{shorten(tool.get('type'))}: {NOTHING_LIKE_IT}")

    def conversation(self, given: Any, system: Any) -> list[dict[str, Any]]:
        """The messages, the `system` field first, function calls under their new names."""
        if not isinstance(given, Sequence) or isinstance(given, str) or not given:
            raise ConfigError(f"messages: expected a list of V1 messages, got {shorten(given)}")
        done = [{"role": "system", "content": system}] if system else []
        call_id = ""
        for n, message in enumerate(given):
            if not isinstance(message, Mapping) or "role" not in message:
                raise ConfigError(f"messages.{n}: expected a V1 message, got {shorten(message)}")
            turn = dict(message)
            called = turn.pop("function_call", None)
            if called:
                call_id = f"call_{n}"
                if "thoughts" in called:
                    self._warn("messages", "thoughts of a function call are not sent to V2")
                function = {"name": called["name"], "arguments": called.get("arguments", "{}")}
                turn["tool_calls"] = [{"id": call_id, "type": "function", "function": function}]
                if not turn.get("content"):
                    turn.pop("content", None)
            elif turn["role"] == "function":
                if not call_id:
                    self._warn("messages", f"{n}: the result of a call that is not there")
                turn = {
                    "role": "tool",
                    "tool_call_id": call_id or f"call_{n}",
                    "content": turn.get("content") or "{}",
                }
            done.append(turn)
        return done


RULES: Mapping[str, Callable[[_Translation, Any], None]] = {
    "max_output_tokens": _Translation.limit,
    "user_id": _Translation.user,
    "disable_search": lambda work, value: work.search("enable", not value),
    "enable_citation": lambda work, value: work.search("enable_citation", value),
    "enable_trace": lambda work, value: work.search("enable_trace", value),
    "functions": _Translation.functions,
    "tools": _Translation.tools,
}
