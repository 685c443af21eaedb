"""Commands run in this process here: what one sets for its process is taken back behind each file."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True, scope="module")
def logs_as_before() -> Iterator[None]:
    """A stage that a test starts by mistake logs to the output of that test, which is closed afterwards."""
    before = {name: _state(name) for name in ("", "attributary", "uvicorn", "uvicorn.error")}
    yield
    structlog.reset_defaults()
    for name, (handlers, level, propagate) in before.items():
        logger = logging.getLogger(name)
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def _state(name: str) -> tuple[list[logging.Handler], int, bool]:
    logger = logging.getLogger(name)
    return [*logger.handlers], logger.level, logger.propagate
