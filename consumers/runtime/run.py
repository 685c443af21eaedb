"""Start a stage as a process: logs, health, signals, loop, exit code.

Exit codes: 0 asked to stop, 69 a dependency is down at the start, 70 a bug or a safety valve, 75 cut short, 78 a
setting is missing or wrong (its name is in the last log line).
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

import structlog

from . import metrics
from .certificates import watch_kafka_certificates
from .crash_points import check_armed
from .endpoints import kafka_exposure
from .errors import EXIT_CLEAN, AttributaryError, Fatal
from .health import Heartbeat, serve
from .logging import configure_logging
from .loop import ConsumerLoop
from .settings import KafkaSettings, ProcessSettings, load
from .signals import stop_on_signals
from .stage import Stage

_log = structlog.get_logger()

MakeStage = Callable[[ProcessSettings], Stage]


def run_guarded(body: Callable[[], None]) -> None:
    """Run the body of a process; what it does not expect is a bug, told with its stack and ended with exit code 70.

    Raises:
        AttributaryError: the body's own, or ``Fatal`` in place of anything else.
    """
    try:
        body()
    except AttributaryError:
        raise
    except Exception as error:
        _log.exception("stopped by a bug")
        raise Fatal(f"a bug: {type(error).__name__}, see the stack in the log") from error


def quiet_collector() -> None:
    """Let Python's cycle collector run seldom: a batch is hundreds of thousands of objects, none of them in a cycle.

    With the defaults it walks them all again and again: 93 microseconds of processor time an event in the forwarder,
    55 without it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def run_process(service: str, version: str, body: Callable[[ProcessSettings], None]) -> int:
    """Run the body of a process with logs and exit codes.

    Args:
        service: its name in logs and metrics.
        version: the running version of the project.
        body: what to run; raises ``AttributaryError`` for trouble with an exit code of its own.

    Returns:
        The exit code. Any other exception is a bug: it is logged with its stack, exit code 70.
    """
    configure_logging(service, "info", version)
    try:
        check_armed()
        process = load(ProcessSettings)
        configure_logging(service, process.log_level, version)
        metrics.build_info.labels(service, version).set(1)
        quiet_collector()
        run_guarded(lambda: body(process))
    except AttributaryError as error:
        _log.error("stopped", why=str(error), exit_code=error.exit_code)
        sys.stderr.write(f"{service}: {error}\n")
        return error.exit_code
    return EXIT_CLEAN


def serve_health(stage: str, process: ProcessSettings, heartbeat: Heartbeat) -> None:
    """Serve metrics and probes of a process, with the time since its loop last turned.

    Args:
        stage: the label of its metrics.
        process: host and port.
        heartbeat: told by the loop, read by the threads that serve.
    """
    metrics.stalled_seconds.labels(stage).set_function(heartbeat.silent_seconds)
    port = serve(process.metrics_host, process.metrics_port, heartbeat)
    _log.info("health and metrics", port=port)


def warn_of_exposure(process: ProcessSettings, kafka: KafkaSettings) -> None:
    """Say in production that others can read what goes to the brokers."""
    if process.environment == "production" and (exposed := kafka_exposure(kafka)) is not None:
        _log.warning("a connection is not protected", variable=exposed[0], why=exposed[1])


def run_stage(service: str, version: str, make_stage: MakeStage) -> int:
    """Run a consumer stage until it is asked to stop.

    Args:
        service: its name in logs and metrics.
        version: the running version of the project.
        make_stage: builds the stage from its settings; called after logs are set up, so that a missing setting or an
            unreachable store ends the start with its own exit code.

    Returns:
        The exit code.
    """

    def body(process: ProcessSettings) -> None:
        kafka = KafkaSettings.load()
        warn_of_exposure(process, kafka)
        watch_kafka_certificates(kafka)
        stage = make_stage(process)
        heartbeat = Heartbeat(stage.is_ready)
        serve_health(stage.name, process, heartbeat)
        loop = ConsumerLoop(stage, kafka, process, heartbeat)
        stop_on_signals(loop.stop, process.grace_seconds)
        loop.run()

    return run_process(service, version, body)
