"""What the routes take and answer, as an OpenAPI document.

Most of it stands in `openapi.json`; what types and settings know is added here. Anybody may read
it, so it names no tenant, no model and no limit. Knows no framework.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ernie_async.gateway.settings import GatewaySettings
from ernie_async.sansio.gateway_ask import IGNORED, AskRules
from ernie_async.sansio.replay import CURSOR
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.request import ChatRequest

__all__ = ["describe"]

Json = dict[str, Any]

POLICIES = {"cancel": "cancel", "linger": "linger:[0-9]{1,5}", "finish": "finish"}

IS_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
EVERYWHERE = {"403": "Forbidden", "502": "Failed"}
"""What any route may answer."""


def describe(settings: GatewaySettings) -> Json:
    """The document of a gateway with these settings."""
    path = Path(__file__).with_name("openapi.json")
    document: Json = json.loads(path.read_text(encoding="utf-8"))
    components = document["components"]
    for answer in components["responses"].values():
        answer.setdefault("content", IS_ERROR)
        _add_request_id(answer)
    for operation in _operations(document):
        if not settings.tenants:
            _open(operation)
        for answer in operation["responses"].values():
            _add_request_id(answer)
        for status, name in EVERYWHERE.items():
            operation["responses"][status] = {"$ref": f"#/components/responses/{name}"}
    if not settings.tenants:
        del components["securitySchemes"]["bearer"]
    _add_schemas(components["schemas"], settings.rules)
    return document


def _add_schemas(schemas: Json, rules: AskRules) -> None:
    schemas["EventId"]["pattern"] = f"^({CURSOR.pattern})?$"
    for name, model in (("Ask", ChatRequest), ("ChatCompletion", ChatCompletion)):
        schemas[name] = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schemas[name].pop("$defs")
    schemas["Usage"]["properties"]["estimated"] = {"const": True}
    # An assistant's message may come as it was answered; its thinking is left out.
    schemas["Message"]["properties"] |= {"reasoning_content": {}, "reasoning": {}}
    policies = "|".join(form for name, form in POLICIES.items() if name in rules.on_disconnect)
    schemas["Ask"]["properties"] |= {
        "stream": {"type": ["boolean", "null"]},
        "on_disconnect": {"type": ["string", "null"], "pattern": f"^({policies})$"},
        **{name: {"description": "Ignored."} for name in sorted(IGNORED)},
    }


def _operations(document: Json) -> Iterator[Json]:
    for path in document["paths"].values():
        for method in path.keys() - {"parameters"}:
            yield path[method]


def _add_request_id(answer: Json) -> None:
    if "$ref" not in answer:
        told = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
        answer["headers"] = {**answer.get("headers", {}), **told}


def _open(operation: Json) -> None:
    """Nobody needs a token."""
    if "security" in operation:
        needs = [{} if "bearer" in one else one for one in operation.pop("security")]
        if {"ticket": []} in needs:
            operation["security"] = needs
        else:
            del operation["responses"]["401"]
