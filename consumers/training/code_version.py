"""Which code trained a model."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from attributary import __version__

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHOWN = 12


@functools.cache
def code_version() -> str:
    """Return the project's version, and the commit behind a ``+g`` when it runs from a checkout of its repository."""
    commit = _commit(Path(__file__).resolve().parents[2] / ".git")
    return f"{__version__}+g{commit[:_SHOWN]}" if commit else __version__


def _commit(git: Path) -> str | None:
    try:
        head = (git / "HEAD").read_text("ascii").strip()
        if head.startswith("ref: "):
            head = (git / head.removeprefix("ref: ")).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):  # no checkout, or its references are packed
        return None
    return head if _COMMIT.fullmatch(head) else None
