"""Time for the forwarder: injected, so that an hour's outage is tested in a blink."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where the forwarder takes time from."""

    def now_micros(self) -> int:
        """Give the time of day: microseconds since 1970-01-01 UTC."""
        ...

    def monotonic(self) -> float:
        """Give seconds that never go back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_micros(self) -> int:
        """Give the time of day."""
        return time.time_ns() // 1_000

    def monotonic(self) -> float:
        """Give seconds that never go back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
