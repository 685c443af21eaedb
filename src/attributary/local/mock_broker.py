"""librdkafka's mock cluster: a broker for a look around on a machine that has no better.

Contract: lives in a thread of this process and is reached over loopback TCP, also from other processes.
Its limits are its authors': about 5 MB are kept per partition, topics come into being when first named,
offsets committed in a transaction are not kept, and records of aborted transactions stay visible. So it
proves nothing about guarantees, and everything that starts it says so.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from confluent_kafka import Producer

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = (
    "librdkafka's mock broker: keeps about 5 MB per partition, forgets offsets that were committed in a "
    "transaction, and shows records of aborted transactions; good for a look around, not for guarantees"
)


@contextmanager
def mock_broker(brokers: int = 1) -> Iterator[str]:
    """Bootstrap address of a mock cluster that lives as long as the `with` block."""
    # The cluster belongs to the client that asked for it; test.mock.* makes librdkafka log a notice.
    owner = Producer({"test.mock.num.brokers": brokers, "log_level": 0})
    addresses = [f"{one.host}:{one.port}" for one in owner.list_topics(timeout=10.0).brokers.values()]
    try:
        yield ",".join(addresses)
    finally:
        owner.flush(0)
        del owner
