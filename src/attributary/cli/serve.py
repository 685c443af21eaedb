"""`attributary serve`: the read API."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from attributary import __version__
from attributary.cli.command_line import load_plainly

if TYPE_CHECKING:
    from attributary.consumers.adapters.job_topic import JobTopic
    from attributary.consumers.runtime.settings import ProcessSettings


def register(app: typer.Typer) -> None:
    """Add the command `serve`."""
    app.command("serve", rich_help_panel="Processes")(_serve)


def _serve(
    *,
    openapi: Annotated[bool, typer.Option("--openapi", help="Print the OpenAPI document, and serve nothing.")] = False,
) -> None:
    """Answer questions about results over HTTP: results, explanations, reports, jobs, models (extra `collect`).

    A request needs a secret key with the scope read: attributary collect keys new --kind sk --tenant TENANT --scope
    read. The scope jobs lets it submit jobs, the scope erase ask for the erasure of people. The key's tenant is the
    only one that it sees. The listener, SERVE_HOST and SERVE_PORT, must stay private. Needs DATABASE_URL and
    SERVE_KEYS_FILE; KAFKA_BOOTSTRAP_SERVERS to submit anything. All settings: docs/reference/settings.md.

    Serves /metrics, /livez and /readyz on METRICS_PORT. Exit codes: 0 asked to stop, 78 a setting is wrong.

    Example: attributary serve --openapi
    """
    from attributary.cli.collect import need_extra

    need_extra()
    if openapi:
        from attributary.cli.tables import print_json
        from attributary.consumers.api.endpoints import openapi as document

        print_json(document(__version__))
        return
    load_plainly("structlog")
    from attributary.consumers.runtime.run import run_process

    raise typer.Exit(run_process("api", __version__, _run))


def _run(process: ProcessSettings) -> None:
    """Serve until asked to stop.

    Raises:
        ConfigError: a setting is missing or wrong.
    """
    from attributary.cli.collect import bound_socket, log_to_structlog
    from attributary.consumers.adapters.error_mapping import map_errors
    from attributary.consumers.adapters.policy_settings import PolicySettings
    from attributary.consumers.api.handlers import Handlers
    from attributary.consumers.api.pool import ReadPool
    from attributary.consumers.api.server import ApiServer
    from attributary.consumers.api.settings import ServeSettings
    from attributary.consumers.runtime.errors import ConfigError
    from attributary.consumers.runtime.health import Heartbeat
    from attributary.consumers.runtime.run import serve_health
    from attributary.consumers.runtime.settings import DatabaseSettings, load
    from attributary.producers.collector.keys import KeysError

    log_to_structlog()
    settings = load(ServeSettings)
    with map_errors():
        pool = ReadPool(
            load(DatabaseSettings).url.get_secret_value(),
            size=settings.connections,
            wait_seconds=settings.wait_seconds,
            statement_seconds=settings.statement_seconds,
        )
    jobs = _job_topic()
    handlers = Handlers(pool, jobs, load(PolicySettings).policy().inactivity_micros)
    heartbeat = Heartbeat(lambda: server.is_serving)
    heartbeat.started = True
    try:
        server = ApiServer(settings, pool, handlers, __version__, heartbeat.beat)
    except KeysError as error:
        raise ConfigError("SERVE_KEYS_FILE", str(error)) from None
    listener = bound_socket(settings.host, settings.port, "SERVE_PORT")
    serve_health("api", process, heartbeat)
    try:
        asyncio.run(server.run(listener))
    finally:
        if jobs is not None:
            jobs.close()


def _job_topic() -> JobTopic | None:
    """Return where jobs are submitted; None without KAFKA_BOOTSTRAP_SERVERS."""
    import os

    from attributary.consumers.adapters.job_topic import JobTopic
    from attributary.consumers.adapters.registry_settings import RegistrySettings, make_codec
    from attributary.consumers.runtime.settings import KafkaSettings, load
    from attributary.producers.kafka import KafkaTransport

    if not os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "").strip():
        return None
    kafka = KafkaSettings.load().client_config()
    return JobTopic(make_codec(load(RegistrySettings)), KafkaTransport(kafka.pop("bootstrap.servers"), kafka))
