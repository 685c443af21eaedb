"""The steps of a start, told as they happen: what begins, that it still goes on, and how long it took.

Contract: a line when a step begins, one every few seconds while it lasts, and its duration when it took over two
seconds. So nobody waits in front of a silent terminal, and a log says where the time went.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SILENT_SECONDS = 2.0
STILL_SECONDS = 5.0


@contextmanager
def step(say: Callable[[str], None], text: str, *, still_seconds: float = STILL_SECONDS) -> Iterator[None]:
    """Tell of a step for the length of a `with` block.

    Args:
        say: Prints a line; called from another thread, too.
        text: What begins, for example `broker: starting Apache Kafka`.
        still_seconds: Time between two lines that say that it still goes on.
    """
    say(text)
    name = text.partition(":")[0]
    started = time.monotonic()
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(still_seconds):
            say(f"{name}: still at it, {time.monotonic() - started:.0f} s")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()  # before the last word
    if (seconds := time.monotonic() - started) > SILENT_SECONDS:
        say(f"{name}: done in {seconds:.0f} s")
