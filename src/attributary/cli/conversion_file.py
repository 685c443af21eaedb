"""Conversions of a file, read as `attributary produce` reads them, for commands that publish nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from attributary.cli import exits
from attributary.cli.outcome import say
from attributary.cli.tables import safe


def read_conversions(
    file: Path, options: Mapping[str, Any], broken: list[str], tenant: str, option_name: str = "--input"
) -> Iterator[dict[str, Any]]:
    """Yield the records of a file.

    Args:
        file: its path.
        options: as ``mapping_options.command_line`` returns them; the kind is conversion.
        broken: gets a line for each row that is none: file, line, column, field and rule.
        tenant: of rows that name none; may be empty.
        option_name: the option that named the file.

    Raises:
        typer.Exit: 2 when the file or the mapping cannot be used; said on standard error.
    """
    from attributary.producers.importer.open_file import open_file
    from attributary.producers.importer.plan import PlanError
    from attributary.producers.importer.row_mapper import NotWanted, RowRefused
    from attributary.producers.importer.rows import FileError

    try:
        source, _, mapper, _ = open_file(file, {**options, "kind": "conversion"})
        with source:
            for order in mapper.orders(source.rows()):
                try:
                    found = mapper.mapped(order)
                    if found.refused is not None:
                        raise found.refused
                    for record in found.records:
                        yield record if record.get("tenant_id") else {**record, "tenant_id": tenant or None}
                except NotWanted:
                    continue
                except RowRefused as error:
                    column = "" if error.column in {None, error.field} else f" column {error.column}:"
                    line = error.line or order.rows[0].line
                    broken.append(safe(f"{file.name} line {line}:{column} {error.field}: {error.rule}"))
    except (FileError, PlanError) as error:
        # What is wrong with a mapping names the file or the option itself.
        say(str(error) if isinstance(error, PlanError) else f"{option_name}: {error}")
        raise typer.Exit(exits.USAGE) from None
