"""The HTTP application: routes over an engine. What every request passes first is `guard`'s."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import orjson
from fastapi import APIRouter, FastAPI, Request, WebSocket
from fastapi.responses import Response, StreamingResponse
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from framegate.serve.accept import preferred
from framegate.serve.engine import Engine
from framegate.serve.errors import BadRequest, ServeError
from framegate.serve.infer import Inference
from framegate.serve.openapi import GUARDED, NDJSON, PREDICT, SPANS, TOP, failures
from framegate.serve.pages import live_page
from framegate.serve.peers import Peers
from framegate.serve.predict import Uploads
from framegate.serve.rest import error_response, json_response, make_router
from framegate.serve.uploads import received
from framegate.serve.websocket import serve_stream

JSON = "application/json"


class Label(BaseModel):
    """A class and its mean probability over a span."""

    name: str
    probability: float


class SpanOfTime(BaseModel):
    """A maximal run of one top label."""

    start_s: float
    end_s: float
    labels: list[Label]


def create_app(engine: Engine, inference: Inference, peers: Peers, private: Path) -> FastAPI:
    """All routes of the server; uploads are kept in the folder `private` while they are in work."""
    summary = "Video models that the gate shipped, on live streams."
    # the pages of docs load foreign scripts; FastAPI's own /openapi.json is no route that /metrics could name
    app = FastAPI(
        title="framegate", summary=summary, docs_url=None, redoc_url=None, openapi_url=None, responses=GUARDED
    )
    app.add_exception_handler(ServeError, _as_json)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(ClientDisconnect, _nobody)
    for router in (make_router(inference, peers), live_page(engine.name)):
        _add_heads(router)
        app.include_router(router)
    _add_predict(app, engine, private)
    _add_metrics(app, engine)
    _add_openapi(app)
    _add_heads(app.router)

    @app.websocket("/v1/streams/{model}")
    async def streams(socket: WebSocket, model: str) -> None:
        await serve_stream(socket, engine, model)

    return app


async def _nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # the client left; nobody reads it


async def _no_route(request: Request, error: Exception) -> Response:
    """404 and 405 of the routing, which would else have a `detail`."""
    assert isinstance(error, HTTPException)
    response = json_response({"error": f"{request.method} {request.url.path}: {error.detail}"}, error.status_code)
    response.headers.update(error.headers or {})
    if response.headers.get("Allow") == "GET":
        response.headers["Allow"] = "GET, HEAD"  # a route of its own, see _add_heads
    return response


async def _as_json(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServeError)
    return error_response(error)


def _add_predict(app: FastAPI, engine: Engine, private: Path) -> None:
    uploads = Uploads(engine)
    answers = {200: SPANS, **failures(400, 413, 415, 503)}

    @app.post("/v1/predict", response_model=list[SpanOfTime], responses=answers, openapi_extra=PREDICT)
    async def predict(request: Request) -> Response:
        """Labels per span of time of an uploaded video or image: a multipart field `file`, or the file as the body.

        `Accept: application/x-ndjson` gives each span on a line of its own as soon as it ends.
        """
        lines = _lines(request, uploads, private, engine.limits.max_upload, _top(request))
        version = {"Framegate-Version": (await anext(lines)).decode()}
        if preferred(request.headers.getlist("accept"), (JSON, NDJSON)) == NDJSON:
            first = await anext(lines, b"")  # what fails before the first span has a status of its own
            return StreamingResponse(_after(first, lines), media_type=NDJSON, headers=version)
        spans = [orjson.loads(line) async for line in lines]
        return Response(orjson.dumps(spans), media_type=JSON, headers=version)


def _top(request: Request) -> int:
    """How many labels of a span are asked for. Parsed here: FastAPI would answer 422, and in words of its own."""
    text = request.query_params.get("top", str(TOP["default"]))
    try:
        top = int(text)
    except ValueError:
        top = 0
    if not 1 <= top <= 1000:
        raise BadRequest(f"top: {text[:40]!r}; expected an integer from 1 to 1000")
    return top


async def _lines(
    request: Request, uploads: Uploads, private: Path, limit: int, top: int
) -> AsyncGenerator[bytes, None]:
    """The version that answers, then each span as a line of JSON."""
    with uploads.admitted():
        async with received(request, private, limit) as path:
            async for answer in uploads.answers(path, top, request.is_disconnected):
                yield answer.encode() if isinstance(answer, str) else orjson.dumps(answer) + b"\n"


async def _after(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A stream whose status is sent: what fails now is its last line."""
    try:
        yield first
        async for line in rest:
            yield line
    except ServeError as error:
        yield orjson.dumps({"error": str(error)}) + b"\n"


def _add_metrics(app: FastAPI, engine: Engine) -> None:
    @app.get("/metrics", response_class=Response)
    def metrics() -> Response:
        """Prometheus' text format."""
        return Response(engine.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _add_openapi(app: FastAPI) -> None:
    @app.get("/openapi.json", include_in_schema=False)
    def openapi() -> Response:
        """Every HTTP route."""
        return json_response(app.openapi())


def _add_heads(router: APIRouter) -> None:
    """HEAD wherever a router itself has GET, for `curl -I` and load balancers that ask so; FastAPI answers 405."""
    for route in list(router.routes):
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()):
            router.add_api_route(route.path, route.endpoint, methods=["HEAD"], include_in_schema=False)
