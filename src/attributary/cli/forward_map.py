"""`attributary forward map`: what every destination would receive of the conversions of a file, side by side.

Contract: no network, no ledger, no credentials needed; one conversion at a time, whatever the size of the file. Nothing
of the file reaches the terminal unescaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attributary.cli.mapping_options import (
    ConstantOption,
    DecimalCommaOption,
    DelimiterOption,
    EncodingOption,
    GroupByOption,
    MapOption,
    MappingOption,
    PresetOption,
    SkipLinesOption,
    ThousandsOption,
    TimeFormatOption,
    TimezoneOption,
    WhereOption,
    command_line,
)
from attributary.cli.tenant_option import RowTenant
from attributary.cli.times import time_option

if TYPE_CHECKING:
    from attributary.consumers.destinations.destination import Destination, NotSent, PreparedEvent

_SOME_REJECTED = 3
_COLUMN_WIDTH = 44  # below, lines would break; then destinations stand below each other


def map_file(
    file: Annotated[Path, typer.Argument(help="Conversions as `attributary produce` takes them.")],
    tenant: RowTenant = "",
    at: Annotated[str, typer.Option(help="The time now: 2026-11-01, 3d, ... (docs/reference/times.md).")] = "now",
    destination: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this destination; may be repeated. Default: all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for each conversion.")] = False,
    map_: MapOption = None,
    preset: PresetOption = None,
    constant: ConstantOption = None,
    mapping: MappingOption = None,
    where: WhereOption = None,
    time_format: TimeFormatOption = None,
    timezone: TimezoneOption = None,
    decimal_comma: DecimalCommaOption = False,
    thousands: ThousandsOption = None,
    group_by: GroupByOption = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    skip_lines: SkipLinesOption = 0,
) -> None:
    """Show what every destination would receive of each conversion, side by side, and what is left out and why.

    No network, no credentials needed; the event names of FORWARD_CREDENTIALS_FILE are used where it is set. Exit code 3
    when a row is none, or an event would be rejected.

    Example: attributary forward map conversions.jsonl

    Example: attributary forward map conversions.jsonl --destination meta --destination tiktok
    """
    from attributary.cli.conversion_file import read_conversions
    from attributary.cli.outcome import exit_codes
    from attributary.cli.tables import safe
    from attributary.consumers.destinations.catalog import NAMES, read_setup
    from attributary.consumers.destinations.destination import NotSent
    from attributary.consumers.destinations.dry_run import DryRun
    from attributary.consumers.store.deliveries.delivery import DeliveryState

    options = command_line(
        map_, preset=preset, constant=constant, mapping=mapping, where=where, time_format=time_format,
        timezone=timezone, decimal_comma=decimal_comma, thousands=thousands, group_by=group_by, delimiter=delimiter,
        encoding=encoding, skip_lines=skip_lines,
    )  # fmt: skip
    if unknown := sorted(set(destination or ()) - set(NAMES)):
        raise typer.BadParameter(
            f"{safe(unknown[0])} is no destination; known: {', '.join(NAMES)}", param_hint="--destination"
        )
    broken: list[str] = []
    is_rejected = False
    with exit_codes():
        now = time_option(at, "--at")
        setups = {name: read_setup(name, warns=False) for name in destination or NAMES}
        runs = {
            name: DryRun(setup.destination, setup.shared.consent_unknown, now, setup.credentials, setup.properties)
            for name, setup in setups.items()
        }
        for record in read_conversions(file, options, broken, tenant, "FILE"):
            found = {name: run.prepared(record) for name, run in runs.items()}
            is_rejected |= any(
                isinstance(event, NotSent) and event.state is DeliveryState.REJECTED for event in found.values()
            )
            shown: dict[str, dict[str, Any]] = {
                name: _shown(event, setups[name].destination, record) for name, event in found.items()
            }
            (_print_json if as_json else _print_table)(record, shown)
    for line in broken:
        typer.echo(line, err=True)
    if broken or is_rejected:
        raise typer.Exit(_SOME_REJECTED)


def _shown(event: PreparedEvent | NotSent, destination: Destination, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said of one event at one destination."""
    from attributary.consumers.destinations.destination import NotSent

    if isinstance(event, NotSent):
        return {"state": event.state.value, "reason": event.reason, "field": event.field}
    return {
        "state": "goes",
        "name": event.name,
        "around": json.loads(event.envelope),
        "event": json.loads(event.body),
        "left_out": event.remark.split("; ") if event.remark else [],
        "not_used": [field for field in destination.unused_fields if record.get(field)],
    }


def _print_json(record: Mapping[str, Any], shown: Mapping[str, Any]) -> None:
    print(json.dumps({"event_id": record.get("event_id"), **shown}, ensure_ascii=False))


def _print_table(record: Mapping[str, Any], shown: Mapping[str, dict[str, Any]]) -> None:
    from attributary.cli.tables import print_table, safe, width

    print(safe(f"{record.get('event_id')}  {record.get('conversion_type')}"))
    columns = {name: list(_lines(found)) for name, found in shown.items()}
    places = width()
    if places is not None and places < _COLUMN_WIDTH * len(columns):
        for name, lines in columns.items():
            print(f"{name}: {safe(lines[0])}")
            print("".join(f"  {safe(line)}\n" for line in lines[1:]), end="")
    else:
        print_table(list(shown), [list(cells) for cells in zip_longest(*columns.values(), fillvalue="")], ())
    print()


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    if found["state"] != "goes":
        field = f" ({found['field']})" if found["field"] else ""
        yield f"{found['state']}: {found['reason']}{field}"
        return
    yield f"goes as {found['name']}"
    if found["around"]:
        yield from _flat("", found["around"])
    yield from _flat("", found["event"])
    for text in found["left_out"]:
        yield f"but: {text}"
    if found["not_used"]:
        yield f"not used: {', '.join(found['not_used'])}"


def _flat(path: str, value: Any) -> Iterator[str]:
    """Yield a line for each value of a document."""
    if isinstance(value, dict) and value:
        for name, each in value.items():
            yield from _flat(f"{path}.{name}" if path else name, each)
    elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        for number, each in enumerate(value):
            yield from _flat(f"{path}[{number}]", each)
    else:
        yield f"{path} = {json.dumps(value, ensure_ascii=False)}"
