"""What a relay leaves out: events that were refused, dropped or erased where they were published first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attributary.consumers.maintenance.cells.relay import Relay
from attributary.consumers.runtime.records import Record
from attributary.schemas.topics import CONVERSIONS, ERASURE_REQUESTS, TOUCHPOINTS

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Codec:
    def decode(self, _kind: str, value: bytes) -> dict[str, Any]:
        return {"event_id": value.decode()}


def record(topic: str, offset: int, event_id: str) -> Record:
    return Record(topic, 0, offset, b"k", event_id.encode(), 0)


def test_before_the_border_only_stored_events_are_relayed_and_behind_it_all() -> None:
    relay = Relay.__new__(Relay)
    relay._codec = _Codec()  # type: ignore[assignment]
    relay._kinds = {TOUCHPOINTS: "touchpoint", CONVERSIONS: "conversion"}
    asked: list[tuple[str, list[str]]] = []

    def stored(name: str, ids: Sequence[str]) -> set[str]:
        asked.append((name, list(ids)))
        return {"kept"}

    batch = [
        record(TOUCHPOINTS, 1, "suppressed"),
        record(TOUCHPOINTS, 2, "kept"),
        record(TOUCHPOINTS, 5, "new"),
        record(CONVERSIONS, 1, "erased"),
        record(ERASURE_REQUESTS, 0, "request"),
    ]
    decided = {(TOUCHPOINTS, 0): 5, (CONVERSIONS, 0): 9}
    left = relay._without_refused(batch, decided, stored)
    assert [(each.topic, each.offset) for each in left] == [(TOUCHPOINTS, 2), (TOUCHPOINTS, 5), (ERASURE_REQUESTS, 0)]
    assert asked == [("touchpoints", ["suppressed", "kept"]), ("conversion_events", ["erased"])]
