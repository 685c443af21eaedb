"""`attributary rebuild`: make everything that was derived right again, from the stored events or from the log."""

from __future__ import annotations

from typing import Annotated

import typer

from attributary.cli import exits
from attributary.cli.outcome import say
from attributary.cli.tenant_option import AnyTenant


def register(app: typer.Typer) -> None:
    """Add the command `rebuild`."""
    app.command("rebuild")(_rebuild)


def _rebuild(
    *,
    tenant: AnyTenant = None,
    from_log: Annotated[
        bool, typer.Option("--from-log", help="Read events and results from the log first. The stages must be stopped.")
    ] = False,
    rollup: Annotated[
        bool, typer.Option("--rollup", help="Only make the roll-up that reports read anew, from the stored results.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
) -> None:
    """Rebuild owners, journeys and conversions from the raw events, and have wrong results published again.

    Without --from-log it works beside running stages, under their locks. With it, events that are lost or altered in
    Postgres come back from the log, also into an empty database, and versions continue above those on the results
    topic; stitcher, attributor and auditor must be stopped, which is checked. Stored events that the rules refuse by
    now, such as those of ids that came onto a list, become dead letters. Where the newest published result is not
    what the events give, the conversion gets a new version, reason `repair`; the sweeper asks for it. Nothing else
    changes, and no version falls below a published one.

    With --rollup nothing of that is done: the roll-up is counted anew from all stored versions of results, in the time
    zone that each tenant has now, beside a running reporter; readers see the old one until then.

    Progress is kept in attribution_rebuilds: cut short, it goes on where it was when it is started again. Afterwards
    `attributary verify` says whether anything is left. Needs DATABASE_URL, with --from-log KAFKA_BOOTSTRAP_SERVERS too.

    Example: attributary rebuild --dry-run
    """
    if rollup:
        if from_log or dry_run:
            raise typer.BadParameter("goes with --tenant alone", param_hint="--rollup")
        _rollup(tenant)
        return
    from attributary.cli.outcome import database
    from attributary.cli.progress import progress_bar
    from attributary.consumers.adapters.policy_settings import PolicySettings
    from attributary.consumers.maintenance.rebuild import Rebuilding, check_stopped
    from attributary.consumers.runtime.settings import load
    from attributary.consumers.store.repair.rebuild_progress import EVERYBODY, hold

    if from_log and (tenant is not None or dry_run):
        raise typer.BadParameter("the log is read for everybody, and in earnest", param_hint="--from-log")
    with database("attributary-rebuild", tenant=tenant) as writer, database("attributary-rebuild-reader") as reader:
        hold(writer)
        if from_log and (running := check_stopped()):
            say(f"stop these first, they are members of their groups: {', '.join(running)}")
            raise typer.Exit(exits.FAILED)
        work = Rebuilding(writer, reader, load(PolicySettings).policy(), dry_run=dry_run, progress=progress_bar)
        run = work.run(tenant or EVERYBODY, from_log=from_log)
    if run.is_resumed:
        print(f"took up rebuild {run.number}, which had been cut short")
    for kind, number in sorted(run.changed.items()):
        print(f"{'would change' if dry_run else 'changed'}: {number} {kind}")
    if not run.changed:
        print("nothing to change")
    elif not dry_run:
        print("the sweeper asks for the results that are owed")


def _rollup(tenant: str | None) -> None:
    from attributary.cli.outcome import database
    from attributary.cli.progress import progress_bar
    from attributary.cli.tables import plural
    from attributary.consumers.auditor.stage import GROUP as AUDITOR
    from attributary.consumers.reporter.stage import GROUP as REPORTER
    from attributary.consumers.store.rollup.apply import prepare_rollup
    from attributary.consumers.store.rollup.rebuild import rebuild_rollup, rollup_tenants

    with database("attributary-rebuild", tenant=tenant) as connection:
        prepare_rollup(connection)
        tenants = [tenant] if tenant else rollup_tenants(connection)
        connection.commit()
        with progress_bar("roll-up") as advance:
            for each in tenants:
                with connection.transaction():
                    read = rebuild_rollup(connection, each, (REPORTER, AUDITOR), advance)
                print(f"{each}: the roll-up holds {plural(read, 'stored version')} now")
    if not tenants:
        print("nothing to roll up: no result is stored")
