"""`attributary models`: train, compare and activate versions of trained models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attributary.cli.incremental_state import incremental_state_group
from attributary.cli.model_options import (
    AnyModel,
    AsJson,
    Force,
    Model,
    ModelOption,
    progress_bar,
    summary_document,
    usage_errors,
)
from attributary.cli.model_reports import calibrate, insights
from attributary.cli.model_views import diff, drift, show
from attributary.cli.tables import count, number, plural, print_json, print_table
from attributary.cli.tenant_option import AnyTenant, Tenant
from attributary.cli.times import SINCE_HELP, UNTIL_HELP, optional_time

if TYPE_CHECKING:
    from attributary.consumers.store.models.model_states import Activation, StateSummary

_REFIT = "Results that exist stay as they are. To recompute them: attributary refit --tenant {tenant} --from 30d"


def register(app: typer.Typer) -> None:
    """Add the group `models`."""
    group = typer.Typer(
        no_args_is_help=True,
        help="Versions of trained models in Postgres (DATABASE_URL): train, compare, activate, roll back. The "
        "attributor uses a change with the next version of each conversion. See docs/how-to/train.md.",
    )
    for command in (list_, show, diff, drift, insights, train, calibrate, activate, deactivate, rollback):
        group.command(command.__name__.rstrip("_"))(command)
    group.add_typer(incremental_state_group(), name="state")
    group.add_typer(incremental_state_group(), name="upkeep", hidden=True)  # the former name
    app.add_typer(group, name="models")


def list_(
    tenant: AnyTenant = None,
    model: AnyModel = None,
    as_json: AsJson = False,
) -> None:
    """List the versions, newest first, with their data and status.

    Example: attributary models list --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.models.model_states import list_states
    from attributary.consumers.store.tenants import check_tenant

    with database("attributary-models") as connection, usage_errors():
        rows = list_states(connection, tenant, model)
        if tenant is not None and not rows:
            check_tenant(connection, tenant)
    if as_json:
        print_json([summary_document(row) for row in rows])
        return
    if not rows:
        print(f"no version yet; train one: attributary models train --tenant {tenant or 'TENANT'}")
        return
    columns = (
        "tenant", "model", "version", "", "trained at (UTC)", "sample", "conversions", "half-life", "confidence",
        "status", "code",
    )  # fmt: skip
    cells = []
    for row in rows:
        facts = row.metadata
        diagnostics = facts.get("diagnostics", {})
        cells.append(
            (
                row.tenant_id,
                row.model,
                str(row.version),
                "active" if row.is_active else "",
                f"{row.trained_at:%Y-%m-%d %H:%M:%S}",
                plural(facts.get("n", 0), "person" if row.model == "poisson" else "journey").replace(
                    "persons", "people"
                ),
                count(_conversions(facts)),
                _half_life_text(facts),
                number(diagnostics.get("confidence"), ".3f"),
                (row.status or "").partition(":")[0],
                str(facts.get("code_version", "")),
            )
        )
    print_table(columns, cells, numbers=(2, 5, 6, 8))
    for row in _newest(rows):
        if row.status not in {None, "ok"}:
            print(f"{row.model} {row.version} of {row.tenant_id}: {row.status}")


def _newest(rows: Sequence[StateSummary]) -> list[StateSummary]:
    """Return the newest version of each model of each tenant."""
    return list({(row.tenant_id, row.model): row for row in reversed(rows)}.values())


def _conversions(facts: Mapping[str, Any]) -> int | None:
    """Return the number of conversions, each counted once; versions of old code have it only without a half-life."""
    if "conversions" in facts:
        return int(facts["conversions"])
    return None if "forgetting" in facts else facts.get("diagnostics", {}).get("conversions")


def _half_life_text(facts: Mapping[str, Any]) -> str:
    days = facts.get("forgetting", {}).get("half_life_days")
    return "" if days is None else f"{days:g} d, worth {plural(facts['n_eff'], 'journey')}"


def train(
    *,
    tenant: Tenant = "",
    model: ModelOption = "markov",
    since: Annotated[
        str | None,
        typer.Option("--from", help=f"Journeys by their end. {SINCE_HELP}"),
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help=f"Journeys by their end. {UNTIL_HELP}")] = None,
    conversion_type: Annotated[
        list[str] | None, typer.Option(help="Conversions of this type only; may be repeated.")
    ] = None,
    currency: Annotated[
        str | None, typer.Option(help="Currency of the values. Default: the most common one in the window.")
    ] = None,
    closing: Annotated[
        Literal["swept", "silent", "all"],
        typer.Option(
            help="People that count as not converting. swept: those that the sweeper closed. silent: also those "
            "without an event for the inactivity time of the policy. all: everybody, because the data is complete (an "
            "import, a replay)."
        ),
    ] = "swept",
    setting: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE, a setting of the model; may be repeated. Example: minimum_conversions=50."),
    ] = None,
    half_life: Annotated[
        float | None,
        typer.Option(
            "--half-life", help="Days after which a journey weighs half, counted from the newest one. Not for poisson."
        ),
    ] = None,
    activate: Annotated[bool, typer.Option("--activate", help="Activate the new version at once.")] = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Train a model on the journeys in the store, and keep it as the next version.

    markov trains on finished journeys: those that converted, and those of people who are closed (--closing). poisson
    trains on all people with a touch and needs no --closing. A version has no effect before it is activated.

    Example: attributary models train --tenant acme --closing all

    Example: attributary models train --tenant acme --from 2026-10-01 --to 2026-11-01
    """
    from attributary.cli.outcome import database
    from attributary.consumers.adapters.policy_settings import PolicySettings
    from attributary.consumers.runtime.settings import load
    from attributary.consumers.store.models.model_states import activate as bring_into_force
    from attributary.consumers.store.models.model_states import save_states
    from attributary.consumers.store.tenants import check_tenant
    from attributary.consumers.training.read_journeys import Closing, Window
    from attributary.consumers.training.train import TrainingPlan, check_usable, train_from_store

    window = Window(
        tenant,
        optional_time(since, "--from"),
        optional_time(until, "--to"),
        frozenset(conversion_type or ()),
        closing=Closing(closing),
    )
    half_life_micros, settings = _half_life(half_life), _settings(setting or ())
    with database("attributary-models") as connection, usage_errors():
        check_tenant(connection, tenant)
        connection.commit()
        inactivity_micros = load(PolicySettings).policy().inactivity_micros
        plan = TrainingPlan(model, window, inactivity_micros, currency, settings, half_life_micros)
        with progress_bar() as progress:
            state = train_from_store(connection, plan, progress)
        if activate and not force:
            check_usable(state)
        with connection.transaction():
            (version,) = save_states(connection, [state])
            if activate:
                bring_into_force(connection, tenant, {model: version}, force=force)
    if as_json:
        print_json({"tenant": tenant, "model": model, "version": version, "metadata": dict(state.metadata)})
        return
    _print_trained(tenant, f"{model} {version}", state.metadata, is_active=activate)


def _print_trained(tenant: str, name: str, facts: Mapping[str, Any], *, is_active: bool) -> None:
    """Print what a version was trained on, its status, and the next step."""
    from attributary.consumers.store.models.model_states import OK

    diagnostics, converted = facts["diagnostics"], facts["conversions"]
    others = (
        f"{plural(facts['n'] - converted, 'journey')} without"
        if "nulls" in diagnostics
        else f"{count(facts['n'])} people"
    )
    print(
        f"{name}{' (active)' if is_active else ''}: {plural(converted, 'conversion')} and {others}, "
        f"{plural(len(diagnostics['channels']), 'channel')}, {facts['training_seconds']} s; "
        f"see: attributary models show {name} --tenant {tenant}"
    )
    if "forgetting" in facts:
        print(f"half-life {_half_life_text(facts)}: weighted it is {diagnostics['conversions']:,.1f} conversions")
    if diagnostics["status"] != OK:
        print(f"status: {diagnostics['status']}")
    elif not is_active:
        print(f"next: attributary models activate {name} --tenant {tenant}")
    else:
        print(_REFIT.format(tenant=tenant))


def activate(
    model: Model,
    version: Annotated[int, typer.Argument(help="The version.")],
    *,
    tenant: Tenant = "",
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Activate a version: it credits new versions of conversions. Results that exist stay; see attributary refit.

    Example: attributary models activate markov 4 --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.models.model_states import activate as run

    with database("attributary-models") as connection, usage_errors():
        found = run(connection, tenant, {model: version}, force=force)
    _print_activation(tenant, found, as_json=as_json)


def deactivate(model: Model, *, tenant: Tenant = "", as_json: AsJson = False) -> None:
    """Deactivate a model: its fallback rule credits new versions of conversions, and the results say so.

    Example: attributary models deactivate markov --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.models.model_states import deactivate as run
    from attributary.consumers.store.tenants import check_tenant

    with database("attributary-models") as connection, usage_errors():
        check_tenant(connection, tenant)
        found = run(connection, tenant, [model])
    _print_activation(tenant, found, as_json=as_json)


def rollback(
    model: Model,
    *,
    tenant: Tenant = "",
    from_version: Annotated[
        int | None, typer.Option(help="Only if this version is in force, so that a second call changes nothing.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Activate the newest older version that was active before.

    Example: attributary models rollback markov --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.models.model_states import roll_back

    with database("attributary-models") as connection, usage_errors():
        found = roll_back(connection, tenant, model, from_version=from_version)
    _print_activation(tenant, found, as_json=as_json)


def _settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Read NAME=VALUE; a value is JSON where it can be, else a text."""
    from attributary.consumers.training.model_settings import read_json

    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter("must be NAME=VALUE", param_hint="--setting")
        if name in found:
            raise typer.BadParameter(f"{name} is given twice", param_hint="--setting")
        try:
            found[name] = read_json(text)
        except ValueError:
            found[name] = text
    return found


def _half_life(days: float | None) -> int | None:
    from attributary.consumers.training.model_settings import half_life_micros

    try:
        return None if days is None else half_life_micros(days)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--half-life") from None


def _print_activation(tenant: str, found: Activation, *, as_json: bool) -> None:
    if as_json:
        print_json({"model_set": found.model_set, "versions": dict(found.versions), "changed": found.changed})
        return
    versions = (
        ", ".join(f"{model} {version}" for model, version in sorted(found.versions.items())) or "no trained model"
    )
    print(f"in force{'' if found.changed else ' already'}: {versions} (model set {found.model_set})")
    if found.changed:
        print(_REFIT.format(tenant=tenant))
