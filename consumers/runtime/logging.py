"""JSON logs on standard output, one object a line.

Invariant: callers pass coordinates, ids and counts, never payloads: no e-mail address, phone number, IP address or
secret may reach a log line. As nets under that rule, ``_mask`` hides values under names that would carry one, and a
stack shows the first line of an exception's text only: Postgres quotes the row that it refuses in those below.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from types import TracebackType
from typing import Any

import structlog

_PRIVATE = ("email", "phone", "ip_address", "token", "secret", "password", "dsn", "user_data")


def _mask(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in event:
        if any(word in name for word in _PRIVATE):
            event[name] = "[hidden]"
    return event


def _stack(exc_info: tuple[type[BaseException], BaseException, TracebackType | None]) -> str:
    """Return the stacks of an exception and of those that led to it, the first of them first."""
    return "\n".join(reversed(list(_stacks(exc_info[1]))))


def _stacks(error: BaseException | None) -> Iterator[str]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        said = str(error).partition("\n")[0]
        frames = "".join(traceback.format_tb(error.__traceback__))
        yield f"Traceback (most recent call last):\n{frames}{type(error).__qualname__}: {said}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


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
            structlog.processors.ExceptionRenderer(_stack),
            _mask,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service, version=version)
