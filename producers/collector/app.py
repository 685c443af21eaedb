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
from starlette.routing import BaseRoute, Mount, Route

from attributary.producers.collector.answers import Refusal, json_answer, problem
from attributary.producers.collector.config import CollectorConfig
from attributary.producers.collector.intake import Intake

API = "/api/v1/attribution"


@dataclass(slots=True)
class Collector:
    """What every route works with."""

    config: CollectorConfig
    intake: Intake


def create_app(collector: Collector, routes: Sequence[BaseRoute] = ()) -> Starlette:
    """Return the application.

    Args:
        collector: settings and the parts that handlers use.
        routes: routes of further edges, below the collector's prefix.
    """
    own: list[BaseRoute] = [Route(f"{API}/health", _health, methods=["GET"])]
    every = [*own, *routes]
    app = Starlette(routes=[Mount(collector.config.prefix, routes=every)] if collector.config.prefix else every)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(404, _not_found)
    app.add_exception_handler(405, _not_allowed)
    return app


async def _health(_request: Request) -> Response:
    return json_answer(200, {"status": "ok"})


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # noqa: S101  # registered for it alone
    return problem(error)


async def _not_found(_request: Request, _error: Exception) -> Response:
    return problem(Refusal(404, "There is nothing at this path."))


async def _not_allowed(_request: Request, _error: Exception) -> Response:
    return problem(Refusal(405, "The path does not take this method."))
