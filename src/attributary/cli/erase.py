"""`attributary erase` and `attributary export-person`: erasure of people, its state, its proof, and access requests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attributary.cli import exits
from attributary.cli.outcome import say
from attributary.cli.tenant_option import AnyTenant, Tenant

if TYPE_CHECKING:
    from attributary.consumers.store.erasure.entries import Hasher, RequestRow

_Users = Annotated[list[str] | None, typer.Option("--user-id", help="A user; may be repeated.")]
_Devices = Annotated[list[str] | None, typer.Option("--anonymous-id", help="A device or browser; may be repeated.")]
_Orders = Annotated[list[str] | None, typer.Option("--order-id", help="An order or conversion; may be repeated.")]
_Emails = Annotated[
    list[str] | None,
    typer.Option("--email-hash", help="SHA-256 of the trimmed lower-case address, in hex; may be repeated."),
]
_Mode = Literal["delete", "delete-and-suppress", "suppress", "unsuppress"]
_Json = Annotated[bool, typer.Option("--json", help="JSON.")]
_LIMIT = 200
_SECONDS = 30.0


def register(app: typer.Typer) -> None:
    """Add the group `erase` and the command `export-person`."""
    group = typer.Typer(invoke_without_command=True, help=_erase.__doc__)
    group.callback()(_erase)
    group.command("list")(_list)
    group.command("status")(_status)
    group.command("verify")(_verify)
    group.command("reapply")(_reapply)
    app.add_typer(group, name="erase")
    app.command("export-person")(_export_person)


def _erase(
    context: typer.Context,
    *,
    tenant: AnyTenant = None,
    user_id: _Users = None,
    anonymous_id: _Devices = None,
    order_id: _Orders = None,
    email_hash: _Emails = None,
    mode: Annotated[_Mode, typer.Option(help="What is asked for.")] = "delete",
    request_id: Annotated[
        str | None, typer.Option(help="Your own id of the request, without personal data. The same id is done once.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go. Needs DATABASE_URL.")] = False,
    as_json: _Json = False,
) -> None:
    """Erase people for good, also after a replay or a restored backup.

    Their events, links, conversions and results go.

    A request goes to the topic attribution.erasure-requests.v1; its time of arrival there is the cut-off. The person is
    the user that an identifier names or belongs to, with all anonymous ids of that user. The sweeper carries it out as
    soon as everything that arrived before is stored. Amounts of erased conversions move into the totals `(erased)`, so
    that every sum stays what it was. delete-and-suppress and suppress also drop what comes of the person from now on,
    until unsuppress. docs/how-to/erase.md says what is out of reach. Needs KAFKA_BOOTSTRAP_SERVERS; with --dry-run
    DATABASE_URL and ATTRIBUTION_ERASURE_KEY.

    Example: attributary erase --tenant acme --user-id customer-4711 --dry-run
    """
    if context.invoked_subcommand is not None:
        return
    from attributary.cli.tenant_option import _named

    tenant_id = _named(tenant or "")
    named = [
        *(("user", each) for each in user_id or ()),
        *(("anonymous", each) for each in anonymous_id or ()),
        *(("order", each) for each in order_id or ()),
        *(("email", each.lower()) for each in email_hash or ()),
    ]
    if not named:
        raise typer.BadParameter("name somebody", param_hint="--user-id, --anonymous-id, --order-id, --email-hash")
    requests = [_record(tenant_id, kind, value, mode, request_id if len(named) == 1 else None) for kind, value in named]
    if request_id is not None and len(named) > 1:
        raise typer.BadParameter("is for one identifier; each of several gets its own", param_hint="--request-id")
    if dry_run:
        _preview(requests, as_json=as_json)
        return
    _publish(requests)
    if as_json:
        from attributary.cli.tables import print_json

        print_json({"requests": [{"tenant_id": tenant_id, "request_id": each["request_id"]} for each in requests]})
        return
    for each in requests:
        print(f"requested: {each['mode']} one {each['kind']}, request {each['request_id']}")
    print(f"see: attributary erase status --tenant {tenant_id} {requests[-1]['request_id']}")


def _record(tenant_id: str, kind: str, identifier: str, mode: str, request_id: str | None) -> dict[str, Any]:
    import time
    import uuid

    from attributary.schemas.rules import check_erasure_request

    record = {
        "tenant_id": tenant_id,
        "request_id": request_id or f"erasure-{uuid.uuid4().hex[:12]}",
        "kind": kind,
        "identifier": identifier,
        "mode": mode,
        "requested_at": time.time_ns() // 1_000,
    }
    broken = check_erasure_request(record)
    if broken is not None:
        raise typer.BadParameter(f"{broken.field} {broken.rule}", param_hint=f"the {kind} identifier")
    return record


def _publish(requests: list[dict[str, Any]]) -> None:
    """Put requests on their topic and wait for the brokers."""
    from attributary.cli.outcome import exit_codes, kafka_settings
    from attributary.consumers.adapters.registry_settings import RegistrySettings, make_codec
    from attributary.consumers.runtime.errors import Fatal
    from attributary.consumers.runtime.settings import load
    from attributary.producers.kafka import KafkaTransport
    from attributary.producers.transport import Message, Refused
    from attributary.schemas.topics import ERASURE_REQUESTS, erasure_request_key

    failures: list[str] = []
    with exit_codes():
        codec = make_codec(load(RegistrySettings))
        kafka = kafka_settings().client_config()
        transport = KafkaTransport(kafka.pop("bootstrap.servers"), kafka)
        try:
            for record in requests:
                key = erasure_request_key(record["tenant_id"], record["request_id"])
                transport.send(
                    Message(ERASURE_REQUESTS, key, codec.encode("erasure_request", record), []),
                    lambda error, _message: failures.append(str(error)) if error is not None else None,
                )
            if transport.flush(_SECONDS):
                transport.discard()
                failures[:] = ["Kafka does not answer"]
        except Refused as error:
            failures.append(str(error))
        finally:
            transport.close()
        if failures:
            raise Fatal(f"the request was not submitted: {failures[0]}", exits.DEPENDENCY_DOWN)


def _key() -> Hasher:
    from attributary.consumers.erasure.settings import KEY_VARIABLE, load_hasher
    from attributary.consumers.runtime.errors import ConfigError

    hasher = load_hasher()
    if hasher is None:
        raise ConfigError(KEY_VARIABLE, "must be set")
    return hasher


def _preview(requests: list[dict[str, Any]], *, as_json: bool) -> None:
    from attributary.cli.outcome import database
    from attributary.cli.tables import print_json
    from attributary.consumers.maintenance.erasure import preview
    from attributary.consumers.store.events.staging import create_staging

    with database("attributary-erase", tenant=requests[0]["tenant_id"]) as connection:
        hasher = _key()
        create_staging(connection)
        connection.commit()
        found = [preview(connection, _row(each), hasher) for each in requests]
    if as_json:
        print_json({"requests": [each._asdict() for each in found]})
        return
    for each in found:
        for table, rows in each.removed.items():
            print(f"would remove: {rows} of {table.replace('_', ' ')}")
        print(f"would take back: {each.results} results; new versions of {each.others} other conversions")
        for currency, (count, micros) in sorted(each.erased.items()):
            print(f"would move into (erased): {count} conversions, {micros / 1e6:,.2f} {currency}")


def _row(record: dict[str, Any]) -> RequestRow:
    from attributary.attribution_core.domain.identity_rules import normalized_id
    from attributary.consumers.store.erasure.entries import RequestRow

    kind, identifier, now_us = record["kind"], record["identifier"], record["requested_at"]
    value = normalized_id(identifier) if kind in {"user", "anonymous"} else identifier
    return RequestRow(record["tenant_id"], record["request_id"], kind, record["mode"], value, now_us, now_us, None)


_LISTED = """
SELECT tenant_id, request_id, kind, mode, state, to_timestamp(received_at_us / 1e6) AS received_at, executed_at,
       completed_at, removed
FROM attribution_erasure_requests
WHERE (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s) AND (%(request)s::text IS NULL OR request_id = %(request)s)
  AND (%(all)s OR derived_from IS NULL) AND (%(state)s::text IS NULL OR state = %(state)s)
ORDER BY received_at_us DESC, request_id LIMIT %(limit)s
"""


def _requests(tenant: str | None, **asked: Any) -> list[dict[str, Any]]:
    from psycopg.rows import dict_row

    from attributary.cli.outcome import database

    values = {"tenant": tenant, "request": None, "all": False, "state": None, "limit": _LIMIT} | asked
    with database("attributary-erase", tenant=tenant) as connection:
        return connection.cursor(row_factory=dict_row).execute(_LISTED, values).fetchall()


def _list(
    *,
    tenant: AnyTenant = None,
    state: Annotated[
        Literal["pending", "in_progress", "completed", "cancelled"] | None, typer.Option(help="Only these.")
    ] = None,
    derived: Annotated[bool, typer.Option("--derived", help="Also requests that followed from late events.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Show so many at most.")] = _LIMIT,
    as_json: _Json = False,
) -> None:
    """List requests to erase people, the newest first, without their identifiers. Needs DATABASE_URL.

    pending: older input is not stored yet. in_progress: the rows are gone, results are being taken back. completed.

    Example: attributary erase list --state pending
    """
    from attributary.cli.tables import plural, print_json, print_table

    found = _requests(tenant, all=derived, state=state, limit=limit)
    if as_json:
        print_json({"requests": found})
        return
    if not found:
        print("no such request")
        return
    rows = [
        (r["tenant_id"], r["request_id"], r["kind"], r["mode"], r["state"], f"{r['received_at']:%Y-%m-%d %H:%M}",
         f"{sum(r['removed'].values()):,}")
        for r in found
    ]  # fmt: skip
    print_table(("tenant", "request", "names", "mode", "state", "received (UTC)", "rows removed"), rows, (6,))
    print(plural(len(found), "request"))


def _status(
    request_id: Annotated[str, typer.Argument(metavar="REQUEST", help="The id that request printed.")],
    *,
    tenant: Tenant = "",
    as_json: _Json = False,
) -> None:
    """Show where one request stands. Exit code 1: it is not stored (yet). Needs DATABASE_URL.

    Example: attributary erase status --tenant acme erasure-4f2a90b1c3d4
    """
    from attributary.cli.tables import print_json

    found = _requests(tenant, request=request_id, all=True)
    if not found:
        say("no such request is stored; the stitcher may not have read it yet")
        raise typer.Exit(exits.FAILED)
    if as_json:
        print_json(found[0])
        return
    for name, value in found[0].items():
        if name == "removed":
            for table, rows in value.items():
                print(f"removed {table}: {rows:,}")
        elif value is not None:
            print(f"{name}: {value}")


def _verify(
    *,
    tenant: AnyTenant = None,
    user_id: _Users = None,
    anonymous_id: _Devices = None,
    order_id: _Orders = None,
    text: Annotated[list[str] | None, typer.Option("--text", help="Anything else; may be repeated.")] = None,
    path: Annotated[
        list[Path] | None, typer.Option("--path", exists=True, help="A file or folder to search: logs, spool, rejects.")
    ] = None,
    topics: Annotated[bool, typer.Option("--topics/--no-topics", help="Read every topic, too.")] = True,
    as_json: _Json = False,
) -> None:
    """Search every table, every topic and given files for identifiers, plain and as SHA-256; prove what is left.

    In tables whole words are looked for, and --tenant looks at rows of one tenant alone; topics and files are searched
    byte by byte, for all tenants. What stands in a topic is bound by its retention, and is said with the bound. Exit
    code 1: something is left in a table or a file, without an end. Needs DATABASE_URL, for topics
    KAFKA_BOOTSTRAP_SERVERS.

    Example: attributary erase verify --user-id customer-4711 --anonymous-id device-1 --path /var/log/attributary
    """
    from attributary.cli.outcome import database, exit_codes, kafka_settings
    from attributary.cli.progress import progress_bar
    from attributary.cli.tables import plural, print_json, print_table
    from attributary.consumers.maintenance import erasure

    texts = erasure.forms([*(user_id or ()), *(anonymous_id or ()), *(order_id or ()), *(text or ())])
    if not texts:
        raise typer.BadParameter("name what to look for", param_hint="--user-id, --anonymous-id, --order-id, --text")
    with database("attributary-erase", tenant=tenant) as connection:
        found = list(erasure.traces_in_tables(connection, texts, tenant))
    if topics:
        with exit_codes():
            found += erasure.traces_in_topics(kafka_settings(), texts, progress_bar)
    found += erasure.traces_in_files(path or (), texts)
    unbound = [each for each in found if each.bound is None]
    if as_json:
        print_json({"traces": [each._asdict() for each in found], "is_clean": not unbound})
    elif found:
        rows = [(each.place, f"{each.hits:,}", each.bound or "no end") for each in found]
        print_table(("where", "hits", "until"), rows, (1,))
    else:
        print("nothing is left: no table, no topic and no file holds one of them")
    if unbound:
        say(f"still in {plural(len(unbound), 'place')} without an end; see docs/how-to/erase.md")
        raise typer.Exit(exits.FAILED)


def _reapply() -> None:
    """Restore the ledger from its topic, and have people erased again who came back with a restored backup.

    Run it after a restore, before the stages start. Streams all identities that are stored, hashes them and compares.
    The sweeper then erases those that match. Needs DATABASE_URL, KAFKA_BOOTSTRAP_SERVERS, ATTRIBUTION_ERASURE_KEY.
    """
    from attributary.cli.outcome import database, kafka_settings
    from attributary.cli.tables import plural
    from attributary.consumers.adapters.registry_settings import RegistrySettings, make_codec
    from attributary.consumers.maintenance import erasure
    from attributary.consumers.runtime.settings import load

    with database("attributary-erase") as connection:
        hasher = _key()
        rows = erasure.ledger_of_topic(kafka_settings(), make_codec(load(RegistrySettings)))
        restored = erasure.restore_ledger(connection, rows)
        returned = erasure.erase_returned(connection, hasher)
    print(f"{plural(restored, 'row')} of the ledger restored; {plural(returned, 'identifier')} to erase again")


def _export_person(
    *,
    tenant: Tenant = "",
    user_id: Annotated[str | None, typer.Option("--user-id", help="The user.")] = None,
    anonymous_id: Annotated[str | None, typer.Option("--anonymous-id", help="Or a device of the person.")] = None,
    output: Annotated[Path | None, typer.Option("--output", help="A new file; default: standard output.")] = None,
) -> None:
    """Export everything that is stored about a person, as JSON: the answer to an access request.

    The person is the user with all anonymous ids, or the owner of the anonymous id. Times named *_us are microseconds
    UTC, amounts *_micros millionths of the currency. What the topics still hold is not in it: 7 days of the same
    events, with user data for matching. Noted in the audit. Needs DATABASE_URL.

    Example: attributary export-person --tenant acme --user-id customer-4711 --output customer-4711.json
    """
    import json
    import sys

    from attributary.attribution_core.domain.identity_rules import normalized_id
    from attributary.cli.outcome import database
    from attributary.consumers.store.audit import note_action
    from attributary.consumers.store.erasure.entries import Identifier
    from attributary.consumers.store.erasure.person import person_rows

    if (user_id is None) == (anonymous_id is None):
        raise typer.BadParameter("give one of the two", param_hint="--user-id, --anonymous-id")
    kind = "user" if user_id is not None else "anonymous"
    with database("attributary-export-person", tenant=tenant) as connection:
        person = person_rows(connection, Identifier(tenant, kind, normalized_id(user_id or anonymous_id or "")))
        counts = {name: len(rows) for name, rows in person.items() if isinstance(rows, list)}
        note_action(connection, tenant, "person.exported", f"one {kind}", counts)
    text = json.dumps(person, ensure_ascii=False, indent=2, default=str) + "\n"
    if output is None:
        sys.stdout.write(text)
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise typer.BadParameter("the file is there already", param_hint="--output") from None
    print(f"written: {sum(counts.values()):,} rows")
