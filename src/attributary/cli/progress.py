"""Progress bars on standard error, so that standard output stays clean for pipes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars


@contextmanager
def progress_bar(title: str, total: int | None = None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show a bar while the block runs, when standard error is a terminal.

    Args:
        title: what is done.
        total: units in all; None when unknown.
        done: units that an earlier try did.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(file=sys.stderr), disable=not sys.stderr.isatty()) as bars:
        task = bars.add_task(title, total=total, completed=done)
        yield lambda units: bars.advance(task, units)
