"""`attributary up` and `attributary down`: a whole local stack with one command, without Docker."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attributary.cli import exits
from attributary.cli.outcome import say

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
    prometheus: Annotated[
        bool, typer.Option("--prometheus", help="Run this machine's Prometheus, too, on all processes.")
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Only tell what runs, where, and whether it is ready; exit 1 if not.")
    ] = False,
) -> None:
    """Run Kafka, Postgres and all consumers on this machine until Ctrl-C.

    Kafka is the one that KAFKA_BOOTSTRAP_SERVERS names, else Apache Kafka as a local process (needs Java 17 or
    newer, and Maven for the first start). Postgres is the one that DATABASE_URL names, else an embedded one.

    A port that another program has is replaced by a free one, which is said and kept for later starts: the file `env`
    in the folder names what is used, as long as the stack runs. Up means that every stage says that it is ready; exit
    code 69 if one does not. The folder `monitoring` has Prometheus's and Grafana's configuration for this stack.

    Example: attributary up --detach && . .attributary/up/env && attributary tail results
    """
    from attributary.local.broker import BrokerUnavailableError
    from attributary.local.folder import FolderInUseError
    from attributary.local.process import ProcessFailedError
    from attributary.local.up import run_foreground, start_detached, state

    folder = _folder(data)
    if status:
        lines, is_up = state(folder)
        print("\n".join(lines))
        raise typer.Exit(exits.DONE if is_up else exits.FAILED)
    start = start_detached if detach else run_foreground
    try:
        start(folder, lambda line: print(line, flush=True), fake_services=fake_destinations, prometheus=prometheus)
    except FolderInUseError as error:
        say(f"{error}; see: attributary up --status")
        raise typer.Exit(exits.USAGE) from None
    except (ProcessFailedError, BrokerUnavailableError) as error:
        sys.stderr.write(f"attributary: {error}\n")  # with the last lines of a log
        raise typer.Exit(exits.DEPENDENCY_DOWN) from None


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
        say(str(error))
        raise typer.Exit(exits.DEPENDENCY_DOWN) from None
    if not stopped:
        print("no stack runs in", folder.path)
        return
    print(f"stopped; the data stays in {folder.path}")
    print(f"{folder.environment_file} is gone until the next start: it names what runs")


def _folder(data: Path | None) -> StackFolder:
    from attributary.local.folder import StackFolder
    from attributary.local.paths import state_dir

    return StackFolder(data.resolve() if data else state_dir("up"))
