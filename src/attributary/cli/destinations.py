"""`attributary destinations`: which destinations there are, with their accounts and what waits for each."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from attributary.consumers.destinations.catalog import Setup
    from attributary.consumers.store.deliveries.delivery import Queue, Waiting


def register(app: typer.Typer) -> None:
    """Add the group `destinations`."""
    group = typer.Typer(no_args_is_help=True)
    group.callback()(_group)
    group.command("list")(_list)
    app.add_typer(group, name="destinations", short_help="Destinations: versions, limits, accounts, and what waits.")


def _group() -> None:
    """Show the ad platforms that conversions are forwarded to."""


def _list(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for each account.")] = False,
) -> None:
    """List destinations with version, its end, limits and accounts; with DATABASE_URL also what waits for each account.

    Secrets are never shown. Tenant * stands for all tenants without an account of their own.

    Example: attributary destinations list
    """
    from attributary.cli.outcome import exit_codes
    from attributary.cli.tables import print_table
    from attributary.consumers.destinations.catalog import CATALOG, read_setup
    from attributary.consumers.forwarder.process import open_ledger

    waiting: list[Waiting] | None = None
    with exit_codes():
        setups = [(entry.variables, read_setup(name, warns=False)) for name, entry in CATALOG.items()]
        if os.environ.get("DATABASE_URL") or os.environ.get("DATABASE_URL_FILE"):
            ledger = open_ledger("attributary-destinations")
            try:
                waiting = list(ledger.waiting())
            finally:
                ledger.close()
    found = [entry for variables, setup in setups for entry in _entries(setup, variables, waiting)]
    if as_json:
        for entry in found:
            print(json.dumps(entry, ensure_ascii=False))
        return
    columns = ("destination", "api", "promised until", "a request", "max age", "tenant", "account", "waits")
    print_table(columns, [_row(entry) for entry in found], ())


def _entries(setup: Setup, variables: str, waiting: list[Waiting] | None) -> Iterator[dict[str, Any]]:
    from attributary.consumers.destinations.account_fields import TOKEN_EXPIRES

    destination = setup.destination
    api, limits = destination.api, destination.limits
    shared = {
        "destination": destination.name,
        "api": f"{api.name} {api.version}".strip(),
        "promised_until": api.ends_not_before.isoformat() if api.ends_not_before else None,
        "max_events_per_request": limits.events,
        "max_bytes_per_request": limits.body_bytes,
        "max_age": api.max_age,
        "consent": list(destination.consent_purposes),
    }
    accounts = setup.credentials.listed()
    if not accounts:
        yield {
            **shared,
            "tenant": None,
            "account": None,
            "off": f"set {variables}",
            "waits": None,
            "token_expires": None,
        }
    named = {tenant for tenant, _ in accounts}
    for tenant, account in accounts:
        waits = None if waiting is None else _waits(waiting, account.ledger_name, tenant, named)
        known = {"tenant": tenant, "account": account.account_id, "off": None, "waits": waits}
        yield {**shared, **known, "token_expires": account.options.get(TOKEN_EXPIRES)}


def _waits(waiting: list[Waiting], ledger_name: str, tenant: str, named: set[str]) -> Mapping[str, Any]:
    """Sum what waits for an account; of `*` that of every tenant that has no account of its own."""

    def belongs(queue: Queue) -> bool:
        is_owner = queue.tenant_id == tenant or (tenant == "*" and queue.tenant_id not in named)
        return queue.destination == ledger_name and is_owner

    mine = [entry for entry in waiting if belongs(entry.queue)]
    oldest = min((entry.oldest_at for entry in mine), default=None)
    return {
        "pending": sum(entry.deliveries for entry in mine),
        "oldest": None if oldest is None else datetime.fromtimestamp(oldest / 1e6, UTC).isoformat(),
        "reason": next((entry.reason for entry in mine if entry.reason), None),
    }


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        entry["destination"],
        entry["api"],
        entry["promised_until"] or "-",
        f"{entry['max_events_per_request']:,} events",
        entry["max_age"],
        entry["tenant"] or "-",
        _account_text(entry),
        _waits_text(entry["waits"]),
    )


def _account_text(entry: Mapping[str, Any]) -> str:
    if entry["account"] is None:
        return f"off: {entry['off']}"
    day = entry["token_expires"]
    return f"{entry['account']} (token until {day})" if day else str(entry["account"])


def _waits_text(waits: Mapping[str, Any] | None) -> str:
    if waits is None:
        return "-"
    if not waits["pending"]:
        return "nothing"
    hours = (time.time() - datetime.fromisoformat(waits["oldest"]).timestamp()) / 3_600
    return f"{waits['pending']:,}, oldest {hours:.1f} h: {waits['reason'] or 'under way'}"
