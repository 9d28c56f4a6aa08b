"""Requests that nobody would write, made by schemathesis from what the gateway says of itself.

Requires the extra `fuzz`.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import anyio
import pytest

from ernie_async.gateway import GatewaySettings, Tenant
from ernie_async.gateway.openapi import describe
from ernie_async.sansio.tickets import token_hash
from ernie_async.testing import MockErnie, reply

from .conftest import Serve

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("schemathesis") is None, reason="needs ernie-async[fuzz]"),
]

KEY = "bce-v3/ALTAK-planted/0123456789planted"
TENANT = Tenant(name="a", token_sha256=token_hash("t"), streams=1000)
CLOSED = GatewaySettings(tenants=(TENANT,))
EXAMPLES = 10
N_ROUTES = len(describe(CLOSED)["paths"]) - 1  # without the document itself


@pytest.mark.parametrize("settings", [GatewaySettings(), CLOSED], ids=["open", "closed"])
def test_document_is_valid(settings: GatewaySettings) -> None:
    import schemathesis

    schemathesis.openapi.from_dict(describe(settings)).validate()


async def test_no_request_breaks_the_gateway(
    serve: Serve, upstream: MockErnie, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.default(reply("量子纠缠", reasoning="嗯"))
    heard = tmp_path / "heard.yaml"
    command = [
        sys.executable, "-m", "schemathesis.cli", "run",
        "--header", "Authorization: Bearer t",
        "--max-examples", f"{EXAMPLES}", "--seed", "1", "--generation-deterministic",
        # What a chat has to be is told in part only, so some of what fits the schema is refused.
        "--exclude-checks", "positive_data_acceptance",
        "--report", "vcr", "--report-vcr-path", str(heard), "--output-sanitize", "false",
        "--continue-on-failure", "--no-color",
    ]  # fmt: skip
    async with serve(CLOSED, client={"api_key": KEY}) as gateway:
        done = await anyio.run_process(
            [*command, gateway.url + "/openapi.json"],
            check=False,
            cwd=tmp_path,
            env={**os.environ, "NO_PROXY": "127.0.0.1"},
        )
        said = done.stdout.decode()
        assert done.returncode == 0, said
        assert f" {N_ROUTES} selected / {N_ROUTES} total" in said
        assert (await gateway.get("/v1/models", Authorization="Bearer t"))[0] == 200
    assert {request.headers["Authorization"] for request in upstream.requests} == {f"Bearer {KEY}"}
    told = heard.read_text(encoding="utf-8")
    assert "request_id" in told
    assert "planted" not in told
    assert "gateway failed" not in caplog.text
