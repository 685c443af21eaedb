"""`attributary collect`: the HTTP collector; `collect keys`, `collect link` and `collect check` beside it."""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.util
import logging
import socket
from typing import TYPE_CHECKING

import typer

from attributary import __version__
from attributary.cli import exits
from attributary.cli.command_line import load_plainly
from attributary.cli.outcome import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from attributary.cli.collect_settings import CollectSettings
    from attributary.consumers.runtime.settings import ProcessSettings
    from attributary.producers.client import AttributaryProducer
    from attributary.producers.transport import Transport

EXIT_AGAIN = 75  # EX_TEMPFAIL: a supervisor starts the process again
# Each module has ``register(group)``.
_BESIDE = ("collect_keys", "collect_check")


def register(app: typer.Typer) -> None:
    """Add the group `collect`."""
    group = typer.Typer(invoke_without_command=True, no_args_is_help=False, rich_help_panel="Processes")
    group.callback()(_collect)
    for name in _BESIDE:
        if importlib.util.find_spec(f"attributary.cli.{name}"):
            importlib.import_module(f"attributary.cli.{name}").register(group)
    app.add_typer(group, name="collect")


def _collect(context: typer.Context) -> None:
    """Take events over HTTP: from pages, servers, mails and shops (extra `collect`).

    A record is answered "accepted" after Kafka's acknowledgement, "spooled" after fsync in COLLECT_SPOOL. Needs
    KAFKA_BOOTSTRAP_SERVERS, COLLECT_KEYS_FILE and COLLECT_SPOOL; Kafka may be away at the start. All settings:
    docs/reference/settings.md. The public listener is COLLECT_PORT (8080).

    Serves /metrics, /livez and /readyz on METRICS_PORT (9464), which must not be public. SIGTERM: answer what is in
    hand, stop; twice: at once. Exit codes: 0 asked to stop, 69 the schema registry is away, 75 start it again, 78 a
    setting is wrong.
    """
    if context.invoked_subcommand is not None:
        return
    need_extra()
    load_plainly("structlog")
    from attributary.consumers.runtime import crash_points
    from attributary.consumers.runtime.run import run_process
    from attributary.producers.collector import crash_points as passed

    crash_points.register_points(*passed.POINTS)
    passed.connect(crash_points.crash_at)
    raise typer.Exit(run_process("collector", __version__, _run))


def need_extra() -> None:
    """End the command with a sentence when the packages of the extra are not installed."""
    from attributary.local.stages import COLLECT_PACKAGES

    if missing := [name for name in COLLECT_PACKAGES if importlib.util.find_spec(name) is None]:
        say(f"{missing[0]} is not installed: pip install 'attributary[collect]'")
        raise typer.Exit(exits.CONFIG)


def _run(process: ProcessSettings) -> None:
    """Run the collector until it is asked to stop.

    Raises:
        ConfigError: a setting is missing or wrong.
        Retry: the schema registry is away.
    """
    from attributary.cli.collect_settings import CollectSettings
    from attributary.consumers.runtime.errors import ConfigError, Fatal
    from attributary.consumers.runtime.health import Heartbeat
    from attributary.consumers.runtime.run import serve_health
    from attributary.consumers.runtime.settings import load
    from attributary.producers.collector.keys import KeysError
    from attributary.producers.collector.server import CollectorServer
    from attributary.producers.collector.webhooks import SourceError, UnmappedFolderError

    log_to_structlog()
    settings = load(CollectSettings)
    sealer, transport = _log_of(settings)
    listener = bound_socket(settings.host, settings.port, "COLLECT_PORT")
    heartbeat = Heartbeat(lambda: server.is_ready)
    heartbeat.started = True
    try:
        server = CollectorServer(settings.config(), settings.options(), sealer, transport, heartbeat.beat)
    except KeysError as error:
        raise ConfigError("COLLECT_KEYS_FILE", str(error)) from None
    except SourceError as error:
        raise ConfigError("COLLECT_WEBHOOKS_FILE", str(error)) from None
    except UnmappedFolderError as error:
        raise ConfigError("COLLECT_WEBHOOKS_UNMAPPED", str(error)) from None
    except OSError as error:
        raise ConfigError("COLLECT_SPOOL", f"the folder cannot be used ({error.strerror})") from None
    serve_health("collector", process, heartbeat)
    gc.collect()
    gc.freeze()  # what the start has made stays: a full collection need not walk it, which is a pause of 0.1 s
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(server.run(listener))
    if server.has_failed:
        raise Fatal("the producer failed for good; started again, the process has a new one", EXIT_AGAIN)


def _log_of(settings: CollectSettings) -> tuple[AttributaryProducer, Transport]:
    """Return what seals records, and what carries them to Kafka. Kafka need not answer yet; a registry must.

    Raises:
        ConfigError: a setting is missing or wrong.
        Retry: the schema registry is away.
    """
    from confluent_kafka import KafkaException

    from attributary.consumers.adapters.policy_settings import IdentitySettings
    from attributary.consumers.adapters.registry_settings import RegistrySettings, make_codec
    from attributary.consumers.runtime.errors import ConfigError, Retry
    from attributary.consumers.runtime.kafka_errors import refused_setting
    from attributary.consumers.runtime.settings import KafkaSettings, load
    from attributary.producers.client import AttributaryProducer
    from attributary.producers.collector.server import LOG_SETTINGS
    from attributary.producers.config import ProducerConfig
    from attributary.producers.kafka import KafkaTransport
    from attributary.producers.memory_transport import CheckOnly
    from attributary.schemas.codec import EncodeError, RegistryUnavailableError

    kafka = KafkaSettings.load()
    shared = kafka.client_config()
    bootstrap = str(shared.pop("bootstrap.servers"))
    codec = make_codec(load(RegistrySettings))
    for name in ("touchpoint", "conversion", "identity_link"):  # the registry is asked now, not inside a request
        try:
            codec.encode(name, {})
        except RegistryUnavailableError as error:
            raise Retry(f"the schema registry does not answer: {error}") from None
        except EncodeError as error:
            if "regist" in error.rule:
                raise ConfigError("SCHEMA_REGISTRY_URL", error.rule) from None
    sealer = AttributaryProducer(
        ProducerConfig(
            source="attributary-collector",
            default_region=settings.default_region,
            identities=load(IdentitySettings).rules(),
            codec=codec,
        ),
        transport=CheckOnly(),  # it only seals
    )
    try:
        transport = KafkaTransport(bootstrap, {"client.id": "attributary-collector", **LOG_SETTINGS, **shared})
    except KafkaException as error:
        raise refused_setting(error, frozenset(kafka.extra)) from None
    except ValueError as error:
        raise ConfigError("KAFKA_EXTRA", str(error)) from None
    return sealer, transport


def bound_socket(host: str, port: int, variable: str) -> socket.socket:
    """Return a listener's socket.

    Args:
        host: address.
        port: 0: any.
        variable: setting that names the port.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    from attributary.consumers.runtime.errors import ConfigError

    # Of a socket that does not name its protocol asyncio leaves Nagle's algorithm on: the body of every answer but the
    # first of a connection would wait for the client's delayed acknowledgement of the headers, 40 ms.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(variable, f"cannot listen on port {port} ({error.strerror}); 0 takes any") from None
    return listener


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if importlib.util.find_spec("uvloop") is None:
        return None
    return importlib.import_module("uvloop").new_event_loop  # type: ignore[no-any-return]  # uvloop is optional


def log_to_structlog() -> None:
    """Write what the producers' loggers say as JSON, as every process does."""
    import structlog

    log = structlog.get_logger()

    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            log.log(record.levelno, record.getMessage())

    for name in ("attributary", "uvicorn"):
        logger = logging.getLogger(name)
        logger.addHandler(Forward())
        logger.setLevel(logging.INFO if name == "attributary" else logging.ERROR)
        logger.propagate = False
