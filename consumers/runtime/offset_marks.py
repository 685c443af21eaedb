"""What is written beside an offset in Kafka: the metadata of a committed offset, at most 4 KB of text.

Invariant: whatever stands there, reading it gives a mark; text of other tools is an empty one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

_MAX_ID = 64
MAX_SUSPECTS = 20


@dataclass(frozen=True, slots=True)
class OffsetMark:
    """What a committed offset says besides its number.

    Attributes:
        topic_id: Kafka's id of the topic that the offset belongs to; None: not known.
        starts: processes that started at this offset and did not commit one behind it.
        careful: records that are still to be handled in small parts; 0: none.
        alone_below: records below this offset are to be handled alone; 0: none.
        tried: the record that is being handled alone; -1: none.
        attempts: how often a process began to do that.
        suspects: records at which the stage ended when they were handled alone, and that its store does not hold.
        stored: such records that its store holds.
    """

    topic_id: str | None = None
    starts: int = 0
    careful: int = 0
    alone_below: int = 0
    tried: int = -1
    attempts: int = 0
    suspects: tuple[int, ...] = ()
    stored: tuple[int, ...] = ()

    def text(self) -> str:
        """Return the mark as metadata of an offset; empty when it says nothing."""
        plain = asdict(_EMPTY)
        said = {name: value for name, value in asdict(self).items() if value != plain[name]}
        return json.dumps(said, separators=(",", ":")) if said else ""


_EMPTY = OffsetMark()


def read_mark(text: str | None) -> OffsetMark:
    """Return the mark of a committed offset."""
    try:
        said = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return _EMPTY
    if not isinstance(said, dict):
        return _EMPTY
    topic_id = said.get("topic_id")
    return OffsetMark(
        topic_id if isinstance(topic_id, str) and 0 < len(topic_id) <= _MAX_ID else None,
        starts=_number(said.get("starts")),
        careful=_number(said.get("careful")),
        alone_below=_number(said.get("alone_below")),
        tried=_number(said.get("tried"), -1),
        attempts=_number(said.get("attempts")),
        suspects=_numbers(said.get("suspects")),
        stored=_numbers(said.get("stored")),
    )


def _number(value: Any, default: int = 0) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 63 else default


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(map(_number, value[: 2 * MAX_SUSPECTS])) if isinstance(value, list) else ()
