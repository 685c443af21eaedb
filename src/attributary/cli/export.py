"""`attributary export`: what the reporting views hold, as Parquet or CSV files by day, or as an Iceberg table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attributary.cli import exits
from attributary.cli.tenant_option import Tenant
from attributary.cli.times import SINCE_HELP, UNTIL_HELP, period_options

if TYPE_CHECKING:
    import psycopg
    from psycopg.sql import Composed

_BATCH = 10_000
# The column of time, and what makes a row unique beside it.
_VIEWS = {
    "conversions": ("converted_at", ("conversion_id",)),
    "results": ("converted_at", ("conversion_id",)),
    "result_versions": ("converted_at", ("conversion_id", "version")),
    "credit": ("converted_at", ("conversion_id", "model", "dimension", "name")),
    "touchpoints": ("occurred_at", ("event_id",)),
    "removed": ("day", ("bucket", "conversion_type", "currency")),
    "retired_credit": ("day", ("conversion_type", "currency", "model", "channel", "platform", "campaign")),
}


def register(app: typer.Typer) -> None:
    """Add the command `export`."""
    app.command("export")(_export)


def _export(
    what: Annotated[
        Literal["conversions", "results", "result_versions", "credit", "touchpoints", "removed", "retired_credit"],
        typer.Argument(help="A view of the schema reporting."),
    ],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder of the files; one of an earlier export is replaced.")],
    tenant: Tenant = "",
    form: Annotated[
        Literal["parquet", "csv", "iceberg"],
        typer.Option("--format", help="parquet and iceberg need the extra of that name, as attributary[parquet]."),
    ] = "parquet",
    since: Annotated[str, typer.Option("--from", help=f"Event time. {SINCE_HELP}")] = "beginning",
    until: Annotated[str, typer.Option("--to", help=f"Event time. {UNTIL_HELP}")] = "end",
) -> None:
    """Export rows of one tenant, a file a day (UTC), and a manifest that is written last.

    The manifest names every file with its rows and SHA-256, and the sums by currency. A reader that goes by it never
    sees half an export: new files stand beside the old ones until the manifest is replaced. Days with the same content
    keep their files; `new_files` and `removed_files` are what a copy has to take and to drop. All is read in one
    snapshot. Needs DATABASE_URL.

    As iceberg the folder has a catalogue of its own, catalog.db, and a table attributary.<view>; an export is one
    commit. What changed is replaced, what was erased is gone: older snapshots are expired, their files removed.

    Example: attributary export credit --tenant acme --from 2026-11-01 --to 2026-12-01 --out november

    Example: attributary export conversions --tenant acme --format csv --out conversions
    """
    from attributary.cli.export_files import ExportFiles, ForeignFolderError, MissingExtraError
    from attributary.cli.export_iceberg import IcebergExport
    from attributary.cli.model_options import usage_errors
    from attributary.cli.outcome import database
    from attributary.cli.tables import plural
    from attributary.consumers.store.tenants import check_tenant

    period = period_options(since, until)
    with database("attributary-export") as connection, usage_errors():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        check_tenant(connection, tenant)
        about = {"dataset": what, "tenant": tenant, "from": period[0], "to": period[1]}
        try:
            with IcebergExport(out, about) if form == "iceberg" else ExportFiles(out, form, about) as files:
                _copy(connection, what, {"tenant": tenant, "from_us": period[0], "to_us": period[1]}, files)
                manifest = files.finish()
        except (ForeignFolderError, MissingExtraError) as error:
            raise typer.BadParameter(str(error), param_hint="--out, --format") from None
        except OSError as error:
            sys.stderr.write(f"attributary: {out} cannot be written: {error.strerror}; nothing was replaced\n")
            raise typer.Exit(exits.OUTPUT) from None
        connection.commit()
        _note(connection, tenant, what, manifest["rows"])
    kind, place = ("day", "catalog.db") if form == "iceberg" else ("file", "manifest.json")
    files_ = f"{plural(manifest['rows'], 'row')} in {plural(len(manifest['files']), kind)}"
    print(f"{out}: {files_}, {len(manifest['new_files']):,} of them new, see {place}")


def _note(connection: psycopg.Connection, tenant: str, what: str, rows: int) -> None:
    """Note the export in the audit, if the role may; a reader of views may not."""
    from psycopg import errors

    from attributary.consumers.store.audit import note_action

    try:
        note_action(connection, tenant, "data.exported", what, {"rows": rows})
        connection.commit()
    except errors.InsufficientPrivilege:
        connection.rollback()
        sys.stderr.write("attributary: the audit lacks this export: the role of DATABASE_URL may not add to it\n")


def _copy(connection: psycopg.Connection, view: str, values: dict[str, Any], files: Any) -> None:
    """Copy rows in the order of time, in batches: memory does not depend on how many there are."""
    columns = connection.execute(
        "SELECT column_name, udt_name FROM information_schema.columns "
        "WHERE table_schema = 'reporting' AND table_name = %s ORDER BY ordinal_position",
        (view,),
    ).fetchall()
    files.begin([(name, kind) for name, kind in columns])
    with connection.cursor("export") as cursor:
        cursor.execute(_query(view, columns), values)
        while rows := cursor.fetchmany(_BATCH):
            files.write(rows)


def _query(view: str, columns: list[tuple[str, str]]) -> Composed:
    from psycopg import sql

    time, key = _VIEWS[view]
    chosen = [
        sql.SQL("{}::text").format(sql.Identifier(name)) if kind == "jsonb" else sql.Identifier(name)
        for name, kind in columns
    ]
    return sql.SQL(
        "SELECT to_char({time} AT TIME ZONE 'UTC', 'YYYY-MM-DD'), {columns} FROM reporting.{view} "
        "WHERE tenant_id = %(tenant)s AND {time} >= to_timestamp(%(from_us)s / 1e6) "
        "AND {time} < to_timestamp(%(to_us)s / 1e6) ORDER BY {order}"
    ).format(
        time=sql.Identifier(time),
        columns=sql.SQL(", ").join(chosen),
        view=sql.Identifier(view),
        order=sql.SQL(", ").join(map(sql.Identifier, (time, *key))),
    )
