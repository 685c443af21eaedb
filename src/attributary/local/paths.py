"""Where the local stack keeps its files.

Contract: in a checkout of the project everything lies under `.attributary/` beside pyproject.toml (ignored
by git, removed by `make clean`); for an installed package it lies in the user's cache and state folders of
the XDG base directory specification. `ATTRIBUTARY_HOME` names another place for both.
"""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def project_root() -> Path | None:
    """The checkout that this package runs from, or None when it is installed from a wheel."""
    root = _PACKAGE.parents[1]
    return root if (root / "pyproject.toml").is_file() and (root / "src" / "attributary").is_dir() else None


def cache_dir(name: str) -> Path:
    """Folder for what can be fetched again (Kafka's jars); created when missing."""
    return _made(_home("XDG_CACHE_HOME", ".cache") / name)


def state_dir(name: str) -> Path:
    """Folder for what must not be lost (the data of `attributary up`); created when missing, for its owner only.

    Kafka writes events that others could read: conversions carry plain e-mail addresses.
    """
    folder = _made(_home("XDG_STATE_HOME", ".local/state") / name)
    folder.chmod(0o700)
    return folder


def _home(variable: str, fallback: str) -> Path:
    if chosen := os.environ.get("ATTRIBUTARY_HOME"):
        return Path(chosen).resolve()
    if root := project_root():
        return root / ".attributary"
    return Path(os.environ.get(variable) or Path.home() / fallback) / "attributary"


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path
