"""What stands before every route of the application: origins, tokens, errors as JSON.

Knows nothing of answers.
"""

import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import SplitResult, urlsplit

from aiohttp import web
from pydantic_core import to_json

from ernie_async.errors import ErnieError
from ernie_async.gateway.socket import refuse_socket
from ernie_async.gateway.tenants import Tenants
from ernie_async.sansio.relay import OUR_MISTAKE, Fault, GatewayError, fault_of

__all__ = ["Guard", "json_answer"]

logger: logging.Logger = logging.getLogger("ernie_async")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ALLOWED_HEADERS = "Authorization, Content-Type, Last-Event-ID, Idempotency-Key"
EXPOSED_HEADERS = "X-Stream-Id, X-Request-Id, Retry-After"
PREFLIGHT_SECONDS = "600"

# An open gateway serves its own machine. A page whose name was made to point here is not of it.
LOCAL_NAMES = {"127.0.0.1", "localhost", "::1"}

CODES = {404: "not_found", 413: "too_large"}
"""What aiohttp.web itself refuses; anything else is an invalid request."""


def json_answer(told: object, *, status: int = 200) -> web.Response:
    """An answer in JSON."""
    return web.Response(body=to_json(told), status=status, content_type="application/json")


def new_request_id() -> str:
    """What to quote to the operator."""
    return f"eg-{secrets.token_hex(8)}"


class Guard:
    """Decides who gets in. Serves one application.

    Args:
        tenants: Whose tokens are known.
        origins: Of pages elsewhere that may ask.
    """

    def __init__(self, tenants: Tenants, origins: Sequence[str]) -> None:
        self._tenants = tenants
        self._origins = frozenset(origins)

    def tenant_of(self, request: web.Request) -> str:
        """Whose request it is.

        Raises:
            GatewayError: Nobody's.
        """
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        found = self._tenants.find(token.strip() if kind.lower() == "bearer" else "")
        if found is None:
            raise GatewayError(Fault(401, "unauthorized", "a valid token is needed"))
        return found

    @web.middleware
    async def stand_before(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """What aiohttp.web puts before the routes."""
        allow: str | None = None
        try:
            self._check_origin(request)
            if request.method == "OPTIONS" and "Origin" in request.headers:
                return web.Response(status=204)
            return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            code = CODES.get(error.status, "invalid_request")
            fault = Fault(error.status, code, error.reason)
            allow = error.headers.get("Allow")
        except ErnieError as error:
            fault = fault_of(error)
        except Exception:
            if request.writer.output_size:
                raise  # some of an answer is sent, and no other may come behind it
            logger.exception("a request to the gateway failed")
            fault = OUR_MISTAKE
        if request.method == "GET" and web.WebSocketResponse().can_prepare(request).ok:
            return await refuse_socket(request, fault)
        answer = self._refuse(fault)
        if allow is not None:
            answer.headers["Allow"] = allow
        return answer

    @staticmethod
    def _refuse(fault: Fault) -> web.Response:
        request_id = new_request_id()
        told = {"code": fault.code, "message": fault.message, "request_id": request_id}
        answer = json_answer({"error": told}, status=fault.status)
        answer.headers["X-Request-Id"] = request_id
        if fault.retry_after is not None:
            answer.headers["Retry-After"] = f"{max(1, round(fault.retry_after))}"
        if fault.status == 401:
            answer.headers["WWW-Authenticate"] = "Bearer"
        return answer

    def _check_origin(self, request: web.Request) -> None:
        """Keep out what a page elsewhere has a browser send without asking."""
        if self._tenants.is_open and _split(f"//{request.host}").hostname not in LOCAL_NAMES:
            raise GatewayError(Fault(403, "forbidden", "this gateway serves its own machine only"))
        origin = request.headers.get("Origin")
        if origin is None or origin in self._origins:
            return
        if _split(origin).netloc != request.host:
            raise GatewayError(Fault(403, "forbidden", "pages of that origin may not ask"))

    async def add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """What every answer has, for browsers and for the support."""
        headers = response.headers
        headers["Vary"] = "Origin"
        headers.setdefault("X-Request-Id", new_request_id())
        headers["X-Content-Type-Options"] = "nosniff"
        origin = request.headers.get("Origin")
        if origin is not None and origin in self._origins:
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS
            if request.method == "OPTIONS":
                headers["Access-Control-Allow-Headers"] = ALLOWED_HEADERS
                headers["Access-Control-Allow-Methods"] = "GET, POST"
                headers["Access-Control-Max-Age"] = PREFLIGHT_SECONDS


def _split(address: str) -> SplitResult:
    """The parts of an address; of what is none, nothing."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")
