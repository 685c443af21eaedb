"""What is written beside an offset in Kafka: the metadata of a committed offset, at most 4 KB of text.

Invariant: whatever stands there, reading it gives a mark; text of other tools is an empty one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

_MAX_ID = 64


@dataclass(frozen=True, slots=True)
class OffsetMark:
    """What a committed offset says besides its number.

    Attributes:
        topic_id: Kafka's id of the topic that the offset belongs to; None: not known.
    """

    topic_id: str | None = None

    def text(self) -> str:
        """Return the mark as metadata of an offset; empty when it says nothing."""
        said = {name: value for name, value in asdict(self).items() if value}
        return json.dumps(said, separators=(",", ":")) if said else ""


def read_mark(text: str | None) -> OffsetMark:
    """Return the mark of a committed offset."""
    try:
        said = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return OffsetMark()
    if not isinstance(said, dict):
        return OffsetMark()
    topic_id = said.get("topic_id")
    return OffsetMark(topic_id if isinstance(topic_id, str) and 0 < len(topic_id) <= _MAX_ID else None)
