"""What every test says that starts servers of its own to break them."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from attributary.local.process import ProcessFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Short enough that a fault is over in seconds, long enough for a machine that is busy with other things.
SESSION_MS = 3_000
SHORT_TIMEOUTS = {
    "KAFKA_SESSION_TIMEOUT_MS": str(SESSION_MS),
    "KAFKA_TRANSACTION_TIMEOUT_MS": str(SESSION_MS - 500),
    "KAFKA_MAX_POLL_INTERVAL_MS": "20000",
    "ATTRIBUTION_BATCH_SIZE": "50",
}


@contextmanager
def no_kafka_skips() -> Iterator[None]:
    """Skip where no Kafka can be started; fail instead where one is required."""
    try:
        yield
    except ProcessFailedError as error:
        if os.environ.get("REQUIRE_KAFKA") == "1":
            pytest.fail(f"REQUIRE_KAFKA=1, and {error}", pytrace=False)
        pytest.skip(f"no Kafka that may be broken: {error}")
