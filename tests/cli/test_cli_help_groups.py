"""Every command has its place in the help of the top."""

from __future__ import annotations

from typer.main import get_command

from attributary.cli.command_line import GROUPS
from attributary.cli.main import app


def test_every_command_belongs_to_a_group() -> None:
    grouped = {name for names in GROUPS.values() for name in names}
    shown = {name for name, command in get_command(app).commands.items() if not command.hidden}  # type: ignore[attr-defined]
    assert shown <= grouped, shown - grouped
