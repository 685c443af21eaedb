"""`attributary report NAME`: every report of the catalogue as a command; as a table, as CSV, as JSON."""

from __future__ import annotations

import csv
import inspect
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attributary.cli.generated_page import compare_page, print_page
from attributary.cli.tenant_option import Tenant
from attributary.cli.times import LOCAL_SINCE_HELP, LOCAL_UNTIL_HELP, local_time_option

if TYPE_CHECKING:
    from attributary.consumers.reports.answer import Answer
    from attributary.consumers.reports.definition import Report

_BY = Annotated[Literal["channel", "platform", "campaign"], typer.Option("--by", help="What the names are.")]
_OPTIONS: dict[str, tuple[str, Any, Any]] = {
    "model": ("models", Annotated[str, typer.Option("--model", help="Default: linear.")], ""),
    "models": (
        "models",
        Annotated[str, typer.Option("--models", "--model", help="With commas: last,linear. Default: all.")],
        "",
    ),
    "by": ("by", _BY, "channel"),
    "since": (
        "since",
        Annotated[
            str,
            typer.Option(
                "--changed-since", help="What changed since then: 2026-11-01, ... Default: the midnight a week ago."
            ),
        ],
        "",
    ),
}
_COMMON: dict[str, tuple[Any, Any]] = {
    "tenant": (Tenant, ""),
    "start": (Annotated[str, typer.Option("--from", help=f"Conversions. {LOCAL_SINCE_HELP}")], "beginning"),
    "end": (Annotated[str, typer.Option("--to", help=f"Conversions. {LOCAL_UNTIL_HELP}")], "end"),
}
_REST: dict[str, tuple[Any, Any]] = {
    "currency": (Annotated[str, typer.Option(help="Conversions in it. Default: the most common one.")], ""),
    "conversion_type": (
        Annotated[list[str] | None, typer.Option(help="Conversions of this type only; may be repeated.")],
        None,
    ),
    "time_zone": (Annotated[str, typer.Option(help="IANA name, for days and months. Default: the tenant's.")], ""),
    "as_of": (Annotated[str, typer.Option("--as-of", help="As it was reported then. Default: as it is now.")], "end"),
    "source": (
        Annotated[
            Literal["any", "rollup", "results"],
            typer.Option(help="What it may be computed from. any: the roll-up where it can answer, else every result."),
        ],
        "any",
    ),
    "limit": (Annotated[int, typer.Option(min=0, help="Most names; the rest is one row. 0: all.")], 50),
    "output": (
        Annotated[Literal["table", "csv", "json"], typer.Option("--format", help="json has money in micros.")],
        "table",
    ),
    "as_json": (Annotated[bool, typer.Option("--json", help="The same as --format json.")], False),
}


def add_reports(group: typer.Typer) -> None:
    """Add a command for each report of the catalogue, and `list`."""
    from attributary.consumers.reports.catalog import REPORTS

    group.command("list")(_list)
    for report in REPORTS:
        group.command(report.name, help=_help(report))(_command(report))


def _help(report: Report) -> str:
    text = report.text.replace("`", "")
    return f"{report.question}\n\n{text} Needs DATABASE_URL.\n\nExample: attributary report {report.name} --from 30d"


def _command(report: Report) -> Callable[..., None]:
    """Return the function of a report's command; its options are those that the report looks at."""
    options = dict(_COMMON)
    options |= {name: (kind, default) for name, kind, default in (_OPTIONS[each] for each in report.options)}
    options |= _REST

    def command(**values: Any) -> None:
        _show(report, **values)

    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # typer reads options from it
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
            for name, (kind, default) in options.items()
        ]
    )
    command.__annotations__ = {name: kind for name, (kind, _) in options.items()}
    return command


def _list(
    *,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/reference/reports.md.")] = False,
    check: Annotated[Path | None, typer.Option(help="Exit 1 if this file differs from the page.")] = None,
) -> None:
    """List the reports, each with the question that it answers.

    Example: attributary report list

    Example: attributary report list --check docs/reference/reports.md
    """
    from attributary.cli.tables import print_table
    from attributary.consumers.reports.catalog import REPORTS
    from attributary.consumers.reports.docs_page import page

    if check is not None:
        compare_page(page(), check, "attributary report list --markdown")
    elif markdown:
        print_page(page())
    else:
        print_table(["report", "question"], [[report.name, report.question] for report in REPORTS], [])


def _show(report: Report, **values: Any) -> None:
    from attributary.cli.outcome import database
    from attributary.cli.tables import print_json, width
    from attributary.consumers.reports.answer import PeriodError, ReportOptions, UnknownNameError, answer, document
    from attributary.consumers.reports.origin import OnlyRollupError
    from attributary.schemas.limits import MINOR_UNIT_MICROS, NO_CURRENCY

    if values["currency"] and values["currency"] not in {*MINOR_UNIT_MICROS, NO_CURRENCY}:
        raise typer.BadParameter("must be an ISO 4217 code, such as EUR", param_hint="--currency")
    options = ReportOptions(
        tuple(name.strip() for name in values["models"].split(",") if name.strip()) if values.get("models") else None,
        values.get("by", "channel"),
        local_time_option(values["since"], "--changed-since") if values.get("since") else None,
        values["currency"] or None,
        tuple(values["conversion_type"] or ()),
        values["time_zone"] or None,
        values["limit"],
        values["source"],
    )
    period = local_time_option(values["start"], "--from"), local_time_option(values["end"], "--to")
    as_of = local_time_option(values["as_of"], "--as-of")
    with database("attributary-report") as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        try:
            found = answer(connection, report, values["tenant"], period, as_of, time.time_ns() // 1_000, options)
        except UnknownNameError as error:
            raise typer.BadParameter(_unknown(error), param_hint=f"--{error.parameter.replace('_', '-')}") from None
        except PeriodError:
            raise typer.BadParameter(
                f"{values['end']} must be later than --from {values['start']}", param_hint="--to"
            ) from None
        except OnlyRollupError as error:
            raise typer.BadParameter(f"{error}; or leave it out", param_hint="--source") from None
        nothing = _nothing(connection, found)
    if nothing:
        sys.stderr.write(f"attributary: {nothing}\n")
    if values["as_json"] or values["output"] == "json":
        print_json(document(found))
    elif values["output"] == "csv":
        sys.stdout.write(csv_lines(found))
    elif found.table is not None:
        print(table_text(found, width() or 160))


def _unknown(error: Any) -> str:
    from attributary.cli.tables import safe

    there = (
        f"there are {', '.join(map(safe, error.known))}" if error.known else "give an IANA name such as Europe/Berlin"
    )
    return f"'{safe(error.name)}' is not known; {there}"


def _nothing(connection: Any, found: Answer) -> str:
    """Say what exists instead where nothing is to be shown; refuse an unknown tenant, currency or type."""
    from attributary.cli.results import check_known
    from attributary.consumers.store.results.credit_report import ReportQuery

    if found.table is not None and found.total.conversions:
        return ""
    request = found.request
    query = ReportQuery(
        request.tenant_id, request.models or ("linear",), ("channel",), request.period_us, request.as_of_us,
        request.currency or None, request.conversion_types,
    )  # fmt: skip
    return check_known(connection, query, set()) or "no conversion is in this report"


def table_text(found: Answer, width: int) -> str:
    """Return an answer as text: what it is about, one sentence, the table, and its notes."""
    from attributary.cli.block_table import Column, block_table, wrapped
    from attributary.cli.tables import amount, plural, safe
    from attributary.consumers.reports.cells import cell_text
    from attributary.consumers.reports.definition import ReportTable

    table = found.table or ReportTable([], "")
    request, total = found.request, found.total
    models = f", {', '.join(request.models)}" if {"model", "models"} & set(found.report.options) else ""
    head = (
        f"{found.report.title}: {request.tenant_id}{models}; {plural(total.conversions, 'conversion')}, "
        f"{amount(total.net_micros, total.currency)}; days in {request.time_zone}"
    )
    compares = any(column.name == "model" for column in found.report.columns)  # each model has a sum of its own
    names: list[Column] = []
    numbers: list[Column] = []
    for place, column in enumerate(found.report.columns):
        cells = [safe(cell_text(row[place], column.unit, request.currency)) for row in table.rows]
        title = column.name.replace("_", " ") + (f" {request.currency}" if column.unit == "micros" else "")
        is_summed = column.is_additive and not compares
        sums = sum(row[place] or 0 for row in table.rows) if is_summed else None
        foot = "total" if place == 0 else cell_text(sums, column.unit, request.currency)
        is_text = column.unit in {"name", "date", "text"}
        is_advice = column.name == "advice"
        (numbers if not is_text or is_advice else names).append(Column(title, cells, foot))
    has_sums = any(column.foot for column in numbers)
    if not has_sums:
        names = [column._replace(foot="") for column in names]
    others = [
        f"Not in it, because currencies are never added: {plural(each.conversions, 'conversion')} "
        f"({amount(each.net_micros, each.currency)})."
        for each in found.others
    ]
    parts = [wrapped(head, width), wrapped(safe(table.finding), width), block_table(names, numbers, width)]
    notes = "\n".join(wrapped(safe(note), width) for note in [*found.notes, *others])
    return "\n\n".join([*parts, notes] if notes else parts)


def csv_lines(found: Answer) -> str:
    """Return an answer as CSV: amounts in the currency's unit, and no cell that a spreadsheet takes for a formula."""
    from attributary.consumers.reports.cells import csv_text

    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    columns = found.report.columns
    writer.writerow([*(column.name for column in columns), "currency"])
    for row in found.table.rows if found.table else []:
        cells = [csv_text(cell, column.unit, found.request.currency) for cell, column in zip(row, columns, strict=True)]
        writer.writerow([*cells, found.request.currency])
    return lines.getvalue()
