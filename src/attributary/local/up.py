"""Life of a local stack in the foreground or detached: `attributary up` and `attributary down`.

Contract: `run_foreground` returns when it was asked to stop (SIGINT or SIGTERM) and everything has ended;
`start_detached` returns when the stack is up, or raises with the end of its log; `stop_detached` returns
when it has ended. A stack in the background is the same foreground process without a terminal.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from attributary.local.process import ProcessFailedError, spawn, wait_until_ready
from attributary.local.stack import Stack
from attributary.local.stages import command_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from attributary.local.folder import StackFolder

_UP_SECONDS = 900.0
_DOWN_SECONDS = 120.0


def run_foreground(folder: StackFolder, say: Callable[[str], None], *, fake_services: bool = False) -> None:
    """Run a stack until SIGINT or SIGTERM.

    Args:
        folder: Where everything is kept.
        say: Prints a line.
        fake_services: Forward to stand-ins for Meta and GA4.

    Raises:
        FolderInUseError: when a stack runs in the folder already.
        ProcessFailedError: when a part does not start; what had started is stopped again.
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
                shared = ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "COLLECT_KEYS_FILE")
                variables = {**os.environ, **stack.environment}
                folder.write_environment(
                    {name: variables[name] for name in shared} | {"COLLECT_URL": collector_url(stack)}
                )
                for line in summary(stack):
                    say(line)
                while not asked.wait(0.5):
                    stack.watch()
                say("stopping: stages, then broker, then database")
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def start_detached(folder: StackFolder, *, fake_services: bool = False) -> str:
    """Start a stack that outlives this process; returns what it printed. Arguments as for `run_foreground`.

    Raises:
        FolderInUseError: when a stack runs in the folder already.
        ProcessFailedError: when it does not come up.
    """
    with folder.lock():
        pass
    log = folder.log("up")
    log.unlink(missing_ok=True)
    arguments = ["up", "--data", str(folder.path), *(["--fake-destinations"] if fake_services else [])]
    child = spawn(command_line(*arguments), name="attributary up", log=log, guarded=False)
    wait_until_ready(
        child,
        lambda: None if folder.environment_file.exists() else "it is still starting",
        timeout_seconds=_UP_SECONDS,
    )
    child.leave()
    return child.log_tail()


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


def summary(stack: Stack) -> list[str]:
    """Where everything is, and what to do next."""
    lines = ["", "Attributary is up.", f"  Kafka      {stack.bootstrap}", f"  Postgres   {stack.dsn}"]
    lines.append(f"  HTTP       {collector_url(stack)}   after: attributary collect keys new --tenant NAME")
    for running in stack.stages:
        address = f"http://127.0.0.1:{running.metrics_port}/metrics"
        lines.append(f"  {running.stage.name:<15}{address}   {running.stage.doc}")
    lines += [f"  {stage.name:<15}off without credentials: {', '.join(stage.enabled_by)}" for stage in stack.skipped]
    if stack.fake_services:
        received = (f"{stack.environment[name]}/_admin/events" for name in ("META_BASE_URL", "GA4_BASE_URL"))
        lines.append(f"  stand-ins for Meta and GA4 received: {' '.join(received)}")
    return [
        *lines,
        f"  data and logs in {stack.folder.path}",
        "",
        "Next, in another terminal:",
        f"  . {stack.folder.environment_file}",
        "  attributary tail results",
        "  attributary simulate --help",
        "",
    ]
