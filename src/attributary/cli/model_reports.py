"""`attributary models insights|calibrate`: findings on the journeys of a version, and calibration by experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from attributary.cli import exits
from attributary.cli.model_options import AsJson, Model, progress_bar, usage_errors
from attributary.cli.tables import count, number, print_json, print_table
from attributary.cli.tenant_option import Tenant


def insights(
    model: Model,
    version: Annotated[int | None, typer.Argument(help="Default: the active one, else the newest.")] = None,
    *,
    tenant: Tenant = "",
    before: Annotated[
        int | None, typer.Option(help="An earlier version with other journeys, to find shifts of shares.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print findings on the journeys of a version: openers, assists, pairs, ranks, lengths, lags.

    The finished journeys of its window are read again. Only findings that pass their test are printed, with rule,
    estimate, 90 % interval and n. All of them are associations, not causes. The rules: docs/models.md.

    Example: attributary models insights markov --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.models.model_states import choose_version
    from attributary.consumers.training.cohort import version_cohort

    with database("attributary-models") as connection, usage_errors(), progress_bar() as progress:
        chosen = choose_version(connection, tenant, model, version)
        connection.commit()
        versions = [chosen] if before is None else [chosen, before]
        cohorts = [version_cohort(connection, tenant, model, each, progress) for each in versions]
    found = cohorts[0].report(before=None if before is None else cohorts[1])["insights"]
    if as_json:
        print_json({"model": model, "version": chosen, "before": before, "insights": found})
        return
    if found is None:
        print("no findings: the window has more than 200,000 distinct paths; train a version on a shorter window")
        return
    print(f"{model} {chosen} of {tenant}: {count(len(found))} findings that pass their test")
    print_insights(found)


def print_insights(found: Sequence[Mapping[str, Any]]) -> None:
    """Print findings with their numbers."""
    rows = [
        (
            each["text"],
            number(each["estimate"], ",.3f"),
            "" if each["low"] is None else f"[{each['low']:,.3f}, {each['high']:,.3f}]",
            count(each["n"]),
            each["rule_id"],
        )
        for each in found
    ]
    print_table(("association, not cause", "estimate", "90 %", "n", "rule"), rows, numbers=(1, 2, 3))


def calibrate(
    model: Model,
    version: Annotated[int, typer.Argument(help="The version to calibrate; it stays as it is.")],
    *,
    tenant: Tenant = "",
    experiments: Annotated[
        Path,
        typer.Option(
            help="CSV with the columns channel, standard_error, and conversions or share (of all conversions): the "
            "effect of the channel. Also from and to, if the experiment ran in a part of the window only: ISO 8601 "
            "times, or seconds since 1970."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Scale the channel totals of a version by experiments, and keep the result as the next version.

    A channel with an experiment is scaled by it. The others are scaled by the common factor of at least two
    experiments, with their spread as uncertainty. Totals are calibrated, single journeys are not: the new version
    credits as the old one does.

    Example: attributary models calibrate markov 3 --experiments lift.csv --tenant acme
    """
    from attributary.attribution_core.tables.experiments import ExperimentError
    from attributary.cli.outcome import database, say
    from attributary.cli.table_files import FileError, read_experiments
    from attributary.consumers.store.models.model_states import save_states
    from attributary.consumers.training.calibrate import calibrated

    try:
        known = read_experiments(experiments)
        with database("attributary-models") as connection, usage_errors(), connection.transaction():
            state = calibrated(connection, tenant, model, version, known)
            (saved,) = save_states(connection, [state])
    except (ExperimentError, FileError) as error:
        say(f"{error}" if isinstance(error, FileError) else f"{experiments}: {error}")
        raise typer.Exit(exits.USAGE) from None
    found = state.metadata["diagnostics"]["calibration"]
    if as_json:
        print_json({"tenant": tenant, "model": model, "version": saved, "calibration": found})
        return
    print(
        f"{model} {saved}: totals of version {version} scaled by {count(len(known))} experiments, common factor "
        f"{number(found['common_factor'], '.3f')}; see: attributary models show {model} {saved} --tenant {tenant}"
    )
