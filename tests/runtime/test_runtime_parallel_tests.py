"""How a run deals out its tests, and where it writes.

Fault tests have short timeouts: never more of their files run at once than there are cores.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.fixtures.parallel import next_unit, scope_of
from tests.fixtures.scratch import available_bytes, has_room

if TYPE_CHECKING:
    from pathlib import Path

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


def test_shared_memory_is_used_only_with_room_for_a_run(tmp_path: Path) -> None:
    plenty = 64 << 30
    assert has_room(tmp_path, 1 << 30) is False
    assert has_room(tmp_path / "missing", plenty) is False
    assert available_bytes() >= 0


def test_what_a_run_writes_lies_where_its_processes_look_for_it(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", "import tempfile; print(tempfile.gettempdir())"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.strip() == tempfile.gettempdir()
    assert tempfile.gettempdir() in str(tmp_path)
