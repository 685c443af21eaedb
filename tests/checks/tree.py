"""Rules of the tree that no linter knows; run by `make check`, prints what breaks them, exit code 1 then.

- Python code imports `attributary.<folder>`, never a top-level folder by its bare name: the wheel puts only
  `attributary` into site-packages.
- No file names a package registry's host or a path of somebody's machine.
- No Python file is longer than 400 lines; a test file may have 600, so that one concern stays together.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
HOUSES = {"attribution_core", "schemas", "producers", "consumers"}
LONGEST = 400
LONGEST_TEST = 600

# Written in pieces, so that this file does not break its own rule.
_HOSTS = (
    r"pypi\." + "org",
    r"files\.python" + "hosted",
    r"registry\." + "npmjs",
    r"(repo1?\.maven|repo\.maven\.apache)\." + "org",
    r"proxy\.golang\." + "org",
    r"(static\.)?crates\." + "io",
    r"(deb|security)\.debian\." + "org",
)
_PATHS = (
    "/ro" + "ot/",
    "/wo" + r"rk/(main|shared|\.)",
    "/ho" + r"me/[a-z]\w*/",
    "/opt/wh" + "eels",
    "/Us" + r"ers/\w+/",
)
_FORBIDDEN = re.compile("|".join([*_HOSTS, *(rf"(?<![\w./:-]){path}" for path in _PATHS)]))


def tracked_files() -> list[Path]:
    """Files that git knows; links are left out, their targets are listed themselves."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout.split("\0")
    paths = [ROOT / name for name in listed if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def bare_imports(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of every import of a top-level folder by its bare name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        else:
            continue
        for name in names:
            if name.split(".")[0] in HOUSES:
                yield node.lineno, name


def forbidden_text(text: str) -> Iterator[tuple[int, str]]:
    """Line and text of every registry host and machine path."""
    for number, line in enumerate(text.splitlines(), start=1):
        if found := _FORBIDDEN.search(line):
            yield number, found[0]


def problems(path: Path) -> Iterator[str]:
    """Everything that is wrong with one file."""
    name = path.relative_to(ROOT)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    for number, found in forbidden_text(text):
        yield f"{name}:{number}: names {found}"
    if path.suffix != ".py":
        return
    for number, found in bare_imports(text):
        yield f"{name}:{number}: imports {found}; write attributary.{found}"
    longest = LONGEST_TEST if name.parts[0] == "tests" else LONGEST
    if (lines := text.count("\n")) > longest:
        yield f"{name}: {lines} lines, more than {longest}; split it"


def main() -> int:
    """Check all files; returns the exit code."""
    found = [problem for path in tracked_files() for problem in problems(path)]
    sys.stdout.writelines(f"{problem}\n" for problem in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
