"""How long work tells its caller how far it is; the command line draws a bar of it, a library call nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Progress(Protocol):
    """Shows one piece of work for the length of a `with` block; the value of the block takes in units done."""

    def __call__(
        self, title: str, total: int | None = None, done: int = 0, /
    ) -> AbstractContextManager[Callable[[int], None]]:
        """Args: what is done; units in all, None when unknown; units that an earlier try did."""
        ...


@contextmanager
def no_progress(_title: str, _total: int | None = None, _done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show nothing."""
    yield lambda _units: None
