"""Which tests run beside each other: fault tests, which have short timeouts, never more files than cores."""

from __future__ import annotations

import pytest

from tests.fixtures.parallel import next_unit, scope_of

A_FAULT, FAULT, OTHER = "tests/faults/test_a.py", "tests/faults/test_b.py", "tests/cli/test_c.py"


@pytest.mark.parametrize(
    ("waiting", "running", "expected"),
    [
        ([FAULT, OTHER], [], FAULT),
        ([FAULT, OTHER], [A_FAULT, OTHER], FAULT),
        ([FAULT, OTHER], [A_FAULT, FAULT], OTHER),
        ([FAULT], [A_FAULT, FAULT], FAULT),  # nothing else is left
    ],
)
def test_no_more_fault_files_than_cores(waiting: list[str], running: list[str], expected: str) -> None:
    assert next_unit(waiting, running, most_faults=2) == expected


def test_a_file_stays_together_and_parts_do_not() -> None:
    assert scope_of("tests/cli/test_c.py::test_one[x]") == OTHER
    assert scope_of("tests/model/test_m.py::test_all[part1]") == "tests/model/test_m.py::test_all[part1]"
