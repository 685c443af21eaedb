"""`attributary up` and `attributary down`: a whole local stack with one command, without Docker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from attributary.local.folder import StackFolder

_DATA = typer.Option(
    "--data", help="Folder that keeps everything; a stop and a start lose nothing.", show_default=".attributary/up"
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(up)
    app.command()(down)


def up(
    data: Annotated[Path | None, _DATA] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it is up; stop it with `attributary down`.")
    ] = False,
    fake_destinations: Annotated[
        bool, typer.Option("--fake-destinations", help="Forward to local stand-ins for Meta and GA4.")
    ] = False,
) -> None:
    """Run Kafka, Postgres and all consumers on this machine until Ctrl-C.

    Kafka is the one that KAFKA_BOOTSTRAP_SERVERS names, else Apache Kafka as a local process (needs Java 17 or
    newer, and Maven for the first start). Postgres is the one that DATABASE_URL names, else an embedded one.

    Example: attributary up --detach && . .attributary/up/env && attributary tail results
    """
    from attributary.local.broker import BrokerUnavailableError
    from attributary.local.folder import FolderInUseError
    from attributary.local.process import ProcessFailedError
    from attributary.local.up import run_foreground, start_detached

    folder = _folder(data)
    try:
        if detach:
            print(start_detached(folder, fake_services=fake_destinations))
        else:
            run_foreground(folder, lambda line: print(line, flush=True), fake_services=fake_destinations)
    except FolderInUseError as error:
        print(error)
        raise typer.Exit(2) from None
    except (ProcessFailedError, BrokerUnavailableError) as error:
        print(error)
        raise typer.Exit(69) from None


def down(data: Annotated[Path | None, _DATA] = None) -> None:
    """Stop the stack that `attributary up` runs; its data stays.

    Example: attributary down
    """
    from attributary.local.process import ProcessFailedError
    from attributary.local.up import stop_detached

    folder = _folder(data)
    try:
        stopped = stop_detached(folder)
    except ProcessFailedError as error:
        print(error)
        raise typer.Exit(69) from None
    print("stopped; the data stays in" if stopped else "no stack runs in", folder.path)


def _folder(data: Path | None) -> StackFolder:
    from attributary.local.folder import StackFolder
    from attributary.local.paths import state_dir

    return StackFolder(data.resolve() if data else state_dir("up"))
