"""A stitcher's session on a database of the test file; files that stage more have one of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from attributary.consumers.store.events.staging import create_staging
from attributary.consumers.store.session import StoreSession

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def session(module_database: str) -> Iterator[StoreSession]:
    opened = StoreSession(module_database, "tests-contract", create_staging)
    yield opened
    opened.close()
