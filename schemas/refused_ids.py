"""What a schema registry did not have, remembered for a while.

Invariant: within ``SECONDS`` an unknown id is asked for once, however many records name it; and of ids that nobody
knows, at most ``MAX_IDS`` are asked for in that time, so that records with made-up ids cannot make a batch last for
minutes. Afterwards it is asked for again: a registry may have learnt it. An id that is known is never held back by
others once it was read.
"""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS = 60.0
MAX_IDS = 200


class RefusedIds:
    """The reasons for which records are refused, by what they name.

    Args:
        clock: seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reasons: dict[tuple[str, int], tuple[float, str]] = {}

    def add(self, name: str, schema_id: int, reason: str) -> None:
        """Remember a refusal."""
        self._reasons[name, schema_id] = (self._clock() + SECONDS, reason)

    def reason(self, name: str, schema_id: int) -> str | None:
        """Return why a record of this kind with this id is refused without asking; None: ask.

        Args:
            name: the kind of record.
            schema_id: the id that its value names.
        """
        now = self._clock()
        known = self._reasons.get((name, schema_id))
        if known is not None and now < known[0]:
            return known[1]
        if len(self._reasons) >= MAX_IDS:
            self._reasons = {key: each for key, each in self._reasons.items() if now < each[0]}
            if len(self._reasons) >= MAX_IDS:
                return (
                    f"schema id {schema_id} was not looked up: {MAX_IDS} ids of the last {SECONDS:.0f} s are unknown "
                    "to the schema registry; redrive the record when they are explained"
                )
        return None
