"""`attributary models`: versions of trained models, side by side, and which of them are in force."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attributary.cli.incremental_state import upkeep_group
from attributary.cli.model_calibration import calibrate
from attributary.cli.model_insights import insights
from attributary.cli.model_options import (
    AsJson,
    Force,
    Tenant,
    progress_bar,
    summary_document,
    time_option,
    usage_errors,
)
from attributary.cli.model_views import diff, drift, show
from attributary.cli.tables import count, number, print_json, print_table

if TYPE_CHECKING:
    from attributary.consumers.store.models.model_states import Activation


def register(app: typer.Typer) -> None:
    """Add the group `models`."""
    group = typer.Typer(
        no_args_is_help=True,
        help="Versions of trained models in Postgres (DATABASE_URL): train, compare, bring into force, roll back. A "
        "change of what is in force is picked up by the attributor with the next version of each conversion, without a "
        "restart. See docs/how-to/train.md.",
    )
    for command in (list_, show, diff, drift, insights, train, calibrate, activate, deactivate, rollback):
        group.command(command.__name__.rstrip("_"))(command)
    group.add_typer(upkeep_group(), name="upkeep")
    app.add_typer(group, name="models")


def list_(
    tenant: Annotated[str | None, typer.Option("--tenant", help="Of this tenant only.")] = None,
    model: Annotated[str | None, typer.Option(help="Of this model only.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the versions, newest first: what each was trained on, and which is active.

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
    since: Annotated[str | None, typer.Option("--from", help="Journeys that end at or after: ISO time, date.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Journeys that end before: ISO time, date.")] = None,
    conversion_type: Annotated[list[str] | None, typer.Option(help="Of this type only; may be repeated.")] = None,
    currency: Annotated[str | None, typer.Option(help="Of the values. Default: the commonest in the window.")] = None,
    closing: Annotated[
        Literal["swept", "silent", "all"],
        typer.Option(
            help="Who counts as not converting: whom the sweeper closed; or also who has been silent for longer than "
            "the policy's inactivity; or everybody, because the data is complete (a replay, an import of history)."
        ),
    ] = "swept",
    setting: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of the model, for example minimum_conversions=50; repeatable.")
    ] = None,
    half_life: Annotated[
        float | None,
        typer.Option(
            "--half-life", help="Days: a journey that ended so long before the newest weighs half. Not for poisson."
        ),
    ] = None,
    activate: Annotated[bool, typer.Option("--activate", help="Bring the new version into force at once.")] = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Train a model on the journeys in the store, and keep it as the next version.

    markov learns from finished journeys: converted, or of people who were silent for so long that the sweeper closed
    them; docs/how-to/train.md says precisely. poisson learns from everybody with a touch, watched as far as the data
    reach, and needs no --closing. Nothing is in force until it is activated.

    Example: attributary models train --tenant acme --from 2026-10-01 --to 2026-11-01
    """
    from attributary.cli.outcome import database
    from attributary.consumers.adapters.policy_settings import PolicySettings
    from attributary.consumers.runtime.settings import load
    from attributary.consumers.store.models.model_states import OK, save_states
    from attributary.consumers.store.models.model_states import activate as bring_into_force
    from attributary.consumers.training.read_journeys import Closing, Window
    from attributary.consumers.training.train import TrainingPlan, check_usable, upkept_for
    from attributary.consumers.training.train import train as run

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
            learned = upkept_for(connection, plan, progress)
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                state = run(connection, plan, progress, learned)
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
    model: Annotated[str, typer.Argument(help="For example markov.")],
    version: Annotated[int, typer.Argument(help="Which version.")],
    *,
    tenant: Tenant,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Bring a version into force: conversions are credited with it from their next version on.

    Example: attributary models activate markov 4 --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.models.model_states import activate as run

    with database("attributary-models") as connection, usage_errors():
        found = run(connection, tenant, {model: version}, force=force)
    _print_activation(found, as_json=as_json)


def deactivate(
    model: Annotated[str, typer.Argument(help="For example markov.")], *, tenant: Tenant, as_json: AsJson = False
) -> None:
    """Take a model out of force: its journeys are credited by its declared fallback rule, and flagged.

    Example: attributary models deactivate markov --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.models.model_states import deactivate as run

    with database("attributary-models") as connection, usage_errors():
        found = run(connection, tenant, [model])
    _print_activation(found, as_json=as_json)


def rollback(
    model: Annotated[str, typer.Argument(help="For example markov.")],
    *,
    tenant: Tenant,
    from_version: Annotated[
        int | None, typer.Option(help="Only if this version is in force: then a second call changes nothing.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Return to the newest older version that was in force before.

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
