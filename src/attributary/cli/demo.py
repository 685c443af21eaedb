"""`attributary demo`: the whole pipeline on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import psycopg


def register(app: typer.Typer) -> None:
    """Add the command `demo`."""
    app.command("demo")(_demo)


def _demo(
    touchpoints: Annotated[int, typer.Option(min=500, help="About how many touchpoints to replay.")] = 32_000,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running afterwards, until Ctrl-C.")] = False,
    broker: Annotated[
        str | None,
        typer.Option(help="Only this kind of broker: given, docker, jars or mock. Default: the first to be had."),
    ] = None,
    folder: Annotated[Path, typer.Option(help="For data and logs; emptied first.")] = Path(".attributary/demo"),
    report: Annotated[Path | None, typer.Option(help="Write the figures to this JSON file.")] = None,
) -> None:
    """Run everything once on this machine: broker, Postgres, all stages, fake services for Meta and GA4.

    Replays 30 days of two simulated shops with ten channels through the real code; events arrive twice, late and out
    of order. Trains the Markov and the Poisson model, then publishes the rest live. At its end it shows what each model
    credits beside what each channel truly caused, the latency, what was forwarded, and whether every promise held.
    It leaves a page of the results in the folder: report.html.
    Exit code 1 if one did not. PathData, where it is on this machine, is replayed as a third tenant.

    Example: attributary demo --touchpoints 2000 --report figures.json
    """
    from attributary.local.broker import BrokerUnavailableError
    from attributary.local.demo.run import NotOurFolderError, run_demo
    from attributary.local.process import ProcessFailedError

    try:
        code = run_demo(
            touchpoints=touchpoints,
            keep=keep,
            kinds=None if broker is None else (broker,),
            folder=folder.resolve(),  # programs that it starts have working folders of their own
            report_file=report,
            write_page=_write_page,
        )
    except (BrokerUnavailableError, ProcessFailedError, TimeoutError) as error:
        typer.echo(f"attributary demo: {error}", err=True)
        raise typer.Exit(69) from None
    except NotOurFolderError as error:
        raise typer.BadParameter(str(error), param_hint="--folder") from None
    raise typer.Exit(code)


def _write_page(connection: psycopg.Connection, tenant: str, file: Path) -> None:
    """Write the page of a tenant's results, as `attributary report html` does."""
    from attributary.cli.report import write_report

    write_report(connection, tenant, "markov", file)
