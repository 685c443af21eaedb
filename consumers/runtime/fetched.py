"""A message of the consumer: a record, or an error that says what became of the partition."""

from __future__ import annotations

import structlog
from confluent_kafka import KafkaError, Message

from .access_errors import Access
from .error_codes import AWAY, LOST_ASSIGNMENT, OFFSET_OUT_OF_RANGE, UNREADABLE
from .errors import EXIT_CONFIG, Fatal
from .records import Record
from .unreadable import UnreadableBatches

_log = structlog.get_logger()


def record_of(message: Message) -> Record:
    """Return the record of a message without an error."""
    return Record(
        message.topic() or "",
        message.partition() or 0,
        message.offset() or 0,
        message.key(),
        message.value(),
        message.timestamp()[1],
        message.headers,  # type: ignore[arg-type]  # its type has dicts, which come in only
    )


def is_error(message: Message, access: Access, unreadable: UnreadableBatches) -> bool:
    """Tell whether a message is an error instead of a record.

    Args:
        message: as the consumer returned it.
        access: names a right that the brokers refuse.
        unreadable: told of a batch that cannot be unpacked.

    Raises:
        Fatal: reading on would leave records out, or is not possible.
        AccessRefused: the brokers do not let this process read, or not in its group.
    """
    error = message.error()
    if error is None:
        return False
    code = error.code()
    if code in OFFSET_OUT_OF_RANGE:
        raise Fatal(
            f"{message.topic()}[{message.partition()}]: the next offset is not in the log any more: records were "
            "removed before they were read. Raise the topic's retention; to go on without them, reset the group."
        )
    if code in UNREADABLE:
        unreadable.met(message.topic() or "", message.partition() or 0, message.offset() or 0, error.name())
        return True
    if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise Fatal(f"{message.topic()}: the topic is gone", EXIT_CONFIG)
    if (refused := access.refused(error, "READ", message.topic())) is not None:
        raise refused
    if code not in AWAY and code not in LOST_ASSIGNMENT:
        _log.warning("consumer error", stage=access.stage, error=error.name())
    return True
