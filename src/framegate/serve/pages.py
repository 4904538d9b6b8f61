"""`GET /`: the live page and its two files, with the headers that keep a browser from doing anything else with them."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request, Response

PLACE: Final = "{{model}}"
POLICY: Final = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "object-src 'none'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # kept by the browser, asked for again each time: a new server brings its own page
}
TYPES: Final = {"index.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}


def live_page(model: str) -> APIRouter:
    """Routes `/`, `/page.css` and `/page.js`; `model` is the name in the URL of the streams that the page opens."""
    router = APIRouter()
    for name, kind in TYPES.items():
        text = files(__package__).joinpath("page", name).read_text("utf-8")
        content = text.replace(PLACE, html.escape(model)).encode() if name == "index.html" else text.encode()
        router.add_api_route(
            "/" if name == "index.html" else f"/{name}",
            _answer(content, f"{kind}; charset=utf-8"),
            include_in_schema=False,
        )
    return router


def _answer(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint for bytes that never change while the server runs; 304 to a browser that has them."""
    etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {**HEADERS, "ETag": etag}

    async def answer(request: Request) -> Response:
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    return answer
