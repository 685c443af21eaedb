"""`attributary models calibrate`: a version whose channel totals are scaled by experiments."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from attributary.cli import exits
from attributary.cli.model_options import AsJson, Tenant, usage_errors
from attributary.cli.tables import count, number, print_json


def calibrate(
    model: Annotated[str, typer.Argument(help="markov or poisson.")],
    version: Annotated[int, typer.Argument(help="The version to start from; it stays as it is.")],
    *,
    tenant: Tenant,
    experiments: Annotated[
        Path,
        typer.Option(
            help="CSV with the columns channel and standard_error; one of conversions and share (of all conversions), "
            "what the channel added; and from and to, where the experiment ran in a part of the window only: ISO 8601 "
            "times, or seconds since 1970."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Scale the channel totals of a version by experiments, and keep that as the next version.

    A channel with an experiment is scaled by its own; one without by what the experiments have in common, with their
    spread as uncertainty, if there are at least two. Totals are calibrated, single journeys are not: activated, the new
    version credits as the old one does.

    Example: attributary models calibrate markov 3 --experiments lift.csv --tenant acme
    """
    from attributary.attribution_core.tables.experiments import ExperimentError
    from attributary.cli.outcome import database
    from attributary.cli.table_files import FileError, read_experiments
    from attributary.consumers.store.models.model_states import save_states
    from attributary.consumers.training.calibrate import calibrated

    try:
        known = read_experiments(experiments)
        with database("attributary-models") as connection, usage_errors(), connection.transaction():
            state = calibrated(connection, tenant, model, version, known)
            (saved,) = save_states(connection, [state])
    except (ExperimentError, FileError) as error:
        sys.stderr.write(f"attributary: {error if isinstance(error, FileError) else f'{experiments}: {error}'}\n")
        raise typer.Exit(exits.USAGE) from None
    found = state.metadata["diagnostics"]["calibration"]
    if as_json:
        print_json({"tenant": tenant, "model": model, "version": saved, "calibration": found})
        return
    print(
        f"{model} {saved}: totals of version {version} scaled by {count(len(known))} experiments, common factor "
        f"{number(found['common_factor'], '.3f')}; see: attributary models show {model} {saved} --tenant {tenant}"
    )
