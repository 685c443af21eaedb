"""`attributary all`: every stage as a child process of one parent, for a small machine or a container.

Invariant: the children write to this process's standard output; when one ends by itself with another code than 0 the
others are stopped, and its code is this process's. A stage that misses a setting (exit code 78) ends them all, too:
better to see it at the start than to run without.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from attributary.local.stages import STAGES, command_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 30.0


def run_all(without: Sequence[str], first_port: int) -> int:
    """Run the stages that are enabled until SIGTERM or SIGINT, or until one fails.

    Args:
        without: names of stages to leave out.
        first_port: METRICS_PORT of the first; the others follow in order. 0: any free port for each.

    Returns:
        The exit code: 0 when asked to stop, else that of the stage that failed.
    """
    stopping = False

    def on_signal(number: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True
        for process in running.values():
            process.send_signal(number)

    running: dict[str, subprocess.Popen[bytes]] = {}
    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    for name, arguments, port in _chosen(without, first_port):
        if stopping:
            break
        environment = {**os.environ, "METRICS_PORT": str(port)}
        running[name] = subprocess.Popen(  # noqa: S603  # our own command line
            command_line(*arguments), env=environment, start_new_session=True
        )
    if stopping:  # asked while starting: the newest process may not have heard of it
        _stop(running)
    code = 0
    while running:
        time.sleep(_POLL_SECONDS)
        for name, process in list(running.items()):
            ended = process.poll()
            if ended is None:
                continue
            del running[name]
            if ended != 0 and not stopping:
                sys.stderr.write(f"{name} ended with {ended}: stopping the others\n")
                code = ended if ended > 0 else 70
                stopping = True
                _stop(running)
    return code


def _chosen(without: Sequence[str], first_port: int) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """Yield name, command line and port of each stage that is enabled; a stage has its port whatever is left out."""
    for number, stage in enumerate(STAGES):
        if stage.name not in without and stage.is_enabled(os.environ):
            yield stage.name, stage.arguments, first_port + number if first_port else 0


def _stop(running: dict[str, subprocess.Popen[bytes]]) -> None:
    for process in running.values():
        process.terminate()
    deadline = time.monotonic() + _GRACE_SECONDS
    for process in running.values():
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
