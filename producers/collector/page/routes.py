"""The page script's addresses: a short-lived name that always has the newest script, and one with a digest, for ever.

``attributary.js`` is kept for an hour and checked by its ETag; ``attributary.<digest>.js`` never changes, so browsers
keep it for a year and a tag can name its integrity. An older digest is 404: pages name the one of the collector that
serves them (`attributary collect tag`). The content is public, so any origin may read it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from attributary.producers.collector.answers import SECURITY_HEADERS
from attributary.producers.collector.page.script import page_script

if TYPE_CHECKING:
    from attributary.producers.collector.app import Collector

ENDPOINTS = (".js",)
_HOUR = "public, max-age=3600, stale-while-revalidate=86400"
_FOR_EVER = "public, max-age=31536000, immutable"


def routes(collector: Collector) -> list[BaseRoute]:
    """Return the routes of the script; none when it has no name."""
    name = collector.config.script_name
    if not name:
        return []
    script = page_script()
    etag = f'"{script.digest}"'
    common = {
        **SECURITY_HEADERS,
        "Content-Type": "text/javascript; charset=utf-8",
        "Access-Control-Allow-Origin": "*",
        "ETag": etag,
    }

    def answer(request: Request, cache: str) -> Response:
        headers = {**common, "Cache-Control": cache}
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(script.content, headers=headers)

    async def newest(request: Request) -> Response:
        return answer(request, _HOUR)

    async def versioned(request: Request) -> Response:
        return answer(request, _FOR_EVER)

    return [
        Route(f"/{name}", newest, methods=["GET"]),
        Route(f"/{script.versioned(name)}", versioned, methods=["GET"]),
    ]
