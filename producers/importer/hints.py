"""Why a file's header fits nothing, and the option under which it does: found by trying, not by guessing.

Contract: the file is opened again under other separators and without its first lines; what is suggested has been seen
to give the columns that were wanted. At most ``_MOST_LINES`` lines and four separators are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from difflib import get_close_matches
from pathlib import Path

from attributary.producers.importer.header import SEPARATORS
from attributary.producers.importer.plan import EXTRA_FIELDS, ImportPlan, schema_types
from attributary.producers.importer.rows import FileError, Format, SourceFile
from attributary.producers.records import RecordName

_MOST_LINES = 20
_PEOPLE = ("user_id", "anonymous_id")
_NEEDED = {
    "touchpoint": (("occurred_at",), _PEOPLE, ("channel", "landing_url"), ("platform", "landing_url")),
    "conversion": (("occurred_at",), _PEOPLE, ("conversion_type",)),
    "identity_link": (("linked_at",), ("user_id",), ("anonymous_id",)),
}


def missing_field(plan: ImportPlan, given: Collection[str]) -> str | None:
    """Return a field that every record needs and nothing gives; of alternatives the first. None where all are given.

    Args:
        plan: how the file is read.
        given: fields that a column gives.
    """
    there = {*given, *plan.constants}
    return next((names[0] for names in _NEEDED[plan.kind] if not there & set(names)), None)


def near_column(wanted: str, columns: Sequence[str]) -> str | None:
    """Return the column that may be meant: another case, other blanks or underscores, or a slip."""
    plain = {_plain(name): name for name in columns}
    found = plain.get(_plain(wanted))
    if found is None:
        near = get_close_matches(_plain(wanted), list(plain), 1, 0.8)
        found = plain[near[0]] if near else None
    return found


def fitting_options(
    path: Path, file_format: Format | None, encoding: str | None, fits: Callable[[set[str]], bool]
) -> str | None:
    """Return the options under which the header of a file fits; None where none does.

    Args:
        path: the file.
        file_format: as given to ``SourceFile``.
        encoding: the same.
        fits: tells whether columns are the wanted ones.
    """
    for skip_lines in range(_MOST_LINES + 1):
        for mark in SEPARATORS:
            if fits(_columns(path, file_format, encoding, mark, skip_lines)):
                shown = "tab" if mark == "\t" else f"'{mark}'"
                options = [f"--skip-lines {skip_lines}"] * bool(skip_lines) + [f"--delimiter {shown}"] * (mark != ",")
                return " ".join(options) or None
    return None


def has_fields(kind: RecordName) -> Callable[[set[str]], bool]:
    """Return the test for columns of which several have the names of fields."""
    fields = {*schema_types(kind), *EXTRA_FIELDS[kind]}
    return lambda columns: len(fields & columns) > 1


def _columns(path: Path, file_format: Format | None, encoding: str | None, mark: str, skip_lines: int) -> set[str]:
    try:
        with SourceFile(path, file_format, mark, encoding, skip_lines) as source:
            return set(source.columns or ()) if source.format in {"csv", "tsv"} else set()
    except FileError:
        return set()


def _plain(name: str) -> str:
    return "".join(name.casefold().replace("_", " ").split())
