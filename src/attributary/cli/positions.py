"""`attributary positions show|forget`: how far the stages have stored, by Postgres."""

from __future__ import annotations

from typing import Annotated

import typer

from attributary.cli import exits
from attributary.cli.outcome import say
from attributary.cli.tables import plural, print_json, print_table


def register(app: typer.Typer) -> None:
    """Add the group `positions`."""
    group = typer.Typer(no_args_is_help=True, help="The offsets that Postgres holds for each consumer group.")
    group.command("show")(_show)
    group.command("forget")(_forget)
    app.add_typer(group, name="positions")


def _show(
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list.")] = False,
) -> None:
    """Show group, topic, partition, next offset, and Kafka's id of the topic that the offset belongs to.

    "-" in place of an id: the offset was stored by an earlier version and its stage has not started since.

    Example: attributary positions show
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.offsets import all_positions, all_topic_ids

    with database("attributary-cli") as connection:
        ids = all_topic_ids(connection)
        rows = [(*row, ids.get(row[:3])) for row in all_positions(connection)]
    if as_json:
        names = ("group", "topic", "partition", "next_offset", "topic_id")
        print_json([dict(zip(names, row, strict=True)) for row in rows])
        return
    if not rows:
        print("no offset is stored yet: no stage has finished a batch")
        return
    print_table(
        ("group", "partition", "next offset", "id of the topic"),
        [(group, f"{topic}[{number}]", str(offset), kept or "-") for group, topic, number, offset, kept in rows],
        (2,),
    )


def _forget(
    group: Annotated[str, typer.Argument(help="For example attribution.stitcher.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
) -> None:
    """Forget a group's offsets in Postgres, so that Kafka's alone count.

    Needed when the log was lost or replaced and Postgres is ahead of it. Stop the group's processes first. Records are
    never stored twice: events have ids.

    Example: attributary positions forget attribution.stitcher
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.offsets import forget_positions

    if not yes:
        typer.confirm(f"Forget the stored offsets of {group}?", abort=True)
    with database("attributary-cli") as connection:
        forgotten = forget_positions(connection, group)
        if not forgotten:
            say(f"no offset of a group {group} is stored; see: attributary positions show")
            raise typer.Exit(exits.FAILED)
        print(f"forgot {plural(forgotten, 'partition')} of {group}")
