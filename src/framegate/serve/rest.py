"""The Open Inference Protocol v2 over HTTP.

Routes are FastAPI's, so that they stand in the OpenAPI page, but their handlers take the request as it is: resolving
parameters and validating bodies costs more than the rest of the answer. Bodies come decompressed (a middleware's work).
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from framegate.serve import metadata
from framegate.serve.errors import Overloaded, ServeError
from framegate.serve.infer import Inference
from framegate.serve.openapi import ANY, INFER, failures, path_parameters
from framegate.serve.peers import Peers
from framegate.serve.rest_codec import decode_request, encode_response

HEADER_LENGTH = b"inference-header-content-length"
JSON = (b"content-type", b"application/json")
BINARY = (b"content-type", b"application/octet-stream")
REFUSED = re.compile(r"q=0(\.0*)?")
COMPRESS_FROM_BYTES = 1024  # below it the headers outweigh what is saved
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda body: gzip.compress(body, 1, mtime=0),
    "deflate": lambda body: zlib.compress(body, 1),
}


MODEL = "/v2/models/{model}"
_INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")


class RawRoute(APIRoute):
    """A route whose handler gets the request and nothing else; a ServeError is its answer."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint itself."""
        endpoint = self.endpoint

        async def handle(request: Request) -> Response:
            try:
                response: Response = await endpoint(request)
                return response
            except ServeError as error:
                return error_response(error)
            except ClientDisconnect:
                return Response(status_code=499)  # nobody reads it

        return handle


def json_response(content: Any, status: int = 200) -> Response:
    """Anything as JSON."""
    return Response(orjson.dumps(content), status, media_type="application/json")


def error_response(error: ServeError) -> Response:
    """`{"error": text}`; Overloaded says when to come back."""
    response = json_response({"error": str(error)}, error.status)
    if isinstance(error, Overloaded):
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    return response


def make_router(inference: Inference, peers: Peers | None = None) -> APIRouter:
    """All routes under /v2; include it before others: routes are tried in order, and the hot ones come first here.

    `peers`: where a sequence of another worker's goes.
    """
    router = APIRouter(route_class=RawRoute, tags=["Open Inference Protocol v2"])
    routes = Routes(inference, peers)
    model, pinned = MODEL, f"{MODEL}/versions/{{version}}"
    for path in (model, pinned):
        _add(router, "POST", f"{path}/infer", routes.infer, 400, 404, 413, 501, 503, 504, body=INFER)
    _add(router, "GET", "/v2", routes.server)
    _add(router, "GET", "/v2/health/live", routes.live)
    _add(router, "GET", "/v2/health/ready", routes.ready, 503)
    _add(router, "GET", "/v2/models/stats", routes.statistics)
    _add(router, "POST", "/v2/repository/index", routes.index)
    for path in (model, pinned):
        _add(router, "GET", path, routes.model, 404)
        _add(router, "GET", f"{path}/ready", routes.model_ready, 404, 503)
        _add(router, "GET", f"{path}/config", routes.config, 404)
        _add(router, "GET", f"{path}/stats", routes.statistics, 400)
    return router


def _add(
    router: APIRouter,
    method: str,
    path: str,
    endpoint: Callable[[Request], Coroutine[Any, Any, Response]],
    *errors: int,
    body: dict[str, Any] | None = None,
) -> None:
    router.add_api_route(
        path,
        endpoint,
        methods=[method],
        operation_id=f"oip_{endpoint.__name__}{'_of_version' if '{version}' in path else ''}"
        f"{'_of_model' if path.endswith('/stats') and '{' in path else ''}",
        responses={200: ANY, **failures(*errors)},
        response_model=None,
        openapi_extra={"parameters": path_parameters(path), **(body or {})},
    )


class Routes:
    """One method per route."""

    def __init__(self, inference: Inference, peers: Peers | None) -> None:
        self.inference, self.engine, self.peers = inference, inference.engine, peers

    async def server(self, request: Request) -> Response:
        """Name, version and extensions of the server."""
        return json_response(metadata.server_metadata())

    async def live(self, request: Request) -> Response:
        """The server answers."""
        return json_response({"live": True})

    async def ready(self, request: Request) -> Response:
        """New work is welcome; says which bundle stays out, and why."""
        rejected = self.engine.rejected
        told = {"rejected": rejected} if rejected else {}
        return self._ready({"version": self.engine.current.version, **told})

    async def model(self, request: Request) -> Response:
        """Tensors and versions of a model."""
        return json_response(metadata.model_metadata(self.inference, *_model(request)))

    async def model_ready(self, request: Request) -> Response:
        """The model takes requests."""
        self.engine.find(*_model(request))
        return self._ready({})

    def _ready(self, told: dict[str, Any]) -> Response:
        if self.engine.ready:
            return json_response({"ready": True, **told})
        return json_response({"ready": False, "error": "the server is shutting down", **told}, 503)

    async def config(self, request: Request) -> Response:
        """The model's configuration, in Triton's terms."""
        return json_response(metadata.model_config(self.inference, *_model(request)))

    async def statistics(self, request: Request) -> Response:
        """How many requests were answered and refused."""
        return json_response(metadata.statistics(self.inference, *_model(request)))

    async def index(self, request: Request) -> Response:
        """Every open version."""
        return json_response(metadata.repository_index(self.inference))

    async def infer(self, request: Request) -> Response:
        """Logits of frames: within a sequence (the server keeps the state), with a state, or each frame alone."""
        return await self.answer(*_model(request), request.scope, await request.body())

    async def answer(self, model: str, version: str, scope: Scope, sent: bytes) -> Response:
        """The same for a body that is there."""
        found = dict(reversed(scope["headers"]))  # of repeated ones the first, as elsewhere
        length = found[HEADER_LENGTH].decode("latin-1") if HEADER_LENGTH in found else None
        asked = decode_request(sent, length, model, version, self.inference.json_bytes)
        if self.peers and (owner := self.peers.elsewhere(asked.parameters)) is not None:
            return await self.peers.post(owner, Request(scope), sent)
        body, head_bytes = encode_response(await self.inference.infer(asked), asked)
        headers = [JSON] if head_bytes is None else [BINARY, (HEADER_LENGTH, b"%d" % head_bytes)]
        accepted = found.get(b"accept-encoding")
        if accepted and len(body) >= COMPRESS_FROM_BYTES and (name := _compression(accepted.decode("latin-1"))):
            body = COMPRESSIONS[name](body)
            headers.append((b"content-encoding", name.encode()))
        return _Encoded(body, headers)


class _Encoded(Response):
    """200, with body and headers as they go over the wire."""

    def __init__(self, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.status_code, self.background, self.body = 200, None, body
        self.raw_headers = [(b"content-length", b"%d" % len(body)), *headers]


class Express:
    """ASGI: answers inference itself and hands everything else on.

    FastAPI's middleware and routing cost 0.1 ms a request, and Starlette's Request a tenth of that: the code of the
    server has left the processor's caches whenever a step is over, so every line counts about three times. The same
    answer is a route there, for the OpenAPI page and for whoever puts no Express in front.
    """

    path = f"{MODEL}/infer"  # what counters call it

    def __init__(self, app: ASGIApp, inference: Inference, peers: Peers | None = None) -> None:
        self._app, self._routes = app, Routes(inference, peers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and (found := _INFER.fullmatch(scope["path"])):
            scope["route"] = self
            sent = await _whole(receive)
            try:
                if sent is None:
                    response = Response(status_code=499)  # nobody reads it; it is counted
                else:
                    response = await self._routes.answer(found[1], found[2] or "", scope, sent)
            except ServeError as error:
                response = error_response(error)
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)


async def _whole(receive: Receive) -> bytes | None:
    """The body of a request, None when the client left before its end."""
    pieces: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        pieces.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(pieces)


def _model(request: Request) -> tuple[str, str]:
    return request.path_params.get("model", ""), request.path_params.get("version", "")


def _compression(accepted: str) -> str | None:
    """The first of the codings in Accept-Encoding that is known here and not refused by q=0."""
    for item in accepted.lower().split(","):
        name, _, quality = item.replace(" ", "").partition(";")
        if name in COMPRESSIONS and not REFUSED.fullmatch(quality):
            return name
    return None
