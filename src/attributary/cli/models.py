"""`attributary models`: versions of trained models, side by side, and which of them are in force."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attributary.cli.tables import count, number, print_json, print_table, share

if TYPE_CHECKING:
    from attributary.attribution_core.state import JourneyState
    from attributary.consumers.store.model_states import Activation, StateSummary

_EXIT_USAGE = 2
_MICROS = 1_000_000

_Tenant = Annotated[str, typer.Option("--tenant", help="Whose models.")]
_Json = Annotated[bool, typer.Option("--json", help="JSON with all fields and full precision, instead of a table.")]


def register(app: typer.Typer) -> None:
    """Add the group `models`."""
    group = typer.Typer(
        no_args_is_help=True,
        help="Versions of trained models in Postgres (DATABASE_URL): train, compare, bring into force, roll back. A "
        "change of what is in force is picked up by the attributor with the next version of each conversion, without a "
        "restart. See docs/train.md.",
    )
    for command in (list_, show, diff, train, activate, deactivate, rollback):
        group.command(command.__name__.rstrip("_"))(command)
    app.add_typer(group, name="models")


def list_(
    tenant: Annotated[str | None, typer.Option("--tenant", help="Of this tenant only.")] = None,
    model: Annotated[str | None, typer.Option(help="Of this model only.")] = None,
    as_json: _Json = False,
) -> None:
    """Show the versions, newest first: what each was trained on, and which is active.

    Example: attributary models list --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.model_states import list_states

    with database("attributary-models") as connection:
        rows = list_states(connection, tenant, model)
    if as_json:
        print_json([_summary(row) for row in rows])
        return
    columns = ("tenant", "model", "version", "", "trained at (UTC)", "journeys", "conversions", "confidence", "code")
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
                str(facts.get("code_version", "")),
            )
        )
    print_table(columns, cells, numbers=(2, 5, 6, 7))


def show(
    model: Annotated[str, typer.Argument(help="For example markov.")],
    version: Annotated[int | None, typer.Argument(help="By default the active one, else the newest.")] = None,
    *,
    tenant: _Tenant,
    as_json: _Json = False,
) -> None:
    """Show a version: window, sample, and the shares of all channels by removal effects and by Shapley values.

    The interval says how precise the share is, not whether the model is right: see how far the two columns differ.

    Example: attributary models show markov --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.model_states import show_state

    with database("attributary-models") as connection, _usage_errors():
        summary, state = show_state(connection, tenant, model, _chosen(connection, tenant, model, version))
    if as_json:
        print_json(_summary(summary) | {"settings": dict(state.settings), "state": dict(state.document)})
        return
    facts = summary.metadata
    diagnostics = facts["diagnostics"]
    active = ", active" if summary.is_active else ""
    print(f"{model} {summary.version} of {tenant}{active}, trained {summary.trained_at:%Y-%m-%d %H:%M:%S} UTC")
    print(
        f"{count(diagnostics['conversions'])} conversions ({count(diagnostics['conversions_without_touches'])} of "
        f"them without touches), {count(diagnostics['nulls'])} journeys without; status: {diagnostics['status']}"
    )
    value = diagnostics["value_micros"] / _MICROS
    print(
        f"value {value:,.2f} {facts['currency'] or ''}; window {_window(facts['window'])}; code {facts['code_version']}"
    )
    rows = [
        (
            channel["channel"],
            number(channel["markov"]["removal_effect"], ".4f"),
            share(channel["markov"]["share"], channel["markov"]["interval"]),
            number(channel["markov"]["conversions"], ",.1f"),
            share(channel["shapley"]["share"], None),
            number(channel["shapley"]["conversions"], ",.1f"),
            count(channel["conversions_with"]),
            "" if channel["status"] == "ok" else channel["status"],
        )
        for channel in diagnostics["channels"]
    ]
    columns = ("channel", "removal effect", "share [90 %]", "conversions", "Shapley share", "conversions", "in", "")
    print_table(columns, rows, numbers=range(1, 7))


def diff(
    model: Annotated[str, typer.Argument(help="For example markov.")],
    before: Annotated[int, typer.Argument(help="A version.")],
    after: Annotated[int, typer.Argument(help="Another version.")],
    *,
    tenant: _Tenant,
    as_json: _Json = False,
) -> None:
    """Show two versions side by side, and which channels' shares changed by more than noise.

    A star marks a change that passes at a false discovery rate of 10 % over all channels. The test takes the journeys
    of the two versions for different ones; if they overlap it errs towards "no change".

    Example: attributary models diff markov 3 4 --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.model_states import show_state
    from attributary.consumers.trainer.changes import share_changes

    with database("attributary-models") as connection, _usage_errors():
        states = [_state(show_state(connection, tenant, model, version)[1].document) for version in (before, after)]
    changes = share_changes(*states)
    if as_json:
        print_json({"model": model, "before": before, "after": after, "shares": changes})
        return
    for method, title in (("markov", "removal effects"), ("shapley", "Shapley values")):
        found = changes[method]
        moved = number(found["total_variation"], ".2%")
        print(f"shares by {title}, version {before} to {after}: {moved} of all credit moved")
        rows = [
            (
                row["channel"],
                share(row["before"], None),
                share(row["after"], None),
                number(row["change"], "+.2%"),
                number(row["p_value"], ".3f"),
                "*" if row["changed"] else "",
            )
            for row in found["channels"]
        ]
        print_table(("channel", str(before), str(after), "change", "p", ""), rows, numbers=range(1, 5))


def train(
    *,
    tenant: _Tenant,
    model: Annotated[str, typer.Option(help="Which trained model.")] = "markov",
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
    activate: Annotated[bool, typer.Option("--activate", help="Bring the new version into force at once.")] = False,
    as_json: _Json = False,
) -> None:
    """Train a model on the finished journeys in the store, and keep it as the next version.

    A journey is finished when it converted, or when the person was silent for so long that the sweeper closed it;
    docs/train.md says precisely. Nothing is in force until it is activated.

    Example: attributary models train --tenant acme --from 2026-10-01 --to 2026-11-01
    """
    from attributary.cli.outcome import database
    from attributary.consumers.policy import PolicySettings
    from attributary.consumers.runtime.settings import load
    from attributary.consumers.store.model_states import activate as bring_into_force
    from attributary.consumers.store.model_states import save_states
    from attributary.consumers.trainer.learning import Closing, Window
    from attributary.consumers.trainer.training import TrainingPlan
    from attributary.consumers.trainer.training import train as run

    window = Window(
        tenant,
        _time(since, "--from"),
        _time(until, "--to"),
        frozenset(conversion_type or ()),
        closing=Closing(closing),
    )
    with database("attributary-models") as connection, _usage_errors():
        inactivity_micros = load(PolicySettings).policy().inactivity_micros
        plan = TrainingPlan(model, window, inactivity_micros, currency, _settings(setting or ()))
        with connection.transaction(), _progress() as progress:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            state = run(connection, plan, progress)
        with connection.transaction():
            (version,) = save_states(connection, [state])
            if activate:
                bring_into_force(connection, tenant, {model: version})
    if as_json:
        print_json({"tenant": tenant, "model": model, "version": version, "metadata": dict(state.metadata)})
        return
    facts = state.metadata["diagnostics"]
    print(
        f"{model} {version}{' (active)' if activate else ''}: {count(facts['conversions'])} conversions and "
        f"{count(facts['nulls'])} journeys without, {len(facts['channels'])} channels, "
        f"{state.metadata['training_seconds']} s; see: attributary models show {model} {version} --tenant {tenant}"
    )


def activate(
    model: Annotated[str, typer.Argument(help="For example markov.")],
    version: Annotated[int, typer.Argument(help="Which version.")],
    *,
    tenant: _Tenant,
    as_json: _Json = False,
) -> None:
    """Bring a version into force: conversions are credited with it from their next version on.

    Example: attributary models activate markov 4 --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.model_states import activate as run

    with database("attributary-models") as connection, _usage_errors():
        found = run(connection, tenant, {model: version})
    _print_activation(found, as_json=as_json)


def deactivate(
    model: Annotated[str, typer.Argument(help="For example markov.")], *, tenant: _Tenant, as_json: _Json = False
) -> None:
    """Take a model out of force: its journeys are credited by its declared fallback rule, and flagged.

    Example: attributary models deactivate markov --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.model_states import deactivate as run

    with database("attributary-models") as connection, _usage_errors():
        found = run(connection, tenant, [model])
    _print_activation(found, as_json=as_json)


def rollback(
    model: Annotated[str, typer.Argument(help="For example markov.")],
    *,
    tenant: _Tenant,
    from_version: Annotated[
        int | None, typer.Option(help="Only if this version is in force: then a second call changes nothing.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Return to the newest older version that was in force before.

    Example: attributary models rollback markov --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.model_states import roll_back

    with database("attributary-models") as connection, _usage_errors():
        found = roll_back(connection, tenant, model, from_version=from_version)
    _print_activation(found, as_json=as_json)


@contextmanager
def _usage_errors() -> Iterator[None]:
    """Say what cannot be done as asked, exit code 2."""
    from attributary.consumers.trainer.work import JOB_ERRORS

    try:
        yield
    except JOB_ERRORS as error:
        sys.stderr.write(f"attributary: {error}\n")
        raise typer.Exit(_EXIT_USAGE) from None


def _chosen(connection: Any, tenant: str, model: str, version: int | None) -> int:
    from attributary.consumers.store.model_states import ModelStateError, list_states

    if version is not None:
        return version
    rows = list_states(connection, tenant, model)
    if not rows:
        raise ModelStateError(f"{model} has no version for tenant {tenant}; train it: attributary models train")
    return next((row.version for row in rows if row.is_active), rows[0].version)


def _state(document: Mapping[str, Any]) -> "JourneyState":
    from attributary.attribution_core.state import JourneyState

    return JourneyState.from_document(document)


def _time(text: str | None, option: str) -> int | None:
    from attributary.consumers.trainer.requests import parse_time

    try:
        return None if text is None else parse_time(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Read NAME=VALUE; a value is JSON where it can be, else a text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter("must be NAME=VALUE", param_hint="--setting")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


@contextmanager
def _progress() -> Iterator[Any]:
    """Show how far it is, on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bars:
        task = bars.add_task("people", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _summary(row: "StateSummary") -> dict[str, Any]:
    return {
        "tenant": row.tenant_id,
        "model": row.model,
        "version": row.version,
        "is_active": row.is_active,
        "trained_at": row.trained_at.isoformat(),
        "activated_at": row.activated_at.isoformat() if row.activated_at else None,
        "metadata": dict(row.metadata),
    }


def _print_activation(found: "Activation", *, as_json: bool) -> None:
    if as_json:
        print_json({"model_set": found.model_set, "versions": dict(found.versions), "changed": found.changed})
        return
    versions = (
        ", ".join(f"{model} {version}" for model, version in sorted(found.versions.items())) or "no trained model"
    )
    print(f"in force{'' if found.changed else ' already'}: {versions} (model set {found.model_set})")


def _window(window: Mapping[str, Any]) -> str:
    from datetime import UTC, datetime

    ends = [
        "open" if at is None else f"{datetime.fromtimestamp(at / _MICROS, UTC):%Y-%m-%d %H:%M}"
        for at in (window["since"], window["until"])
    ]
    types = ", ".join(window["conversion_types"])
    return f"{ends[0]} to {ends[1]}" + (f", {types} only" if types else "")
