"""`attributary events conflicts`, `attributary conversions ignored|orders`: what was accepted and changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attributary.cli.tenant_option import AnyTenant

if TYPE_CHECKING:
    import psycopg

_Limit = Annotated[int, typer.Option(min=1, help="Show so many at most.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object, money in micros, times in microseconds UTC.")]


def register(app: typer.Typer) -> None:
    """Add the groups `events` and `conversions`."""
    events = typer.Typer(no_args_is_help=True, help="Reports about events.")
    events.command("conflicts")(_conflicts)
    events.callback()(lambda: None)
    app.add_typer(events, name="events")
    conversions = typer.Typer(no_args_is_help=True, help="Reports about conversions.")
    conversions.command("ignored")(_ignored)
    conversions.command("orders")(_orders)
    app.add_typer(conversions, name="conversions")


def _conflicts(*, tenant: AnyTenant = None, limit: _Limit = 200, as_json: _Json = False) -> None:
    """Show event ids that came with several contents, and which record is kept.

    The first record in the log is the event: log-append time, then topic, partition and offset decide. What came later
    under its id with another content is set aside and changes nothing. Give each fact an event id of its own, and
    publish corrections as refunds or restatements. Needs DATABASE_URL.

    Example: attributary events conflicts --tenant acme
    """
    from attributary.consumers.store.events.event_reports import event_conflicts

    def rows(found: Sequence[Any]) -> list[tuple[str, ...]]:
        return [
            (
                c.tenant_id, c.record, c.event_id, c.stored, _worth(c.stored_value_micros, c.stored_currency),
                c.set_aside, _worth(c.value_micros, c.currency), c.conversion_id or "",
            )
            for c in found
        ]  # fmt: skip

    columns = ("tenant", "record", "event", "kept", "kept value", "set aside", "its value", "its conversion")
    _show(
        lambda connection: event_conflicts(connection, tenant, limit + 1), "conflicts", columns, rows,
        "no event id came with several contents", limit=limit, as_json=as_json, tenant=tenant, numbers=(4, 6),
    )  # fmt: skip


def _ignored(*, tenant: AnyTenant = None, limit: _Limit = 200, as_json: _Json = False) -> None:
    """Show events about conversions that change nothing, each with the reason.

    repeat: a further conversion event of the same person. other_person: a further one of somebody else; the first
    stays. other_currency: a refund or restatement in another currency than the conversion's. not_opened: a correction
    of a conversion that has not arrived. Reads all conversions with several events. Needs DATABASE_URL.

    Example: attributary conversions ignored --tenant acme --json
    """
    from attributary.consumers.store.events.event_reports import ignored_events

    def rows(found: Sequence[Any]) -> list[tuple[str, ...]]:
        return [
            (
                e.tenant_id, e.conversion_id, e.event_id, e.kind, _worth(e.value_micros, e.currency), e.verdict,
                e.counts_instead or "", e.record,
            )
            for e in found
        ]  # fmt: skip

    columns = ("tenant", "conversion", "event", "kind", "value", "why", "opened by", "record")
    most = min(limit, sys.maxsize - 1) + 1
    _show(
        lambda connection: list(islice(ignored_events(connection, tenant), most)), "ignored", columns, rows,
        "every event about a conversion counts", limit=limit, as_json=as_json, tenant=tenant, numbers=(4,),
    )  # fmt: skip


def _orders(*, tenant: AnyTenant = None, limit: _Limit = 200, as_json: _Json = False) -> None:
    """Show orders that came under several conversions: each of them counts.

    With ATTRIBUTION_DUPLICATE_ORDERS=first an order is one conversion, and its first event counts. Needs DATABASE_URL.

    Example: attributary conversions orders --tenant acme
    """
    from attributary.consumers.store.events.event_reports import shared_orders

    def rows(found: Sequence[Any]) -> list[tuple[str, ...]]:
        return [
            (o.tenant_id, o.order_id, ", ".join(o.conversions), _worth(o.net_value_micros, o.currency)) for o in found
        ]

    _show(
        lambda connection: shared_orders(connection, tenant, limit + 1), "orders",
        ("tenant", "order", "conversions", "net together"), rows, "no order came under several conversions",
        limit=limit, as_json=as_json, tenant=tenant, numbers=(3,),
    )  # fmt: skip


def _show(
    read: Callable[[psycopg.Connection], Sequence[Any]],
    name: str,
    columns: Sequence[str],
    rows: Callable[[Sequence[Any]], list[tuple[str, ...]]],
    nothing: str,
    *,
    limit: int,
    as_json: bool,
    tenant: str | None,
    numbers: Sequence[int],
) -> None:
    from attributary.cli.outcome import database
    from attributary.cli.tables import print_json, print_table

    with database(f"attributary-{name}", tenant=tenant) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        found = read(connection)
    shown, more = found[:limit], len(found) > limit
    if as_json:
        print_json({name: [row._asdict() for row in shown], "more": more})
        return
    if not shown:
        print(nothing)
        return
    print_table(columns, rows(shown), numbers)
    print(f"{len(shown)} shown{', and there are more: raise --limit' if more else ''}")


def _worth(micros: int | None, currency: str | None) -> str:
    from attributary.cli.tables import amount

    return "" if micros is None else amount(micros, currency or "")
