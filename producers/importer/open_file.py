"""A file is opened under a preset, a mapping file and a command line: one way for every command that takes files.

Invariant: what the command line says goes before the mapping file, that before the preset; a time zone that the file
names itself goes before those of a mapping file and a preset, but not before the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from attributary.producers.importer.header import SEPARATORS
from attributary.producers.importer.hints import fitting_options, has_fields, missing_field, near_column
from attributary.producers.importer.plan import (
    ImportPlan,
    MissingColumnError,
    PlanError,
    listed,
    plan_from,
    read_mapping_file,
)
from attributary.producers.importer.presets import fitted, merged, preset
from attributary.producers.importer.row_mapper import RowMapper
from attributary.producers.importer.rows import FileError, Format, SourceFile


class OpenFile(NamedTuple):
    """A file that is ready to be read; close ``source``."""

    source: SourceFile
    plan: ImportPlan
    mapper: RowMapper
    document: dict[str, Any]  # the mapping that counts, with tenant and region


def open_file(path: Path, command_line: Mapping[str, Any], file_format: Format | None = None) -> OpenFile:
    """Open a file.

    Args:
        path: the file.
        command_line: parts of a mapping file as options give them, and ``mapping``, the path of a mapping file; None or
            empty: not given.
        file_format: its format; by its name when not given.

    Raises:
        PlanError: the mapping cannot be used.
        FileError: the file cannot be read.
    """
    given = command_line.get("mapping")
    written = read_mapping_file(Path(given)) if given else {}
    name = command_line.get("preset") or written.get("preset")
    kind = command_line.get("kind") or written.get("kind")
    below = preset(str(name), kind) if name else {}

    def part(wanted: str) -> Any:
        return command_line.get(wanted) or written.get(wanted) or below.get(wanted)

    skip_lines = part("skip_lines") or 0
    if not isinstance(skip_lines, int) or skip_lines < 0:
        raise PlanError("skip_lines: must be a number of lines")
    source = SourceFile(path, file_format, part("delimiter"), part("encoding"), skip_lines)
    try:
        with _hinting(source, path, file_format, part("encoding"), _requires(below)):
            document = merged(fitted(below, source.columns), written) if name else dict(written)
        if source.timezone is not None and not command_line.get("timezone"):
            document["timezone"] = source.timezone
        plan = plan_from(document, _conditions_merged(document, command_line))
        with _hinting(source, path, file_format, part("encoding"), _mapped(plan)):
            mapper = RowMapper(plan, source.columns)
            _check_needed(mapper, plan, source)
        return OpenFile(source, plan, mapper, document)
    except (PlanError, FileError):
        source.close()
        raise


def _check_needed(mapper: RowMapper, plan: ImportPlan, source: SourceFile) -> None:
    """Refuse a header that gives no record, instead of every row below it."""
    missing = missing_field(plan, mapper.given_fields()) if source.columns is not None else None
    if missing is not None:
        near = near_column(missing, source.columns or ())
        hint = f"; '{near}' looks like it: --map {missing}='{near}'" if near else f"; name it: --map {missing}=COLUMN"
        raise PlanError(f"no column gives {missing}{hint}; the file has {listed(source.columns or ())}")


@contextmanager
def _hinting(
    source: SourceFile, path: Path, file_format: Format | None, encoding: str | None, fits: Callable[[set[str]], bool]
) -> Iterator[None]:
    """Add to what is wrong with the columns of a file the option under which they would be right."""
    try:
        yield
    except PlanError as error:
        if source.columns is None or source.format not in {"csv", "tsv"}:
            raise
        text = str(error)
        if isinstance(error, MissingColumnError) and (near := near_column(error.column, source.columns)):
            text += f"; did you mean '{near}'?"
        elif options := fitting_options(path, file_format, encoding, fits):
            text += f"; with {options} the columns fit"
        elif mark := _separator_within(source.columns):
            text += f"; the columns look separated by {mark!r}: --delimiter {mark!r}"
        raise PlanError(f"{path.name}: {text}") from None


def _separator_within(columns: Sequence[str]) -> str | None:
    """Return what separates the columns of a header that was read as a single one."""
    if len(columns) != 1:
        return None
    return next((mark for mark in SEPARATORS if mark in columns[0]), None)


def _requires(below: Mapping[str, Any]) -> Callable[[set[str]], bool]:
    wanted = below.get("requires", ())
    return lambda columns: bool(wanted) and all(columns & set(names) for names in wanted)


def _mapped(plan: ImportPlan) -> Callable[[set[str]], bool]:
    names = {name for given in plan.columns.values() for name in ((given,) if isinstance(given, str) else given)}
    return (lambda columns: names <= columns) if names else has_fields(plan.kind)


def _conditions_merged(document: Mapping[str, Any], command_line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the command line with the conditions of the mapping on columns that it does not name."""
    try:
        where = merged({"where": document.get("where")}, {"where": command_line.get("where")})["where"]
    except ValueError as error:
        raise PlanError(str(error)) from None
    return {**command_line, "where": where}
