"""The end of an import: what became of the rows, and why some were refused.

Invariant: nothing of the file reaches the terminal unescaped, and no cell that may name a person is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from attributary.cli.tables import plural, safe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from attributary.producers.importer.reasons import Count, Reason, Reasons
    from attributary.producers.importer.run import FileImport

_MOST_REASONS = 10
_LONGEST_EXAMPLE = 40


def print_report(job: FileImport, file: Path, rejects: Path, *, dry_run: bool, key_column: str | None) -> None:
    """Print counts, reasons and what to do next.

    Args:
        job: an import that has ended.
        file: its file.
        rejects: where the refused rows are.
        dry_run: nothing was published.
        key_column: the column of the order numbers, when rows were grouped.
    """
    progress = job.progress
    verb = "could be published" if dry_run else "published"
    orders = f", {progress.orders:,} orders" if key_column is not None else ""
    typer.echo(f"{progress.rows:,} rows{orders}: {progress.accepted:,} {verb}, {progress.rejected:,} rejected")
    if progress.corrections:
        typer.echo(f"{plural(progress.corrections, 'restatement')} beside them, for what was refunded")
    if progress.unwanted:
        typer.echo(f"{progress.unwanted:,} left out by --where or the preset")
    if progress.internal:
        typer.echo(f"{progress.internal:,} of them are page views inside a visit, which are no touchpoints")
    for line in _reasons(job.reasons, file.name):
        typer.echo(line)
    for remark, count in job.remarks.most_common():
        typer.echo(f"{count.times:,} published all the same: {safe(remark.rule)} (first: line {count.line})")
    if progress.rejected:
        typer.echo(f"see {safe(str(rejects))}: file, line, column, field, rule and the row itself")
    for line in _advice(job, file):
        typer.echo(line, err=True)


def _advice(job: FileImport, file: Path) -> Iterator[str]:
    progress = job.progress
    if any(reason.field == "tenant_id" for reason, _ in job.reasons.most_common()):
        yield "rows without a tenant: name it with --tenant NAME"
    if not progress.rows and job.is_cut:
        yield f"the first order of {safe(file.name)} has more rows than --limit"
    elif not progress.rows and progress.resume_at:
        yield f"{safe(file.name)} has no rows behind the {progress.resume_at:,} that --skip leaves out"
    elif not progress.rows and job.is_done:
        yield f"{safe(file.name)} has no rows{' below its header' if job.has_header else ''}"
    if job.repeats.forgotten:
        yield f"only the last {job.repeats.most:,} ids of the file were compared for repeats"
    if progress.repeated and job.order_column is not None:
        name = safe(job.order_column)
        rows = "row has" if progress.repeated == 1 else "rows have"
        yield (
            f"{progress.repeated:,} {rows} the {name} of the row above: if an order has several rows, "
            f"--group-by '{name}' makes one conversion of them"
        )


def _reasons(reasons: Reasons, name: str) -> list[str]:
    counts = reasons.most_common()
    lines = [_reason(reason, count, name) for reason, count in counts[:_MOST_REASONS]]
    others = reasons.others + sum(count.times for _, count in counts[_MOST_REASONS:])
    return [*lines, f"  {others:,} x for other reasons"] if others else lines


def _reason(reason: Reason, count: Count, name: str) -> str:
    column = "" if reason.column is None or reason.column == reason.field else f" column {safe(reason.column)},"
    field = "" if reason.field == "(row)" else f" {safe(reason.field)}:"
    example = "" if count.example is None else f": '{safe(count.example[:_LONGEST_EXAMPLE])}'"
    return f"  {count.times:,} x{column}{field} {safe(reason.rule)} (first: {safe(name)} line {count.line}{example})"
