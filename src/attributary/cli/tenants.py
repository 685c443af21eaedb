"""`attributary tenants list|show|set`: what a tenant decides for itself."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attributary.cli.tenant_option import TenantArgument, checked_tenant

if TYPE_CHECKING:
    from attributary.consumers.store.tenants import Tenant

_Json = Annotated[bool, typer.Option("--json", help="JSON with every field.")]
_MAX_DAYS = 36_500
_MOST_IDS = 10_000
_MOST_NAME = 63  # bytes of a name in Postgres
# What --clear takes, and the fields that it puts back to their defaults.
_FIELDS = {
    "time-zone": "time_zone",
    "currency": "reporting_currency",
    "touchpoints-days": "touchpoints_kept_days",
    "conversions-days": "conversions_kept_days",
    "links-days": "links_kept_days",
    "versions-days": "versions_kept_days",
    "erasure-mode": "erasure_mode",
    "generic-id": "generic_ids",
    "real-id": "real_ids",
    "consent": "consent_defaults",
}


def register(app: typer.Typer) -> None:
    """Add the group `tenants`."""
    group = typer.Typer(no_args_is_help=True, help="Tenants: time zone, currency, retention, ids, consent.")
    group.command("list")(_list)
    group.command("show")(_show)
    group.command("set")(_set)
    group.command("reader")(_reader)
    app.add_typer(group, name="tenants")


def _list(*, as_json: _Json = False) -> None:
    """List the tenants that have settings of their own. All others have the defaults. Needs DATABASE_URL.

    With ATTRIBUTION_UNKNOWN_TENANTS=closed these alone may publish.

    Example: attributary tenants list
    """
    from attributary.cli.outcome import database
    from attributary.cli.tables import plural, print_json, print_table
    from attributary.consumers.store.tenants import tenants_with_settings

    with database("attributary-tenants") as connection:
        found = tenants_with_settings(connection)
    if as_json:
        print_json({"tenants": [asdict(tenant) for tenant in found]})
        return
    if not found:
        print("no tenant has settings of its own; `attributary tenants set` adds one")
        return
    rows = [
        (
            t.tenant_id, t.time_zone, t.reporting_currency or "each apart", _days(t.touchpoints_kept_days),
            _days(t.conversions_kept_days), t.erasure_mode,
        )
        for t in found
    ]  # fmt: skip
    columns = ("tenant", "time zone", "currency", "touchpoints kept", "conversions kept", "erasure")
    print_table(columns, rows, (3, 4))
    print(plural(len(found), "tenant"))


def _show(tenant: TenantArgument, *, as_json: _Json = False) -> None:
    """Show all settings of a tenant; of one without a row the defaults.

    Example: attributary tenants show acme
    """
    from attributary.cli.outcome import database
    from attributary.cli.tables import print_json
    from attributary.consumers.store.tenants import Tenant, fetch_tenant

    with database("attributary-tenants", tenant=tenant) as connection:
        found = fetch_tenant(connection, tenant)
    if as_json:
        print_json(asdict(found or Tenant(tenant)))
        return
    _print(found or Tenant(tenant))
    if found is None:
        print("These are the defaults: `attributary tenants set` has not named this tenant yet.")


def _set(
    tenant: TenantArgument,
    *,
    time_zone: Annotated[str | None, typer.Option(help="Where its days begin, for example Europe/Berlin.")] = None,
    currency: Annotated[str | None, typer.Option(help="ISO 4217: its reports convert into it.")] = None,
    touchpoints_days: Annotated[
        int | None, typer.Option(min=1, max=_MAX_DAYS, metavar="DAYS", help="Touchpoints are kept so long.")
    ] = None,
    conversions_days: Annotated[
        int | None, typer.Option(min=1, max=_MAX_DAYS, metavar="DAYS", help="Conversions are kept so long.")
    ] = None,
    links_days: Annotated[
        int | None, typer.Option(min=1, max=_MAX_DAYS, metavar="DAYS", help="Links between ids are kept so long.")
    ] = None,
    versions_days: Annotated[
        int | None,
        typer.Option(min=1, max=_MAX_DAYS, metavar="DAYS", help="Older versions of results are kept so long."),
    ] = None,
    erasure_mode: Annotated[
        Literal["anonymise", "delete"] | None,
        typer.Option(help="What becomes of an erased person's conversions: their amounts stay in totals, or go."),
    ] = None,
    generic_id: Annotated[
        list[str] | None, typer.Option(help="An id that names nobody, such as a kiosk; may be repeated, replaces all.")
    ] = None,
    real_id: Annotated[
        list[str] | None, typer.Option(help="An id that a built-in rule refuses and that is real; as above.")
    ] = None,
    consent: Annotated[
        list[str] | None,
        typer.Option(metavar="PURPOSE=yes|no", help="Where an event does not mention the purpose; as above."),
    ] = None,
    clear: Annotated[
        list[str] | None, typer.Option(help="Put one back to its default: its option's name; repeatable.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Set what is named of a tenant; the rest stays. Without an option, only add the tenant.

    The stages know it within ten seconds. How long things are kept is refused where a refund could come later:
    docs/how-to/retention.md. Needs DATABASE_URL, as the owner of the tables.

    Example: attributary tenants set acme --time-zone Europe/Berlin --currency EUR --conversions-days 400
    """
    from attributary.cli.outcome import database
    from attributary.cli.tables import print_json
    from attributary.consumers.store.audit import note_action
    from attributary.consumers.store.tenants import Tenant, fetch_tenant, store_tenant

    given: dict[str, Any] = {
        "time_zone": time_zone,
        "reporting_currency": currency,
        "touchpoints_kept_days": touchpoints_days,
        "conversions_kept_days": conversions_days,
        "links_kept_days": links_days,
        "versions_kept_days": versions_days,
        "erasure_mode": erasure_mode,
        "generic_ids": None if generic_id is None else _ids(generic_id, "--generic-id"),
        "real_ids": None if real_id is None else _ids(real_id, "--real-id"),
        "consent_defaults": None if consent is None else _consent(consent),
    }
    changes = {name: value for name, value in given.items() if value is not None}
    for name in clear or ():
        if name not in _FIELDS:
            raise typer.BadParameter(f"--clear must be one of {', '.join(_FIELDS)}")
    cleared = {_FIELDS[name] for name in clear or ()}
    if both := sorted(name for name in clear or () if _FIELDS[name] in changes):
        raise typer.BadParameter(f"--{both[0]} is set and cleared at once")
    _check(changes)
    with database("attributary-tenants") as connection:
        known = fetch_tenant(connection, tenant) or Tenant(tenant)
        defaults = {name: getattr(Tenant(tenant), name) for name in cleared}
        changed = replace(known, **defaults, **changes)
        _check_kept(changed, {*changes})
        store_tenant(connection, changed)
        if changed != known:
            note_action(connection, tenant, "tenant.set", tenant, _differences(known, changed))
    if as_json:
        print_json(asdict(changed))
    else:
        _print(changed)


def _differences(known: Tenant, changed: Tenant) -> dict[str, Any]:
    """Return what the audit says of a change: ids by their number alone."""
    before, after = asdict(known), asdict(changed)
    return {
        name: len(value) if name in {"generic_ids", "real_ids"} else value
        for name, value in after.items()
        if value != before[name]
    }


def _check(changes: dict[str, Any]) -> None:
    from zoneinfo import available_timezones

    from attributary.schemas.limits import MINOR_UNIT_MICROS, NO_CURRENCY

    if changes.get("time_zone", "UTC") not in available_timezones() | {"UTC"}:
        raise typer.BadParameter("--time-zone must be a name of the IANA database, such as Europe/Berlin")
    currency = changes.get("reporting_currency", "EUR")
    if currency not in MINOR_UNIT_MICROS or currency == NO_CURRENCY:
        raise typer.BadParameter("--currency must be a code of ISO 4217, such as EUR")


def _check_kept(tenant: Tenant, changed: set[str]) -> None:
    """Refuse times kept that would break a promise; only what is changed now is looked at."""
    from attributary.consumers.adapters.policy_settings import PolicySettings
    from attributary.consumers.adapters.retention_settings import RetentionLimits
    from attributary.consumers.runtime.settings import load

    least = load(RetentionLimits).least_days(load(PolicySettings).policy())
    for name, days in least.items():
        kept = getattr(tenant, name)
        if name in changed and kept is not None and kept < days:
            option = next(option for option, field in _FIELDS.items() if field == name)
            raise typer.BadParameter(
                f"--{option} must be {days} or more: the longest window, the lateness and "
                "ATTRIBUTION_REFUND_HORIZON_DAYS together"
            )


def _ids(texts: list[str], option: str) -> list[str]:
    from attributary.schemas.limits import ID_CHARACTERS

    if len(texts) > _MOST_IDS or not all(0 < len(text) <= ID_CHARACTERS and text.isprintable() for text in texts):
        raise typer.BadParameter(f"{option}: each must have 1 to {ID_CHARACTERS} printable characters")
    return sorted(set(texts))


def _consent(texts: list[str]) -> dict[str, bool]:
    from attributary.schemas.limits import is_word

    found = {}
    for text in texts:
        purpose, _, answer = text.partition("=")
        if not is_word(purpose) or answer not in {"yes", "no"}:
            raise typer.BadParameter("--consent must be PURPOSE=yes or PURPOSE=no, such as ad_storage=yes")
        found[purpose] = answer == "yes"
    return found


def _days(days: int | None) -> str:
    return "for good" if days is None else f"{days:,} days"


def _print(tenant: Tenant) -> None:
    from attributary.cli.tables import plural, safe

    consent = ", ".join(
        f"{safe(name)} {'yes' if yes else 'no'}" for name, yes in sorted(tenant.consent_defaults.items())
    )
    versions = "as ATTRIBUTION_VERSIONS_KEPT_DAYS" if tenant.versions_kept_days is None else ""
    print(f"tenant {tenant.tenant_id}")
    for name, text in (
        ("time zone", tenant.time_zone),
        ("reporting currency", tenant.reporting_currency or "none: each currency apart"),
        ("touchpoints kept", _days(tenant.touchpoints_kept_days)),
        ("conversions kept", _days(tenant.conversions_kept_days)),
        ("links kept", _days(tenant.links_kept_days)),
        ("old versions kept", versions or _days(tenant.versions_kept_days)),
        ("conversions of erased people", tenant.erasure_mode),
        ("generic ids", plural(len(tenant.generic_ids), "id")),
        ("real ids", plural(len(tenant.real_ids), "id")),
        ("consent by default", consent or "not known"),
    ):
        print(f"  {name:<29} {text}")


def _reader(
    tenant: Annotated[
        str, typer.Argument(help="The tenant; with --all-tenants any name for the login.", callback=checked_tenant)
    ],
    *,
    all_tenants: Annotated[bool, typer.Option("--all-tenants", help="Sees every tenant.")] = False,
    people: Annotated[bool, typer.Option("--people", help="Reads reporting_people as well.")] = False,
    login: Annotated[str | None, typer.Option(help="Name of the login. Default: reader_TENANT.")] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Take the login away instead.")] = False,
) -> None:
    """Make a login for dashboards and BI that sees one tenant in the views, whatever SQL it sends.

    The password is that of READER_PASSWORD (or READER_PASSWORD_FILE); without one it is made and printed once. A login
    that exists gets the new password. Needs `attributary roles apply`, and DATABASE_URL as the owner, with CREATEROLE.

    Example: attributary tenants reader acme
    """
    import secrets

    from attributary.cli.outcome import database
    from attributary.cli.reader_settings import ReaderSettings
    from attributary.consumers.runtime.settings import load
    from attributary.consumers.store.access.readers import ALL_TENANTS, drop_reader, reader_name, store_reader
    from attributary.consumers.store.audit import EVERYBODY, note_action

    name = login or reader_name(tenant)
    if not 0 < len(name.encode()) <= _MOST_NAME or not name.isprintable():
        raise typer.BadParameter(f"--login must have 1 to {_MOST_NAME} printable characters")
    given = load(ReaderSettings).password
    password = given.get_secret_value() if given else secrets.token_urlsafe(24)
    scope = EVERYBODY if all_tenants else tenant
    with database("attributary-tenants", tenant=None if all_tenants or drop else tenant) as connection:
        if drop:
            if not drop_reader(connection, name):
                raise typer.BadParameter(f"no reader has the login {name}")
        else:
            store_reader(connection, name, ALL_TENANTS if all_tenants else tenant, password, sees_people=people)
        note_action(connection, scope, "reader.dropped" if drop else "reader.set", name, {"people": people})
    if drop:
        print(f"login {name} is gone")
        return
    print(f"login {name} reads {'every tenant' if all_tenants else f'tenant {tenant}'}"
          f"{' with people' if people else ''} in the schema reporting")  # fmt: skip
    if given is None:
        print(f"password {password}  (shown this once)")
