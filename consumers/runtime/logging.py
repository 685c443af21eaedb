"""JSON logs on standard output, one object a line.

Invariant: callers pass coordinates, ids and counts, never payloads: no e-mail address, phone number, IP address or
secret may reach a log line. As a net under that rule, ``_mask`` hides values under names that would carry one.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_PRIVATE = ("email", "phone", "ip_address", "token", "secret", "password", "dsn", "user_data")


def _mask(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in event:
        if any(word in name for word in _PRIVATE):
            event[name] = "[hidden]"
    return event


def configure_logging(service: str, level: str, version: str) -> None:
    """Send structured logs to standard output.

    Args:
        service: the process, for example ``stitcher``.
        level: debug, info, warning or error.
        version: the running version of the project.
    """
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(),
            _mask,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service, version=version)
