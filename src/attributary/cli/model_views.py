"""`attributary models show|diff|drift`: the report of a version, and the differences of two versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from attributary.cli.model_options import AsJson, Model, summary_document, usage_errors, window_text
from attributary.cli.tables import count, number, plural, print_json, print_table, share
from attributary.cli.tenant_option import Tenant

_MICROS = 1_000_000
_TITLES = {"markov": "removal effects", "shapley": "Shapley values", "poisson": "the time-aware model"}


def show(
    model: Model,
    version: Annotated[int | None, typer.Argument(help="Default: the active one, else the newest.")] = None,
    *,
    tenant: Tenant = "",
    as_json: AsJson = False,
) -> None:
    """Show a version: its window, its sample, and a row for every channel.

    The interval is the precision of a share, not the truth of the model. The spread over several models is usually
    larger, and more data does not reduce it.

    Example: attributary models show markov --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.models.model_states import choose_version, show_state

    with database("attributary-models") as connection, usage_errors():
        summary, state = show_state(connection, tenant, model, choose_version(connection, tenant, model, version))
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
    forgetting = facts.get("forgetting")
    form = ",.0f" if forgetting is None else ",.1f"
    converted, bare, lost = (
        number(diagnostics[name], form) for name in ("conversions", "conversions_without_touches", "nulls")
    )
    if forgetting is not None:
        print(
            f"{plural(facts['n'], 'journey')}. All numbers below are weighted, a journey counts half after "
            f"{_days(forgetting)}; plain numbers are in attributary models list."
        )
    print(f"{converted} conversions ({bare} of them without touches), {lost} journeys without")
    print(f"status: {diagnostics['status']}")
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
        "channel", "removal effect", "Markov share [90 %]", "Markov credit", "Shapley share", "Shapley credit",
        "spread", "conversions with it", "",
    )  # fmt: skip
    print_table(columns, rows, numbers=range(1, 8))
    print(
        "removal effect: share of conversions that is lost without the channel; credit: conversions by the share; "
        "spread: of the shares over Markov, Shapley and last touch; conversions with it: with at least one touchpoint "
        "of the channel"
    )
    _print_left_out(facts.get("read", {}).get("pooled_channels"), facts.get("read", {}).get("people_left_out"))


def _show_rates(facts: Mapping[str, Any]) -> None:
    diagnostics = facts["diagnostics"]
    print(
        f"{count(diagnostics['people'])} people watched for {count(diagnostics['watched_days'])} days, "
        f"{count(diagnostics['conversions'])} conversions (and {count(diagnostics['conversions_unwatched'])} of people "
        f"without a touch in reach)"
    )
    print(f"status: {diagnostics['status']}")
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
    columns = ("channel", "share [90 %]", "credit", "spread", *titles, "conversions with it", "")
    print_table(columns, rows, numbers=range(1, 5 + len(ages)))
    print(
        "credit: conversions by the share; spread: of the shares over poisson, Shapley, first, last and linear; "
        "rate x: how many times as often people convert so many days after a touchpoint; conversions with it: with at "
        "least one touchpoint of the channel"
    )
    _print_left_out(diagnostics.get("pooled_channels"), diagnostics.get("people_left_out"))


def _days(forgetting: Mapping[str, Any]) -> str:
    return f"{forgetting['half_life_days']:g} days"


def _print_left_out(pooled_channels: int | None, people_left_out: int | None) -> None:
    """Print what the limits of training pooled or left out, if anything."""
    if pooled_channels:
        print(f"{plural(pooled_channels, 'rare channel')} pooled as (other)")
    if people_left_out:
        print(f"left out: {count(people_left_out)} with more events than a person can have")


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
    """Return the spread over the models; versions of old code have two shares instead."""
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
    model: Model,
    before: Annotated[int, typer.Argument(help="A version.")],
    after: Annotated[int, typer.Argument(help="Another version.")],
    *,
    tenant: Tenant = "",
    as_json: AsJson = False,
) -> None:
    """Compare the channel shares of two versions.

    A star marks a change beyond noise, at a false discovery rate of 10 % over all channels. The test assumes different
    journeys; with an overlap it errs towards "no change".

    Example: attributary models diff markov 3 4 --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.consumers.training.drift import stored_version_changes

    with database("attributary-models") as connection, usage_errors():
        changes = stored_version_changes(connection, tenant, model, before, after)
    if as_json:
        print_json({"model": model, "before": before, "after": after, "shares": changes})
        return
    _print_changes(changes, (f"version {before}", f"version {after}"))


def drift(
    model: Model,
    *,
    tenant: Tenant = "",
    before: Annotated[int | None, typer.Option(help="A version. Default: the active one.")] = None,
    after: Annotated[int | None, typer.Option(help="A version. Default: the newest.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the active version with the newest one: exit code 1 if the share of a channel has changed.

    A star marks a change beyond noise, at a false discovery rate of 10 % over all channels (Benjamini, Hochberg). With
    an overlap of their journeys the test errs towards "no change". To compare two windows without training: attributary
    jobs submit backtest.

    Example: attributary models drift markov --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.consumers.training.drift import changed_channels, stored_version_changes, versions_to_compare

    with database("attributary-models") as connection, usage_errors():
        old, new = versions_to_compare(connection, tenant, model, before, after)
        changes = stored_version_changes(connection, tenant, model, old, new)
    found = changed_channels(changes)
    if as_json:
        print_json({"model": model, "before": old, "after": new, "changed": found, "shares": changes})
    else:
        _print_changes(changes, (f"version {old}", f"version {new}"))
        print(f"changed by more than noise: {', '.join(found) or 'nothing'}")
    if found:
        raise typer.Exit(1)


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
