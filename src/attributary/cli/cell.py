"""`attributary cell move-tenant`: move a tenant from this installation to another one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attributary.cli import exits
from attributary.cli.outcome import say
from attributary.cli.tenant_option import TenantArgument

if TYPE_CHECKING:
    from attributary.consumers.maintenance.cells import MoveReport, TenantMove

_PAUSE_SECONDS = 1.0
_SHOWN = 6
_NEXT = {
    "relaying": (
        "start this installation's forwarders again, run `attributary verify` in both installations, and point the "
        "tenant's publishers, subscribers and readers there. Run this command again (or with --follow) to relay what "
        "is still written here, and at last with --finish"
    ),
    "moved": "records that are still published here become dead letters that name the other installation",
}


def register(app: typer.Typer) -> None:
    """Add the group `cell`."""
    group = typer.Typer(no_args_is_help=True, help="Several installations (cells): move a tenant between two.")
    group.command("move-tenant")(_move_tenant)
    app.add_typer(group, name="cell")


def _move_tenant(
    tenant: TenantArgument,
    *,
    to: Annotated[
        Path, typer.Option("--to", exists=True, dir_okay=False, help="Settings of the other installation: NAME=value.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check both installations and count what would move.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Go on relaying until interrupted.")] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="End the move: publishers write to the other installation now.")
    ] = False,
    take_back_results: Annotated[
        bool,
        typer.Option(
            "--take-back-results",
            help="With --finish: write a tombstone over each result in this installation's topic. Only once no "
            "subscriber feeds one store from both installations.",
        ),
    ] = False,
    drain_seconds: Annotated[
        float, typer.Option(min=1, help="How long results and jobs that are owed may take; seconds.")
    ] = 300.0,
    as_json: Annotated[bool, typer.Option("--json", help="What was done, as JSON.")] = False,
) -> None:
    """Move a tenant to another installation: its rows, its results and its records.

    The environment names the installation that the tenant leaves, the file --to the other one (DATABASE_URL,
    KAFKA_BOOTSTRAP_SERVERS, ATTRIBUTION_PREFIX, ATTRIBUTION_ERASURE_KEY; `env` of `attributary up` is such a file).
    Stages of both keep running; only the forwarders here must be stopped until the move says `relaying`. Records that
    come meanwhile wait in the log and are relayed: nothing is lost, and nothing is counted or sent twice. From the
    start of the move until `relaying` the tenant gets no new results and its reports here are empty. The
    forwarders here stand still as long, for all tenants.

    A move has four states: fenced, held, relaying, moved. Cut short anywhere, the same command goes on. Logins of
    readers (`attributary tenants reader`) and the audit stay; make readers anew there. Needs both databases as the
    owner of their tables. docs/how-to/move-tenant.md goes through it step by step.

    Example: attributary cell move-tenant acme --to eu2.env --dry-run
    """
    import time

    if sum((dry_run, follow, finish)) > 1:
        raise typer.BadParameter("only one of --dry-run, --follow and --finish can be given")
    if take_back_results and not finish:
        raise typer.BadParameter("goes with --finish", param_hint="--take-back-results")
    with _opened(tenant, to, drain_seconds) as move:
        if dry_run:
            _show(tenant, move.plan(), as_json=as_json)
            return
        report = move.finish(take_back_results=take_back_results) if finish else move.run()
        _show(tenant, report, as_json=as_json)
        while follow:
            time.sleep(_PAUSE_SECONDS)
            if (report := move.run()).relayed:
                print(f"relayed {report.relayed:,} records")


@contextmanager
def _opened(tenant: str, to: Path, drain_seconds: float) -> Iterator[TenantMove]:
    from attributary.cli.outcome import database, kafka_settings
    from attributary.cli.progress import progress_bar
    from attributary.consumers.maintenance.cells import NotReadyError, TenantMove, this_cell
    from attributary.consumers.maintenance.cells.cell import cell_of_file
    from attributary.consumers.store.cells.tenant_rows import RowsDifferError
    from attributary.consumers.store.connection import connect
    from attributary.consumers.store.migrate import check_migrated

    name = "attributary-cell"
    try:
        there = cell_of_file(to)
    except OSError as error:
        raise typer.BadParameter(f"{to} cannot be read: {error.strerror}", param_hint="--to") from None
    except ValueError as error:
        raise typer.BadParameter(f"{to}: {error}", param_hint="--to") from None
    with database(name) as source:
        kafka_settings()
        cells = this_cell(), there
        with connect(cells[1].dsn, application_name=name) as target:
            check_migrated(target)
            source.autocommit = target.autocommit = True
            move = TenantMove(tenant, cells, (source, target), progress_bar, drain_seconds)
            try:
                yield move
            except (NotReadyError, RowsDifferError) as error:
                say(str(error))
                raise typer.Exit(exits.FAILED) from None
            finally:
                move.close()


def _show(tenant: str, report: MoveReport, *, as_json: bool) -> None:
    from attributary.cli.tables import plural, print_json

    move, total = report.move, sum(report.rows.values())
    if as_json:
        document: dict[str, Any] = {
            "tenant_id": tenant, "state": None if move is None else move.state, "rows": dict(report.rows),
            "relayed": report.relayed, "results": report.results, "stragglers": report.stragglers,
        }  # fmt: skip
        print_json(document)
        return
    print(f"tenant {tenant}: {'ready to move' if move is None else move.state}")
    largest = sorted(report.rows.items(), key=lambda each: -each[1])
    shown = ", ".join(f"{name} {number:,}" for name, number in largest[:_SHOWN])
    rest = f" and {plural(len(largest) - _SHOWN, 'other table')}" if len(largest) > _SHOWN else ""
    print(f"  rows     {total:,}: {shown}{rest}")
    if move is not None:
        print(
            f"  relayed  {plural(report.relayed, 'record')}, {plural(report.results, 'record')} of results and erasures"
        )
        if report.stragglers:
            print(f"  deleted  {plural(report.stragglers, 'row')} that a stage stored here late; relayed as well")
        if move.state in _NEXT:
            print(f"Next: {_NEXT[move.state]}.")
