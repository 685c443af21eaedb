"""Which faults this run has fired: every fault test notes its own, once it has proved it, and the end of the run lists
them all."""

from __future__ import annotations

from tests.fixtures.run_notes import note


def fired(fault: str, proof: int = 1) -> None:
    """Note a fault that has happened.

    Args:
        fault: its name.
        proof: how much of it was seen, bytes kept or errors logged; none is a failure of the test.
    """
    assert proof > 0, f"{fault}: did not fire"
    note("fired", fault)
