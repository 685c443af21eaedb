"""`attributary models`: train, compare and activate versions of trained models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attributary.cli.incremental_state import incremental_state_group
from attributary.cli.model_options import (
    AsJson,
    Force,
    Tenant,
    progress_bar,
    summary_document,
    time_option,
    usage_errors,
)
from attributary.cli.model_reports import calibrate, insights
from attributary.cli.model_views import diff, drift, show
from attributary.cli.tables import count, number, print_json, print_table

if TYPE_CHECKING:
    from attributary.consumers.store.models.model_states import Activation


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
    tenant: Annotated[str | None, typer.Option("--tenant", help="This tenant only.")] = None,
    model: Annotated[str | None, typer.Option(help="This model only.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the versions, newest first, with their data and status.

    Example: attributary models list --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.models.model_states import list_states

    with database("attributary-models") as connection:
        rows = list_states(connection, tenant, model)
    if as_json:
        print_json([summary_document(row) for row in rows])
        return
    columns = (
        "tenant", "model", "version", "", "trained at (UTC)", "journeys", "conversions", "confidence", "status", "code",
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
                count(facts.get("n")),
                count(diagnostics.get("conversions")),
                number(diagnostics.get("confidence"), ".3f"),
                (row.status or "").partition(":")[0],
                str(facts.get("code_version", "")),
            )
        )
    print_table(columns, cells, numbers=(2, 5, 6, 7))


def train(
    *,
    tenant: Tenant,
    model: Annotated[str, typer.Option(help="markov, or the time-aware poisson.")] = "markov",
    since: Annotated[
        str | None, typer.Option("--from", help="Journeys that end at or after this time: ISO time, or date.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", help="Journeys that end before this time: ISO time, or date.")
    ] = None,
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

    Example: attributary models train --tenant acme --from 2026-10-01 --to 2026-11-01
    """
    from attributary.cli.outcome import database
    from attributary.consumers.adapters.policy_settings import PolicySettings
    from attributary.consumers.runtime.settings import load
    from attributary.consumers.store.models.model_states import OK, save_states
    from attributary.consumers.store.models.model_states import activate as bring_into_force
    from attributary.consumers.training.read_journeys import Closing, Window
    from attributary.consumers.training.train import TrainingPlan, check_usable, train_from_store

    window = Window(
        tenant,
        time_option(since, "--from"),
        time_option(until, "--to"),
        frozenset(conversion_type or ()),
        closing=Closing(closing),
    )
    half_life_micros, settings = _half_life(half_life), _settings(setting or ())
    with database("attributary-models") as connection, usage_errors():
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
    facts = state.metadata["diagnostics"]
    others = f"{count(facts['nulls'])} journeys without" if "nulls" in facts else f"{count(facts['people'])} people"
    print(
        f"{model} {version}{' (active)' if activate else ''}: {count(facts['conversions'])} conversions and "
        f"{others}, {len(facts['channels'])} channels, "
        f"{state.metadata['training_seconds']} s; see: attributary models show {model} {version} --tenant {tenant}"
    )
    if facts["status"] != OK:
        print(f"status: {facts['status']}")


def activate(
    model: Annotated[str, typer.Argument(help="markov or poisson.")],
    version: Annotated[int, typer.Argument(help="The version.")],
    *,
    tenant: Tenant,
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
    _print_activation(found, as_json=as_json)


def deactivate(
    model: Annotated[str, typer.Argument(help="markov or poisson.")], *, tenant: Tenant, as_json: AsJson = False
) -> None:
    """Deactivate a model: its fallback rule credits new versions of conversions, and the results say so.

    Example: attributary models deactivate markov --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.models.model_states import deactivate as run

    with database("attributary-models") as connection, usage_errors():
        found = run(connection, tenant, [model])
    _print_activation(found, as_json=as_json)


def rollback(
    model: Annotated[str, typer.Argument(help="markov or poisson.")],
    *,
    tenant: Tenant,
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
    _print_activation(found, as_json=as_json)


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


def _print_activation(found: Activation, *, as_json: bool) -> None:
    if as_json:
        print_json({"model_set": found.model_set, "versions": dict(found.versions), "changed": found.changed})
        return
    versions = (
        ", ".join(f"{model} {version}" for model, version in sorted(found.versions.items())) or "no trained model"
    )
    print(f"in force{'' if found.changed else ' already'}: {versions} (model set {found.model_set})")
