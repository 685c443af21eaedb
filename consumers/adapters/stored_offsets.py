"""A group's positions in Postgres, as every stage that keeps them beside its data uses them.

Invariant (store/positions.py): what was committed once is remembered, so a Postgres that lost commits is noticed before
anything is committed on top of the gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.store.offsets import (
    OffsetCache,
    keep_topic_ids,
    record_positions,
    restart_positions,
    stored_positions,
    stored_topic_ids,
)
from attributary.consumers.store.session import StoreSession

Place = tuple[str, int]


class OffsetStore:
    """The next offsets of one group.

    Args:
        group: the consumer group.
        session: Postgres.
    """

    def __init__(self, group: str, session: StoreSession) -> None:
        self._group = group
        self._session = session
        self._memory = OffsetCache()

    def stored(self, partitions: Iterable[Place]) -> Mapping[Place, int]:
        """Return the next offsets that Postgres holds; they are read from there now."""
        places = list(partitions)
        with map_errors(), self._session.transaction() as connection:
            stored = stored_positions(connection, self._group, places)
        self._memory.learn(places, stored)
        return stored

    def begin_at(self, starts: Mapping[Place, int]) -> None:
        """Store where partitions begin that Postgres knows nothing about."""
        with map_errors(), self._session.transaction() as connection:
            record_positions(connection, self._group, starts)
        self._memory.committed(starts)

    def stored_ids(self, places: Iterable[Place]) -> Mapping[Place, str]:
        """Return Kafka's ids of the topics that the offsets belong to, where they are known."""
        with map_errors(), self._session.transaction() as connection:
            return stored_topic_ids(connection, self._group, places)

    def keep_ids(self, ids: Mapping[Place, str]) -> None:
        """Store ids of topics beside the offsets."""
        with map_errors(), self._session.transaction() as connection:
            keep_topic_ids(connection, self._group, ids)

    def restart_at(self, starts: Mapping[Place, int]) -> None:
        """Store where partitions of topics that were made anew begin."""
        with map_errors(), self._session.transaction() as connection:
            restart_positions(connection, self._group, starts)
        self._memory.committed(starts)

    def check(self, before: Mapping[Place, int]) -> None:
        """Compare with what Postgres held when it recorded positions, in the transaction in hand.

        Raises:
            CommitsLostError: it held less than was committed before.
        """
        self._memory.check(before)

    def committed(self, positions: Mapping[Place, int]) -> None:
        """Note what has just been committed."""
        self._memory.committed(positions)
