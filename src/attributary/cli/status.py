"""`attributary status`: how every part of the installation is; `attributary doctor`: causes and cures."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from attributary.cli import exits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attributary.consumers.maintenance.status import Report

_COLUMNS = 80
_INDENT = 24
_Json = Annotated[bool, typer.Option("--json", help="One JSON object with all facts.")]
_Seconds = Annotated[float, typer.Option("--timeout", min=0.5, max=60, help="Longest time of a check; seconds.")]


def register(app: typer.Typer) -> None:
    """Add the commands `status` and `doctor`."""
    app.command("status")(_status)
    app.command("doctor")(_doctor)


def _status(*, timeout: _Seconds = 5.0, as_json: _Json = False) -> None:
    """Show how every part is: Kafka, Postgres, topics, each stage, dead letters, models, deliveries.

    All parts are looked at side by side, each for at most --timeout. Levels: good; note (works, and there is something
    to know); unknown (could not be looked at); warning (works, and somebody has to act); bad (does not work).
    Exit codes: 0 good or note; 1 warning or unknown; 69 bad. Needs KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL; changes
    nothing. A part that is reached through another one, which is away, is not looked at, and says so.

    Example: attributary status --json
    """
    report = _survey(timeout)
    _end(report, as_json=as_json, lines=_lines(report))


def _doctor(*, timeout: _Seconds = 5.0, as_json: _Json = False) -> None:
    """Show the cause and the cure of all that is not good; exit codes as of `attributary status`.

    Example: attributary doctor
    """
    report = _survey(timeout)
    _end(report, as_json=as_json, lines=_advice(report))


def _survey(seconds: float) -> Report:
    from attributary.consumers.maintenance.status import survey

    return survey(seconds)


def _end(report: Report, *, as_json: bool, lines: Iterator[str]) -> None:
    from attributary.cli.tables import print_json
    from attributary.consumers.maintenance.status import Level

    if as_json:
        print_json(report.document())
    else:
        for line in lines:
            print(line)
    if report.level is Level.BAD:
        raise typer.Exit(exits.DEPENDENCY_DOWN)
    if report.level in {Level.WARNING, Level.UNKNOWN}:
        raise typer.Exit(exits.FAILED)


def _lines(report: Report) -> Iterator[str]:
    from attributary.cli.tables import plural
    from attributary.consumers.maintenance.status import Level

    for finding in report.findings:
        yield from _wrapped(f"{finding.level.name.lower():<8} {finding.part:<14} {finding.text}")
    yield ""
    counts = {level: sum(finding.level is level for finding in report.findings) for level in reversed(Level)}
    told = ", ".join(f"{count} {level.name.lower()}" for level, count in counts.items() if count)
    yield f"{plural(len(report.findings), 'part')}: {told} ({report.seconds:.1f} s)"
    if report.level is not Level.GOOD:
        yield "Causes and cures: attributary doctor"


def _advice(report: Report) -> Iterator[str]:
    from attributary.consumers.maintenance.status import Level

    found = [finding for finding in report.findings if finding.level is not Level.GOOD]
    for finding in sorted(found, key=lambda each: -each.level):
        yield from _wrapped(f"{finding.level.name.lower():<8} {finding.part:<14} {finding.text}")
        if finding.cause:
            yield from _wrapped(f"{'':<9}{'because':<15}{finding.cause}")
        if finding.cure:
            yield from _wrapped(f"{'':<9}{'do':<15}{finding.cure}")
    yield "Nothing to do: every part is good." if not found else f"{len(report.findings) - len(found)} parts are good."


def _wrapped(line: str) -> list[str]:
    from attributary.cli.tables import safe, width

    return textwrap.wrap(safe(line), width() or _COLUMNS, subsequent_indent=" " * _INDENT, break_on_hyphens=False)
