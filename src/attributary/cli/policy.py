"""`attributary policy`: what a policy would change, and bringing one into force for a tenant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attributary.cli.tenant_option import Tenant
from attributary.cli.times import SINCE_HELP, UNTIL_HELP, time_option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from attributary.attribution_core.domain.lookback import LookbackPolicy
    from attributary.consumers.maintenance.policy_diff import PolicyDiff

_File = Annotated[Path, typer.Argument(help="YAML file of the policy.", dir_okay=False, show_default=False)]
_Since = Annotated[str, typer.Option("--since", help=f"Conversions. {SINCE_HELP}")]
_Until = Annotated[str, typer.Option("--until", help=f"Conversions. {UNTIL_HELP}")]
_Json = Annotated[bool, typer.Option("--json", help="JSON, amounts in micros.")]
_MICROS = 1_000_000


def register(app: typer.Typer) -> None:
    """Add the group `policy`."""
    group = typer.Typer(no_args_is_help=True, help="Policies by tenant: compare, bring into force, go back.")
    for name, command in (("diff", _diff), ("activate", _activate), ("history", _history), ("rollback", _rollback)):
        group.command(name)(command)
    app.add_typer(group, name="policy")


def _diff(
    file: _File,
    *,
    tenant: Tenant = "",
    since: _Since = "90d",
    until: _Until = "end",
    sample: Annotated[int, typer.Option(min=1_000, help="Of more conversions look at about so many.")] = 100_000,
    as_json: _Json = False,
) -> None:
    """Show what a policy would change, and write nothing.

    Every conversion of the period is credited by the attributor's own code, as its newest version pins and under the
    new policy with the models in force. Over all conversions the differences are what `policy activate --refit` makes
    of them, to the micro. Over a sample they come with an interval of 95 %. Exit code 1 if anything changes.

    Example: attributary policy diff policy.yaml --tenant acme --since 90d
    """
    from attributary.cli.model_options import usage_errors
    from attributary.cli.outcome import database
    from attributary.consumers.adapters.policy_settings import PolicySettings
    from attributary.consumers.maintenance.policy_diff import policy_diff
    from attributary.consumers.runtime.settings import load
    from attributary.consumers.store.events.policy_activations import policy_in_force

    period, policy = _period(since, until), _read(file)
    with database("attributary-policy", tenant=tenant) as connection, usage_errors():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        in_force = policy_in_force(connection, tenant, load(PolicySettings).policy())
        found = policy_diff(connection, tenant, policy, period, most=sample)
    parts = policy.differing_parts(in_force)
    if as_json:
        from attributary.cli.tables import print_json

        print_json(_document(policy.version, parts, found))
    else:
        print(f"{policy.version} differs from {in_force.version} in: {', '.join(parts) or 'nothing'}.")
        _print(tenant, policy.version, found)
    if found.changed:
        raise typer.Exit(1)


def _activate(
    file: _File,
    *,
    tenant: Tenant = "",
    refit: Annotated[bool, typer.Option("--refit", help="Attribute conversions of the period again, too.")] = False,
    since: _Since = "beginning",
    until: _Until = "end",
    note: Annotated[str | None, typer.Option(help="Why, for the history; no personal data.")] = None,
) -> None:
    """Bring a policy into force for a tenant: versions that are raised from now on pin it.

    Trained versions that the file names (`trained`) come into force in the same transaction.

    What was reported stays, unless --refit raises the versions of the period, with the reason model_refit. Needs
    DATABASE_URL, as a role that may write (attributary_operator).

    Example: attributary policy activate policy.yaml --tenant acme --refit --since 90d
    """
    from attributary.cli.model_options import usage_errors
    from attributary.cli.outcome import database
    from attributary.cli.refit import raise_all
    from attributary.consumers.store.events.policy_activations import activate_policy

    period, policy = _period(since, until), _read(file)
    with database("attributary-policy", tenant=tenant) as connection, usage_errors():
        models = activate_policy(connection, tenant, policy, note)
        connection.commit()
        done = raise_all(connection, tenant, period, policy) if refit else 0
    print(f"{policy.version} is in force for {tenant}.")
    if models is not None:
        print(f"Trained models in force: {_versions(models.versions)}.")
    if refit:
        print(f"{done} conversions get a new version; the sweeper asks for the results.")


def _history(*, tenant: Tenant = "", as_json: _Json = False) -> None:
    """Show which policies and which trained models were in force for a tenant, the newest first, and who did it.

    Example: attributary policy history --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.cli.tables import print_json, print_table
    from attributary.consumers.store.events.policy_activations import policy_history
    from attributary.consumers.store.models.model_states import model_set_history

    with database("attributary-policy", tenant=tenant) as connection:
        policies = policy_history(connection, tenant)
        models = model_set_history(connection, tenant)
    if as_json:
        print_json({
            "policies": [{**each._asdict(), "activated_at": each.activated_at.isoformat()} for each in policies],
            "model_sets": [{**each._asdict(), "activated_at": each.activated_at.isoformat()} for each in models],
        })  # fmt: skip
        return
    if not policies:
        print(f"no policy was activated for {tenant}: the one of ATTRIBUTION_POLICY_FILE is in force")
    rows = [
        (each.activated_at, "policy", str(each.number), each.policy_version or "(file)", each.activated_by,
         each.note or "")
        for each in policies
    ] + [
        (each.activated_at, "models", str(each.model_set), _versions(each.versions), each.activated_by or "?", "")
        for each in models
    ]  # fmt: skip
    if rows:
        shown = [(f"{row[0]:%Y-%m-%d %H:%M:%S}", *row[1:]) for row in sorted(rows, reverse=True)]
        print_table(("since (UTC)", "what", "number", "in force", "by", "note"), shown, (2,))


def _versions(versions: Mapping[str, int]) -> str:
    return ", ".join(f"{model} {version}" for model, version in versions.items()) or "none"


def _rollback(*, tenant: Tenant = "") -> None:
    """Bring back the policy that was in force before the newest activation. Versions raised meanwhile keep theirs.

    Trained models that the activation brought into force go back, too, unless others came into force since.

    Example: attributary policy rollback --tenant acme
    """
    from attributary.cli import exits
    from attributary.cli.outcome import database, say
    from attributary.consumers.store.events.policy_activations import NoEarlierPolicyError, roll_back_policy

    with database("attributary-policy", tenant=tenant) as connection:
        try:
            found = roll_back_policy(connection, tenant)
        except NoEarlierPolicyError as error:
            say(str(error))
            raise typer.Exit(exits.FAILED) from None
    print(f"{found.policy_version or 'the policy of ATTRIBUTION_POLICY_FILE'} is in force for {tenant} again.")
    if found.models is not None:
        print(f"Trained models in force: {_versions(found.models)}.")
    elif found.models_stay:
        print("The trained models stay: others came into force since. See attributary policy history.")


def _period(since: str, until: str) -> tuple[int, int]:
    start, end = time_option(since, "--since"), time_option(until, "--until")
    if start >= end:
        raise typer.BadParameter(f"{until} must be later than --since {since}", param_hint="--until")
    return start, end


def _read(file: Path) -> LookbackPolicy:
    from attributary.consumers.adapters.policy_settings import read_policy
    from attributary.consumers.runtime.errors import ConfigError

    try:
        return read_policy(file, str(file))
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="FILE") from None


def _document(version: str, parts: Sequence[str], found: PolicyDiff) -> dict[str, Any]:
    return {
        "policy_version": version, "parts": list(parts), "conversions": found.conversions, "looked_at": found.looked_at,
        "changed": found.changed, "touchpoints_in": found.touchpoints_in, "touchpoints_out": found.touchpoints_out,
        "examples": found.examples,
        "credits": [
            {"model": model, "channel": channel, "currency": currency, "old_micros": old, "new_micros": new,
             "difference_micros": new - old, "interval_micros": round(half)}
            for (model, channel, currency), old, new, half in found.rows()
        ],
    }  # fmt: skip


def _print(tenant: str, version: str, found: PolicyDiff) -> None:
    from attributary.cli.tables import print_table

    rows = [
        (model, channel, currency, *(f"{micros / _MICROS:,.2f}" for micros in (old, new, new - old)),
         f"± {half / _MICROS:,.2f}" if found.is_sample else "")
        for (model, channel, currency), old, new, half in found.rows()
        if old != new or half
    ]  # fmt: skip
    if rows:
        print_table(("model", "channel", "currency", "old", "new", "difference", ""), rows, (3, 4, 5, 6))
    seen = f"{found.looked_at} of {found.conversions} conversions of {tenant} (a sample)" if found.is_sample else (
        f"{found.conversions} conversions of {tenant}"
    )  # fmt: skip
    print(
        f"{version}: {found.changed} of {seen} change; {found.touchpoints_in} credited touchpoints come in, "
        f"{found.touchpoints_out} go out. Nothing was written."
    )
    if found.examples:
        print(f"See one: attributary explain {found.examples[0]} --tenant {tenant}")
