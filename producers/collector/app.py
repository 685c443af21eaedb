"""The ASGI application of the public listener.

``create_app(collector, routes)`` is the one place where routes are joined: the collector's own, and those of further
edges (webhooks, the page script), each a list of Starlette routes made by ``routes(collector)`` in its package. An
edge's handler raises ``Refusal`` for whatever ends a request; it becomes problem+json with the headers of every answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route, Router

from attributary.producers.collector.access import Access
from attributary.producers.collector.answers import Refusal, json_answer, problem
from attributary.producers.collector.config import CollectorConfig
from attributary.producers.collector.edge import Edge, failed
from attributary.producers.collector.intake import Intake
from attributary.producers.collector.keys import KeyRing
from attributary.producers.collector.pixel import Pixel
from attributary.producers.collector.requests import direct
from attributary.producers.collector.tracking import Tracking

API = "/api/v1/attribution"
ENDPOINTS = ("/track/event", "/track/conversion", "/pixel.gif", "/redirect", "/health")
"""Names of paths in metrics; further edges pass their own."""


@dataclass(slots=True)
class Collector:
    """What every route works with."""

    config: CollectorConfig
    intake: Intake
    access: Access
    keys: KeyRing


def create_app(collector: Collector, routes: Sequence[BaseRoute] = (), endpoints: Sequence[str] = ()) -> Edge:
    """Return the application.

    Args:
        collector: settings and the parts that handlers use.
        routes: routes of further edges, below the collector's prefix.
        endpoints: ends of their paths, as metrics name them.
    """
    tracking, pixel = Tracking(collector), Pixel(collector)
    every: list[BaseRoute] = [
        Route(f"{API}/track/event", tracking.event, methods=["POST"]),
        Route(f"{API}/track/conversion", tracking.conversion, methods=["POST"]),
        Route(f"{API}/pixel.gif", pixel.pixel, methods=["GET"]),  # Starlette adds HEAD
        Route(f"{API}/redirect", pixel.redirect, methods=["GET"]),
        Route(f"{API}/health", _health, methods=["GET"]),
        *routes,
    ]
    prefix = collector.config.prefix
    below = Mount(prefix, app=Router(every, redirect_slashes=False))
    app = Starlette(routes=[below] if prefix else every)
    app.router.redirect_slashes = False
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(404, _not_found)
    app.add_exception_handler(405, _not_allowed)
    app.add_exception_handler(Exception, _failed)
    posts = {
        f"{prefix}{API}/track/event": direct(tracking.event),
        f"{prefix}{API}/track/conversion": direct(tracking.conversion),
    }
    return Edge(app, posts, collector.keys, collector.config.max_concurrency, (*ENDPOINTS, *endpoints))


async def _health(_request: Request) -> Response:
    return json_answer(200, {"status": "ok"})


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # noqa: S101  # registered for it alone
    return problem(error)


async def _failed(_request: Request, _error: Exception) -> Response:
    return failed()  # Starlette raises the error again, so that `Edge` logs it


async def _not_found(_request: Request, _error: Exception) -> Response:
    return problem(Refusal(404, "There is nothing at this path."))


async def _not_allowed(_request: Request, error: Exception) -> Response:
    return problem(Refusal(405, "The path does not take this method.", getattr(error, "headers", None)))
