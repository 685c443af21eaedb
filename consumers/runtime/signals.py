"""Signals of a process: stop gracefully, stop at once, show stacks."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import structlog

_log = structlog.get_logger()

# EX_TEMPFAIL: a supervisor starts the process again, which replays the batch in hand.
_EXIT_CUT_SHORT = 75


def stop_on_signals(stop: Callable[[], None], grace_seconds: float) -> None:
    """Stop gracefully on SIGTERM or SIGINT; at once on a second one, or when the grace is over. SIGUSR1: show stacks.

    Args:
        stop: called without arguments on the first signal.
        grace_seconds: after so long the process ends with exit code 75 whatever it does; its batch is replayed.
    """
    asked = threading.Event()

    def give_up() -> None:
        _log.error("graceful stop took too long, ending at once", grace_seconds=grace_seconds)
        os._exit(_EXIT_CUT_SHORT)

    def on_signal(_number: int, _frame: Any) -> None:
        if asked.is_set():
            os._exit(_EXIT_CUT_SHORT)
        asked.set()
        timer = threading.Timer(grace_seconds, give_up)
        timer.daemon = True
        timer.start()
        stop()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
