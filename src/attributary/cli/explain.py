"""`attributary explain`: why a conversion is attributed as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from attributary.cli.tenant_option import Tenant

if TYPE_CHECKING:
    from attributary.consumers.store.events.explain import Explanation


def register(app: typer.Typer) -> None:
    """Add the command `explain`."""
    app.command("explain")(_explain)


def _explain(
    conversion_id: Annotated[str, typer.Argument(help="The conversion's id.")],
    *,
    tenant: Tenant = "",
    as_of: Annotated[
        str,
        typer.Option(
            "--as-of", help="Mark the version that was reported then: 3d, 2026-11-01, ... (docs/reference/times.md)."
        ),
    ] = "end",
    as_json: Annotated[bool, typer.Option("--json", help="Everything as one JSON object.")] = False,
) -> None:
    """Show the person, every touch that is in or out and why, policy and models, and each version's reason.

    Exit code 1: there is no such conversion. Needs DATABASE_URL.

    Example: attributary explain order-1001 --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.cli.tables import print_json, safe
    from attributary.cli.times import optional_time
    from attributary.consumers.store.events.explain import explain

    moment = optional_time(as_of, "--as-of")
    with database("attributary-explain") as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        found = explain(connection, tenant, conversion_id)
    if found is None:
        print(f"no conversion {safe(conversion_id)} of tenant {safe(tenant)}: no event about it is stored")
        raise typer.Exit(1)
    if as_json:
        print_json(_document(found) | {"as_of": None if moment is None else _reported(found, moment)})
    else:
        _print(found, moment)


def _document(found: Explanation) -> dict[str, object]:
    return {
        "conversion": found.conversion._asdict(),
        **{
            name: [row._asdict() for row in getattr(found, name)]
            for name in ("events", "links", "touches", "versions", "conflicts")
        },
    }


def _reported(found: Explanation, moment: int) -> int | None:
    """Return the version that was the newest at a moment (microseconds UTC); None: there was none yet."""
    return max((v.version for v in found.versions if v.computed_at <= moment), default=None)


def _print(found: Explanation, moment: int | None) -> None:
    from attributary.cli.tables import amount, money, print_table, safe

    c = found.conversion
    if found.is_waiting:
        print(f"{safe(c.conversion_id)} of {c.tenant_id} waits: only corrections of it have arrived.")
        print("It gets a person, a value and a result when its conversion event arrives.\n")
    else:
        print(
            f"{safe(c.conversion_type)} {safe(c.conversion_id)} of {c.tenant_id}: "
            f"{amount(c.net_value_micros, c.currency)} net, {amount(c.gross_value_micros, c.currency)} gross, "
            f"converted {_time(c.converted_at)}"
        )
        print(f"person {safe(c.journey_key)}")
        print(f"policy {c.policy_version}, model set {c.model_set}")
        waits = "" if c.observed_version >= c.version else f" (the newest published one is {c.observed_version})"
        print(f"version {c.version}, because: {c.version_reason}{', final' if c.is_final else ''}{waits}\n")
    print("Events about it")
    print_table(
        ("event", "kind", "occurred", "value", "verdict", "record"),
        [
            (e.event_id, e.kind, _time(e.occurred_at), amount(e.value_micros, e.currency), e.verdict, e.place)
            for e in found.events
        ],
        (3,),
    )
    if found.conflicts:
        print("Contents that were set aside: the first record in the log has their event id")
        print_table(
            ("record", "event", "kept", "set aside", "its value", "its conversion"),
            [
                (
                    k.record, k.event_id, k.stored, k.set_aside,
                    "" if k.value_micros is None else amount(k.value_micros, k.currency or ""),
                    k.conversion_id or "",
                )
                for k in found.conflicts
            ],
            (4,),
        )  # fmt: skip
    if found.links:
        print("Why it is this person")
        print_table(
            ("anonymous id", "user", "linked", "by event", ""),
            [
                (
                    k.anonymous_id,
                    k.user_id,
                    _time(k.linked_at),
                    k.event_id,
                    "decides (the earliest)" if k.decides else "",
                )
                for k in found.links
            ],
            (),
        )
    inside = sum(touch.is_in for touch in found.touches)
    print(f"Touches: {inside} in, {len(found.touches) - inside} out")
    print_table(
        ("event", "as", "occurred", "channel", "interaction", "verdict"),
        [
            (t.event_id, t.identity_key, _time(t.occurred_at), t.channel, t.interaction, t.verdict)
            for t in found.touches
        ],
        (),
    )
    if moment is not None:
        version = _reported(found, moment)
        told = "nothing yet" if version is None else f"version {version}"
        print(f"Reported at {_time(moment)}: {told}")
    print("Published versions")
    print_table(
        ("version", "because", "net", "change", "touches", "policy", "computed", "models"),
        [
            (
                f"{v.version}{' final' if v.is_final else ''}", v.reason, money(v.net_value_micros, c.currency),
                money(v.delta_micros, c.currency), str(v.touchpoint_count), v.policy_version, _time(v.computed_at),
                ", ".join(v.models),
            )
            for v in found.versions
        ],
        (2, 3, 4),
    )  # fmt: skip


def _time(micros: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(micros / 1e6, UTC).isoformat(sep=" ", timespec="seconds")[:19]
