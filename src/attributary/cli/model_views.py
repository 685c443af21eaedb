"""`attributary models show|diff|drift`: what versions say, and what differs between two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attributary.cli.model_options import AsJson, Tenant, chosen_version, summary_document, usage_errors, window_text
from attributary.cli.tables import count, number, print_json, print_table, share

if TYPE_CHECKING:
    import psycopg

    from attributary.consumers.store.models.model_states import StateSummary

_MICROS = 1_000_000
_TITLES = {"markov": "removal effects", "shapley": "Shapley values", "poisson": "the time-aware model"}

_Model = Annotated[str, typer.Argument(help="markov or poisson.")]


def show(
    model: _Model,
    version: Annotated[int | None, typer.Argument(help="By default the active one, else the newest.")] = None,
    *,
    tenant: Tenant,
    as_json: AsJson = False,
) -> None:
    """Show a version: window, sample, and what it says about every channel.

    The interval says how precise the share is, not whether the model is right: "over models" is how far the shares of
    several models are apart on the channel, which is usually more, and more data does not help against it.

    Example: attributary models show markov --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.models.model_states import show_state

    with database("attributary-models") as connection, usage_errors():
        summary, state = show_state(connection, tenant, model, chosen_version(connection, tenant, model, version))
    if as_json:
        print_json(summary_document(summary) | {"settings": dict(state.settings), "state": dict(state.document)})
        return
    facts = summary.metadata
    diagnostics = facts["diagnostics"]
    active = ", active" if summary.is_active else ""
    print(f"{model} {summary.version} of {tenant}{active}, trained {summary.trained_at:%Y-%m-%d %H:%M:%S} UTC")
    if "rate_ratios" in next(iter(diagnostics["channels"]), {}):
        _show_rates(facts)
    else:
        _show_chain(facts)
    _show_calibration(diagnostics)


def _show_chain(facts: Mapping[str, Any]) -> None:
    diagnostics = facts["diagnostics"]
    print(
        f"{count(diagnostics['conversions'])} conversions ({count(diagnostics['conversions_without_touches'])} of "
        f"them without touches), {count(diagnostics['nulls'])} journeys without; status: {diagnostics['status']}"
    )
    value = diagnostics["value_micros"] / _MICROS
    print(
        f"value {value:,.2f} {facts['currency'] or ''}; window {window_text(facts['window'])}; "
        f"code {facts['code_version']}"
    )
    rows = [
        (
            channel["channel"],
            number(channel["markov"]["removal_effect"], ".4f"),
            share(channel["markov"]["share"], channel["markov"]["interval"]),
            number(channel["markov"]["conversions"], ",.1f"),
            share(channel["shapley"]["share"], None),
            number(channel["shapley"]["conversions"], ",.1f"),
            share(_spread(channel), None),
            count(channel["conversions_with"]),
            _status(channel),
        )
        for channel in diagnostics["channels"]
    ]
    columns = (
        "channel", "removal effect", "share [90 %]", "conversions", "Shapley share", "conversions", "over models",
        "in", "",
    )  # fmt: skip
    print_table(columns, rows, numbers=range(1, 8))


def _show_rates(facts: Mapping[str, Any]) -> None:
    diagnostics = facts["diagnostics"]
    print(
        f"{count(diagnostics['people'])} people watched for {count(diagnostics['watched_days'])} days, "
        f"{count(diagnostics['conversions'])} conversions (and {count(diagnostics['conversions_unwatched'])} of people "
        f"without a touch in reach); status: {diagnostics['status']}"
    )
    print(f"window {window_text(facts['window'])}; code {facts['code_version']}")
    ages = diagnostics["channels"][0]["rate_ratios"]
    rows = [
        (
            channel["channel"],
            share(channel["poisson"]["share"], channel["poisson"]["interval"]),
            number(channel["poisson"]["conversions"], ",.1f"),
            share(_spread(channel), None),
            *(
                f"{age['ratio']:.2f} [{age['interval'][0]:.2f}, {age['interval'][1]:.2f}]"
                for age in channel["rate_ratios"]
            ),
            count(channel["conversions_with"]),
            _status(channel),
        )
        for channel in diagnostics["channels"]
    ]
    base = diagnostics["baseline"]
    rows.append(
        (
            "(baseline)", share(base["share"], base["interval"]), number(base["conversions"], ",.1f"),
            "", *("" for _ in ages), "", "given to no channel",
        )
    )  # fmt: skip
    titles = (f"rate x, day {age['from_days']} to {age['to_days']}" for age in ages)
    columns = ("channel", "share [90 %]", "conversions", "over models", *titles, "in", "")
    print_table(columns, rows, numbers=range(1, 5 + len(ages)))


def _show_calibration(diagnostics: Mapping[str, Any]) -> None:
    from attributary.attribution_core.analysis.experiment_lifts import calibration_notes

    calibration = diagnostics.get("calibration")
    if calibration is None:
        return
    print(
        f"calibrated by {count(len(calibration['experiments']))} experiments, from version "
        f"{calibration['from_version']}: totals of channels, not credits of single journeys"
    )
    rows = [
        (
            row["channel"],
            number(row["attributed"], ",.1f"),
            number(row["factor"], ".3f"),
            number(row["calibrated"], ",.1f"),
            f"[{row['interval'][0]:,.1f}, {row['interval'][1]:,.1f}]",
            row["basis"],
        )
        for row in calibration["channels"]
    ]
    print_table(("channel", "attributed", "factor", "calibrated", "90 %", ""), rows, numbers=range(1, 5))
    for line in calibration_notes(calibration):
        print(line)


def _spread(channel: Mapping[str, Any]) -> float | None:
    """Return how far the models are apart; versions of older code do not say, but hold two of the shares."""
    if "spread_over_models" in channel:
        found: float | None = channel["spread_over_models"]
        return found
    shares = [channel["markov"]["share"], channel["shapley"]["share"]]
    return None if None in shares else max(shares) - min(shares)


def _status(channel: Mapping[str, Any]) -> str:
    fallback = channel.get("fallback")
    if channel["status"] == "ok":
        return ""
    if not fallback or fallback["share"] is None:
        return str(channel["status"])
    return f"{channel['status']}; {fallback['model']}: {share(fallback['share'], None)}"


def diff(
    model: _Model,
    before: Annotated[int, typer.Argument(help="A version.")],
    after: Annotated[int, typer.Argument(help="Another version.")],
    *,
    tenant: Tenant,
    as_json: AsJson = False,
) -> None:
    """Show two versions side by side, and which channels' shares changed by more than noise.

    A star marks a change that passes at a false discovery rate of 10 % over all channels. The test takes the journeys
    of the two versions for different ones; if they overlap it errs towards "no change".

    Example: attributary models diff markov 3 4 --tenant acme
    """
    from attributary.cli.outcome import database

    with database("attributary-models") as connection, usage_errors():
        changes = _changes(connection, tenant, model, (before, after))
    if as_json:
        print_json({"model": model, "before": before, "after": after, "shares": changes})
        return
    _print_changes(changes, (f"version {before}", f"version {after}"))


def drift(
    model: _Model,
    *,
    tenant: Tenant,
    before: Annotated[int | None, typer.Option(help="A version. Default: the active one.")] = None,
    after: Annotated[int | None, typer.Option(help="A version. Default: the newest.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell whether the shares have moved since the active version was trained: against the newest one.

    A star marks a change that passes at a false discovery rate of 10 % over all channels (Benjamini, Hochberg). Where
    the journeys of the two versions overlap the test errs towards "no change". For two windows of the same store
    without training: attributary jobs submit backtest. Exit code 1: at least one channel has changed.

    Example: attributary models drift markov --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.models.model_states import ModelStateError, list_states
    from attributary.consumers.training.drift import changed_channels

    with database("attributary-models") as connection, usage_errors():
        rows = list_states(connection, tenant, model)
        old = before if before is not None else _active(rows)
        new = after if after is not None else next((row.version for row in rows), None)
        if old is None or new is None:
            raise ModelStateError(f"{model} has no active version for tenant {tenant}; name one: --before VERSION")
        if old == new:
            raise ModelStateError(f"{model} {new} is in force and the newest; train again, or name another: --before")
        changes = _changes(connection, tenant, model, (old, new))
    found = changed_channels(changes)
    if as_json:
        print_json({"model": model, "before": old, "after": new, "changed": found, "shares": changes})
    else:
        _print_changes(changes, (f"version {old}", f"version {new}"))
        print(f"changed by more than noise: {', '.join(found) or 'nothing'}")
    if found:
        raise typer.Exit(1)


def _active(rows: Sequence[StateSummary]) -> int | None:
    return next((row.version for row in rows if row.is_active), None)


def _changes(connection: psycopg.Connection, tenant: str, model: str, versions: tuple[int, int]) -> dict[str, Any]:
    from attributary.consumers.store.models.model_states import show_state
    from attributary.consumers.training.drift import version_changes

    (before, old), (after, new) = (show_state(connection, tenant, model, version) for version in versions)
    return version_changes(model, (before.metadata, old.document), (after.metadata, new.document))


def _print_changes(changes: Mapping[str, Any], names: tuple[str, str]) -> None:
    for method, found in changes.items():
        moved = number(found["total_variation"], ".2%")
        print(f"shares by {_TITLES[method]}, {names[0]} to {names[1]}: {moved} of all credit moved")
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
        print_table(("channel", *names, "change", "p", ""), rows, numbers=range(1, 5))
