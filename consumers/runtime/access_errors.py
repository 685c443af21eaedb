"""What a missing right in Kafka, or a refused credential, becomes: an error that names it, and a count.

Invariant: a refused right is never retried. A credential that stops being taken while a stage runs pauses it, because
it may be renewed; it is counted, so that an alert tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from confluent_kafka import KafkaError, KafkaException

from . import metrics
from .error_codes import ACCESS_REFUSED, NOT_KNOWN
from .errors import AccessRefused

if TYPE_CHECKING:
    from .settings import KafkaSettings

T = TypeVar("T")

_log = structlog.get_logger()

_CLUSTER_OPERATION = "IDEMPOTENT_WRITE"


@dataclass(frozen=True, slots=True)
class Access:
    """Names what the brokers refuse.

    Attributes:
        kafka: how to reach them, and so who they take this process for.
        stage: for metrics.
        group: the consumer group.
        transactional_id: of the producer.
        group_operation: READ for a member of the group; DESCRIBE for one who only asks about it.
    """

    kafka: KafkaSettings
    stage: str
    group: str = ""
    transactional_id: str = ""
    group_operation: str = "READ"

    @property
    def principal(self) -> str:
        """Who the brokers take this process for."""
        return self.kafka.principal

    def asked(self, ask: Callable[..., T], *arguments: Any) -> T:
        """Call with ``guarded``."""
        with self.guarded():
            return ask(*arguments)

    def refused(self, error: KafkaError, operation: str, topic: str | None = None) -> AccessRefused | None:
        """Return the error of a refused right, or None when it is another trouble.

        Args:
            error: as librdkafka told it.
            operation: what was tried, if it was on a topic: READ or WRITE.
            topic: which; None when librdkafka does not tell.
        """
        code = error.code()
        if code not in ACCESS_REFUSED:
            return None
        metrics.kafka_refusals.labels(self.stage, "authorization").inc()
        if code == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return AccessRefused(self.principal, self.group_operation, f"group {self.group}")
        if code == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            return AccessRefused(self.principal, "WRITE", f"transactional id {self.transactional_id}")
        if code == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
            return AccessRefused(self.principal, _CLUSTER_OPERATION, "the cluster")
        return AccessRefused(self.principal, operation, f"topic {topic}" if topic else "a topic")

    @contextmanager
    def guarded(self, operation: str = "READ", topic: str | None = None) -> Iterator[None]:
        """Turn a refused right into its error; everything else passes.

        Raises:
            AccessRefused: names principal, operation and resource.
        """
        try:
            yield
        except KafkaException as error:
            if isinstance(error.args[0], KafkaError) and (refused := self.refused(error.args[0], operation, topic)):
                raise refused from None
            raise

    def heard(self, error: KafkaError) -> None:
        """Count what an ``error_cb`` hears about credentials; to be called by it."""
        if error.code() in NOT_KNOWN:
            kind = "tls" if error.code() == KafkaError._SSL else "authentication"  # noqa: SLF001
            metrics.kafka_refusals.labels(self.stage, kind).inc()
            _log.warning("the brokers and this process do not know each other", stage=self.stage, kind=kind)

    def config(self) -> dict[str, Any]:
        """Return the setting of a client that counts refused credentials."""
        return {"error_cb": self.heard}
