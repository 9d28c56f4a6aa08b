"""The servers that speak the same protocol, and where each has its own way.

A preset says what the protocol leaves open; whatever a server has besides goes through
`extra_body`. Sources: the servers' own code and manuals, read in November 2026.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ernie_async.errors import ConfigError
from ernie_async.sansio.address import DEFAULT_BASE_URL
from ernie_async.sansio.resume import Continuation

__all__ = ["DEFAULT_MODEL", "OutputMethod", "Server", "ServerName", "read_server"]

ServerName = Literal["qianfan", "aistudio", "fastdeploy", "vllm", "sglang", "llama.cpp"]

# How an answer of a certain form is demanded: by its schema, by "some JSON object", or in words.
OutputMethod = Literal["json_schema", "json_object", "prompt"]

# The newest text model that is no preview, as of November 2026.
DEFAULT_MODEL = "ernie-5.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """How a server differs from the others.

    Attributes:
        name: For messages.
        base_url: Where it is unless `base_url=` says otherwise.
        model: Asked when a call and the client name none; `None` if one has to be named.
        key_variable: The environment variable with its key; `None` if none is read.
        continuation: How a model is asked to go on after a cut, unless the `ResumePolicy` says.
        output_method: How an answer of a certain form is demanded.
        template_switch: Whether `enable_thinking` is sent inside `chat_template_kwargs`.
    """

    name: str
    base_url: str
    model: str | None = None
    key_variable: str | None = None
    continuation: Literal["auto"] | Continuation = "emulated"
    output_method: OutputMethod = "json_schema"
    template_switch: bool = False

    def body(self, fields: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a request as this server takes them, with the caller's extra ones."""
        name = "chat_template_kwargs"
        if not self.template_switch or "enable_thinking" not in fields:
            return {**fields, **extra}
        switch = {"enable_thinking": fields.pop("enable_thinking")}
        given = extra.get(name)
        if given is None or isinstance(given, Mapping):
            extra = {**extra, name: {**switch, **(given or {})}}
        return {**fields, **extra}


SERVERS: Mapping[str, Server] = {
    server.name: server
    for server in (
        # That any ERNIE model takes a schema is not known; `json_object` is documented.
        Server(
            name="qianfan",
            base_url=DEFAULT_BASE_URL,
            model=DEFAULT_MODEL,
            continuation="auto",
            output_method="json_object",
        ),
        Server(
            name="aistudio",
            base_url="https://aistudio.baidu.com/llm/lmapi/v3",
            key_variable="AI_STUDIO_API_KEY",
            output_method="json_object",
        ),
        Server(
            name="fastdeploy",
            base_url="http://127.0.0.1:8000/v1",
            model="default",
            template_switch=True,
        ),
        Server(
            name="vllm",
            base_url="http://127.0.0.1:8000/v1",
            continuation="final_message",
            template_switch=True,
        ),
        Server(
            name="sglang",
            base_url="http://127.0.0.1:30000/v1",
            model="default",
            continuation="final_message",
            template_switch=True,
        ),
        Server(
            name="llama.cpp",
            base_url="http://127.0.0.1:8080/v1",
            model="default",
            template_switch=True,
        ),
    )
}


def read_server(server: ServerName | Server) -> Server:
    """A server from itself or from its name.

    Raises:
        ConfigError: It is neither.
    """
    if isinstance(server, Server):
        return server
    if server in SERVERS:
        return SERVERS[server]
    raise ConfigError(
        f"server: expected a Server or one of {', '.join(get_args(ServerName))}, got {server!r}"
    )
