"""Ids of a file that come again with other content.

Invariant: memory is bounded: the last ``MOST_IDS`` ids are known, the oldest is forgotten first and that is counted. An
id that comes back after that is published; the stitcher then keeps the first in the log and shows the conflict.
"""

from __future__ import annotations

import json
from typing import Any

MOST_IDS = 1_000_000
"""About 200 bytes each."""

_HASH = 0xFFFF_FFFF


class Repeats:
    """The ids seen so far.

    Args:
        most: how many to remember.
    """

    def __init__(self, most: int = MOST_IDS) -> None:
        self.forgotten = 0
        self.most = most
        self._seen: dict[int, int] = {}  # hash of the id -> line and hash of the content

    def first_line(self, key: Any, record: dict[str, Any], line: int) -> int | None:
        """Remember an id.

        Args:
            key: the id, hashable.
            record: its content.
            line: where it stands.

        Returns:
            The line that had the id with other content before; None when there is none.
        """
        content = hash(json.dumps(record, sort_keys=True, default=str)) & _HASH
        known = self._seen.get(hash(key))
        if known is not None:
            return known >> 32 if known & _HASH != content else None
        if len(self._seen) >= self.most:
            del self._seen[next(iter(self._seen))]
            self.forgotten += 1
        self._seen[hash(key)] = line << 32 | content
        return None
