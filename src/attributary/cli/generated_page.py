"""A page of the docs that a command makes from code: printed, or compared with the file that is checked in."""

from __future__ import annotations

from pathlib import Path

import typer

from attributary.cli import exits
from attributary.cli.outcome import say


def print_page(page: str) -> None:
    """Print the page as it is."""
    print(page, end="")


def compare_page(page: str, file: Path, command: str) -> None:
    """Compare the page with a file.

    Args:
        page: as it must be.
        file: as it is.
        command: what prints the page, for the message.

    Raises:
        typer.Exit: 1 when they differ.
    """
    if not file.exists() or file.read_bytes() != page.encode():
        say(f"{file} is out of date: run `{command} > {file}`")
        raise typer.Exit(exits.FAILED)
    print(f"{file} is up to date")
