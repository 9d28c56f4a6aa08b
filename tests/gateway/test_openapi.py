"""The document that tells what the routes take: it tells of all of them, and of nothing else."""

import json
import re

import pytest
from aiohttp import web

from ernie_async import AsyncClient
from ernie_async.gateway import GatewaySettings, Tenant, make_app
from ernie_async.gateway.openapi import describe
from ernie_async.sansio.gateway_ask import AskRules
from ernie_async.sansio.tickets import token_hash
from ernie_async.testing import MockErnie

from .conftest import Serve

pytestmark = pytest.mark.anyio

OPEN = GatewaySettings()
CLOSED = GatewaySettings(
    tenants=(Tenant(name="secret-tenant", token_sha256=token_hash("t")),),
    rules=AskRules(models=("secret-model",), max_tokens=4321),
)


def operations(settings: GatewaySettings) -> dict[tuple[str, str], dict]:
    return {
        (method.upper(), path): operation
        for path, methods in describe(settings)["paths"].items()
        for method, operation in methods.items()
        if method != "parameters"
    }


def test_it_has_every_route_and_no_other() -> None:
    app = make_app(AsyncClient("k"))
    served = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if isinstance(route.resource, web.Resource)
    }
    heads = {(method, path) for method, path in served if method == "HEAD"}
    assert served - heads == operations(OPEN).keys()
    assert {("GET", path) for _, path in heads} < served
    # A HEAD of these would send what has no end, or open a WebSocket.
    assert not {path for _, path in heads} & {"/v1/ws", "/v1/streams/{id}/events"}


def test_every_reference_leads_somewhere() -> None:
    for settings in (OPEN, CLOSED):
        document = describe(settings)
        for reference in set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document))):
            found = document
            for step in reference.removeprefix("#/").split("/"):
                found = found[step]
        names = {name for one in operations(settings).values() for name in _schemes(one)}
        assert names == document["components"]["securitySchemes"].keys()


def _schemes(operation: dict) -> list[str]:
    return [name for one in operation.get("security", []) for name in one]


def test_tokens_are_asked_for_where_there_are_tenants() -> None:
    told = operations(CLOSED)
    assert {path for (_, path), one in told.items() if "security" in one} == {
        "/v1/chat/completions", "/v1/models", "/v1/streams", "/v1/streams/{id}",
        "/v1/streams/{id}/events", "/v1/streams/{id}/cancel", "/v1/ws",
    }  # fmt: skip
    assert "bearer" not in json.dumps(describe(OPEN))
    assert [path for (_, path), one in operations(OPEN).items() if "401" in one["responses"]] == [
        "/v1/streams/{id}/events"  # of which a ticket may be wrong
    ]


def test_only_policies_that_may_be_chosen_are_told() -> None:
    def pattern(*policies: str) -> str:
        document = describe(GatewaySettings(rules=AskRules(on_disconnect=policies)))
        return document["components"]["schemas"]["Ask"]["properties"]["on_disconnect"]["pattern"]

    assert re.search(pattern("cancel", "linger"), "linger:60")
    assert not re.search(pattern("cancel", "linger"), "finish")
    assert re.search(pattern("finish"), "finish")


async def test_anybody_may_read_it_and_learns_nothing_of_the_operator(
    serve: Serve, upstream: MockErnie
) -> None:
    async with serve(CLOSED) as gateway:
        async with gateway.session.get(gateway.url + "/openapi.json") as answer:
            assert (answer.status, answer.content_type) == (200, "application/json")
            text = await answer.text()
        assert json.loads(text) == describe(CLOSED)
        for secret in ("secret", token_hash("t"), "4321", "base_url"):
            assert secret not in text
