"""`attributary destinations`: which there are, what waits for each account or stands still, whether each is good."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from attributary.cli.tenant_option import AnyTenant

if TYPE_CHECKING:
    from attributary.consumers.destinations.catalog import Setup
    from attributary.consumers.destinations.destination import Account, Destination
    from attributary.consumers.store.deliveries.delivery import HeldEvents, Queue, StoppedName, Waiting


def register(app: typer.Typer) -> None:
    """Add the group `destinations`."""
    group = typer.Typer(no_args_is_help=True)
    group.callback()(_group)
    group.command("list")(_list)
    group.command("validate")(_validate)
    group.command("resume")(_resume)
    app.add_typer(
        group, name="destinations", short_help="Destinations: versions, limits, accounts, what waits, a check, resume."
    )


def _group() -> None:
    """Show the ad platforms that conversions are forwarded to."""


def _list(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for each account.")] = False,
) -> None:
    """List destinations with version, its end, limits and accounts; with DATABASE_URL also what waits for each account.

    Secrets are never shown. Tenant * stands for all tenants without an account of their own. `stopped` has the event
    names (conversion rules, event tags, actions, goals) that the destination does not take, with the events that are
    held for them; see `attributary destinations resume`.

    Example: attributary destinations list
    """
    from attributary.cli.outcome import exit_codes
    from attributary.cli.tables import print_table
    from attributary.consumers.destinations.catalog import CATALOG, read_setup
    from attributary.consumers.forwarder.process import open_ledger

    waiting: list[Waiting] | None = None
    stops = _Stops()
    with exit_codes():
        setups = [(entry.variables, read_setup(name, warns=False)) for name, entry in CATALOG.items()]
        if os.environ.get("DATABASE_URL") or os.environ.get("DATABASE_URL_FILE"):
            ledger = open_ledger("attributary-destinations")
            try:
                waiting = list(ledger.waiting())
                held = [each for _, setup in setups for each in ledger.held(setup.destination.name)]
                stops = _Stops(ledger.stopped_names(), held)
            finally:
                ledger.close()
    found = [entry for variables, setup in setups for entry in _entries(setup, variables, waiting, stops)]
    if as_json:
        for entry in found:
            print(json.dumps(entry, ensure_ascii=False))
        return
    columns = (
        "destination",
        "api",
        "promised until",
        "a request",
        "max age",
        "rate",
        "tenant",
        "account",
        "waits",
        "stopped",
    )
    print_table(columns, [_row(entry) for entry in found], ())


def _validate(
    destination: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this destination; may be repeated. Default: all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for each account.")] = False,
) -> None:
    """Ask each platform whether the accounts of the settings are good, without sending it a conversion.

    Of each account: its settings and credentials, as the forwarder's start reads them; its token (one of OAuth 2 is
    taken); and one live request with an invented event, where the platform has a way to check one. At Meta, TikTok and
    Reddit that needs a test code, and the event shows there as a test; Meta counts it as a custom event without a
    value. LinkedIn lists the account's rules. X and Microsoft's UET have no such way.

    A row says ok, refused, cannot be reached or not checked, what the platform said, and what to do. Exit code 1 when
    an account is refused or cannot be reached, 78 when a setting is wrong. No secret is shown, and nothing is written
    but a refresh token that its platform replaces (FORWARD_TOKEN_DIR).

    Example: PINTEREST_AD_ACCOUNT_ID=5490 PINTEREST_ACCESS_TOKEN_FILE=/run/secrets/pinterest
    attributary destinations validate --destination pinterest

    Example: META_TEST_EVENT_CODE=TEST123 attributary destinations validate --destination meta --json
    """
    from attributary.cli.outcome import exit_codes, say
    from attributary.cli.tables import plural, print_table, safe
    from attributary.consumers.destinations.catalog import NAMES, read_setup

    if unknown := sorted(set(destination or ()) - set(NAMES)):
        raise typer.BadParameter(
            f"{safe(unknown[0])} is no destination; known: {', '.join(NAMES)}", param_hint="--destination"
        )
    _keep_logs_quiet()
    with exit_codes():
        setups = {name: read_setup(name, warns=False) for name in dict.fromkeys(destination or NAMES)}
        found = [row for setup in setups.values() for row in _checks(setup, is_named=bool(destination))]
    if as_json:
        for row in found:
            print(json.dumps(row, ensure_ascii=False))
    elif found:
        columns = ("destination", "account", "tenant", "state", "said", "next step")
        print_table(columns, [tuple(str(cell or "-") for cell in row.values()) for row in found], ())
    if not found:
        say("no destination has an account; attributary destinations list shows what to set")
    bad = sum(row["state"] in {"refused", "cannot be reached"} for row in found)
    if bad:
        say(f"{plural(bad, 'account')} of {len(found):,} refused or not reached")
        raise typer.Exit(1)


def _resume(
    destination: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this destination; may be repeated. Default: all.")
    ] = None,
    event_name: Annotated[
        str | None, typer.Option("--event-name", help="Only this rule, tag, action or goal, as `list` shows it.")
    ] = None,
    tenant: AnyTenant = None,
) -> None:
    """Say that event names which a destination refused are good again: what is held for them goes.

    A destination that does not know or not allow a conversion rule, event tag, conversion action or goal stops that
    type only, and its events are held. After a repair at the destination this command lets them go, within half a
    minute, by the running forwarder. A corrected setting does the same at the forwarder's start, and one event tries
    every hour by itself. A name that is still wrong is stopped again with its first request. Exit code 1 when none of
    those that were asked for is stopped.

    Example: attributary destinations resume --destination linkedin --event-name 104012
    """
    from attributary.cli.outcome import exit_codes, say
    from attributary.cli.tables import safe
    from attributary.consumers.destinations.catalog import NAMES
    from attributary.consumers.forwarder.process import open_ledger

    if unknown := sorted(set(destination or ()) - set(NAMES)):
        raise typer.BadParameter(
            f"{safe(unknown[0])} is no destination; known: {', '.join(NAMES)}", param_hint="--destination"
        )
    with exit_codes():
        ledger = open_ledger("attributary-destinations")
        try:
            names = [
                name
                for name in ledger.stopped_names()
                if (not destination or name.destination.partition(":")[0] in destination)
                and event_name in {None, name.event_name}
                and tenant in {None, name.tenant_id}
            ]
            ledger.resume_names(names)
        finally:
            ledger.close()
    for name in names:
        print(f"{name.destination}: event name {safe(name.event_name)} of {safe(name.tenant_id)} goes again")
    if not names:
        say("no event name is stopped")
        if destination or event_name or tenant:
            raise typer.Exit(1)


def _checks(setup: Setup, *, is_named: bool) -> Iterator[dict[str, Any]]:
    """Yield a row for each account of a destination; one that is off has a row only when it was named."""
    from attributary.cli.tables import safe
    from attributary.consumers.destinations.account_check import AccountChecker
    from attributary.consumers.destinations.catalog import CATALOG
    from attributary.consumers.destinations.transport import HttpTransport, SystemClock

    name, shared = setup.destination.name, setup.shared
    if not setup.credentials.listed():
        if is_named:
            off = {"destination": name, "account": None, "tenant": None, "state": "not checked", "said": "off"}
            yield {**off, "next_step": f"set {CATALOG[name].variables}"}
        return
    proxy = shared.proxy.get_secret_value() if shared.proxy else None
    with HttpTransport(answer_seconds=shared.timeout_seconds, proxy=proxy) as transport:
        for check in AccountChecker(setup, transport, SystemClock()).check():
            texts = {"account": check.account, "tenant": check.tenant, "state": check.state.value}
            texts |= {"said": check.said, "next_step": check.next_step}
            yield {"destination": name} | {key: safe(text) for key, text in texts.items()}


def _keep_logs_quiet() -> None:
    """Leave out log lines: the rows say in a sentence what they say."""
    import logging

    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


class _Stops(NamedTuple):
    """Event names that are not taken, and what is held."""

    names: Sequence[StoppedName] = ()
    held: Sequence[HeldEvents] = ()


def _entries(setup: Setup, variables: str, waiting: list[Waiting] | None, stops: _Stops) -> Iterator[dict[str, Any]]:
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
            "stopped": [],
            "rate": None,
            "token_expires": None,
        }
    named = {tenant for tenant, _ in accounts}
    for tenant, account in accounts:
        waits = None if waiting is None else _waits(waiting, account.ledger_name, tenant, named)
        rate = _rate(destination, account, [each for _, each in accounts], setup.shared.rate_percent)
        known: dict[str, Any] = {
            "tenant": tenant,
            "account": account.account_id,
            "off": None,
            "waits": waits,
            "rate": rate,
        }
        known["stopped"] = [
            _stopped(name, destination, account, stops.held)
            for name in stops.names
            if _belongs(name.queue, account.ledger_name, tenant, named)
        ]
        yield {**shared, **known, "token_expires": account.options.get(TOKEN_EXPIRES)}


def _rate(
    destination: Destination, account: Account, accounts: Sequence[Account], percent: int
) -> Mapping[str, Any] | None:
    """Return the budget of requests that an account shares; None when the platform counts it by itself."""
    from attributary.consumers.destinations.request_budget import SharesBudget

    if not isinstance(destination, SharesBudget) or (budget := destination.budget(account)) is None:
        return None
    shared = {each.account_id for each in accounts if destination.budget(each) == budget}
    limits = [limit._asdict() for limit in budget.limits]
    said = {"counted_by": budget.title, "limits": limits, "said": budget.said}
    return {**said, "accounts": len(shared), "percent": percent}


def _rate_text(rate: Mapping[str, Any] | None) -> str:
    if rate is None:
        return "by account"
    sharing = f", {rate['accounts']} share it" if rate["accounts"] > 1 else ""
    return f"{rate['percent']}% of {rate['said']}{sharing}"


def _belongs(queue: Queue, ledger_name: str, tenant: str, named: set[str]) -> bool:
    """Return whether a queue is of an account; to `*` belongs every tenant that has no account of its own."""
    is_owner = queue.tenant_id == tenant or (tenant == "*" and queue.tenant_id not in named)
    return queue.destination == ledger_name and is_owner


def _stopped(
    name: StoppedName, destination: Destination, account: Account, held: Sequence[HeldEvents]
) -> Mapping[str, Any]:
    from attributary.consumers.destinations.ad_platform import AdPlatform

    types = destination.types_named(name.event_name, account) if isinstance(destination, AdPlatform) else ()
    events = [each.deliveries for each in held if (each.queue, each.event_name) == (name.queue, name.event_name)]
    return {
        "event_name": name.event_name,
        "types": list(types),
        "tenant": name.tenant_id,
        "reason": name.reason,
        "response_code": name.response_code,
        "since": datetime.fromtimestamp(name.stopped_at / 1e6, UTC).isoformat(),
        "tried_again_at": datetime.fromtimestamp(name.retry_at / 1e6, UTC).isoformat(),
        "held": sum(events),
    }


def _waits(waiting: list[Waiting], ledger_name: str, tenant: str, named: set[str]) -> Mapping[str, Any]:
    """Sum what waits for an account."""
    mine = [entry for entry in waiting if _belongs(entry.queue, ledger_name, tenant, named)]
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
        _rate_text(entry["rate"]),
        entry["tenant"] or "-",
        _account_text(entry),
        _waits_text(entry["waits"]),
        "; ".join(map(_stopped_text, entry["stopped"])) or "-",
    )


def _stopped_text(stopped: Mapping[str, Any]) -> str:
    types = ", ".join(stopped["types"]) or "no type any more"
    return f"{types} ({stopped['event_name']}): {stopped['held']:,} held: {stopped['reason']}"


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
