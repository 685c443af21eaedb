"""Put prepared events into requests: as full as the destination allows, oldest first.

Invariants: every event is in exactly one batch; all events of a batch have one envelope; no batch breaks a limit. An
event that alone is over the byte limit gets a batch of its own: refused there, it does no harm to others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from attributary.consumers.destinations.destination import Limits, Prepared

_AROUND = 512  # bytes for the names and brackets around envelope and events, and a comma an event is counted below


def batches(events: Iterable[Prepared], limits: Limits) -> Iterator[Sequence[Prepared]]:
    """Give the batches, in the order of their oldest event."""
    groups: dict[bytes, list[Prepared]] = {}
    for event in sorted(events, key=lambda event: (event.occurred_at, event.event_id)):
        groups.setdefault(event.envelope, []).append(event)
    full = [batch for envelope, group in groups.items() for batch in _split(group, len(envelope), limits)]
    full.sort(key=lambda batch: batch[0].occurred_at)
    yield from full


def _split(group: Sequence[Prepared], envelope_bytes: int, limits: Limits) -> Iterator[Sequence[Prepared]]:
    batch: list[Prepared] = []
    room = limits.body_bytes - envelope_bytes - _AROUND
    size = 0
    for event in group:
        length = len(event.body) + 1
        if batch and (len(batch) == limits.events or size + length > room):
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += length
    if batch:
        yield batch
