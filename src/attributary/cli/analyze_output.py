"""What `attributary analyze` writes: a table, JSON or CSV on standard output, whatever that is connected to.

Invariant: a reader that has gone is no error; output that cannot be written is one line on standard error, code 74.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import sys
from typing import TYPE_CHECKING, Literal

import typer

from attributary.cli import exits
from attributary.cli.tables import csv_cell

if TYPE_CHECKING:
    from attributary.attribution_core.analysis.result import Analysis

Format = Literal["table", "json", "csv"]


def show(found: Analysis, output: Format) -> None:
    """Write an analysis; letters that the output cannot hold are written as escapes.

    Raises:
        typer.Exit: 74 where nothing more can be written; 0 where nobody reads on, as after `head`.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        sys.stdout.write(_text(found, output))
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_the_rest()
        raise typer.Exit from None
    except OSError as error:
        _forget_the_rest()
        sys.stderr.write(f"attributary: standard output: {error.strerror}\n")
        raise typer.Exit(exits.OUTPUT) from None


def _text(found: Analysis, output: Format) -> str:
    if output == "table":
        from attributary.cli.analysis_table import table_text

        return table_text(found, shutil.get_terminal_size().columns) + "\n"
    if output == "csv":
        from attributary.attribution_core.analysis.result import CSV_COLUMNS

        lines = io.StringIO()
        writer = csv.DictWriter(lines, CSV_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in found.rows())
        return lines.getvalue()
    text = found.to_json()
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = found.to_json(ensure_ascii=True)  # a backslash of ours would be no JSON
    return text + "\n"


def _cell(value: object) -> object:
    return csv_cell(value) if isinstance(value, str) else value  # names of channels come from files


def _forget_the_rest() -> None:
    """Let what is still buffered go nowhere, so that the end of the process does not try to write it again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
