"""Which faults this run has fired: every fault test notes its own, once it has proved it, and the end of the run lists
them all."""

from __future__ import annotations

from collections import Counter

FIRED: Counter[str] = Counter()


def fired(fault: str, times: int = 1) -> None:
    """Note a fault that has been proved to have happened."""
    assert times > 0, f"{fault}: did not fire"
    FIRED[fault] += times
