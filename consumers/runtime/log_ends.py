"""Partitions of which a stage has read everything, though its offset does not say so.

Behind the last record of a partition stand the markers of the transactions that wrote it. No consumer is given them, so
a stage's offset stays in front of them. When retention then removes the whole log, the offset lies before its
beginning, as if records had been removed unread, and a stage must not start.

Contract: `LogEnds.behind` returns, for places that a stage has committed, the offset at the end of the log, if nothing
lies between that a consumer would be given. The broker itself says so: a reader of its own begins at the place and
meets the end first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from .error_codes import PARTITION_END
from .errors import Retry

Place = tuple[str, int]

_ANSWER_SECONDS = 10.0


class LogEnds:
    """Looks behind the markers at the end of partitions.

    Args:
        probe_config: of a consumer that joins no group and reads committed records.
    """

    def __init__(self, probe_config: Mapping[str, Any]) -> None:
        self._probe_config = {
            **probe_config,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "queued.max.messages.kbytes": 1_024,
        }
        self._known: dict[Place, int] = {}  # ends that were found, so that a place is looked at once

    def behind(self, starts: Iterable[TopicPartition]) -> dict[Place, int]:
        """Return the end of the log for those places behind which nothing but markers stands; others are left out.

        Args:
            starts: committed offsets. Places that stand at their end already cost nothing.

        Raises:
            Retry: the brokers do not answer.
        """
        open_ = {
            (start.topic, start.partition): start.offset
            for start in starts
            if start.offset >= 0 and self._known.get((start.topic, start.partition)) != start.offset
        }
        if not open_:
            return {}
        probe = Consumer(self._probe_config)
        try:
            return self._read_ends(probe, open_)
        except KafkaException as error:
            raise Retry(f"cannot learn where a log ends: {error.args[0].name()}") from None
        finally:
            probe.close()

    def _read_ends(self, probe: Consumer, places: dict[Place, int]) -> dict[Place, int]:
        left = dict(places)
        probe.assign([TopicPartition(*place, offset) for place, offset in left.items()])
        found: dict[Place, int] = {}
        while left:
            messages = probe.consume(len(left), _ANSWER_SECONDS)
            if not messages:
                break  # one that does not answer now is looked at another time
            for message in messages:
                place = (message.topic() or "", message.partition() or 0)
                start = left.pop(place, None)
                error = message.error()
                if start is None or error is None or error.code() != PARTITION_END:
                    continue
                end = message.offset() or 0
                self._known[place] = end
                if end > start:
                    found[place] = end
        return found
