"""Fixtures come from tests/fixtures, one concern a file; here stands only what concerns the whole run.

Tests that use a broker, a database or a browser carry the marker `kafka`, `postgres` or `slow` by themselves, so that
`pytest -m "not kafka"` never forgets one.
"""

from __future__ import annotations

import pytest

pytest_plugins = [
    "tests.fixtures.scratch",  # before anybody asks for a temporary folder
    "tests.fixtures.run_notes",
    "tests.fixtures.broker",
    "tests.fixtures.browser",
    "tests.fixtures.command_line",
    "tests.fixtures.database",
    "tests.fixtures.examples",
    "tests.fixtures.network",
    "tests.fixtures.parallel",
    "tests.fixtures.pipeline",
    "tests.fixtures.process_logs",
    "tests.fixtures.second_try",
    "tests.fixtures.topics",
    "tests.fixtures.secured_broker",  # imports the one before
    "tests.fixtures.second_installation",  # imports topics and pipeline
]

_MARKED_BY_FIXTURE = {
    "secured_broker": "kafka",
    "broker": "kafka",
    "three_brokers": "kafka",
    "postgres": "postgres",
    "own_postgres": "postgres",
    "chromium_path": "slow",  # a page in a browser takes a second of a core
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        used = getattr(item, "fixturenames", ())
        for fixture, marker in _MARKED_BY_FIXTURE.items():
            if fixture in used:
                item.add_marker(marker)
