"""Life of a local stack in the foreground or detached: `attributary up` and `attributary down`.

Contract: `run_foreground` returns when it was asked to stop (SIGINT or SIGTERM) and everything has ended;
`start_detached` tells what happens until every stage is ready, or raises; `stop_detached` returns when it has ended.
A stack in the background is the same foreground process without a terminal.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from attributary.local.process import ProcessFailedError, spawn, wait_until_ready
from attributary.local.stack import Stack, refusal_of
from attributary.local.stages import STAGES, command_line
from attributary.schemas.installation import PREFIX_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from attributary.local.folder import StackFolder

_UP_SECONDS = 900.0
_SUMMARY_SECONDS = 5.0
LAST_LINE = "Stop it: attributary down, or Ctrl-C where it runs."
_DOWN_SECONDS = 120.0


def run_foreground(
    folder: StackFolder, say: Callable[[str], None], *, fake_services: bool = False, prometheus: bool = False
) -> None:
    """Run a stack until SIGINT or SIGTERM.

    Args:
        folder: Where everything is kept.
        say: Prints a line.
        fake_services: Forward to stand-ins for Meta and GA4.
        prometheus: Run the machine's Prometheus on the stack.

    Raises:
        FolderInUseError: when a stack runs in the folder already.
        ProcessFailedError: when a part does not start or a stage does not become ready; what had started is stopped
            again.
    """
    asked = threading.Event()

    def ask(_number: int, _frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    with folder.lock():
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with Stack(folder, say, fake_services) as stack:
                stack.start()
                stack.start_monitoring(with_prometheus=prometheus)
                stack.wait_ready()
                shared = ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "COLLECT_KEYS_FILE", "SERVE_KEYS_FILE")
                variables = {**os.environ, **stack.environment}
                folder.write_environment(
                    {name: variables[name] for name in shared}
                    | {name: variables[name] for name in (PREFIX_VARIABLE,) if variables.get(name)}
                    | stack.stand_ins
                    | {"COLLECT_URL": collector_url(stack), "SERVE_URL": api_url(stack)}
                    | {"STATUS_READY_URLS": ready_urls(stack)}
                )
                for line in summary(stack, prometheus=prometheus):
                    say(line)
                while not asked.wait(0.5):
                    stack.watch()
                say("stopping: stages, then broker, then database")
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def start_detached(
    folder: StackFolder, say: Callable[[str], None], *, fake_services: bool = False, prometheus: bool = False
) -> None:
    """Start a stack that outlives this process, and pass on what it prints. Arguments as for `run_foreground`.

    Raises:
        FolderInUseError: when a stack runs in the folder already.
        ProcessFailedError: when it does not come up.
    """
    with folder.lock():
        pass
    log = folder.log("up")
    log.unlink(missing_ok=True)
    options = (("--fake-destinations", fake_services), ("--prometheus", prometheus))
    arguments = ["up", "--data", str(folder.path), *(option for option, is_set in options if is_set)]
    child = spawn(command_line(*arguments), name="attributary up", log=log, guarded=False)
    with log.open(encoding="utf-8", errors="replace") as lines:

        def refusal() -> str | None:
            is_up = folder.environment_file.exists()
            _pass_on(lines, say)
            return None if is_up else "it is still starting"

        try:
            wait_until_ready(child, refusal, timeout_seconds=_UP_SECONDS)
            _wait_for_the_end_of_the_summary(lines, say)
        except ProcessFailedError:
            _pass_on(lines, say)
            if child.running:
                raise
            raise ProcessFailedError(f"the stack did not come up; its logs are in {log.parent}") from None
    child.leave()


def _pass_on(lines: TextIO, say: Callable[[str], None]) -> list[str]:
    """Print the whole lines that a log has got meanwhile."""
    passed: list[str] = []
    while True:
        place = lines.tell()
        line = lines.readline()
        if not line.endswith("\n"):
            lines.seek(place)
            return passed
        passed.append(line.rstrip("\n"))
        say(passed[-1])


def _wait_for_the_end_of_the_summary(lines: TextIO, say: Callable[[str], None]) -> None:
    deadline = time.monotonic() + _SUMMARY_SECONDS
    while time.monotonic() < deadline and LAST_LINE not in _pass_on(lines, say):
        time.sleep(0.05)


def state(folder: StackFolder) -> tuple[list[str], bool]:
    """Tell whether a stack runs in the folder, at which ports, and whether its stages are ready.

    Returns:
        Lines for people, and whether everything is up.
    """
    owner = folder.owner()
    if owner is None:
        return [f"no stack runs in {folder.path}; start one: attributary up --detach"], False
    if not folder.environment_file.exists():
        return [f"the stack in {folder.path} (pid {owner}) is starting, see {folder.log('up')}"], False
    ports = folder.ports()
    lines = [f"a stack runs in {folder.path} (pid {owner})"]
    lines += [f"  {name:<15}127.0.0.1:{ports[name]}" for name in ports if name.startswith(("kafka-9092", "postgres"))]
    is_up = True
    for stage in STAGES:
        if stage.name not in ports:
            lines.append(f"  {stage.name:<15}off")
            continue
        why = refusal_of(ports[stage.name])
        is_off = why is not None and stage.enabled_by and "does not answer" in why
        is_up = is_up and (why is None or bool(is_off))
        lines.append(f"  {stage.name:<15}{'off' if is_off else why or 'ready'}")
    return [*lines, f"  to use it: . {folder.environment_file}; then: attributary status"], is_up


def stop_detached(folder: StackFolder) -> bool:
    """Ask the stack in the folder to stop and wait for it; False when none runs there.

    Raises:
        ProcessFailedError: when it does not end in time.
    """
    owner = folder.owner()
    if owner is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(owner, signal.SIGTERM)
    deadline = time.monotonic() + _DOWN_SECONDS
    while folder.owner() == owner:
        if time.monotonic() > deadline:
            raise ProcessFailedError(
                f"the stack in {folder.path} (pid {owner}) has not stopped; see {folder.log('up')}"
            )
        time.sleep(0.1)
    return True


def collector_url(stack: Stack) -> str:
    """Where the HTTP collector of a stack listens."""
    port = os.environ.get("COLLECT_PORT") or stack.environment.get("COLLECT_PORT", "8080")
    return f"http://127.0.0.1:{port}"


def api_url(stack: Stack) -> str:
    """Where the read API of a stack listens."""
    port = os.environ.get("SERVE_PORT") or stack.environment.get("SERVE_PORT", "8090")
    return f"http://127.0.0.1:{port}"


def ready_urls(stack: Stack) -> str:
    """Where each process of a stack says whether it is ready, as `attributary status` takes it."""
    return ",".join(f"{each.stage.name}=http://127.0.0.1:{each.metrics_port}" for each in stack.stages)


def summary(stack: Stack, *, prometheus: bool = False) -> list[str]:
    """Where everything is, and what to do next."""
    lines = ["", "Attributary is up.", f"  Kafka      {stack.bootstrap}", f"  Postgres   {stack.dsn}"]
    lines.append(f"  HTTP       {collector_url(stack)}   after: attributary collect keys new --tenant NAME")
    lines.append(f"  read API   {api_url(stack)}   after: ... keys new --kind sk --scope read --tenant NAME")
    width = max([15, *(len(stage.name) + 2 for stage in stack.skipped)])
    for running in stack.stages:
        address = f"http://127.0.0.1:{running.metrics_port}/metrics"
        lines.append(f"  {running.stage.name:<{width}}{address}   {running.stage.doc}")
    lines += [f"  {stage.name:<{width}}{stage.why_off}" for stage in stack.skipped]
    if stack.fake_services:
        received = (f"{stack.environment[name]}/_admin/events" for name in ("META_BASE_URL", "GA4_BASE_URL"))
        lines.append(f"  stand-ins for Meta and GA4 received: {' '.join(received)}")
    monitoring = stack.folder.path / "monitoring"
    if prometheus:
        lines.append(f"  Prometheus     http://127.0.0.1:{stack.folder.ports()['prometheus']}")
    elif monitoring.exists():
        lines.append(f"  Prometheus     off; its configuration: {monitoring / 'prometheus.yml'}, or --prometheus")
    if monitoring.exists():
        lines.append(f"  Grafana        off; GF_PATHS_PROVISIONING={monitoring / 'provisioning'} shows its dashboards")
    return [
        *lines,
        f"  data in {stack.folder.path}, logs in {stack.folder.path / 'logs'}",
        "",
        "Next, in another terminal:",
        f"  . {stack.folder.environment_file}",
        "  attributary status",
        "  attributary tail results",
        "  attributary simulate --help",
        LAST_LINE,
    ]
