"""docs/design.md tells the truth about files: each row of its map names a file and types that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "design.md").read_text("utf-8")
ROWS = [
    (path, re.findall(r"`(\w+)`", names))
    for path, names in re.findall(r"^\| `([\w./]+)` \| ([^|]*) \|", TEXT.split("## File map")[1], re.MULTILINE)
]


@pytest.mark.parametrize(("path", "names"), ROWS, ids=[path for path, _ in ROWS])
def test_each_row_of_the_file_map_names_what_is_there(path: str, names: list[str]) -> None:
    file = ROOT / path
    assert file.exists()
    for name in names:
        assert re.search(rf"^(?:class|def|async def) {name}\b", file.read_text("utf-8"), re.MULTILINE), name


def test_the_map_is_long_enough_to_find_things() -> None:
    assert len(ROWS) >= 25


def test_every_file_that_the_text_names_exists() -> None:
    named = set(re.findall(r"`((?:consumers|producers|schemas|attribution_core|src|tests)/[\w./]+)`", TEXT))
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_test_that_a_promise_names_exists() -> None:
    tests = {path.stem for path in (ROOT / "tests").rglob("test_*.py")} | {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    for page in ("README.md", "docs/reference/reliability.md"):
        named = set(re.findall(r"`(?:tests/\w+/)?(test_\w+)(?:\.py)?`", (ROOT / page).read_text("utf-8")))
        assert named - tests == set(), page
