"""A gateway between a model and browsers: streams that can be left and come back to.

`StreamHub` and the stores know no framework. `make_app` is the whole thing on aiohttp.web, which
`ernie-async serve` runs; `aiohttp_sse` is for routes of your own, `gateway.starlette` for those of
Starlette and FastAPI, and `gateway.redis` for several processes.
"""

from ernie_async.gateway.app import GATEWAY, aiohttp_sse, make_app
from ernie_async.gateway.hub import StreamHub
from ernie_async.gateway.live import LiveStream, StreamLimits, Viewer
from ernie_async.gateway.production import StreamEnded
from ernie_async.gateway.settings import GatewaySettings
from ernie_async.gateway.stores import MemoryStore, Store
from ernie_async.gateway.tenants import Tenant
from ernie_async.sansio.relay import GatewayError

__all__ = [
    "GATEWAY",
    "GatewayError",
    "GatewaySettings",
    "LiveStream",
    "MemoryStore",
    "Store",
    "StreamEnded",
    "StreamHub",
    "StreamLimits",
    "Tenant",
    "Viewer",
    "aiohttp_sse",
    "make_app",
]
